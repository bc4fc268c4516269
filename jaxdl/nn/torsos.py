"""Torsos: from observations or images to features."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.activations import activation, pieces
from jaxdl.nn.convolution import Conv
from jaxdl.nn.dense import Dense
from jaxdl.nn.initializers import lecun_uniform
from jaxdl.nn.noisy import NoisyDense
from jaxdl.ops.pixels import to_unit


class MLP(linen.Module):
    """Dense layers, each followed by the activation: [..., F] -> [..., features[-1]]."""

    features: tuple[int, ...]
    activation: str = "relu"
    kernel_init: linen.initializers.Initializer = lecun_uniform
    dtype: Any = "float32"
    noisy: float | Array | None = None  # the sigma of noisy layers

    @linen.compact
    def __call__(self, x: Array) -> Array:
        act, k = activation(self.activation), pieces(self.activation)
        for width in self.features:
            layer = (Dense(k * width, dtype=self.dtype, kernel_init=self.kernel_init) if self.noisy is None else
                     NoisyDense(k * width, self.noisy, self.dtype))
            x = act(layer(x))
        return x


@dataclasses.dataclass(frozen=True)
class Form:
    """What the numbers of observations [B, ...] are; a static argument of networks."""

    stacked: bool = False  # they are frames [B, S, ...]
    picture: Literal["HWC", "CHW", "HW"] | None = None  # axes of a frame: height, width, channels
    scaled: bool = False  # bytes from 0 to 255, to be read as numbers in [0, 1]
    classes: tuple[int, ...] | None = None  # they name classes: how many each number has
    starts: tuple[int, ...] = ()  # and what each counts from


def encode(obs: Array, form: Form, dtype: Any = "float32") -> Array:
    """Observations [B, ...] -> features [B, F], called within a module that is `compact`.

    Pictures, whose frames are channels, go through convolutions: those of Mnih et al. (2015), below 36 pixels the single one of
    Young & Tian (2019), below 3 none. Classes are one-hot; all else is flat. `dtype` is the precision of the convolutions.
    """
    if form.classes is not None:
        return one_hot(obs.reshape(obs.shape[0], -1), form.classes, form.starts)
    images = as_images(obs, form) if form.picture else obs
    side = min(images.shape[1:3]) if form.picture else 0
    if side >= 36:
        return NatureConv(dtype=dtype)(images)
    if side >= 3:
        return NatureConv((16,), (3,), (1,), dtype=dtype)(images)
    flat = obs.reshape(obs.shape[0], -1)
    return to_unit(flat) if form.scaled else flat.astype(jnp.float32)


def one_hot(numbers: Array, classes: tuple[int, ...], starts: tuple[int, ...]) -> Array:
    """Numbers [B, M], the i-th counted from `starts[i]` to one of `classes[i]` -> one-hot vectors side by side, [B, F]."""
    numbers = numbers.astype(jnp.promote_types(numbers.dtype, jnp.int32))
    parts = [jax.nn.one_hot(numbers[:, i] - start, n) for i, (n, start) in enumerate(zip(classes, starts, strict=True))]
    return jnp.concatenate(parts, -1)


def as_images(obs: Array, form: Form) -> Array:
    """Pictures as [B, H, W, C], the frames of a stack and their channels as channels."""
    frames = obs if form.stacked else obs[:, None]
    if form.picture == "HW":
        frames = frames[..., None]
    elif form.picture == "CHW":
        frames = jnp.moveaxis(frames, 2, -1)
    return jnp.moveaxis(frames, 1, -1).reshape(obs.shape[0], *frames.shape[2:4], -1)


class NatureConv(linen.Module):
    """The convolutions of Mnih et al. (2015), unpadded, each with a ReLU: images [B, H, W, C] -> features [B, F].

    uint8 images are scaled to [0, 1]; floats are taken as they are. For 84 x 84 the features are 7 * 7 * 64.
    """

    channels: tuple[int, ...] = (32, 64, 64)
    kernels: tuple[int, ...] = (8, 4, 3)
    strides: tuple[int, ...] = (4, 2, 1)
    kernel_init: linen.initializers.Initializer = lecun_uniform
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> Array:
        x = to_unit(x) if x.dtype == jnp.uint8 else x.astype(jnp.float32)
        for channels, kernel, stride in zip(self.channels, self.kernels, self.strides, strict=True):
            x = Conv(channels, (kernel, kernel), (stride, stride), "VALID", dtype=self.dtype, kernel_init=self.kernel_init)(x)
            x = jax.nn.relu(x)
        return x.reshape(x.shape[0], -1)
