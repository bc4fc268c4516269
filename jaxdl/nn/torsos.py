"""Torsos: from observations or images to features."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.config import suggest
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array
from jaxdl.nn.convolution import Conv
from jaxdl.nn.dense import Dense
from jaxdl.nn.initializers import lecun_uniform
from jaxdl.nn.noisy import NoisyDense
from jaxdl.ops.pixels import to_unit

_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
}


def activation(name: str) -> Callable[[Array], Array]:
    """The nonlinearity called `name`.

    Raises:
        UserError: unknown; lists the known ones.
    """
    if name not in _ACTIVATIONS:
        raise UserError(f"there is no activation '{name}'{suggest(name, _ACTIVATIONS)}")
    return _ACTIVATIONS[name]


class MLP(linen.Module):
    """Dense layers, each followed by the activation: [..., F] -> [..., features[-1]]."""

    features: tuple[int, ...]
    activation: str = "relu"
    kernel_init: linen.initializers.Initializer = lecun_uniform
    dtype: Any = "float32"
    noisy: float | Array | None = None  # the sigma of noisy layers

    @linen.compact
    def __call__(self, x: Array) -> Array:
        act = activation(self.activation)
        for width in self.features:
            layer = (Dense(width, dtype=self.dtype, kernel_init=self.kernel_init) if self.noisy is None else
                     NoisyDense(width, self.noisy, self.dtype))
            x = act(layer(x))
        return x


def encode(obs: Array, stacked: bool, categories: int | None, dtype: Any = "float32") -> Array:
    """Observations [B, ...] -> features [B, F], called within a module that is `compact`.

    Images [H, W, C], or stacks of images [S, H, W] or [S, H, W, C], go through convolutions: those of Mnih et al. (2015),
    below 36 pixels the single one of Young & Tian (2019), below 3 none. One of `categories` is one-hot; all else is flat.
    `dtype` is the precision of the convolutions.
    """
    if categories is not None:
        obs = jax.nn.one_hot(obs, categories)
    image = obs.ndim - stacked == 4 or (obs.ndim == 4 and obs.dtype == jnp.uint8)
    if image and stacked:
        obs = jnp.moveaxis(obs, 1, -1).reshape(obs.shape[0], *obs.shape[2:4], -1)
    side = min(obs.shape[1:3]) if image else 0
    if side >= 36:
        return NatureConv(dtype=dtype)(obs)
    if side >= 3:
        return NatureConv((16,), (3,), (1,), dtype=dtype)(obs)
    return obs.reshape(obs.shape[0], -1).astype(jnp.float32)


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
