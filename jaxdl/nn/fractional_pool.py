"""Fractional max pooling: the maximum over windows that overlap, of random places, so that sides shrink by less than half.

    b_i = floor((i n + v) / m),    window i: pixels b_i to b_{i+1}, both with it,    v uniform in 0 ... m - 1

for n pixels that become m, n / 2 <= m <= n: steps of one and two in a random order. Graham, "Fractional max-pooling" (2014),
whose pseudo-random sequences these are, one a batch and axis, in whole numbers. Without a key v is in the middle.
"""

import math

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key

RATIO = math.sqrt(2)  # of the sides, Graham's


def fractional_max_pool(x: Array, key: Key | None = None, ratio: float = RATIO) -> Array:
    """[B, H, W, C] -> [B, round(H / ratio), round(W / ratio), C]."""
    keys = (None, None) if key is None else jax.random.split(key)
    for axis, k in zip((1, 2), keys, strict=True):
        n = x.shape[axis]
        m = max(round(n / ratio), 1)
        v = jnp.asarray(m // 2) if k is None else jax.random.randint(k, (), 0, m)
        edges = (jnp.arange(m + 1) * n + v) // m
        first, last = edges[:-1], jnp.minimum(edges[1:], n - 1)
        parts = [jnp.take(x, i, axis, mode="clip") for i in (first, jnp.minimum(first + 1, last), last)]
        x = jnp.maximum(jnp.maximum(parts[0], parts[1]), parts[2])
    return x
