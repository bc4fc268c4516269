"""Training a VAE on MNIST: images per second beside the per-batch loop of Flax and beside PyTorch, eager and compiled.

All: 784-500-20-500-784, ReLU, batch 128, Adam 1e-3, a new order each epoch, every batch binarized anew. Medians of three epochs
after one that warms up.
"""

import common

BATCH, LATENT, HIDDEN = 128, 20, 500


def _more(parser) -> None:
    parser.add_argument("--data-dir", required=True, help="folder with the IDX files of MNIST")


def _pixels(data_dir: str):
    """[60000, 784] float32 in [0, 1]."""
    import gzip
    from pathlib import Path

    import numpy as np

    raw = gzip.decompress((Path(data_dir) / "train-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784).astype(np.float32) / 255


def jaxdl(args) -> dict:
    """jaxdl, driven as `train.fit` drives it."""
    import jax

    from jaxdl import data
    from jaxdl.generative import vae
    from jaxdl.runtime.device_driver import make_device_driver

    mnist = data.load("mnist", args.data_dir)
    spec = mnist.spec
    config = vae.Config(dataset="mnist", batch_size=BATCH, latent_size=LATENT, hidden_sizes=(HIDDEN,))
    driver = make_device_driver(lambda c: vae.make_run(c, spec), [config], mnist.on_device(), [0])
    state, steps = driver.start(), spec.num_examples // BATCH

    def epoch() -> None:
        nonlocal state
        state, _ = driver.chunk(state, steps)
        jax.block_until_ready(state)

    return {"images_per_s": common.median_rate(epoch, steps * BATCH), "compile_s": driver.compile_s,
            "versions": common.versions("jaxdl", "jax")}


def flax_loop(args) -> dict:
    """The idiomatic loop: a train state, a jitted step a batch, batches made on the host."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax import linen as nn
    from flax.training.train_state import TrainState

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, key):
            h = nn.relu(nn.Dense(HIDDEN)(x))
            mean, log_var = nn.Dense(LATENT)(h), nn.Dense(LATENT)(h)
            z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
            return nn.Dense(784)(nn.relu(nn.Dense(HIDDEN)(z))), mean, log_var

    model = Model()
    params = model.init(jax.random.key(0), jnp.zeros((1, 784)), jax.random.key(1))
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(1e-3))

    @jax.jit
    def step(state, pixels, key):
        k_pixels, k_latent = jax.random.split(key)
        x = jax.random.bernoulli(k_pixels, pixels).astype(jnp.float32)

        def loss_fn(params):
            logits, mean, log_var = state.apply_fn(params, x, k_latent)
            bce = optax.sigmoid_binary_cross_entropy(logits, x).sum(-1)
            kl = 0.5 * (mean**2 + jnp.exp(log_var) - 1 - log_var).sum(-1)
            return (bce + kl).mean()

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    images, rng, key = _pixels(args.data_dir), np.random.default_rng(0), jax.random.key(2)
    steps = len(images) // BATCH

    def epoch() -> None:
        nonlocal state, key
        order = rng.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH)
        for index in order:
            key, k = jax.random.split(key)
            state, loss = step(state, images[index], k)
        jax.block_until_ready(loss)

    return {"images_per_s": common.median_rate(epoch, steps * BATCH), "versions": common.versions("flax", "jax", "optax")}


def torch_eager(args) -> dict:
    """PyTorch, eager, Adam with its defaults."""
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

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.mean, self.log_var = nn.Linear(784, HIDDEN), nn.Linear(HIDDEN, LATENT), nn.Linear(HIDDEN, LATENT)
            self.decode = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 784))

        def forward(self, x):
            h = torch.relu(self.hidden(x))
            mean, log_var = self.mean(h), self.log_var(h)
            return self.decode(mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)), mean, log_var

    model = Model()
    adam = torch.optim.Adam(model.parameters(), 1e-3, fused=compiled)
    forward = torch.compile(model) if compiled else model
    images, rng = _pixels(args.data_dir), np.random.default_rng(0)
    steps = len(images) // BATCH

    def epoch() -> None:
        for index in rng.permutation(len(images))[: steps * BATCH].reshape(steps, BATCH):
            x = torch.bernoulli(torch.from_numpy(images[index]))
            logits, mean, log_var = forward(x)
            bce = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
            loss = (bce + 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum(-1)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()

    return {"images_per_s": common.median_rate(epoch, steps * BATCH), "versions": common.versions("torch")}


if __name__ == "__main__":
    common.main(
        __file__,
        {"jaxdl": ("jaxdl", jaxdl), "flax_loop": ("jaxdl", flax_loop), "torch_eager": ("peers", torch_eager),
         "torch_compiled": ("peers", torch_compiled)},
        {"images_per_s, jaxdl over the Flax loop": ("jaxdl", "flax_loop", "images_per_s", "higher"),
         "images_per_s, jaxdl over PyTorch eager": ("jaxdl", "torch_eager", "images_per_s", "higher"),
         "images_per_s, jaxdl over PyTorch compiled": ("jaxdl", "torch_compiled", "images_per_s", "higher")}, _more)
