"""Generators and discriminators: DCGAN's convolutions, and residual blocks. Images are in [-1, 1].

Radford et al., "Unsupervised representation learning with deep convolutional GANs" (2016), with two convolutions each way, and
Miyato et al., "Spectral normalization" (2018), table 3, with as many blocks as the smaller images need. With a `hidden_size`
both have a fully connected layer where the images are smallest (Chen et al., "InfoGAN", 2016, appendix C.1): strokes that are
each right make a digit together only if something sees them all. Classes are one-hot `y` [B, Y], or None; a generator gets a
linear embedding of them beside its latent. `dtype` is the precision of dense and convolutional layers.

Sides are halved and doubled twice: images whose sides are not divisible by 4 are made with a few pixels more to the right and
below, which are cut off, and seen with black ones in their place.

Kernels begin small, as DCGAN's do: with steps of a fixed size they turn sooner.

Shapes: `B` batch, `Z` latent, `H W C` an image, `Y` classes, `F` features.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.convolution import Conv, ConvTranspose
from jaxdl.nn.dense import Dense
from jaxdl.nn.initializers import Uniform, small_uniform
from jaxdl.nn.norm import BatchNorm

_EMBEDDING = 32  # numbers that a class becomes for the generator
_LIKE_LATENTS = Uniform(1.0, "one")  # an embedding has the variance of the latents beside it


class Generator(linen.Module):
    """Latents [B, Z] and classes [B, Y] -> images [B, H, W, C]; running statistics where it does not train."""

    shape: tuple[int, int, int]
    network: Literal["dcgan", "resnet"]
    width: int
    hidden_size: int | None = None
    axis_name: str | None = None
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, z: Array, y: Array | None, train: bool) -> Array:
        conv, dense = partial(_conv, self.dtype), partial(_dense, self.dtype)

        def norm(x: Array) -> Array:
            return jax.nn.relu(BatchNorm(train, self.axis_name)(x))

        def doubled(channels: int, **more: Any) -> Callable[[Array], Array]:
            return ConvTranspose(channels, (4, 4), (2, 2), kernel_init=small_uniform, dtype=self.dtype, **more)

        if y is not None:
            of_class = Dense(_EMBEDDING, use_bias=False, kernel_init=_LIKE_LATENTS, dtype=self.dtype)(y)
            z = jnp.concatenate([z, of_class], -1)
        if self.hidden_size is not None:
            z = norm(dense(self.hidden_size, use_bias=False)(z))
        height, width = -(-self.shape[0] // 4), -(-self.shape[1] // 4)
        x = dense(height * width * 2 * self.width, use_bias=self.network == "resnet")(z)
        x = x.reshape(-1, height, width, 2 * self.width)
        if self.network == "dcgan":
            x = norm(doubled(self.width, use_bias=False)(norm(x)))
            return self.cut(doubled(self.shape[2])(x))
        for channels in (2 * self.width, self.width):
            h = conv(channels, use_bias=False)(_doubled(norm(x)))
            x = conv(channels)(norm(h)) + _doubled(conv(channels, 1)(x))
        return self.cut(conv(self.shape[2])(norm(x)))

    def cut(self, x: Array) -> Array:
        """Images of their own sides, in [-1, 1]."""
        return jnp.tanh(x[:, : self.shape[0], : self.shape[1]])


class Discriminator(linen.Module):
    """Images [B, H, W, C] and classes [B, Y] -> logits [B], the last layer in float32.

    `projection` adds <V y, features> to the logit (Miyato & Koyama 2018, eq. 3); `concatenation` gives the class as planes
    beside the colours (Mirza & Osindero 2014, in the form that convolutions take).
    """

    network: Literal["dcgan", "resnet"]
    width: int
    batch_norm: bool
    class_conditioning: Literal["projection", "concatenation"]
    hidden_size: int | None = None
    axis_name: str | None = None
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array, y: Array | None) -> Array:
        below, right = (-side % 4 for side in x.shape[1:3])
        if below or right:
            x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), constant_values=-1)
        if y is not None and self.class_conditioning == "concatenation":
            planes = jnp.broadcast_to(y[:, None, None, :], (*x.shape[:3], y.shape[-1]))
            x = jnp.concatenate([x, planes], -1)
        features, flat = self.dcgan(x) if self.network == "dcgan" else self.resnet(x)
        if self.hidden_size is not None:
            flat = self.act(_dense(self.dtype, self.hidden_size, use_bias=not self.batch_norm)(flat))
        logits = _dense(None, 1)(flat)[:, 0]
        if y is not None and self.class_conditioning == "projection":
            logits += (_dense(None, features.shape[-1], use_bias=False)(y) * features).sum(-1)
        return logits

    def act(self, x: Array) -> Array:
        """Normalized where there is a normalization, and a leaky ReLU."""
        return jax.nn.leaky_relu(BatchNorm(True, self.axis_name)(x) if self.batch_norm else x, 0.2)

    def dcgan(self, x: Array) -> tuple[Array, Array]:
        """Features [B, F] for the class, and the inputs of the logit [B, ...]."""
        how = {"kernel_init": small_uniform, "dtype": self.dtype}
        x = jax.nn.leaky_relu(Conv(self.width, (4, 4), (2, 2), **how)(x), 0.2)
        x = self.act(Conv(2 * self.width, (4, 4), (2, 2), use_bias=not self.batch_norm, **how)(x))
        return x.sum((1, 2)), x.reshape(len(x), -1)

    def resnet(self, x: Array) -> tuple[Array, Array]:
        """As `dcgan`."""
        conv = partial(_conv, self.dtype)
        for i, channels in enumerate((self.width, 2 * self.width)):
            h = x if i == 0 else jax.nn.relu(x)  # the first sees pixels
            h = _halved(conv(channels)(jax.nn.relu(conv(channels)(h))))
            x = h + (conv(channels, 1)(_halved(x)) if i == 0 else _halved(conv(channels, 1)(x)))
        h = conv(2 * self.width)(jax.nn.relu(conv(2 * self.width)(jax.nn.relu(x))))
        features = jax.nn.relu(x + h).sum((1, 2))
        return features, features


def _dense(dtype: Any, width: int, **more: Any) -> Dense:
    return Dense(width, kernel_init=small_uniform, dtype=dtype, **more)


def _conv(dtype: Any, channels: int, window: int = 3, **more: Any) -> Conv:
    return Conv(channels, (window, window), kernel_init=small_uniform, dtype=dtype, **more)


def _doubled(x: Array) -> Array:
    """Each pixel four times: [B, H, W, C] -> [B, 2H, 2W, C]."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def _halved(x: Array) -> Array:
    """Means of four pixels: [B, H, W, C] -> [B, H/2, W/2, C]."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
