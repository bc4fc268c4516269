"""Inverted dropout: what is kept while learning is divided by its probability, so that nothing changes afterwards.

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014), who scale weights down after
training instead.
"""

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key


def dropout(x: Array, rate: float | Array, key: Key) -> Array:
    """Each number [...] is zero with probability `rate`, else divided by 1 - rate: its expectation stays."""
    return jnp.where(jax.random.uniform(key, x.shape) >= rate, x / (1 - rate), 0)
