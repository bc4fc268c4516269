"""Inverted dropout: what is kept while learning is divided by its probability, so that nothing changes afterwards.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014), who scale weights down after
training instead.
"""

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array, Key


def dropout(x: Array, rate: float | Array, key: Key) -> Array:
    """Each number [...] is zero with probability `rate`, else divided by 1 - rate: its expectation stays."""
    return jnp.where(jax.random.uniform(key, x.shape) >= rate, x / (1 - rate), 0)


def dropout_in(module: linen.Module, x: Array, rate: float | Array | None) -> Array:
    """`x` within a module: with dropout if it has a rate and, because it learns, a key called "dropout"."""
    return dropout(x, rate, module.make_rng("dropout")) if rate is not None and module.has_rng("dropout") else x
