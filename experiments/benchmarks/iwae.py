"""Training the importance-weighted bound on MNIST with 1, 5 and 50 samples: images per second beside PyTorch.

All: 784-200-200-50 and back, tanh, batch 100, Adam 1e-3, every batch binarized anew. PyTorch eager with fused Adam, in memory
of small pages and of huge ones, and compiled with huge ones. Medians of three stretches after one that warms up.
"""

import math
import statistics
import time

import common
from vae import _pixels

BATCH, LATENT, HIDDEN, STRETCHES = 100, 50, 200, 3
STEPS = {1: 300, 5: 120, 50: 15}  # of one stretch


def _more(parser) -> None:
    parser.add_argument("--data-dir", required=True, help="folder with the IDX files of MNIST")


def _rates(stretch_of) -> dict:
    """Images per second of each number of samples; `stretch_of(k)` gives a function that takes so many steps."""
    found = {}
    for k, steps in STEPS.items():
        run = stretch_of(k)
        run(steps)
        seconds = []
        for _ in range(STRETCHES):
            start = time.perf_counter()
            run(steps)
            seconds.append(time.perf_counter() - start)
        found[f"images_per_s_{k}"] = steps * BATCH / statistics.median(seconds)
    return found


def jaxdl(args) -> dict:
    """jaxdl, driven as `train.fit` drives it."""
    import jax

    from jaxdl import data
    from jaxdl.generative import vae
    from jaxdl.runtime.device_driver import make_device_driver

    mnist = data.load("mnist", args.data_dir)
    spec = mnist.spec

    def stretch_of(k: int):
        config = vae.Config(dataset="mnist", batch_size=BATCH, latent_size=LATENT, hidden_sizes=(HIDDEN, HIDDEN),
                            activation="tanh", objective="iwae", num_samples=k)
        driver = make_device_driver(lambda c: vae.make_run(c, spec), [config], mnist.on_device(), [0])
        state = driver.start()

        def run(steps: int) -> None:
            nonlocal state
            state, _ = driver.chunk(state, steps)
            jax.block_until_ready(state)

        return run

    return _rates(stretch_of) | {"versions": common.versions("jaxdl", "jax")}


def torch_eager(args) -> dict:
    """PyTorch, eager, fused Adam."""
    return _torch(args, compiled=False)


def torch_compiled(args) -> dict:
    """PyTorch, its model compiled, fused Adam."""
    return _torch(args, compiled=True)


def _torch(args, compiled: bool) -> dict:
    import numpy as np
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels, rng = _pixels(args.data_dir), np.random.default_rng(0)

    class Model(nn.Module):
        def __init__(self, k):
            super().__init__()
            self.k = k
            self.encode = nn.Sequential(nn.Linear(784, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh())
            self.mean, self.log_var = nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
            self.decode = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(),
                                        nn.Linear(HIDDEN, 784))

        def forward(self, x):
            h = self.encode(x)
            mean, log_var = self.mean(h), self.log_var(h)
            noise = torch.randn(self.k, *mean.shape)
            z = mean + torch.exp(0.5 * log_var) * noise
            logits = self.decode(z)
            log_px = -nn.functional.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
            log_w = log_px + 0.5 * (noise * noise + log_var - z * z).sum(-1)
            return -(torch.logsumexp(log_w, 0) - math.log(self.k)).mean()

    def stretch_of(k: int):
        model = Model(k)
        adam = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        forward = torch.compile(model) if compiled else model

        def run(steps: int) -> None:
            for index in rng.permutation(len(pixels))[: steps * BATCH].reshape(steps, BATCH):
                loss = forward(torch.bernoulli(torch.from_numpy(pixels[index])))
                adam.zero_grad()
                loss.backward()
                adam.step()

        return run

    return _rates(stretch_of) | {"versions": common.versions("torch")}


if __name__ == "__main__":
    SIDES = {"jaxdl": ("jaxdl", jaxdl), "torch_eager": ("peers", torch_eager),
             "torch_eager_huge_pages": ("peers", torch_eager, common.HUGE_PAGES),
             "torch_compiled_huge_pages": ("peers", torch_compiled, common.HUGE_PAGES)}
    common.main(__file__, SIDES, {
        f"images_per_s with {k} samples, jaxdl over {side}": ("jaxdl", side, f"images_per_s_{k}", "higher")
        for k in STEPS for side in SIDES if side != "jaxdl"}, _more)
