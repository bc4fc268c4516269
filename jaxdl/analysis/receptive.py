"""Receptive fields: which pixels a unit of a layer sees, found out from the function itself, whatever the network.

The gradient of a row of units, mixed at random, to pictures of noise reaches the rows of pixels that these units depend on, and
no others; so do columns. Where a product is computed with fewer multiplications, what lies beyond is rounding errors in the
place of zeros: going outward from where the gradient is largest, the field ends where it falls to a 10^-5 of the smallest row
before.

Shapes: `N` pictures, `H W C` a picture, `h w K` a layer's maps, of a layer without maps 1 1 K.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import layers
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key

Function = Callable[[Array], Array]  # pictures [N, H, W, C] -> anything

_NOISES = 4  # pictures of noise
_CLIFF = 1e-5


class Fields(NamedTuple):
    """Receptive fields of a layer: unit (i, j) sees rows[i] and columns[j] of a picture, each [first, after the last]."""

    rows: np.ndarray  # int [h, 2]
    columns: np.ndarray  # int [w, 2]

    @property
    def size(self) -> tuple[int, int]:
        """Pixels of a field that no edge of the picture cuts off (of the largest, if all are cut off)."""
        return int(np.diff(self.rows).max()), int(np.diff(self.columns).max())


def maps_of(f: Function, layer: str) -> Callable[[Array], Array]:
    """The outputs of a layer as maps [N, h, w, K]; of one without maps [N, 1, 1, K]. Raises as `layers.upto` when called."""
    def maps(x: Array) -> Array:
        out = layers.upto(f, [layer])(x)[layer]
        return out if out.ndim == 4 else out.reshape(len(out), 1, 1, -1)

    return maps


def fields(f: Function, layer: str, shape: tuple[int, int, int], key: Key) -> Fields:
    """The receptive fields of a layer.

    Args:
        shape: of a picture, [H, W, C].
        key: of the pictures of noise.

    Raises:
        UserError: there is no such layer.
    """
    k_noise, k_mix = jax.random.split(key)
    maps = maps_of(f, layer)

    @jax.jit
    def reach(x: Array, key: Key) -> tuple[Array, Array]:
        out, back = jax.vjp(maps, x)
        mix = jax.random.normal(key, out.shape)

        def of(axis: int) -> Array:
            place = jax.lax.broadcasted_iota(jnp.int32, out.shape, axis)
            others = tuple(a for a in range(4) if a != axis)
            return jax.lax.map(lambda i: jnp.sqrt((back(jnp.where(place == i, mix, 0))[0] ** 2).sum(others)),
                               jnp.arange(out.shape[axis]))

        return of(1), of(2)

    rows, columns = reach(0.5 + jax.random.normal(k_noise, (_NOISES, *shape)), k_mix)
    return Fields(_spans(rows), _spans(columns))


def _spans(reach: Array) -> np.ndarray:
    """Of each row of norms, where they are above rounding errors, int [h, 2]."""
    found = []
    for norms in np.asarray(reach, np.float64):
        peak = int(norms.argmax())
        found.append((peak - _steps(norms[peak::-1]), peak + _steps(norms[peak:]) + 1))
    return np.array(found)


def _steps(norms: np.ndarray) -> int:
    """How far one can go along norms from a large one until they fall off; zeros within are gaps of a stride."""
    last, least = 0, norms[0]
    for i, norm in enumerate(norms):
        if norm == 0:
            continue
        if norm < _CLIFF * least:
            break
        last, least = i, min(least, norm)
    return last


def cut(picture: np.ndarray, seen: Fields, place: tuple[int, int], fill: float = 0.5) -> np.ndarray:
    """What the unit at a place (row, column of the maps) sees of a picture [H, W, C], in a picture of the size of a field.

    What lies beyond the picture is filled with a number.
    """
    out = np.full((*seen.size, picture.shape[-1]), fill, picture.dtype)
    into, out_of = [], []
    for size, (first, after) in zip(seen.size, (seen.rows[place[0]], seen.columns[place[1]]), strict=True):
        begin = size - (after - first) if first == 0 else 0
        into.append(slice(begin, begin + after - first))
        out_of.append(slice(first, after))
    out[tuple(into)] = picture[tuple(out_of)]
    return out


def filters(f: Function, layer: str, shape: tuple[int, int, int], key: Key) -> np.ndarray:
    """The weights of a layer on the pixels, [K, rows, columns, C]: the gradient of the unit in the middle of each map.

    Args:
        shape: of a picture, [H, W, C].
        key: of the pictures of noise, on which the gradient must not depend.

    Raises:
        UserError: there is no such layer, or what it gives is not linear in the pixels: other layers are before it.
    """
    seen, maps = fields(f, layer, shape, key), maps_of(f, layer)
    middle = len(seen.rows) // 2, len(seen.columns) // 2

    @jax.jit
    def weights(x: Array) -> Array:
        out, back = jax.vjp(lambda x: maps(x[None])[0, middle[0], middle[1]], x)
        return jax.lax.map(lambda unit: back(unit)[0], jnp.eye(len(out)))

    one, other = (np.asarray(weights(0.5 + jax.random.normal(k, shape))) for k in jax.random.split(key))
    if np.abs(one - other).max() > 1e-4 * np.abs(one).max():
        raise UserError(f"filters are weights on pixels, and {layer} is not linear in them; look at its patches, or make a "
                        "picture for it by 'jaxdl ascend'")
    return np.stack([cut(w, seen, middle, 0.0) for w in one])
