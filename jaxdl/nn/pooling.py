"""Pools: the maximum over windows of 2x2, and over windows of random places.

`max_pool` has a gradient of its own: XLA's on a CPU scatters, and took 13.6 ms of [128, 28, 28, 6] where this one takes 3.5. Of
equal maxima each gets the gradient, not the first alone; after a ReLU they are zeros, whose gradient ends there.

`fractional_max_pool` lets windows overlap and sides shrink by less than half:

    b_i = floor((i n + v) / m),    window i: pixels b_i to b_{i+1}, both with it,    v uniform in 0 ... m - 1

for n pixels that become m, n / 2 <= m <= n: steps of one and two in a random order. Graham, "Fractional max-pooling" (2014),
whose pseudo-random sequences these are, one a batch and axis, in whole numbers. Without a key v is in the middle.

Shapes: `B` batch, `H W C` an image.
"""

import math

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key

RATIO = math.sqrt(2)  # of the sides, Graham's


def max_pool(x: Array) -> Array:
    """[B, H, W, C] -> [B, H // 2, W // 2, C]: the last row and column of an odd number are left out."""
    return _max_pool(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])


@jax.custom_jvp
def _max_pool(x: Array) -> Array:
    rows = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


@_max_pool.defjvp
def _max_pool_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,), y = primals, tangents, _max_pool(*primals)
    b, h, w, c = y.shape
    x, dx = (a.reshape(b, h, 2, w, 2, c) for a in (x, dx))
    return y, jnp.where(x == y[:, :, None, :, None], dx, 0).sum((2, 4))


def max_over_places(x: Array) -> Array:
    """[B, H, W, C] -> [B, C], the largest number of each map.

    Its place is found: the gradient of `max` divides by how many numbers equal the largest, and where a fused program computes
    them again and rounds otherwise there are none.
    """
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    chosen = jnp.arange(flat.shape[1])[:, None] == flat.argmax(1)[:, None]
    return jnp.where(chosen, flat, 0).sum(1)


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
