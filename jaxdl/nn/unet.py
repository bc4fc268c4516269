"""Networks that give each pixel a class: fully convolutional, and U-Net.

Both halve the sides by pools of 2x2 from level to level, and double them again (`upsampling`).

    fcn    scores of every level by a 1x1 convolution; those of the lowest are made twice as large and added to those of the
           next (Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation", 2015: its FCN-8s, down
           to the full size)
    unet   features of a level are made twice as large and laid beside those that the level above had on the way down, and two
           convolutions follow (Ronneberger, Fischer and Brox 2015), whose sides do not shrink here

Shapes: `B` batch, `H W C` an image, `Y` classes.
"""

from typing import Any, Literal

from flax import linen
from jax import numpy as jnp

from jaxdl.core.types import Array
from jaxdl.nn.activations import activation
from jaxdl.nn.convolution import Conv
from jaxdl.nn.initializers import he_uniform, lecun_uniform
from jaxdl.nn.norm import Kind as Norm
from jaxdl.nn.norm import normalized
from jaxdl.nn.pooling import max_pool
from jaxdl.nn.upsampling import Kind, Upsample, max_pool_places


class ConvBlock(linen.Module):
    """3x3 convolutions, each normalized and followed by the activation: [B, H, W, C] -> [B, H, W, features]."""

    features: int
    norm: Norm | None = "batch"
    activation: str = "relu"
    layers: int = 2
    axis_name: str | None = None
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        act = activation(self.activation)
        for _ in range(self.layers):
            x = Conv(self.features, (3, 3), use_bias=self.norm != "batch", dtype=self.dtype, kernel_init=he_uniform)(x)
            x = x if self.norm is None else normalized(x, self.norm, train, self.axis_name)
            x = act(x)
        return x


class Backbone(linen.Module):
    """Features of a picture: [B, H, W, C] -> [B, h, w, channels[-1]]; a level is a 2x2 convolution of stride 2 and a block."""

    channels: tuple[int, ...] = (32, 64, 128)
    norm: Norm | None = "batch"
    activation: str = "relu"
    layers: int = 1  # of a block
    axis_name: str | None = None
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        for features in self.channels:
            x = Conv(features, (2, 2), (2, 2), dtype=self.dtype, kernel_init=he_uniform)(x)
            x = ConvBlock(features, self.norm, self.activation, self.layers, self.axis_name, self.dtype)(
                activation(self.activation)(x), train)
        return x


class PixelNetwork(linen.Module):
    """[B, H, W, C] -> scores [B, H, W, Y]; the sides are multiples of 2^(levels - 1)."""

    network: Literal["fcn", "unet"]
    num_classes: int
    channels: tuple[int, ...] = (16, 32, 64, 128)  # of each level
    upsampling: Kind = "transposed_2"
    norm: Norm | None = "batch"
    activation: str = "relu"
    axis_name: str | None = None
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        def block(features: int, x: Array) -> Array:
            return ConvBlock(features, self.norm, self.activation, axis_name=self.axis_name, dtype=self.dtype)(x, train)

        def scores(x: Array) -> Array:
            return Conv(self.num_classes, (1, 1), kernel_init=lecun_uniform)(x)

        skips, places = [], []
        for level, features in enumerate(self.channels):
            if level and self.upsampling == "max_unpool":
                x, place = max_pool_places(x)
                places.append(place)
            elif level:
                x = max_pool(x)
            x = block(features, x)
            skips.append(x)
        x = scores(x) if self.network == "fcn" else x
        for level in reversed(range(len(self.channels) - 1)):
            skip, place = skips[level], places[level] if places else None
            if self.network == "unet":
                up = Upsample(self.upsampling, self.channels[level], self.dtype)(x, place)
                x = block(self.channels[level], jnp.concatenate([skip, up], -1))
            elif place is None:
                x = scores(skip) + Upsample(self.upsampling, self.num_classes, self.dtype)(x)
            else:  # places are of features, and scores are made of them
                x = scores(skip + Upsample(self.upsampling, self.channels[level], self.dtype)(x, place))
        return scores(x) if self.network == "unet" else x
