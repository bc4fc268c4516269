"""Draws in proportion to priorities, by a tree of sums whose nodes have 16 children.

Schaul et al., "Prioritized experience replay" (2016), appendix B.2.1, have a binary tree. Here four of its levels lie in one
row of 32 numbers, two cache lines: a million leaves are 5 rows deep, and it compiles in a tenth of the time. A write sets
leaves and computes the sums above them from their children: nothing is added to a sum, so nothing drifts. A draw goes down
from the root with a fresh uniform number for each row: a single one of float32 has 2**23 values, too few to reach every leaf.

Shapes: `M` leaves written, `B` draws.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.types import Array, Key

FAN = 16
_SMALL = 512  # rows: of a level with so many all sums are computed anew, which is quicker than some of them
Levels = tuple[Array, ...]  # the leaves first: [n_l, 32] float32; a row is a heap, its sums at 1 to 15, 16 children behind


class SumTree(NamedTuple):
    """A tree of sums as pure functions. `dropped` is an index that no leaf has."""

    init: Callable[[], Levels]  # () -> all priorities 0
    set: Callable[[Levels, Array, Array], Levels]  # (levels, index [M] int32, priority [M] float32) -> levels
    sample: Callable[[Levels, Key, int], tuple[Array, Array]]  # (levels, key, B) -> (index [B], probability [B])
    total: Callable[[Levels], Array]  # (levels) -> the sum of all priorities, ()
    dropped: int


def make(capacity: int) -> SumTree:
    """A tree over `capacity` leaves.

    `set` drops what has the index `dropped`; where an index is given twice, the priority must be the same. `sample` draws
    only leaves above 0, and needs one.
    """
    sizes = [math.ceil(capacity / FAN)]
    while sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / FAN))

    def init() -> Levels:
        return tuple(jnp.zeros((n, 2 * FAN), jnp.float32) for n in sizes)

    def set_(levels: Levels, index: Array, priority: Array) -> Levels:
        written: list[Array] = []
        sums = None  # of all rows of the level below, where that is small
        for level in levels:
            rows = level.shape[0]
            if sums is not None:
                level = level.at[:, FAN:].set(jnp.pad(sums[:, 1], (0, rows * FAN - len(sums))).reshape(rows, FAN))
            else:
                row = index // FAN
                level = level.at[row, FAN + index % FAN].set(priority, mode="drop")
            if rows > _SMALL:
                some = _sums(level.at[row, FAN:].get(mode="fill", fill_value=0))
                written.append(level.at[row, :FAN].set(some, mode="drop"))
                index, priority = row, some[:, 1]
            else:
                sums = _sums(level[:, FAN:])
                written.append(level.at[:, :FAN].set(sums))
        return tuple(written)

    def sample(levels: Levels, key: Key, batch_size: int) -> tuple[Array, Array]:
        u = jax.random.uniform(key, (len(levels), batch_size))
        node = jnp.zeros(batch_size, jnp.int32)
        for level, u_l in zip(reversed(levels), u, strict=True):
            child, priority = _choose(level, node, u_l)
            node = node * FAN + child
        return node, priority / total(levels)

    def total(levels: Levels) -> Array:
        return levels[-1][0, 1]

    return SumTree(init, set_, sample, total, sizes[0] * FAN)


def _sums(children: Array) -> Array:
    """The inner nodes of the binary heap over 16 children, [M, 16] -> [M, 16]: of node k the children are 2 k and 2 k + 1."""
    pairs = [children]
    while pairs[-1].shape[1] > 1:
        pairs.append(pairs[-1][:, ::2] + pairs[-1][:, 1::2])
    return jnp.concatenate([jnp.zeros_like(pairs[-1]), *reversed(pairs[1:])], axis=1)


def _choose(level: Array, row: Array, u: Array) -> tuple[Array, Array]:
    """Of each of the rows [B] the child that `u` [B] in [0, 1) falls on, and its priority.

    A child of priority 0 is never taken: what is left of `u` stays below the sum that it falls into, rounded as it may be.
    """
    flat = level.reshape(-1)

    def at(k: Array) -> Array:
        return flat.at[row * 2 * FAN + k].get(mode="promise_in_bounds")

    k = jnp.ones_like(row)
    target = u * at(k)  # below the sum of node k, here and further down
    for _ in range(4):
        left = at(2 * k)
        goes_right = target >= left
        target, k = jnp.where(goes_right, (target - left) * (1 - 2**-23), target), 2 * k + goes_right
    return k - FAN, at(k)
