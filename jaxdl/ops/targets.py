"""Targets drawn from what a model predicts, in the place of the data's: with them a loss's gradients have the Fisher matrix.

    F = E_x E_{y ~ p(y | x)} [ grad log p(y | x)  grad log p(y | x)^T ]

Within `drawn` the losses of `ops.losses` that are a negative log-likelihood (`cross_entropy`, `binary_cross_entropy`,
`squared`) ask here for their targets. Elsewhere they get those that they gave.

Shapes: `...` any, `A` classes.
"""

import contextlib
import contextvars
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key

_keys: contextvars.ContextVar[Iterator[Key] | None] = contextvars.ContextVar("keys", default=None)


@contextlib.contextmanager
def drawn(key: Key) -> Iterator[None]:
    """While it lasts, losses that are traced take targets drawn from their own predictions."""
    token = _keys.set(jax.random.fold_in(key, i) for i in itertools.count())
    try:
        yield
    finally:
        _keys.reset(token)


def classes(logits: Array, labels: Array) -> Array:
    """`labels` [...], or draws of softmax(logits), [..., A]."""
    keys = _keys.get()
    return labels if keys is None else jax.random.categorical(next(keys), jax.lax.stop_gradient(logits)).astype(labels.dtype)


def bits(logits: Array, targets: Array) -> Array:
    """`targets` [...], or draws of sigmoid(logits), of the same shape."""
    keys = _keys.get()
    if keys is None:
        return targets
    p = jax.nn.sigmoid(jax.lax.stop_gradient(logits))
    return (jax.random.uniform(next(keys), p.shape) < p).astype(jnp.result_type(targets))


def errors(error: Array) -> Array:
    """`error` [...], or draws of what it would be of a normal target of variance 1 around the prediction."""
    keys = _keys.get()
    return error if keys is None else error + jax.lax.stop_gradient(jax.random.normal(next(keys), error.shape) - error)
