"""Glimpses: square parts of an image around a place, at several scales: sharp where one looks, coarse around it.

A glimpse of scale k has G x G cells of side s = 2^k pixels, centred at the place. A cell is the mean of the image over its
area, where the image is constant within each pixel and zero outside. The weight of pixel y in the cell that begins at a is

    w(y) = max(0, min(a + s, y + 1) - max(a, y)) / s

along each axis: for s = 1 the hat function of linear interpolation, for larger s an average pool that begins at any place. The
two axes are two small products of matrices, which are cheap on CPUs and GPUs where gathers of single pixels are not.

Shapes: `B` images, `H W C` an image, `S` scales, `G` cells of a side, `...` places in an image.
"""

import jax.numpy as jnp

from jaxdl.core.types import Array


def glimpses(images: Array, places: Array, size: int, num_scales: int = 1) -> Array:
    """What is seen at places.

    Args:
        images: float32 [B, H, W, C].
        places: [B, ..., 2], down and right: -1 is the first edge of an image, 1 the last one.
        size: G.
        num_scales: S; each scale has cells of twice the side of the one before.

    Returns:
        [B, ..., S, G, G, C].
    """
    num, height, width, channels = images.shape
    rows, columns = (weights(places[..., i], side, size, num_scales) for i, side in ((0, height), (1, width)))
    strips = jnp.einsum("bph,bhw->bpw", rows.reshape(num, -1, height), images.reshape(num, height, -1))
    strips = strips.reshape(*rows.shape[:-1], width, channels)
    return jnp.einsum("...iwc,...jw->...ijc", strips, columns)


def weights(places: Array, side: int, size: int, num_scales: int) -> Array:
    """Of each pixel of an axis of `side` pixels in each cell: [...] -> [..., S, G, side]."""
    cell = 2.0 ** jnp.arange(num_scales)[:, None]  # [S, 1]
    centre = (places[..., None, None] + 1) * (side / 2)
    begin = (centre + (jnp.arange(size) - size / 2) * cell)[..., None]  # [..., S, G, 1]
    pixel, cell = jnp.arange(side), cell[..., None]
    return jnp.maximum(jnp.minimum(begin + cell, pixel + 1) - jnp.maximum(begin, pixel), 0) / cell
