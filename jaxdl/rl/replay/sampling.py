"""Sampling from a replay memory: uniformly, or in proportion to priorities.

Schaul et al., "Prioritized experience replay" (2016), the proportional variant: transition i is drawn with probability

    P(i) = p_i / sum p,    p_i = (|error_i| + 1e-6) ** alpha

and weighs (N P(i)) ** -beta in the loss (the learner divides by the largest of a batch). A new transition has the largest
priority so far. How this differs: draws are not stratified over the batch.

Shapes: `E` environments, `K` steps added at once, `B` batch, `M` rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.types import Array, Key, PyTree, no_feedback
from jaxdl.rl.replay import sum_tree
from jaxdl.rl.replay.storage import Storage, WriteResult
from jaxdl.rl.replay.sum_tree import SumTree
from jaxdl.rl.types import TimeStep, Transition

_SMALLEST = 1e-6  # added to an error, or a transition with the error 0 would never be drawn again


class Memory(NamedTuple):
    """A replay memory as pure functions: a storage and a way to sample from it."""

    init: Callable[[Array], PyTree]  # (obs [E, ...]) -> state
    item: Callable[[Array, Array, TimeStep], PyTree]  # (obs, action, TimeStep) -> what is stored of them [E, ...]
    add: Callable[[PyTree, PyTree], PyTree]  # (state, items [K, E, ...]) -> state
    restart: Callable[[PyTree, Array], PyTree]  # (state, obs) -> state: all environments were reset
    sample: Callable[[PyTree, Key, Array], tuple[PyTree, Transition]]  # (state, key, t) -> (state, transitions [B])
    feedback: Callable[[PyTree, Transition, Array], PyTree]  # (state, transitions, |error| [B]) -> state
    env_axis: PyTree = 0  # of the state, as in `Source`: the rings follow one another


def uniform(storage: Storage, batch_size: int) -> Memory:
    """Every transition is as likely as any other."""
    if storage.sample_indices is None:
        return _uniform_by_tree(storage, batch_size)

    def sample(state: PyTree, key: Key, t: Array) -> tuple[PyTree, Transition]:
        del t
        return state, storage.read(state, storage.sample_indices(state, key, batch_size))

    return Memory(storage.init, storage.item, lambda state, items: storage.add(state, items)[0],
                  lambda state, obs: storage.restart(state, obs)[0], sample, no_feedback)


class PrioritizedState(NamedTuple):
    """State of `prioritized`. New priorities wait until the next rows are written: one write of the tree a step."""

    stored: PyTree  # state of the storage
    tree: sum_tree.Levels
    highest: Array  # float32 (): the largest priority so far
    waiting: Array  # int32 [B]: rows whose priorities wait, the tree's `dropped` where none does
    priority: Array  # float32 [B]: of those rows


def _empty(storage: Storage, tree: SumTree, batch_size: int, obs: Array) -> PrioritizedState:
    return PrioritizedState(storage.init(obs), tree.init(), jnp.ones(()), *_none_waiting(tree, batch_size))


def _none_waiting(tree: SumTree, batch_size: int) -> tuple[Array, Array]:
    return jnp.full(batch_size, tree.dropped, jnp.int32), jnp.zeros(batch_size)


def _reshard(storage: Storage, tree: SumTree, batch_size: int, state: PrioritizedState, devices: int) -> PrioritizedState:
    """The state [M, ...] of M devices for others [devices, ...]: waiting priorities are written, and sums computed again."""
    shards = len(state.highest)
    leaves = state.tree[0].reshape(shards, -1)
    leaves = jax.vmap(lambda x, i, p: x.at[i].set(p, mode="drop"))(leaves, state.waiting, state.priority)
    leaves = leaves[:, : storage.capacity * devices // shards].reshape(devices, storage.capacity)
    waiting, priority = (jnp.broadcast_to(x, (devices, batch_size)) for x in _none_waiting(tree, batch_size))
    return PrioritizedState(axis.reshard(state.stored, 0, devices), jax.vmap(tree.of)(leaves),
                            jnp.broadcast_to(state.highest.max(), devices), waiting, priority)


def _uniform_by_tree(storage: Storage, batch_size: int) -> Memory:
    """Uniform draws from a storage in which not every row is a transition.

    Which rows are is irregular (resets lie among them), so no index arithmetic can draw them. A sum tree with the priority 1
    for each transition and 0 for every other row does, exactly and in place. The state is that of `prioritized`, in which
    nothing ever waits.
    """
    tree = sum_tree.make(storage.capacity)

    def after_write(state: PrioritizedState, stored: PyTree, written: WriteResult) -> PrioritizedState:
        index = jnp.where(written.index < storage.capacity, written.index, tree.dropped)
        return state._replace(stored=stored, tree=tree.set(state.tree, index, jnp.where(written.is_transition, 1.0, 0.0)))

    def sample(state: PrioritizedState, key: Key, t: Array) -> tuple[PrioritizedState, Transition]:
        del t
        return state, storage.read(state.stored, tree.sample(state.tree, key, batch_size)[0])

    return Memory(lambda obs: _empty(storage, tree, batch_size, obs), storage.item,
                  lambda state, items: after_write(state, *storage.add(state.stored, items)),
                  lambda state, obs: after_write(state, *storage.restart(state.stored, obs)), sample, no_feedback,
                  lambda state, devices: _reshard(storage, tree, batch_size, state, devices))


def prioritized(storage: Storage, batch_size: int, *, alpha: Array, beta: Callable[[Array], Array], updates: int = 1) -> Memory:
    """Draws in proportion to priorities.

    Args:
        storage: where the steps are.
        batch_size: B.
        alpha: exponent of priorities: 0 draws uniformly.
        beta: environment steps -> exponent of the weights: 1 undoes the bias of the draws.
        updates: samples taken between two `add`s; above 1 each of them writes the priorities that wait.
    """
    tree = sum_tree.make(storage.capacity)

    def after_write(state: PrioritizedState, stored: PyTree, written: WriteResult) -> PrioritizedState:
        new = jnp.where(written.index < storage.capacity, written.index, tree.dropped)
        still_valid = storage.still_valid(stored, state.waiting, written.count)
        index = jnp.concatenate([new, jnp.where(still_valid, state.waiting, tree.dropped)])
        priority = jnp.concatenate([jnp.where(written.is_transition, state.highest, 0.0), state.priority])
        return PrioritizedState(stored, tree.set(state.tree, index, priority), state.highest, *_none_waiting(tree, batch_size))

    def sample(state: PrioritizedState, key: Key, t: Array) -> tuple[PrioritizedState, Transition]:
        if updates > 1:
            written = tree.set(state.tree, state.waiting, state.priority)
            state = PrioritizedState(state.stored, written, state.highest, *_none_waiting(tree, batch_size))
        index, probability = tree.sample(state.tree, key, batch_size)
        size = storage.size(state.stored).astype(jnp.float32)
        batch = storage.read(state.stored, index)
        return state, batch._replace(weight=(size * probability) ** -beta(t), index=index)

    def feedback(state: PrioritizedState, batch: Transition, error: Array) -> PrioritizedState:
        priority = (jnp.abs(error) + _SMALLEST) ** alpha
        return state._replace(highest=jnp.maximum(state.highest, priority.max()), waiting=batch.index, priority=priority)

    return Memory(lambda obs: _empty(storage, tree, batch_size, obs), storage.item,
                  lambda state, items: after_write(state, *storage.add(state.stored, items)),
                  lambda state, obs: after_write(state, *storage.restart(state.stored, obs)), sample, feedback,
                  lambda state, devices: _reshard(storage, tree, batch_size, state, devices))
