"""How a replay memory draws what it stores: uniformly, or in proportion to priorities.

Schaul et al., "Prioritized experience replay" (2016), the proportional variant: transition i is drawn with probability

    P(i) = p_i / sum p,    p_i = (|error_i| + 1e-6) ** alpha

and weighs (N P(i)) ** -beta in the loss (the learner divides by the largest of a batch). What is new has the largest
priority so far. How this differs: draws are not stratified over the batch.

Shapes: `E` environments, `B` batch, `M` rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.rl.replay import sum_tree
from jaxdl.rl.replay.storage import Storage, Written
from jaxdl.rl.types import TimeStep, Transition

_SMALLEST = 1e-6  # added to an error: none is never drawn again


class Memory(NamedTuple):
    """A replay memory as pure functions: a storage and a way to draw from it."""

    init: Callable[[Array], PyTree]  # (obs [E, ...]) -> state
    item: Callable[[Array, Array, TimeStep], PyTree]  # (obs, action, what the step answered) -> what to store [E, ...]
    add: Callable[[PyTree, PyTree], PyTree]  # (state, items [K, E, ...]) -> state
    begin: Callable[[PyTree, Array], PyTree]  # (state, obs) -> state: all environments begin anew
    sample: Callable[[PyTree, Key, Array], tuple[PyTree, Transition]]  # (state, key, t) -> (state, transitions [B])
    feedback: Callable[[PyTree, Transition, Array], PyTree]  # (state, transitions, |error| [B]) -> state
    env_axis: PyTree = 0  # of the state, as in `Source`: rings lie one behind the other


def uniform(storage: Storage, batch_size: int) -> Memory:
    """Every transition is as likely as any other."""

    def sample(state: PyTree, key: Key, t: Array) -> tuple[PyTree, Transition]:
        del t
        return state, storage.read(state, storage.draw(state, key, batch_size))

    return Memory(storage.init, storage.item, lambda state, items: storage.add(state, items)[0],
                  lambda state, obs: storage.begin(state, obs)[0], sample, lambda state, batch, error: state)


class PrioritizedState(NamedTuple):
    """State of `prioritized`. New priorities wait until the next rows are written: one write of the tree a step."""

    stored: PyTree
    tree: sum_tree.Levels
    highest: Array  # float32 (): the largest priority so far
    waiting: Array  # int32 [B]: rows whose priorities wait, the tree's `dropped` where none does
    priority: Array  # float32 [B]: of those rows


def prioritized(storage: Storage, batch_size: int, *, alpha: Array, beta: Callable[[Array], Array], learns: bool = True,
                updates: int = 1) -> Memory:
    """In proportion to priorities.

    Args:
        storage: what is stored.
        batch_size: B.
        alpha: exponent of priorities: 0 draws uniformly.
        beta: environment steps -> exponent of the weights: 1 undoes the bias of the draws.
        learns: False keeps all priorities equal: uniform draws from a storage in which not every row is a transition.
        updates: samples taken between two `add`s; above 1 each of them writes what waits.
    """
    tree = sum_tree.make(storage.capacity)

    def nothing() -> tuple[Array, Array]:
        return jnp.full(batch_size, tree.dropped, jnp.int32), jnp.zeros(batch_size)

    def init(obs: Array) -> PrioritizedState:
        return PrioritizedState(storage.init(obs), tree.init(), jnp.ones(()), *nothing())

    def wrote(state: PrioritizedState, stored: PyTree, written: Written) -> PrioritizedState:
        index = jnp.where(written.index < storage.capacity, written.index, tree.dropped)
        priority = jnp.where(written.drawable, state.highest, 0.0)
        if learns:
            survives = storage.survives(stored, state.waiting, written.count)
            index = jnp.concatenate([index, jnp.where(survives, state.waiting, tree.dropped)])
            priority = jnp.concatenate([priority, state.priority])
        return PrioritizedState(stored, tree.set(state.tree, index, priority), state.highest, *nothing())

    def add(state: PrioritizedState, items: PyTree) -> PrioritizedState:
        return wrote(state, *storage.add(state.stored, items))

    def begin(state: PrioritizedState, obs: Array) -> PrioritizedState:
        return wrote(state, *storage.begin(state.stored, obs))

    def sample(state: PrioritizedState, key: Key, t: Array) -> tuple[PrioritizedState, Transition]:
        if learns and updates > 1:
            written = tree.set(state.tree, state.waiting, state.priority)
            state = PrioritizedState(state.stored, written, state.highest, *nothing())
        index, probability = tree.sample(state.tree, key, batch_size)
        batch = storage.read(state.stored, index)
        if learns:
            size = storage.size(state.stored).astype(jnp.float32)
            batch = batch._replace(weight=(size * probability) ** -beta(t), index=index)
        return state, batch

    def feedback(state: PrioritizedState, batch: Transition, error: Array) -> PrioritizedState:
        if not learns:
            return state
        priority = (jnp.abs(error) + _SMALLEST) ** alpha
        return state._replace(highest=jnp.maximum(state.highest, priority.max()), waiting=batch.index, priority=priority)

    def reshard(state: PrioritizedState, devices: int) -> PrioritizedState:
        """[M, ...] as [devices, ...]: the priorities that wait are written, and the sums are computed again."""
        shards = len(state.highest)
        leaves = state.tree[0].reshape(shards, -1)
        leaves = jax.vmap(lambda x, i, p: x.at[i].set(p, mode="drop"))(leaves, state.waiting, state.priority)
        leaves = leaves[:, : storage.capacity * devices // shards].reshape(devices, storage.capacity)
        waiting, priority = (jnp.broadcast_to(x, (devices, batch_size)) for x in nothing())
        return PrioritizedState(axis.reshard(state.stored, 0, devices), jax.vmap(tree.of)(leaves),
                                jnp.broadcast_to(state.highest.max(), devices), waiting, priority)

    return Memory(init, storage.item, add, begin, sample, feedback, reshard)
