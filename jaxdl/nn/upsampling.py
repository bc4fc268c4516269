"""Twice the sides: [B, H, W, C] -> [B, 2H, 2W, ...], in the ways that networks for segmentation have.

    nearest        each pixel four times
    bed_of_nails   each pixel at the top left of four, zeros beside it
    max_unpool     each pixel where the maximum was in the pool that it goes back through (Noh et al. 2015)
    transposed_4   a transposed convolution of stride 2, window 4x4 (Long et al. 2015)
    transposed_2   the same, 2x2: no two windows meet (Ronneberger et al. 2015)
    transposed_3   the same, 3x3: windows meet in every second row and column alone, which leaves a checkerboard (Odena et al.,
                   "Deconvolution and checkerboard artifacts", 2016)
    resize         linear interpolation, then a 3x3 convolution (Odena et al. 2016)

Shapes: `B` batch, `H W C` an image.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.convolution import Conv, ConvTranspose
from jaxdl.nn.initializers import he_uniform
from jaxdl.nn.pooling import max_pool

Kind = Literal["nearest", "bed_of_nails", "max_unpool", "transposed_4", "transposed_2", "transposed_3", "resize"]
LEARNED = ("transposed_4", "transposed_2", "transposed_3", "resize")  # those that have weights


def nearest(x: Array) -> Array:
    """Each pixel four times."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def bed_of_nails(x: Array) -> Array:
    """Each pixel at the top left of four zeros."""
    return _placed(x, jnp.zeros(x.shape, jnp.uint8))


def max_pool_places(x: Array) -> tuple[Array, Array]:
    """The maxima of windows of 2x2 and where they are, the first of equal ones: uint8, 0 to 3 in the order of reading."""
    b, h, w, c = x.shape
    windows = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    of_rows = jnp.concatenate([windows[:, :, 0], windows[:, :, 1]], 3)  # [B, h, w, 4, C]
    return max_pool(x), of_rows.argmax(3).astype(jnp.uint8)


def max_unpool(x: Array, places: Array) -> Array:
    """Each pixel where the maximum was, zeros beside it; `places` [B, H, W, C] as `max_pool_places` gives them."""
    return _placed(x, places)


def linear(x: Array) -> Array:
    """Linear interpolation between the centres of pixels."""
    b, h, w, c = x.shape
    return jax.image.resize(x, (b, 2 * h, 2 * w, c), "linear")


def _placed(x: Array, places: Array) -> Array:
    b, h, w, c = x.shape
    spread = jnp.where(places[:, :, :, None] == jnp.arange(4, dtype=jnp.uint8)[:, None], x[:, :, :, None], 0)
    return spread.reshape(b, h, w, 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c)


class Upsample(linen.Module):
    """[B, H, W, C] -> [B, 2H, 2W, features]; ways without weights come after a 3x3 convolution to so many features."""

    kind: Kind
    features: int
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array, places: Array | None = None) -> Array:
        """`places` [B, H, W, features] are for max_unpool."""
        if self.kind.startswith("transposed"):
            window = int(self.kind[-1])
            return ConvTranspose(self.features, (window, window), (2, 2), dtype=self.dtype, kernel_init=he_uniform)(x)
        x = linear(x) if self.kind == "resize" else x
        x = Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=he_uniform)(x)
        if self.kind == "max_unpool":
            return max_unpool(x, places)
        return {"resize": lambda x: x, "nearest": nearest, "bed_of_nails": bed_of_nails}[self.kind](x)
