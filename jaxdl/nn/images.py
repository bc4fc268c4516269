"""From images to features and back: convolutions that halve or double the sides, or dense layers.

`dtype` is the precision of the layers (`precision`).

Shapes: `B` batch, `H W C` an image, `h w` a small one, `F` features.
"""

import math
from typing import Any, Literal

from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.activations import activation, pieces
from jaxdl.nn.convolution import Conv, ConvTranspose
from jaxdl.nn.dense import Dense
from jaxdl.nn.initializers import lecun_uniform
from jaxdl.nn.torsos import MLP

Kind = Literal["mlp", "conv"]


class ConvEncoder(linen.Module):
    """A 4x4 convolution of stride 2 a layer, each followed by the activation: [B, H, W, C] -> [B, h, w, channels[-1]].

    h and w are H and W halved, rounded up, as often as there are channels.
    """

    channels: tuple[int, ...] = (32, 64)
    activation: str = "relu"
    kernel_init: linen.initializers.Initializer = lecun_uniform
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> Array:
        act, k = activation(self.activation), pieces(self.activation)
        for channels in self.channels:
            x = act(Conv(k * channels, (4, 4), (2, 2), dtype=self.dtype, kernel_init=self.kernel_init)(x))
        return x


class ConvDecoder(linen.Module):
    """The way back: a dense layer to [h, w, channels[0]], then 4x4 transposed convolutions: [B, F] -> [B, *shape].

    The last layer is linear, and in float32. Where sides do not halve evenly the result is cropped at the bottom and right.
    """

    shape: tuple[int, int, int]  # H, W, C
    channels: tuple[int, ...] = (64, 32)
    activation: str = "relu"
    kernel_init: linen.initializers.Initializer = lecun_uniform
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> Array:
        act, k = activation(self.activation), pieces(self.activation)
        height, width = smallest(self.shape, len(self.channels))
        x = act(Dense(k * height * width * self.channels[0], dtype=self.dtype, kernel_init=self.kernel_init)(x))
        x = x.reshape(-1, height, width, self.channels[0])
        for channels in self.channels[1:]:
            x = act(ConvTranspose(k * channels, (4, 4), (2, 2), dtype=self.dtype, kernel_init=self.kernel_init)(x))
        x = ConvTranspose(self.shape[2], (4, 4), (2, 2), kernel_init=self.kernel_init)(x)
        return x[:, : self.shape[0], : self.shape[1]]


def encode_image(x: Array, network: Kind, channels: tuple[int, ...], sizes: tuple[int, ...], activation: str = "relu",
                 dtype: Any = "float32") -> Array:
    """Images [B, H, W, C] -> features [B, F], called within a module that is `compact`: convolutions (conv), then an MLP."""
    if network == "conv":
        x = ConvEncoder(channels, activation, dtype=dtype)(x)
    return MLP(sizes, activation, dtype=dtype)(x.reshape(len(x), -1))


def decode_image(z: Array, network: Kind, shape: tuple[int, int, int], channels: tuple[int, ...], sizes: tuple[int, ...],
                 activation: str = "relu", dtype: Any = "float32") -> Array:
    """Features [B, F] -> images [B, *shape], not bounded: the way back of `encode_image`, within a `compact` module."""
    x = MLP(sizes, activation, dtype=dtype)(z)
    if network == "conv":
        return ConvDecoder(shape, channels, activation, dtype=dtype)(x)
    return Dense(math.prod(shape))(x).reshape(-1, *shape)


def smallest(shape: tuple[int, ...], layers: int) -> tuple[int, int]:
    """Height and width of an image that was halved, rounded up, so often."""
    return math.ceil(shape[0] / 2**layers), math.ceil(shape[1] / 2**layers)
