"""What units of a layer answer to, and how pictures lie in a layer's outputs.

    strongest    of each channel the pictures and places where it is largest over any number of pictures  Zeiler & Fergus 2014
    nearest      the neighbours of pictures among others, in any features                       Krizhevsky et al. 2012, figure 4
    pca          the projection onto the directions of the largest variance

Shapes: `N` pictures, `H W C` a picture, `h w K` a layer's maps, `F` features.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.types import Array

_AT_ONCE = 256  # pictures


class Strongest(NamedTuple):
    """Where channels are largest, the largest first; no picture twice."""

    values: np.ndarray  # [K, num]
    pictures: np.ndarray  # int [K, num]
    places: np.ndarray  # int [K, num, 2], row and column of the maps


def in_blocks(f: Callable[[Array], Array], x: Array) -> np.ndarray:
    """`f` of any number of pictures, computed in blocks of one size; the last one is filled up."""
    program, parts = jax.jit(f), []
    for i in range(0, len(x), _AT_ONCE):
        block = jnp.asarray(x[i : i + _AT_ONCE])
        full = jnp.pad(block, ((0, min(_AT_ONCE, len(x)) - len(block)), *((0, 0),) * (block.ndim - 1)))
        parts.append(np.asarray(program(full))[: len(block)])
    return np.concatenate(parts)


def largest(maps: Array) -> Array:
    """Of maps [N, h, w, K] the largest number of each and its place, [N, K, 3]: value, row, column."""
    num, height, width, channels = maps.shape
    flat = maps.reshape(num, height * width, channels)
    place = flat.argmax(1)
    return jnp.stack([flat.max(1), place // width, place % width], -1)


def strongest(maps_of: Callable[[Array], Array], x: Array, num: int) -> Strongest:
    """The places in pictures [N, H, W, C] where each channel of `maps_of(x) [N, h, w, K]` is largest, at most one a picture."""
    found = in_blocks(lambda x: largest(maps_of(x)), x)
    order = np.argsort(-found[..., 0], 0, kind="stable")[:num].T  # [K, num]
    best = found[order, np.arange(found.shape[1])[:, None]]
    return Strongest(best[..., 0], order, best[..., 1:].astype(int))


def as_features(maps: Array) -> Array:
    """Maps [N, h, w, K] as features [N, K], their means over places."""
    return maps.mean((1, 2))


def nearest(queries: Array, among: Array, num: int, itself: Array | None = None) -> Array:
    """The nearest of features [N, F] to queries [M, F] by Euclidean distance, int [M, num], the nearest first.

    Args:
        itself: int [M], where each query is among them: it is left out.
    """
    squares = (queries**2).sum(1)[:, None] - 2 * queries @ among.T + (among**2).sum(1)
    if itself is not None:
        squares = squares.at[jnp.arange(len(queries)), itself].set(jnp.inf)
    return jax.lax.top_k(-squares, num)[1]


def pca(x: Array, num: int = 2) -> tuple[Array, Array]:
    """The projection of features [N, F] onto `num` directions, [N, num], and the share of the variance along each.

    The sign of a direction is such that its largest number is positive.
    """
    x = x - x.mean(0)
    _, singular, directions = jnp.linalg.svd(x, full_matrices=False)
    most = jnp.take_along_axis(directions, jnp.abs(directions).argmax(1)[:, None], 1)
    directions = directions * jnp.sign(most)
    return x @ directions[:num].T, singular[:num] ** 2 / (singular**2).sum()
