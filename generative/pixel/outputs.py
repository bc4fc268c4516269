"""Distributions of a pixel given those before it, p(x_i | x_<i), parametrized by a network, and draws from them.

    bernoulli     x in {0, 1}
    categorical   x in 0..L-1, a softmax; with fewer than 256 levels, a level is one of as many even ranges
    mixture       x in 0..L-1, a mixture of discretized logistics; the means of a pixel's later channels are linear in the
                  values of its earlier ones (Salimans et al., "PixelCNN++", 2017)

A network orders `groups` of channels and computes `outputs` numbers for each group of a pixel: there is one group per channel,
or one for all channels of a mixture, which orders them itself. A draw is a function of uniform numbers that were drawn
beforehand, so that every sampler draws the same.

Shapes: `...` any, `C` channels, `G` groups, `P` outputs a group, `L` levels, `M` components, `U` uniform numbers a group.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key
from jaxdl.generative import likelihoods
from jaxdl.ops import distributions

Name = Literal["bernoulli", "categorical", "mixture"]

_LOWEST_LOG_SCALE = -7.0  # in units of half the range of pixels (PixelCNN++)


class Output(NamedTuple):
    """A distribution of pixels. Values are levels 0..L-1 as float32."""

    groups: int  # G
    outputs: int  # P
    uniforms: int  # U
    levels: int  # L
    values: Callable[[Array, Key], Array]  # (images uint8 [..., C], key) -> values [..., C]
    inputs: Callable[[Array], Array]  # values -> inputs of the network, in [-1, 1]
    log_prob: Callable[[Array, Array], Array]  # (outputs [..., G, P], values [..., C]) -> nats a pixel [...]
    draw: Callable[[Array, Array, Array | float], Array]  # (outputs [..., P] of a group, uniforms [..., U], temperature)
    # -> values of the group's channels [..., C / G]. The temperature divides logits and multiplies scales.


def make(name: Name, channels: int, levels: int = 256, components: int = 10, binarize: likelihoods.Binarize = "dynamic"
         ) -> Output:
    """The distribution called `name`.

    Args:
        levels: L (categorical, mixture).
        components: M (mixture).
        binarize: how images are binarized (bernoulli), as in `likelihoods`.
    """
    if name == "bernoulli":
        return Output(channels, 1, 1, 2, lambda images, key: likelihoods.binarized(images, key, binarize).reshape(images.shape),
                      lambda x: 2 * x - 1, lambda out, x: distributions.bernoulli_log_prob(x, out[..., 0]).sum(-1),
                      lambda out, u, temperature: (u < jax.nn.sigmoid(out / temperature)).astype(jnp.float32))

    def values(images: Array, key: Key) -> Array:
        del key
        return (images.astype(jnp.int32) * levels // 256).astype(jnp.float32)

    def inputs(x: Array) -> Array:
        return x * (2 / (levels - 1)) - 1

    if name == "categorical":
        return Output(channels, levels, 1, levels, values, inputs,
                      lambda out, x: distributions.categorical_log_prob(x.astype(jnp.int32), out).sum(-1),
                      lambda out, u, temperature: chosen(out / temperature, u[..., 0])[..., None].astype(jnp.float32))

    def log_prob(out: Array, x: Array) -> Array:
        logits, means, log_scales, slopes = _split(out[..., 0, :], channels, components)
        terms = []
        for c in range(channels):
            mean = _moved(means[..., c, :], slopes, inputs(x[..., None, :]), c)
            terms.append(distributions.discretized_logistic_log_prob(
                x[..., c, None], (mean + 1) * ((levels - 1) / 2), log_scales[..., c, :] + jnp.log((levels - 1) / 2), levels))
        return jax.nn.logsumexp(jax.nn.log_softmax(logits) + sum(terms), -1)

    def draw(out: Array, u: Array, temperature: Array | float) -> Array:
        logits, means, log_scales, slopes = _split(out, channels, components)
        which = jax.nn.one_hot(chosen(logits / temperature, u[..., 0]), components)
        means, log_scales, slopes = ((z * which[..., None, :]).sum(-1, keepdims=True) for z in (means, log_scales, slopes))
        noise = temperature * (jnp.log(u[..., 1:]) - jnp.log1p(-u[..., 1:]))  # of a standard logistic; -inf where u is 0
        x = jnp.zeros((*out.shape[:-1], channels))
        for c in range(channels):
            mean = _moved(means[..., c, :], slopes, inputs(x[..., None, :]), c)[..., 0]
            level = (mean + jnp.exp(log_scales[..., c, 0]) * noise[..., c] + 1) * ((levels - 1) / 2)
            x = x.at[..., c].set(jnp.clip(jnp.round(level), 0, levels - 1))
        return x

    return Output(1, components * (1 + 2 * channels + channels * (channels - 1) // 2), 1 + channels, levels, values, inputs,
                  log_prob, draw)


def chosen(logits: Array, u: Array) -> Array:
    """The class at which the cumulative sum of softmax(logits) passes u in [0, 1): [..., A] and [...] -> int32 [...]."""
    edges = jnp.cumsum(jax.nn.softmax(logits), -1)
    edges = edges / edges[..., -1:]  # the last would differ from 1 by rounding
    return (u[..., None] >= edges[..., :-1]).sum(-1)


def _split(out: Array, channels: int, components: int) -> tuple[Array, Array, Array, Array]:
    """[..., P] -> logits [..., M], means and log-scales [..., C, M], slopes [..., C (C - 1) / 2, M]."""
    logits, rest = out[..., :components], out[..., components:].reshape(*out.shape[:-1], -1, components)
    means, log_scales, slopes = jnp.split(rest, [channels, 2 * channels], -2)
    return logits, means, jnp.maximum(log_scales, _LOWEST_LOG_SCALE), jnp.tanh(slopes)


def _moved(mean: Array, slopes: Array, seen: Array, c: int) -> Array:
    """The means [..., M] of channel c, shifted in proportion to the channels before it ([..., 1, C], network inputs)."""
    first = c * (c - 1) // 2
    for before in range(c):
        mean = mean + slopes[..., first + before, :] * seen[..., before]
    return mean
