"""Gradients of a loss over a batch, at once or in microbatches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key, Mean, PyTree
from jaxdl.optim.config import Config, check_divides


def gradients(loss_fn: Callable[..., tuple[Array, Any]], params: PyTree, batch: PyTree, key: Key, config: Config,
              batch_axis: PyTree = 0) -> tuple[PyTree, Any]:
    """Gradient of a loss that is a mean over the batch, and the loss's other results.

    Args:
        loss_fn: `(params, batch, key) -> (loss (), aux)`; `aux` holds `types.Mean`s and arrays [B, ...].
        params: where the gradient is taken.
        batch: a pytree of arrays [B, ...].
        key: of the noise in the loss.
        config: its `grad_accumulation` is the number of microbatches.
        batch_axis: see `microbatches`.

    Returns:
        The gradient, a tree like `params`, and `aux` of the whole batch.
    """
    return microbatches(jax.grad(loss_fn, has_aux=True), params, batch, key, config.grad_accumulation, batch_axis)


def microbatches(grad_fn: Callable[..., tuple[PyTree, Any]], params: PyTree, batch: PyTree, key: Key, n: int,
                 batch_axis: PyTree = 0) -> tuple[PyTree, Any]:
    """The mean of `grad_fn` over n microbatches, which are scanned (`optax.MultiSteps` has a `cond` inside).

    Each has a key of its own, so noise differs from that of the whole batch.

    Args:
        grad_fn: `(params, batch, key) -> (gradient, aux)`, whose gradient may be any tree; `aux` holds `types.Mean`s and arrays
            [B, ...].
        params: the first argument of `grad_fn`.
        batch: a pytree of arrays [B, ...].
        key: is split for the microbatches.
        n: number of microbatches.
        batch_axis: the axis of B in each array, like `in_axes` of `jax.vmap`: an integer, or a prefix of `batch` of integers.

    Returns:
        The gradient and `aux` of the whole batch: means merged, arrays put together.

    Raises:
        UserError: n does not divide the batch.
    """
    if n == 1:
        return grad_fn(params, batch, key)

    def cut(axis: int, part: PyTree) -> PyTree:
        """Microbatches of arrays, stacked along a new first axis."""
        def of_one(x: Array) -> Array:
            check_divides(n, x.shape[axis])
            return jnp.moveaxis(x.reshape(*x.shape[:axis], n, -1, *x.shape[axis + 1:]), axis, 0)

        return jax.tree.map(of_one, part)

    def body(total: PyTree, part: tuple[PyTree, Key]) -> tuple[PyTree, Any]:
        grads, aux = grad_fn(params, *part)
        return jax.tree.map(jnp.add, total, grads), aux

    def merged(x: Mean | Array) -> Mean | Array:
        return Mean(*(v.sum(0) for v in x)) if isinstance(x, Mean) else x.reshape(-1, *x.shape[2:])

    parts = jax.tree.map(cut, batch_axis, batch)
    keys = jax.random.split(key, n)
    of_one, _ = jax.eval_shape(grad_fn, params, *jax.tree.map(lambda x: x[0], (parts, keys)))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), of_one)
    total, aux = jax.lax.scan(body, zeros, (parts, keys))
    grads = jax.tree.map(lambda g: g / n, total)
    return grads, jax.tree.map(merged, aux, is_leaf=lambda x: isinstance(x, Mean))
