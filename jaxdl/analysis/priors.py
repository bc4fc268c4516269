"""Priors of pictures: what keeps a picture that is made for a network from being noise that only the network sees.

    total variation    sum over neighbours of sqrt(d^2 + e^2) - e, d their difference
    blur               a normal kernel
    small things       pixels, or changes of them, that are small beside others become none       Yosinski et al. 2015
    evenly             frequencies of a change as large as those of photographs, which fall as 1 / frequency  Olah et al. 2017

Shapes: `N` pictures, `H W C` a picture.
"""

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array

_EDGE = 1e-2  # e: smaller differences count as squares


def total_variation(x: Array, edge: float = _EDGE) -> Array:
    """The sum of differences of neighbours, [N]."""
    def of(difference: Array) -> Array:
        return (jnp.sqrt(difference**2 + edge**2) - edge).sum((1, 2, 3))

    return of(x[:, 1:] - x[:, :-1]) + of(x[:, :, 1:] - x[:, :, :-1])


def blurred(x: Array, deviation: float | Array, radius: int = 4) -> Array:
    """Blurred pictures, [N, H, W, C]; edges go on as they are beyond the picture.

    Args:
        deviation: of the kernel, in pixels.
        radius: where it is cut off.
    """
    at = jnp.arange(-radius, radius + 1)
    kernel = jnp.exp(-(at**2) / (2 * jnp.maximum(deviation, 1e-3) ** 2))
    kernel = kernel / kernel.sum()
    for axis in (1, 2):
        wide = jnp.pad(x, [(radius, radius) if a == axis else (0, 0) for a in range(4)], "edge")
        size = x.shape[axis]
        x = sum(kernel[i] * jax.lax.slice_in_dim(wide, i, i + size, axis=axis) for i in range(2 * radius + 1))
    return x


def without_small(x: Array, by: Array, share: float | Array) -> Array:
    """`x` [N, H, W, C], zero where `by` [N, H, W] is among this share of a picture's smallest."""
    limit = jnp.quantile(by.reshape(len(by), -1), share, 1)
    return jnp.where((by >= limit[:, None, None])[..., None], x, 0)


def evenly(x: Array, power: float | Array = 1.0) -> Array:
    """Frequencies f divided by f^power, [N, H, W, C]; the lowest count as one wave a picture."""
    height, width = x.shape[1:3]
    frequency = jnp.hypot(jnp.fft.fftfreq(height)[:, None], jnp.fft.rfftfreq(width)[None])
    scale = jnp.maximum(frequency, 1 / max(height, width)) ** -power
    return jnp.fft.irfft2(jnp.fft.rfft2(x, axes=(1, 2)) * scale[..., None], s=(height, width), axes=(1, 2))
