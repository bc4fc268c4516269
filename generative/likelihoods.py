"""Likelihoods p(x|z) of an image's pixels, independent of one another given z, with a decoder's outputs as parameters.

    bernoulli              x in {0, 1}; dynamic binarization draws x anew each time an image is seen, a pixel being 1 with the
                           probability of its intensity (Salakhutdinov & Murray 2008, Burda et al. 2016)
    gaussian               x = v / 255, a density; its variance fixed or an output
    discretized_logistic   v in 0..255 itself, a probability (Kingma et al. 2016, Salimans et al. 2017)

Shapes: `B` images, `D` = H * W * C numbers of one, `P` outputs for each number, `...` leading axes.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, DataSpec, Key
from jaxdl.ops import distributions
from jaxdl.ops.pixels import to_unit

Binarize = Literal["dynamic", "fixed", "threshold", "none"]
Name = Literal["bernoulli", "gaussian", "discretized_logistic"]

# A log-variance and a log-scale, in units of the range of pixels, are kept above that of the rounding to 256 values: below
# it a density would grow without bound on pixels that never change.
_LOWEST_LOG_VAR = -2 * np.log(255) - np.log(12)
_LOWEST_LOG_SCALE = -np.log(255) - 2


class Likelihood(NamedTuple):
    """A distribution of pixels."""

    outputs: int  # P: numbers that the decoder gives for each of the image
    target: Callable[[Array, Key], Array]  # (images uint8 [B, H, W, C], key) -> x [B, D] float32, also the encoder's input
    log_prob: Callable[[Array, Array], Array]  # (outputs [..., B, P, D], x [B, D]) -> [..., B] nats
    mean: Callable[[Array], Array]  # outputs [..., P, D] -> expected pixels [..., D] in [0, 1]


def make(name: Name, binarize: Binarize = "dynamic", variance: float | Array | None = None) -> Likelihood:
    """The likelihood called `name`.

    Args:
        binarize: how images become binary (bernoulli): dynamic; fixed, where an image has the same bits each time it is seen,
            a function of the image; threshold, which cuts at one half; or none, for images that are binary already (see
            `check`).
        variance: of every pixel (gaussian), in units of the range of pixels squared; None makes it an output.
    """
    if name == "bernoulli":
        return Likelihood(1, lambda images, key: binarized(images, key, binarize),
                          lambda out, x: distributions.bernoulli_log_prob(x, out[..., 0, :]).sum(-1),
                          lambda out: jax.nn.sigmoid(out[..., 0, :]))
    if name == "gaussian":
        def log_prob(out: Array, x: Array) -> Array:
            log_var = jnp.log(variance) if variance is not None else _above(out[..., 1, :], _LOWEST_LOG_VAR)
            return distributions.gaussian_log_prob(x, out[..., 0, :], log_var).sum(-1)

        return Likelihood(1 if variance is not None else 2, _scaled, log_prob, lambda out: jnp.clip(out[..., 0, :], 0, 1))

    def of_bytes(out: Array) -> tuple[Array, Array]:
        """Location and log-scale in units of a byte."""
        return 255 * out[..., 0, :], _above(out[..., 1, :], _LOWEST_LOG_SCALE) + np.log(255)

    def log_prob_of_bins(out: Array, x: Array) -> Array:
        return distributions.discretized_logistic_log_prob(jnp.round(255 * x), *of_bytes(out)).sum(-1)

    def mean_of_bins(out: Array) -> Array:  # the sum of P(v > n) over n = 0..254, each a tail of the logistic
        location, log_scale = of_bytes(out)
        slope = jnp.exp(-log_scale)
        tails = jax.lax.fori_loop(0, 255, lambda n, total: total + jax.nn.sigmoid((location - n - 0.5) * slope),
                                  jnp.zeros_like(location))
        return tails / 255

    return Likelihood(2, _scaled, log_prob_of_bins, mean_of_bins)


def check(binarize: Binarize, spec: DataSpec) -> None:
    """Refuse binarize=none for images that are not binary: with values of 0 and 1, or of 0 and 255.

    Raises:
        UserError: names the dataset.
    """
    if binarize == "none" and spec.binary is False:
        raise UserError(f"binarize=none takes images that are binary already, 0 and 255 or 0 and 1, and those of the dataset "
                        f"{spec.name} have other values; choose dynamic, fixed or threshold")


def binarized(images: Array, key: Key, how: Binarize) -> Array:
    """Images uint8 [B, H, W, C] -> {0, 1} float32 [B, D]; see `make`."""
    x = images.reshape(len(images), -1)
    if how == "none":
        return (x > 0).astype(jnp.float32)
    if how == "threshold":
        return (x > 127).astype(jnp.float32)
    if how == "fixed":
        return (_own_numbers(x) % 255 < x).astype(jnp.float32)
    words = jax.random.bits(key, (-(-x.size // 2),))  # 16 bits a pixel: asked for as uint16, jax would hash 64 for each
    threshold = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size].reshape(x.shape) % 255
    return (threshold < x).astype(jnp.float32)  # 1 with probability x / 255, to 2**-16


def _own_numbers(x: Array) -> Array:
    """A pseudo-random uint32 for each pixel that is a function of its place and of the whole image: [B, D] -> [B, D]."""
    def mixed(h: Array) -> Array:  # MurmurHash3's 32-bit finalizer (Appleby, 2011)
        h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
        h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
        return h ^ (h >> 16)

    place = mixed(jnp.arange(1, x.shape[1] + 1, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9))
    image = mixed((x.astype(jnp.uint32) * (place | 1)).sum(1, keepdims=True, dtype=jnp.uint32))
    return mixed(image + place)


def _scaled(images: Array, key: Key) -> Array:
    del key
    return to_unit(images.reshape(len(images), -1))


def _above(x: Array, low: float) -> Array:
    """`x`, bent so that it stays above `low`."""
    return low + jax.nn.softplus(x - low)
