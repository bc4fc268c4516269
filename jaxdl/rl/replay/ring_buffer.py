"""Rings of items, any pytree, written in place.

Each of the E environments has a ring of its own, L = capacity / E items long; the rings lie one behind the other in **one**
array, an item in one row of 32-bit words. So
- a step's items are written by one scatter and a batch is read by one gather, whatever the pytree (few operations, one
  buffer to donate, and nothing for XLA to copy: `tests/sources/test_in_place.py` counts);
- the item that follows an item of the same environment is its neighbour: n steps can be read from any item on;
- an item can be left out (`valid`): its environment's ring does not advance, and nothing that is no item is ever stored.

Shapes: `E` environments, `K` items of each added at once, `B` batch, `n` steps, `W` words of 4 bytes.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, PyTree


class MemoryState(NamedTuple):
    """What the memory holds. Environment `e` has the rows from `e * L` on."""

    rows: Array  # [E * L, W] uint32
    cursor: Array  # [E] int32 where in its ring the environment's next item goes
    size: Array  # [E] int32 items in the ring


class Memory(NamedTuple):
    """A replay memory as pure functions. An index is a row: `e * L + slot`."""

    init: Any  # () -> MemoryState
    places: Any  # (state, K, valid [K, E] bool | None) -> index [K, E]: where `add` puts items, beyond the end if not valid
    add: Any  # (state, items [K, E, ...], valid [K, E] bool | None) -> state
    amend: Any  # (state, items [E, ...] -> items) -> state: changes the newest item of each environment
    draw: Any  # (state, key, B) -> index [B], uniform over all items
    age: Any  # (state, index [...]) -> int32 [...]: how many items of its environment are newer
    read: Any  # (state, index [B], n=1) -> (items [n, B, ...], available [n, B] bool): the item and those that follow it


def make(example: PyTree, capacity: int, num_envs: int) -> Memory:
    """A memory of `capacity` items, shared evenly by `num_envs` environments.

    Args:
        example: one item, as arrays or `jax.ShapeDtypeStruct`s.
        capacity: in items; each holds `width(example) * 4` bytes.

    Raises:
        UserError: `capacity` is no positive multiple of `num_envs`, or has more rows than an int32 can count.
    """
    check_capacity(capacity, num_envs)
    length = capacity // num_envs
    words = layout(example)

    def init() -> MemoryState:
        zeros = jnp.zeros(num_envs, jnp.int32)
        return MemoryState(jnp.zeros((capacity, words.width), jnp.uint32), zeros, zeros)

    def places(state: MemoryState, k: int, valid: Array | None = None) -> Array:
        before = jnp.ones((k, 1), bool) if valid is None else valid
        ahead = jnp.cumsum(before, 0, dtype=jnp.int32) - before
        index = _wrap(state.cursor + ahead, length) + length * jnp.arange(num_envs, dtype=jnp.int32)
        if valid is not None:  # rows of their own, beyond the end: the scatter drops them
            index = jnp.where(valid, index, capacity + jnp.arange(k * num_envs, dtype=jnp.int32).reshape(k, num_envs))
        return index

    def add(state: MemoryState, items: PyTree, valid: Array | None = None) -> MemoryState:
        rows = words.pack(items)  # [K, E, W]
        k = rows.shape[0]
        index = places(state, k, valid)
        step = jnp.full((), k, jnp.int32) if valid is None else valid.sum(0, dtype=jnp.int32)
        return MemoryState(
            write(state.rows, index.reshape(-1), rows.reshape(-1, words.width)),
            _wrap(state.cursor + step, length),
            jnp.minimum(state.size + step, length),
        )

    def amend(state: MemoryState, change: Callable[[PyTree], PyTree]) -> MemoryState:
        newest = jnp.where(state.cursor == 0, length, state.cursor) - 1
        index = newest + length * jnp.arange(num_envs, dtype=jnp.int32)
        rows = words.pack(change(words.unpack(state.rows[index])))
        return state._replace(rows=state.rows.at[index].set(rows, mode="drop", unique_indices=True))

    def draw(state: MemoryState, key: Key, batch_size: int) -> Array:
        env, age = _draw(state.size, key, batch_size)
        slot = state.cursor[env] - 1 - age
        return env * length + jnp.where(slot < 0, slot + length, slot)

    def age(state: MemoryState, index: Array) -> Array:
        env = index // length
        behind = state.cursor.at[env].get(mode="clip") - 1 - (index - env * length)
        return jnp.where(behind < 0, behind + length, behind)

    def read(state: MemoryState, index: Array, n: int = 1) -> tuple[PyTree, Array]:
        ahead = jnp.arange(n, dtype=jnp.int32)[:, None]
        available = ahead <= age(state, index)  # nothing follows the newest
        first = index // length * length
        rows = first + _wrap(index - first + jnp.where(available, ahead, 0), length)
        rows = state.rows.at[rows.reshape(-1)].get(mode="promise_in_bounds")
        return words.unpack(rows.reshape(n, index.shape[0], words.width)), available

    return Memory(init, places, add, amend, draw, age, read)


def check_capacity(capacity: int, num_envs: int) -> None:
    """Refuse a capacity that the environments cannot share evenly, or that an int32 cannot count.

    Raises:
        UserError: names what was given and what would do.
    """
    if capacity <= 0 or capacity % num_envs:
        nearest = max(num_envs, capacity // num_envs * num_envs)
        raise UserError(f"buffer_size must be a positive multiple of num_envs={num_envs}, got {capacity}; "
                        f"{nearest} would do")
    if capacity >= 2**31 - num_envs:
        raise UserError(f"buffer_size must be below 2**31 - num_envs, got {capacity}")


def write(rows: Array, index: Array, new: Array) -> Array:
    """`rows` with `new` [M, W] at `index` [M], each beyond the end or there once; a scatter, in place.

    Of a single row XLA would make a slice that it fuses into the reads that follow, and then copies all rows first: a second
    one goes with it, which is dropped.
    """
    if len(index) == 1:
        beyond = jnp.full(1, len(rows) + 1, index.dtype)
        index, new = jnp.concatenate([index, beyond]), jnp.concatenate([new, new])
    return rows.at[index].set(new, mode="drop", unique_indices=True)


def width(example: PyTree) -> int:
    """32-bit words that one item takes."""
    return layout(example).width


def layout(example: PyTree) -> "_Layout":
    """How items like this one lie in rows of 32-bit words: `pack` and `unpack`."""
    return _Layout.of(example)


def _draw(size: Array, key: Key, batch_size: int) -> tuple[Array, Array]:
    """Uniform draws over all items: which environment [B], and how many items of it are newer [B].

    The remainder of 32 random bits by the number of items is uniform to a relative 2**-32 times that number (2e-4 at a
    million items).
    """
    end = jnp.cumsum(size)
    u = (jax.random.bits(key, (batch_size,)) % end[-1].astype(jnp.uint32)).astype(jnp.int32)
    env = (u[:, None] >= end).sum(1, dtype=jnp.int32)
    return env, u - (end - size)[env]


def _wrap(index: Array, length: int) -> Array:
    return jnp.where(index >= length, index - length, index)


class _Layout(NamedTuple):
    """How a pytree lies in a row of 32-bit words: each leaf bit by bit, padded to whole words."""

    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    words: tuple[int, ...]  # of each leaf

    @staticmethod
    def of(example: PyTree) -> "_Layout":
        leaves, treedef = jax.tree.flatten(example)
        leaves = tuple(jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)) for x in leaves)
        words = tuple(math.ceil(math.prod(x.shape) * _itemsize(x.dtype) / 4) for x in leaves)
        return _Layout(treedef, leaves, words)

    @property
    def width(self) -> int:
        return sum(self.words)

    def pack(self, items: PyTree) -> Array:
        """Items with any leading axes -> [..., W] uint32."""
        leaves = self.treedef.flatten_up_to(items)
        return jnp.concatenate([_to_words(x, spec) for x, spec in zip(leaves, self.leaves, strict=True)], axis=-1)

    def unpack(self, rows: Array) -> PyTree:
        """[..., W] uint32 -> items with the same leading axes."""
        parts = jnp.split(rows, np.cumsum(self.words)[:-1], axis=-1)
        return self.treedef.unflatten([_from_words(x, spec) for x, spec in zip(parts, self.leaves, strict=True)])


def _itemsize(dtype: np.dtype) -> int:
    return 1 if dtype == jnp.bool_ else dtype.itemsize


def _to_words(x: Array, spec: jax.ShapeDtypeStruct) -> Array:
    x = jnp.asarray(x, spec.dtype)
    lead = x.shape[: x.ndim - len(spec.shape)]
    x = x.reshape(*lead, math.prod(spec.shape))
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    per_word = 4 // x.dtype.itemsize
    if per_word == 1:
        return jax.lax.bitcast_convert_type(x, jnp.uint32)
    x = jnp.pad(x, [(0, 0)] * len(lead) + [(0, -x.shape[-1] % per_word)])
    return jax.lax.bitcast_convert_type(x.reshape(*lead, -1, per_word), jnp.uint32)


def _from_words(words: Array, spec: jax.ShapeDtypeStruct) -> Array:
    lead = words.shape[:-1]
    stored = jnp.dtype(jnp.uint8) if spec.dtype == jnp.bool_ else spec.dtype
    x = jax.lax.bitcast_convert_type(words, stored)
    x = x.reshape(*lead, -1)[..., : math.prod(spec.shape)]
    return x.reshape(*lead, *spec.shape).astype(spec.dtype)
