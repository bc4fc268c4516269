"""Generators and discriminators: DCGAN's convolutions, and residual blocks. Images are in [-1, 1], their sides divisible by 4.

Radford et al., "Unsupervised representation learning with deep convolutional GANs" (2016), with two convolutions each way, and
Miyato et al., "Spectral normalization" (2018), table 3, with as many blocks as the smaller images need. With a `hidden_size`
both have a fully connected layer where the images are smallest (Chen et al., "InfoGAN", 2016, appendix C.1): strokes that are
each right make a digit together only if something sees them all. Classes are
one-hot `y` [B, Y], or None; a generator gets a linear embedding of them beside its latent.

Kernels begin small, as DCGAN's do: with steps of a fixed size they turn sooner.

Shapes: `B` batch, `Z` latent, `H W C` an image, `Y` classes, `F` features.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.convolution import Conv, ConvTranspose
from jaxdl.nn.initializers import Uniform, small_uniform

_EMBEDDING = 32  # numbers that a class becomes for the generator
_LIKE_LATENTS = Uniform(1.0, "one")  # of the variance of what they stand beside


class BatchNorm(linen.Module):
    """`linen.BatchNorm` over the batch of all shards, with the mean of squared deviations as its variance."""

    train: bool
    axis_name: str | None = None

    @linen.compact
    def __call__(self, x: Array) -> Array:
        return linen.BatchNorm(not self.train, momentum=0.9, axis_name=self.axis_name, use_fast_variance=False)(x)


class Generator(linen.Module):
    """Latents [B, Z] and classes [B, Y] -> images [B, H, W, C]; running statistics where it does not train."""

    shape: tuple[int, int, int]
    network: Literal["dcgan", "resnet"]
    width: int
    hidden_size: int | None = None
    axis_name: str | None = None

    @linen.compact
    def __call__(self, z: Array, y: Array | None, train: bool) -> Array:
        def norm(x: Array) -> Array:
            return jax.nn.relu(BatchNorm(train, self.axis_name)(x))

        if y is not None:
            z = jnp.concatenate([z, linen.Dense(_EMBEDDING, use_bias=False, kernel_init=_LIKE_LATENTS)(y)], -1)
        if self.hidden_size is not None:
            z = norm(_dense(self.hidden_size, use_bias=False)(z))
        height, width = self.shape[0] // 4, self.shape[1] // 4
        x = _dense(height * width * 2 * self.width, use_bias=self.network == "resnet")(z)
        x = x.reshape(-1, height, width, 2 * self.width)
        if self.network == "dcgan":
            x = norm(ConvTranspose(self.width, (4, 4), (2, 2), use_bias=False, kernel_init=small_uniform)(norm(x)))
            return jnp.tanh(ConvTranspose(self.shape[2], (4, 4), (2, 2), kernel_init=small_uniform)(x))
        for channels in (2 * self.width, self.width):
            h = _conv(channels, use_bias=False)(_doubled(norm(x)))
            x = _conv(channels)(norm(h)) + _doubled(_conv(channels, 1)(x))
        return jnp.tanh(_conv(self.shape[2])(norm(x)))


class Discriminator(linen.Module):
    """Images [B, H, W, C] and classes [B, Y] -> logits [B].

    `projection` adds <V y, features> to the logit (Miyato & Koyama 2018, eq. 3); `concatenation` gives the class as planes
    beside the colours (Mirza & Osindero 2014, in the form that convolutions take).
    """

    network: Literal["dcgan", "resnet"]
    width: int
    batch_norm: bool
    class_conditioning: Literal["projection", "concatenation"]
    hidden_size: int | None = None
    axis_name: str | None = None

    @linen.compact
    def __call__(self, x: Array, y: Array | None) -> Array:
        if y is not None and self.class_conditioning == "concatenation":
            planes = jnp.broadcast_to(y[:, None, None, :], (*x.shape[:3], y.shape[-1]))
            x = jnp.concatenate([x, planes], -1)
        if self.network == "dcgan":
            x = jax.nn.leaky_relu(Conv(self.width, (4, 4), (2, 2), kernel_init=small_uniform)(x), 0.2)
            x = Conv(2 * self.width, (4, 4), (2, 2), use_bias=not self.batch_norm, kernel_init=small_uniform)(x)
            x = jax.nn.leaky_relu(BatchNorm(True, self.axis_name)(x) if self.batch_norm else x, 0.2)
            features, flat = x.sum((1, 2)), x.reshape(len(x), -1)
        else:
            for i, channels in enumerate((self.width, 2 * self.width)):
                h = x if i == 0 else jax.nn.relu(x)  # the first sees pixels
                h = _halved(_conv(channels)(jax.nn.relu(_conv(channels)(h))))
                x = h + (_conv(channels, 1)(_halved(x)) if i == 0 else _halved(_conv(channels, 1)(x)))
            h = _conv(2 * self.width)(jax.nn.relu(_conv(2 * self.width)(jax.nn.relu(x))))
            features = flat = jax.nn.relu(x + h).sum((1, 2))
        if self.hidden_size is not None:
            flat = _dense(self.hidden_size, use_bias=not self.batch_norm)(flat)
            flat = jax.nn.leaky_relu(BatchNorm(True, self.axis_name)(flat) if self.batch_norm else flat, 0.2)
        logits = _dense(1)(flat)[:, 0]
        if y is not None and self.class_conditioning == "projection":
            logits += (_dense(features.shape[-1], use_bias=False)(y) * features).sum(-1)
        return logits


def _dense(width: int, **settings: Any) -> linen.Dense:
    return linen.Dense(width, kernel_init=small_uniform, **settings)


def _conv(channels: int, window: int = 3, **settings: Any) -> Conv:
    return Conv(channels, (window, window), kernel_init=small_uniform, **settings)


def _doubled(x: Array) -> Array:
    """Each pixel four times: [B, H, W, C] -> [B, 2H, 2W, C]."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def _halved(x: Array) -> Array:
    """Means of four pixels: [B, H, W, C] -> [B, H/2, W/2, C]."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
