"""Training a DCGAN on MNIST: updates per second beside PyTorch.

All: latents of 100 -> 7x7x128 -> 14x14x64 -> 28x28x1 by 4x4 transposed convolutions of stride 2, batch norm, ReLU, tanh; a
discriminator of 4x4 convolutions of stride 2 with 64 and 128 channels, batch norm on the second, leaky ReLU; batch 64, the
non-saturating loss, Adam 2e-4, one batch of generated images an update. PyTorch eager with fused Adam, in either layout of
memory and with small pages and huge ones. Medians of three stretches after one that warms up.
"""

import common
from vae import _pixels

BATCH, LATENT, STEPS, STRETCHES = 64, 100, 40, 3


def _more(parser) -> None:
    parser.add_argument("--data-dir", required=True, help="folder with the IDX files of MNIST")


def _rate(run) -> dict:
    return {"updates_per_s": common.median_rate(lambda: run(STEPS), STEPS, STRETCHES)}


def jaxdl(args) -> dict:
    """jaxdl, driven as `train.fit` drives it; a running mean of the generator beside."""
    import jax

    from jaxdl import data
    from jaxdl.generative import gan
    from jaxdl.optim import Config as OptimConfig
    from jaxdl.runtime.device_driver import make_device_driver

    mnist = data.load("mnist", args.data_dir)
    spec = mnist.spec
    config = gan.Config(dataset="mnist", batch_size=BATCH, latent_size=LATENT, network="dcgan", width=64, hidden_size=None,
                        objective="non_saturating", discriminator_norm="batch", discriminator_learning_rate=2e-4,
                        optim=OptimConfig(learning_rate=2e-4, beta1=0.5))
    driver = make_device_driver(lambda c: gan.make_run(c, spec), [config], mnist.on_device(), [0])
    state = driver.start()

    def run(steps: int) -> None:
        nonlocal state
        state, _ = driver.chunk(state, steps)
        jax.block_until_ready(state)

    return _rate(run) | {"compile_s": driver.compile_s, "versions": common.versions("jaxdl", "jax")}


def torch_plain(args) -> dict:
    """PyTorch, eager, fused Adam."""
    return _torch(args, channels_last=False)


def torch_channels_last(args) -> dict:
    """The same with channels innermost in memory."""
    return _torch(args, channels_last=True)


def _torch(args, channels_last: bool) -> dict:
    import numpy as np
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = nn.Sequential(
        nn.Linear(LATENT, 128 * 49, bias=False), nn.Unflatten(1, (128, 7, 7)), nn.BatchNorm2d(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2, 1), nn.Tanh())
    discriminator = nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128),
        nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(128 * 49, 1))
    if channels_last:
        generator, discriminator = (n.to(memory_format=torch.channels_last) for n in (generator, discriminator))
    adams = [torch.optim.Adam(n.parameters(), 2e-4, betas=(0.5, 0.999), fused=True) for n in (generator, discriminator)]
    pixels, rng = 2 * _pixels(args.data_dir).reshape(-1, 1, 28, 28) - 1, np.random.default_rng(0)
    softplus = nn.functional.softplus

    def run(steps: int) -> None:
        for index in rng.permutation(len(pixels))[: steps * BATCH].reshape(steps, BATCH):
            fake = generator(torch.randn(BATCH, LATENT))
            real = discriminator(torch.from_numpy(pixels[index]))
            loss = softplus(-real).mean() + softplus(discriminator(fake.detach())).mean()
            adams[1].zero_grad()
            loss.backward()
            adams[1].step()
            discriminator.requires_grad_(False)
            adams[0].zero_grad()
            softplus(-discriminator(fake)).mean().backward()
            adams[0].step()
            discriminator.requires_grad_(True)

    return _rate(run) | {"versions": common.versions("torch")}


if __name__ == "__main__":
    SIDES = {"jaxdl": ("jaxdl", jaxdl), "jaxdl_huge_pages": ("jaxdl", jaxdl, common.HUGE_PAGES),
             "torch": ("peers", torch_plain), "torch_huge_pages": ("peers", torch_plain, common.HUGE_PAGES),
             "torch_channels_last": ("peers", torch_channels_last),
             "torch_channels_last_huge_pages": ("peers", torch_channels_last, common.HUGE_PAGES)}
    common.main(__file__, SIDES, {
        f"updates_per_s, {ours} over {side}": (ours, side, "updates_per_s", "higher")
        for ours in ("jaxdl", "jaxdl_huge_pages") for side in SIDES if side.startswith("torch")}, _more)
