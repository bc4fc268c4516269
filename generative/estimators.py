"""Estimators of the gradient of a bound on log p(x) whose samples z(params, noise) are differentiable.

Each is a function of the parameters that returns a loss (the negative bound) and the estimate of its gradient:

    reparameterized          the gradient through everything                                Kingma & Welling (2014)
    doubly_reparameterized   the same mean with less noise, for importance-weighted bounds  Tucker et al. (2019), eq. 8

With log-weights log w_k = log p(x, z_k) - log q(z_k|x) and normalized weights W_k, the second gives the parameters of q the
gradient sum_k W_k^2 dlog w_k/dz_k dz_k/dparams, in which the density of q itself is held fixed, and all others that of the
bound, sum_k W_k dlog w_k/dparams (Tucker et al., "Doubly reparameterized gradient estimators for Monte Carlo objectives").

Shapes: `K` samples, `B` images, `Z` latent.
"""

import math
from collections.abc import Callable
from typing import Any

import jax

from jaxdl.core.types import Array, PyTree


def reparameterized(loss_fn: Callable[[PyTree], tuple[Array, Any]], params: PyTree) -> tuple[tuple[Array, Any], PyTree]:
    """The loss, its other results, and its gradient: `loss_fn(params) -> (loss (), aux)`."""
    return jax.value_and_grad(loss_fn, has_aux=True)(params)


def doubly_reparameterized(draw: Callable[[PyTree], tuple[list[Array], Any]],
                           log_weights: Callable[[PyTree, list[Array], Any], tuple[Array, Any]],
                           params: PyTree) -> tuple[tuple[Array, Any], PyTree]:
    """The negative importance-weighted bound, other results, and the gradient's estimate.

    Args:
        draw: `params -> (z, posterior)`: samples [K, B, Z] of each layer, and the parameters of their density.
        log_weights: `(params, z, posterior) -> (log w [K, B], aux)`. It must hold the parameters of q fixed.
        params: where the gradient is taken.
    """
    def both(params: PyTree) -> tuple[tuple[list[Array], PyTree], Any]:
        z, posterior = draw(params)
        return (z, params), posterior

    (z, _), through, posterior = jax.vjp(both, params, has_aux=True)
    log_w, through_weights, aux = jax.vjp(lambda params, z: log_weights(params, z, posterior), params, z, has_aux=True)
    weights = jax.nn.softmax(log_w, 0)
    by_params, by_z = through_weights(-weights / log_w.shape[1])
    (gradient,) = through(([weights[..., None] * g for g in by_z], by_params))
    return (-log_mean_exp(log_w).mean(), aux), gradient


def log_mean_exp(log_w: Array) -> Array:
    """Log of the mean over the first axis: [K, ...] -> [...]."""
    return jax.nn.logsumexp(log_w, 0) - math.log(len(log_w))
