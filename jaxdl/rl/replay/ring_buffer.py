"""Ring buffers of items, any pytree, written in place.

Each of the E environments has a ring of its own, L = capacity / E items long. The rings follow one another in **one** array,
with an item in each row of 32-bit words. So
- a step's items are written by one scatter and a batch is read by one gather, whatever the pytree (few operations, one
  buffer to donate, and nothing for XLA to copy: `tests/rl/replay/test_in_place.py` counts);
- the item that follows an item of the same environment is its neighbour: n steps can be read from any item on;
- an item can be left out (`valid`): its environment's ring does not advance, and no invalid item is ever stored.

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


class RingState(NamedTuple):
    """Contents of the buffer. Environment `e` has the rows from `e * L` on."""

    rows: Array  # [E * L, W] uint32
    cursor: Array  # [E] int32 slot of the ring where the environment's next item goes
    size: Array  # [E] int32 items in the ring


class Ring(NamedTuple):
    """Index arithmetic of E rings of `length` slots: the row of a slot is `e * length + slot`."""

    length: int
    num_envs: int

    def wrap(self, slot: Array) -> Array:
        """Slots up to `2 * length - 1`, those beyond the end from the beginning on."""
        return jnp.where(slot >= self.length, slot - self.length, slot)

    def wrap_back(self, slot: Array) -> Array:
        """Slots down to `-length`, those before the beginning from the end back."""
        return jnp.where(slot < 0, slot + self.length, slot)

    def rows_of(self, slot: Array) -> Array:
        """Rows [..., E] of a slot of each environment."""
        return slot + self.length * jnp.arange(self.num_envs, dtype=jnp.int32)

    def ahead(self, row: Array, offset: Array) -> Array:
        """Rows of the same environments, `offset` items later."""
        first = row // self.length * self.length
        return first + self.wrap(row - first + offset)

    def behind(self, row: Array, offset: Array) -> Array:
        """Rows of the same environments, `offset` items earlier."""
        first = row // self.length * self.length
        return first + self.wrap_back(row - first - offset)


class RingBuffer(NamedTuple):
    """A ring buffer for each environment as pure functions. An index is a row."""

    init: Callable[[], RingState]
    write_indices: Callable[..., Array]  # (state, K, valid [K, E] | None) -> rows [K, E] that `add` writes, those of invalid
    # items beyond the end
    add: Callable[..., RingState]  # (state, items [K, E, ...], valid [K, E] bool | None) -> state
    update_newest: Callable[..., RingState]  # (state, items [E, ...] -> items) -> state: changes each environment's newest item
    sample_indices: Callable[[RingState, Key, int], Array]  # (state, key, B) -> rows [B], uniform over all items
    age: Callable[[RingState, Array], Array]  # (state, index [...]) -> int32 [...]: how many items of its environment are newer
    read: Callable[..., tuple[PyTree, Array]]  # (state, index [B], n=1) -> (items [n, B, ...], available [n, B] bool): the item
    # and those that follow it


def make(example: PyTree, capacity: int, num_envs: int) -> RingBuffer:
    """A buffer of `capacity` items, shared evenly by `num_envs` environments.

    Args:
        example: one item, as arrays or `jax.ShapeDtypeStruct`s.
        capacity: in items; each takes `Layout.of(example).width * 4` bytes.
        num_envs: E.

    Raises:
        UserError: `capacity` is no positive multiple of `num_envs`, or has more rows than an int32 can count.
    """
    check_capacity(capacity, num_envs)
    ring = Ring(capacity // num_envs, num_envs)
    layout = Layout.of(example)

    def init() -> RingState:
        zeros = jnp.zeros(num_envs, jnp.int32)
        return RingState(jnp.zeros((capacity, layout.width), jnp.uint32), zeros, zeros)

    def write_indices(state: RingState, k: int, valid: Array | None = None) -> Array:
        written = jnp.ones((k, 1), bool) if valid is None else valid
        earlier = jnp.cumsum(written, 0, dtype=jnp.int32) - written
        index = ring.rows_of(ring.wrap(state.cursor + earlier))
        if valid is not None:  # rows of their own, beyond the end: the scatter drops them
            index = jnp.where(valid, index, capacity + jnp.arange(k * num_envs, dtype=jnp.int32).reshape(k, num_envs))
        return index

    def add(state: RingState, items: PyTree, valid: Array | None = None) -> RingState:
        rows = layout.pack(items)  # [K, E, W]
        k = rows.shape[0]
        index = write_indices(state, k, valid)
        count = jnp.full((), k, jnp.int32) if valid is None else valid.sum(0, dtype=jnp.int32)
        return RingState(
            write(state.rows, index.reshape(-1), rows.reshape(-1, layout.width)),
            ring.wrap(state.cursor + count),
            jnp.minimum(state.size + count, ring.length),
        )

    def update_newest(state: RingState, change: Callable[[PyTree], PyTree]) -> RingState:
        index = ring.rows_of(ring.wrap_back(state.cursor - 1))
        rows = layout.pack(change(layout.unpack(state.rows[index])))
        return state._replace(rows=state.rows.at[index].set(rows, mode="drop", unique_indices=True))

    def sample_indices(state: RingState, key: Key, batch_size: int) -> Array:
        env, age = _sample_ages(state.size, key, batch_size)
        return env * ring.length + ring.wrap_back(state.cursor[env] - 1 - age)

    def age(state: RingState, index: Array) -> Array:
        env = index // ring.length
        return ring.wrap_back(state.cursor.at[env].get(mode="clip") - 1 - (index - env * ring.length))

    def read(state: RingState, index: Array, n: int = 1) -> tuple[PyTree, Array]:
        offset = jnp.arange(n, dtype=jnp.int32)[:, None]
        available = offset <= age(state, index)  # nothing follows the newest
        rows = ring.ahead(index, jnp.where(available, offset, 0))
        rows = state.rows.at[rows.reshape(-1)].get(mode="promise_in_bounds")
        return layout.unpack(rows.reshape(n, index.shape[0], layout.width)), available

    return RingBuffer(init, write_indices, add, update_newest, sample_indices, age, read)


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
    """Write `new` [M, W] to `rows` at `index` [M], each of which is beyond the end or given once, by a scatter in place.

    XLA would turn the scatter of a single row into a slice that it fuses into the reads that follow, and then copy all rows
    first. So a second row is scattered with it, and dropped.
    """
    if len(index) == 1:
        beyond = jnp.full(1, len(rows) + 1, index.dtype)
        index, new = jnp.concatenate([index, beyond]), jnp.concatenate([new, new])
    return rows.at[index].set(new, mode="drop", unique_indices=True)


def _sample_ages(size: Array, key: Key, batch_size: int) -> tuple[Array, Array]:
    """Uniform draws over all items: their environments [B], and how many items of the same environment are newer [B].

    The remainder of 32 random bits by the number of items is uniform to a relative 2**-32 times that number (2e-4 at a
    million items).
    """
    end = jnp.cumsum(size)
    u = (jax.random.bits(key, (batch_size,)) % end[-1].astype(jnp.uint32)).astype(jnp.int32)
    env = (u[:, None] >= end).sum(1, dtype=jnp.int32)
    return env, u - (end - size)[env]


class Layout(NamedTuple):
    """The layout of a pytree in a row of 32-bit words: each leaf bit by bit, padded to whole words."""

    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    words: tuple[int, ...]  # of each leaf

    @staticmethod
    def of(example: PyTree) -> "Layout":
        """The layout of items like `example`: arrays or `jax.ShapeDtypeStruct`s."""
        leaves, treedef = jax.tree.flatten(example)
        leaves = tuple(jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)) for x in leaves)
        words = tuple(math.ceil(math.prod(x.shape) * _itemsize(x.dtype) / 4) for x in leaves)
        return Layout(treedef, leaves, words)

    @property
    def width(self) -> int:
        """W: words that one item takes."""
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
    if x.dtype.itemsize >= 4:  # a word, or two: [..., n] or [..., n, 2]
        return jax.lax.bitcast_convert_type(x, jnp.uint32).reshape(*lead, -1)
    per_word = 4 // x.dtype.itemsize
    x = jnp.pad(x, [(0, 0)] * len(lead) + [(0, -x.shape[-1] % per_word)])
    return jax.lax.bitcast_convert_type(x.reshape(*lead, -1, per_word), jnp.uint32)


def _from_words(words: Array, spec: jax.ShapeDtypeStruct) -> Array:
    lead = words.shape[:-1]
    stored = jnp.dtype(jnp.uint8) if spec.dtype == jnp.bool_ else spec.dtype
    if stored.itemsize == 8:
        words = words.reshape(*lead, -1, 2)
    x = jax.lax.bitcast_convert_type(words, stored)
    x = x.reshape(*lead, -1)[..., : math.prod(spec.shape)]
    return x.reshape(*lead, *spec.shape).astype(spec.dtype)
