"""Losses, one formula a function, element by element: no mean over the batch is taken inside.
Where broadcasting would hide an error, shapes are checked when the program is traced (AssertionError).

Shapes: `...` any, `A` classes, `Z` latent, `N` quantiles.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from jaxdl.core.types import Array
from jaxdl.ops import targets as targets_of


def squared(error: Array) -> Array:
    """`error ** 2 / 2`, [...] -> [...]."""
    return 0.5 * jnp.square(targets_of.errors(error))


def huber(error: Array, delta: float | Array = 1.0) -> Array:
    """`error ** 2 / 2` up to `delta`, `delta * (|error| - delta / 2)` beyond: [...] -> [...].

    Huber, "Robust estimation of a location parameter" (1964).
    """
    inner = jnp.minimum(jnp.abs(error), delta)
    return 0.5 * inner**2 + delta * (jnp.abs(error) - inner)


def quantile_huber(quantiles: Array, targets: Array, delta: float | Array = 1.0) -> Array:
    """Quantile regression with the Huber loss: [..., N] quantiles and samples of the target [..., M] -> [...].

        sum_i mean_j |tau_i - (target_j < quantile_i)| huber(target_j - quantile_i) / delta,    tau_i = (i + 1/2) / N

    Dabney et al., "Distributional reinforcement learning with quantile regression" (2018), eqs. 9 and 10. Its gradient is
    written out, in the quantiles alone: that of all pairs by autodiff took six times as long on a CPU.
    """
    return _quantile_huber(quantiles, jax.lax.stop_gradient(targets), jnp.asarray(delta, quantiles.dtype)).sum(-1)


@jax.custom_jvp
def _quantile_huber(quantiles: Array, targets: Array, delta: Array) -> Array:
    """The loss of each quantile, [..., N]."""
    return _mean_of_pairs(quantiles, targets, lambda error: huber(error, delta) / delta)


@_quantile_huber.defjvp
def _quantile_huber_jvp(primals: tuple[Array, Array, Array], tangents: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    quantiles, targets, delta = primals
    slope = _mean_of_pairs(quantiles, targets, lambda error: -jnp.clip(error, -delta, delta) / delta)
    return _quantile_huber(*primals), slope * tangents[0]


def _mean_of_pairs(quantiles: Array, targets: Array, of_error: Callable[[Array], Array]) -> Array:
    """`mean_j |tau_i - (error_ij < 0)| of_error(error_ij)`, [..., N]; the mean as a product, which is quick everywhere."""
    n, m = quantiles.shape[-1], targets.shape[-1]
    tau = (jnp.arange(n) + 0.5) / n
    error = targets[..., :, None] - quantiles[..., None, :]  # [..., M, N]
    pairs = jnp.abs(tau - (error < 0)) * of_error(error)
    return jnp.einsum("...mn,m->...n", pairs, jnp.full(m, 1 / m, pairs.dtype), precision=jax.lax.Precision.HIGHEST)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """`-log softmax(logits)[label]` in nats: [..., A] and integers [...] -> [...]."""
    chex.assert_shape(labels, logits.shape[:-1])
    labels = targets_of.classes(logits, labels)
    chosen = jnp.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return jax.nn.logsumexp(logits, -1) - chosen


def smoothed_cross_entropy(logits: Array, labels: Array, smoothing: float | Array) -> Array:
    """Cross-entropy with targets that give each class `smoothing / A` and the label the rest: [..., A], [...] -> [...].

    Szegedy et al., "Rethinking the Inception architecture" (2016), section 7.
    """
    return (1 - smoothing) * cross_entropy(logits, labels) + smoothing * (jax.nn.logsumexp(logits, -1) - logits.mean(-1))


def multiclass_hinge(logits: Array, labels: Array) -> Array:
    """`sum over other classes of max(0, 1 + logit - logit of the label)`: [..., A] and integers [...] -> [...].

    Weston and Watkins, "Support vector machines for multi-class pattern recognition" (1999).
    """
    chex.assert_shape(labels, logits.shape[:-1])
    chosen = jnp.take_along_axis(logits, labels[..., None], -1)
    return jnp.maximum(1 + logits - chosen, 0).sum(-1) - 1  # the label's own term is 1


def binary_cross_entropy(logits: Array, targets: Array) -> Array:
    """`-targets * log p - (1 - targets) * log(1 - p)` with p = sigmoid(logits), in nats: two of [...] -> [...].

    Written as `max(logits, 0) - targets * logits + log(1 + exp(-|logits|))`, which is exact to rounding at any logit.
    """
    targets = targets_of.bits(logits, targets)
    positive = jnp.maximum(logits, 0)
    minus_abs = logits - 2 * positive  # unlike -abs, it has the right gradient together with `positive` at 0
    return positive - targets * logits + jnp.log1p(jnp.exp(minus_abs))


def kl_standard_normal(mean: Array, log_var: Array) -> Array:
    """KL(N(mean, exp(log_var)) || N(0, I)) in nats, summed over the last axis: [..., Z] -> [...].

    Kingma & Welling (2014), appendix B.
    """
    chex.assert_equal_shape([mean, log_var])
    return 0.5 * (jnp.square(mean) + jnp.exp(log_var) - 1.0 - log_var).sum(-1)
