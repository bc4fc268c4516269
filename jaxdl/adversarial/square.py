"""Square: an attack that asks for outputs alone, by random search (Andriushchenko et al., "Square Attack", 2020).

    linf   a change is +- epsilon in every pixel: stripes at first, then squares at random places
    l2     the squared length of the change is moved about (their algorithm 3): out of one window at random into another, where
           it takes the form of two hills, one up and one down, added to what is there; tiles of hills at first

A proposal stays where the margin falls. Sides of squares shrink by a schedule. A hill falls with the distance d to its middle
(the larger of rows and columns) as sum_{j=d+1}^{n+1} 1 / j^2.

Shapes: `N` inputs, `H W C` a picture.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.adversarial import ball
from jaxdl.adversarial.attacks import Found, Function, margin
from jaxdl.adversarial.ball import Norm
from jaxdl.core.types import Array, Key

_HALVED_AT = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries
_TILES = 5  # a side, of the first change in l2
_SHARE = {"linf": 0.8, "l2": 0.1}  # of the picture, that the first squares cover, as published
_TINY = 1e-12


def square(f: Function, x: Array, labels: Array, epsilon: float | Array, norm: Norm, key: Key, queries: int = 1000,
           share: float | None = None, targets: Array | None = None) -> Found:
    """The attack; `queries` of what is found are those until the attack succeeded.

    Args:
        x: pictures [N, H, W, C].
        queries: how often the network is asked at most.
        share: part of the picture that the first squares cover; as published if not given.
        targets: classes [N] that are to be said; any wrong one if not given.
    """
    k_start, k_search = jax.random.split(key)
    begin, propose = (_stripes, _squares) if norm == "linf" else (_tiles, _hills)
    halved, first = jnp.array(_HALVED_AT) * queries / 10_000, _SHARE[norm] if share is None else share
    shorter = min(x.shape[1:3])

    def far_of(x: Array) -> Array:
        logits = f(x)
        return margin(logits, labels) if targets is None else -margin(logits, targets)

    def body(state: tuple[Array, Array, Array], at: tuple[Array, Key]) -> tuple[tuple[Array, Array, Array], None]:
        now, far, asked = state
        k, key = at
        side = jnp.round(jnp.sqrt(first / 2.0 ** (k >= halved).sum() * x.shape[1] * x.shape[2])).astype(jnp.int32)
        new = ball.project(propose(key, now, x, epsilon, jnp.clip(side, 1, max(shorter - 1, 1))), x, epsilon, norm)
        new_far = far_of(new)
        lower = (new_far < far) & (far > 0)  # what is wrong stays
        return (jnp.where(ball.wide(lower, x), new, now), jnp.where(lower, new_far, far), asked + (far > 0)), None

    now = ball.project(x + begin(k_start, x.shape, epsilon), x, epsilon, norm)
    state = now, far_of(now), jnp.ones(len(x), jnp.int32)
    steps = jnp.arange(queries - 1), jax.random.split(k_search, queries - 1)
    (x, far, asked), _ = jax.lax.scan(body, state, steps)
    return Found(x, far if targets is None else margin(f(x), labels), 0, asked)


Propose = Callable[[Key, Array, Array, float | Array, Array], Array]  # (key, now, x, epsilon, side) -> new, to be projected


def _stripes(key: Key, shape: tuple[int, ...], epsilon: float | Array) -> Array:
    num, _, width, channels = shape
    return epsilon * _signs(key, (num, 1, width, channels))


def _squares(key: Key, now: Array, x: Array, epsilon: float | Array, side: Array) -> Array:
    k_place, k_sign = jax.random.split(key)
    rows, columns = _in_window(k_place, x.shape, side)
    here = _inside(rows, side) & _inside(columns, side)
    return jnp.where(here, x + epsilon * _signs(k_sign, (len(x), 1, 1, x.shape[3])), now)


def _tiles(key: Key, shape: tuple[int, ...], epsilon: float | Array) -> Array:
    num, height, width, channels = shape
    side = max(min(height, width) // _TILES, 1)
    rows, columns = jnp.arange(height)[None, :, None, None], jnp.arange(width)[None, None, :, None]
    tiles = _hill(rows % side, columns % side, jnp.array(side), max(height, width))
    signs = _signs(key, (num, -(-height // side), -(-width // side), channels))
    change = tiles * signs[:, jnp.arange(height) // side][:, :, jnp.arange(width) // side]
    return epsilon * change / _length(change, (1, 2, 3))


def _hills(key: Key, now: Array, x: Array, epsilon: float | Array, side: Array) -> Array:
    """One proposal of algorithm 3: what a second window held, and what was not used yet, comes into the first."""
    k_first, k_second, k_sign, k_turn = jax.random.split(key, 4)
    side = jnp.minimum(jnp.maximum(side, 3) // 2 * 2 + 1, min(x.shape[1:3]))
    rows, columns = _in_window(k_first, x.shape, side)
    here = _inside(rows, side) & _inside(columns, side)
    there = jnp.logical_and(*(_inside(at, side) for at in _in_window(k_second, x.shape, side)))
    turned = jax.random.bernoulli(k_turn, shape=(len(x), 1, 1, 1))
    hill = _hill(jnp.where(turned, columns, rows), jnp.where(turned, rows, columns), side, max(x.shape[1:3]))
    change = now - x
    held = jnp.where(here, change, 0)
    way = _signs(k_sign, (len(x), 1, 1, x.shape[3])) * hill / _length(hill, (1, 2)) + held / _length(held, (1, 2))
    unused = jnp.maximum(epsilon**2 - jnp.square(change).sum((1, 2, 3), keepdims=True), 0)
    available = jnp.sqrt(jnp.square(jnp.where(here | there, change, 0)).sum((1, 2), keepdims=True) + unused / x.shape[3])
    return x + jnp.where(here, way / _length(way, (1, 2)) * available, jnp.where(there, 0, change))


def _hill(rows: Array, columns: Array, side: Array, longest: int) -> Array:
    """A hill in the upper half of a window and its negative in the lower one; zero outside, 0 <= row, column < side."""
    sums = jnp.asarray(np.concatenate([[0], np.cumsum(1 / np.arange(1, longest + 2) ** 2)]), jnp.float32)
    half = side // 2
    middle = jnp.where(rows < half, half // 2, half + (side - half) // 2)
    far = jnp.maximum(jnp.abs(rows - middle), jnp.abs(columns - half))
    height = jnp.maximum(sums[half + 1] - sums[jnp.clip(far, 0, longest + 1)], 0)
    return jnp.where(_inside(rows, side) & _inside(columns, side), jnp.where(rows < half, height, -height), 0)


def _in_window(key: Key, shape: tuple[int, ...], side: Array) -> tuple[Array, Array]:
    """Rows [N, H, 1, 1] and columns [N, 1, W, 1], counted from the corner of a window at random."""
    num, height, width, _ = shape
    sides = jnp.array([height, width])[:, None]
    top, left = (jax.random.uniform(key, (2, num)) * (sides - side + 1)).astype(jnp.int32)
    return (jnp.arange(height) - top[:, None])[:, :, None, None], (jnp.arange(width) - left[:, None])[:, None, :, None]


def _inside(at: Array, side: Array) -> Array:
    return (at >= 0) & (at < side)


def _length(x: Array, axes: tuple[int, ...]) -> Array:
    return jnp.maximum(jnp.sqrt(jnp.square(x).sum(axes, keepdims=True)), _TINY)


def _signs(key: Key, shape: tuple[int, ...]) -> Array:
    return jax.random.rademacher(key, shape, jnp.float32)
