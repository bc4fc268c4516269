"""Convolutions down from an image to features, and up from features to an image, a factor of two a layer."""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.convolution import Conv, ConvTranspose
from jaxdl.nn.initializers import lecun_uniform
from jaxdl.nn.torsos import activation


class ConvEncoder(linen.Module):
    """A 4x4 convolution of stride 2 a layer, each followed by the activation: [B, H, W, C] -> [B, h, w, channels[-1]].

    h and w are H and W halved, rounded up, as often as there are channels.
    """

    channels: tuple[int, ...] = (32, 64)
    activation: str = "relu"
    kernel_init: linen.initializers.Initializer = lecun_uniform
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x: Array) -> Array:
        act = activation(self.activation)
        for channels in self.channels:
            x = act(Conv(channels, (4, 4), (2, 2), dtype=self.dtype, kernel_init=self.kernel_init)(x))
        return x


class ConvDecoder(linen.Module):
    """The way back: a dense layer to [h, w, channels[0]], then 4x4 transposed convolutions: [B, F] -> [B, *shape].

    The last layer is linear. Where sides do not halve evenly the result is cropped at the bottom and right.
    """

    shape: tuple[int, int, int]  # H, W, C
    channels: tuple[int, ...] = (64, 32)
    activation: str = "relu"
    kernel_init: linen.initializers.Initializer = lecun_uniform
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x: Array) -> Array:
        act = activation(self.activation)
        height, width = smallest(self.shape, len(self.channels))
        x = act(linen.Dense(height * width * self.channels[0], dtype=self.dtype, kernel_init=self.kernel_init)(x))
        x = x.reshape(-1, height, width, self.channels[0])
        for channels in self.channels[1:]:
            x = act(ConvTranspose(channels, (4, 4), (2, 2), dtype=self.dtype, kernel_init=self.kernel_init)(x))
        x = ConvTranspose(self.shape[2], (4, 4), (2, 2), dtype=self.dtype, kernel_init=self.kernel_init)(x)
        return x[:, : self.shape[0], : self.shape[1]]


def smallest(shape: tuple[int, ...], layers: int) -> tuple[int, int]:
    """Height and width of an image that was halved, rounded up, so often."""
    return math.ceil(shape[0] / 2**layers), math.ceil(shape[1] / 2**layers)
