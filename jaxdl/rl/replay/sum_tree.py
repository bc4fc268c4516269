"""Draws in proportion to priorities, by a tree of sums whose nodes have 16 children.

Schaul et al., "Prioritized experience replay" (2016), appendix B.2.1, have a binary tree; with 16 children a tree over a
million leaves is 5 levels deep, each node one cache line, and it compiles in a tenth of the time. A write sets leaves and
recomputes the sums above them from their children: nothing is added to a sum, so nothing drifts. A draw goes down from the
root with a fresh uniform number at each level: a single one of float32 has 2**23 values, too few to reach every leaf.

Shapes: `M` leaves written, `B` draws.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key

FAN = 16
Levels = tuple[Array, ...]  # the leaves first: [n_l, 16] float32, where node i of a level has the row i of the level below


class SumTree(NamedTuple):
    """A tree of sums as pure functions. `dropped` is an index that no leaf has."""

    init: Callable[[], Levels]  # () -> all priorities 0
    of: Callable[[Array], Levels]  # (priorities [capacity]) -> levels
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
        return tuple(jnp.zeros((n, FAN), jnp.float32) for n in sizes)

    def of(priorities: Array) -> Levels:
        levels: list[Array] = []
        for n in sizes:
            levels.append(jnp.zeros(n * FAN).at[: len(priorities)].set(priorities).reshape(n, FAN))
            priorities = levels[-1].sum(-1)
        return tuple(levels)

    def set_(levels: Levels, index: Array, priority: Array) -> Levels:
        written: list[Any] = []
        for level in levels:
            row = index // FAN
            level = level.at[row, index % FAN].set(priority, mode="drop")
            written.append(level)
            index, priority = row, level.at[row].get(mode="fill", fill_value=0).sum(-1)
        return tuple(written)

    def sample(levels: Levels, key: Key, batch_size: int) -> tuple[Array, Array]:
        u = jax.random.uniform(key, (len(levels), batch_size))
        node = jnp.zeros(batch_size, jnp.int32)
        for level, u_l in zip(reversed(levels), u, strict=True):
            children = level.at[node].get(mode="promise_in_bounds")
            child, priority = _choose(children, u_l)
            node = node * FAN + child
        return node, priority / total(levels)

    def total(levels: Levels) -> Array:
        return levels[-1].sum()

    return SumTree(init, of, set_, sample, total, sizes[0] * FAN)


def _choose(children: Array, u: Array) -> tuple[Array, Array]:
    """Of each row of [B, 16] the child that `u` [B] in [0, 1) falls on, and its priority.

    Sums are added up one after the other, so that a child of priority 0 makes none greater and is never chosen.
    """
    columns = [children[:, j] for j in range(FAN)]
    sums = [columns[0]]
    for column in columns[1:]:
        sums.append(sums[-1] + column)
    target = u * sums[-1]  # below the last sum: u is at most 1 - 2**-23
    child = sum((s <= target).astype(jnp.int32) for s in sums[:-1])
    chosen = jnp.where(child[:, None] == jnp.arange(FAN), children, 0).sum(-1)
    return child, chosen
