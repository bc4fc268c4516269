"""Log-densities, entropies and draws, in nats, element by element unless a docstring says otherwise.

Shapes: `...` any, `A` classes, `M` atoms.
"""

import math

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key
from jaxdl.ops import losses

_LOG_2PI = math.log(2 * math.pi)


def gaussian_sample(key: Key, mean: Array, log_var: Array) -> Array:
    """A draw of N(mean, exp(log_var)), differentiable in both (Kingma & Welling 2014): [...] -> [...]."""
    return gaussian_of_noise(jax.random.normal(key, mean.shape, mean.dtype), mean, log_var)


def gaussian_of_noise(noise: Array, mean: Array, log_var: Array) -> Array:
    """The draw of N(mean, exp(log_var)) that a standard normal draw makes: [...] -> [...]."""
    return mean + jnp.exp(0.5 * log_var) * noise


def gaussian_log_prob(x: Array, mean: Array, log_var: Array) -> Array:
    """Log-density of N(mean, exp(log_var)) at x: [...] -> [...]."""
    return -0.5 * (_LOG_2PI + log_var + jnp.square(x - mean) * jnp.exp(-log_var))


def gaussian_entropy(log_var: Array) -> Array:
    """Entropy of N(., exp(log_var)): [...] -> [...]."""
    return 0.5 * (1 + _LOG_2PI + log_var)


def gaussian_kl(mean: Array, log_var: Array, mean_q: Array, log_var_q: Array) -> Array:
    """KL(N(mean, exp(log_var)) || N(mean_q, exp(log_var_q))): [...] -> [...]."""
    ratio = jnp.exp(log_var - log_var_q) + jnp.square(mean - mean_q) * jnp.exp(-log_var_q)
    return 0.5 * (ratio - 1.0 - log_var + log_var_q)


def discretized_logistic_log_prob(x: Array, mean: Array, log_scale: Array, levels: int = 256) -> Array:
    """Log-probability of x in {0, ..., levels - 1} under a logistic rounded to whole numbers: three of [...] -> [...].

    All mass beyond an end falls to that end. With a and b the upper and lower end of the bin, in scales from the mean,

        sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)),

    a product whose factors never cancel, in the place of the difference and the branch for where it underflows of Salimans et
    al., "PixelCNN++" (2017). What would underflow, exp(min(a, 0)) and exp(min(-b, 0)), is left out of the one logarithm.
    `mean` and `exp(log_scale)` are in units of x.
    """
    inverse = jnp.exp(-log_scale)  # width of a bin in scales
    a, b = (x + 0.5 - mean) * inverse, (x - 0.5 - mean) * inverse
    first, last = x == 0, x == levels - 1
    a, b = jnp.where(last, jnp.inf, a), jnp.where(first, -jnp.inf, b)
    width = jnp.where(first | last, 1.0, -jnp.expm1(-inverse))
    rest = width / ((1 + jnp.exp(-jnp.abs(a))) * (1 + jnp.exp(-jnp.abs(b))))
    return jnp.minimum(a, 0.0) + jnp.minimum(-b, 0.0) + jnp.log(rest)


def bernoulli_sample(key: Key, logits: Array) -> Array:
    """A draw of {0, 1} with P(1) = sigmoid(logits), of the logits' dtype: [...] -> [...]."""
    return jax.random.bernoulli(key, jax.nn.sigmoid(logits)).astype(logits.dtype)


def bernoulli_log_prob(x: Array, logits: Array) -> Array:
    """Log-probability of x in {0, 1} with P(1) = sigmoid(logits): [...] -> [...]."""
    return -losses.binary_cross_entropy(logits, x)


def categorical_sample(key: Key, logits: Array) -> Array:
    """A class drawn with probability softmax(logits): [..., A] -> int32 [...]."""
    return jax.random.categorical(key, logits)


def categorical_log_prob(x: Array, logits: Array) -> Array:
    """Log-probability of class x under softmax(logits): integers [...] and [..., A] -> [...]."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), x[..., None], -1)[..., 0]


def categorical_entropy(logits: Array) -> Array:
    """Entropy of softmax(logits), also where a class is ruled out by a logit of -inf: [..., A] -> [...]."""
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    return -(p * jnp.where(p > 0, log_p, 0)).sum(-1)


def categorical_projection(atoms: Array, probs: Array, low: float | Array, high: float | Array, size: int) -> Array:
    """Probabilities of `atoms` moved to `size` evenly spaced ones from `low` to `high`: two of [..., M] -> [..., size].

    An atom between two of the support gives to each in proportion to its nearness; beyond an end it goes to that end
    whole. Bellemare et al., "A distributional perspective on reinforcement learning" (2017), eq. 7, as a product of
    matrices in place of a scatter, which is slow on every backend.
    """
    position = (jnp.clip(atoms, low, high) - low) / (high - low) * (size - 1)  # in steps of the support
    share = jnp.maximum(1.0 - jnp.abs(position[..., None] - jnp.arange(size)), 0.0)  # [..., M, size]
    return jnp.einsum("...ms,...m->...s", share, probs, precision=jax.lax.Precision.HIGHEST)
