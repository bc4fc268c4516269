"""Convolutions, forward and both gradients, on one core: milliseconds beside lax's own gradients and beside PyTorch.

    plain       3x3, 64 -> 64 channels, 32 images of 28x28
    strided     4x4 of stride 2, 64 -> 128 channels, 64 images of 14x14
    transposed  4x4 of stride 2, 128 -> 64 channels, 64 images of 7x7
    masked      3x3, 32 -> 32 channels, 32 images of 28x28, the centre seen
    masked_first  7x7, 1 -> 64 channels, 32 images of 28x28, the centre not seen

Ours and lax within a loop inside one program, as in training. PyTorch in either layout of memory, with huge pages.
"""

from functools import partial

import common

CASES = {  # images, kernel [h, w, in, out], stride
    "plain": ((32, 28, 28, 64), (3, 3, 64, 64), 1),
    "strided": ((64, 14, 14, 64), (4, 4, 64, 128), 2),
    "transposed": ((64, 7, 7, 128), (4, 4, 128, 64), 2),
    "masked": ((32, 28, 28, 32), (3, 3, 32, 32), 1),
    "masked_first": ((32, 28, 28, 1), (7, 7, 1, 64), 1),
}
SEEN = {"masked": 5, "masked_first": 24}  # places of the window, from its first on
STEPS, STRETCHES = 20, 5
FEW_STEPS = 2  # of lax's own gradients, which take seconds


def _median_ms(run, steps: int = STEPS) -> float:
    return 1e3 / common.median_rate(run, steps, STRETCHES)


def jaxdl(args) -> dict:
    """The convolutions of jaxdl.nn."""
    return _jax(plain=False)


def lax(args) -> dict:
    """The same with lax's own gradients."""
    return _jax(plain=True)


def _jax(plain: bool) -> dict:
    import jax

    from jaxdl import nn
    from jaxdl.core.compile import TRAIN_OPTIONS

    masks = {"masked": nn.causal_mask((3, 3), "B"), "masked_first": nn.causal_mask((7, 7), "A")}
    found, steps = {}, FEW_STEPS if plain else STEPS
    for name, (shape, window, stride) in CASES.items():
        conv = nn.conv_transpose if name == "transposed" else partial(nn.conv, mask=masks.get(name))
        x, k = (jax.random.normal(jax.random.key(i), s) for i, s in enumerate((shape, window)))

        def step(_, carry, conv=conv, stride=stride):
            x, k = carry
            y, pull = jax.vjp(lambda x, k: conv(x, k, (stride, stride), "SAME", plain=plain), x, k)
            dx, dk = pull(y)
            return x - 1e-3 * dx, k - 1e-3 * dk

        loop = jax.jit(lambda x, k, step=step: jax.lax.fori_loop(0, steps, step, (x, k)))
        program = loop.lower(x, k).compile(TRAIN_OPTIONS)
        found[f"{name}_ms"] = _median_ms(lambda program=program, x=x, k=k: jax.block_until_ready(program(x, k)), steps)
    return found | {"versions": common.versions("jaxdl", "jax")}


def torch_plain(args) -> dict:
    """PyTorch, eager."""
    return _torch(channels_last=False)


def torch_channels_last(args) -> dict:
    """The same with channels innermost in memory."""
    return _torch(channels_last=True)


def _torch(channels_last: bool) -> dict:
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    found = {}
    for name, (shape, window, stride) in CASES.items():
        transposed = name == "transposed"
        x = torch.randn(shape[0], shape[3], *shape[1:3])
        k = torch.randn(*((window[2], window[3]) if transposed else (window[3], window[2])), *window[:2])
        if channels_last:
            x, k = (v.to(memory_format=torch.channels_last) for v in (x, k))
        x.requires_grad_()
        k.requires_grad_()
        places = torch.arange(window[0] * window[1]).reshape(window[:2])
        mask = (places < SEEN[name]).float() if name in SEEN else None
        conv = functional.conv_transpose2d if transposed else functional.conv2d

        def run(x=x, k=k, conv=conv, mask=mask, stride=stride, padding=1 if stride > 1 else window[0] // 2) -> None:
            for _ in range(STEPS):
                y = conv(x, k if mask is None else k * mask, stride=stride, padding=padding)
                dx, dk = torch.autograd.grad(y, (x, k), y.detach())
                with torch.no_grad():
                    x -= 1e-6 * dx
                    k -= 1e-6 * dk

        found[f"{name}_ms"] = _median_ms(run)
    return found | {"versions": common.versions("torch")}


if __name__ == "__main__":
    SIDES = {"jaxdl": ("jaxdl", jaxdl), "lax": ("jaxdl", lax), "torch": ("peers", torch_plain, common.HUGE_PAGES),
             "torch_channels_last": ("peers", torch_channels_last, common.HUGE_PAGES)}
    common.main(__file__, SIDES, {f"{name}, jaxdl over {side}": ("jaxdl", side, f"{name}_ms", "lower")
                                  for name in CASES for side in SIDES if side != "jaxdl"})
