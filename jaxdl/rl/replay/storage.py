"""Storage of steps in a replay memory, and the transitions of n steps that are read from it.

`full_transitions` stores observation, action, reward, next observation and the two ends of an episode in one row.
`frame_storage.deduplicated_frames` stores each frame of stacked observations once.

A transition is put together when it is read, from n neighbours of one environment: it ends early at the end of an episode
and at the newest item, and then bootstraps from the last true observation it reached.

Shapes: `E` environments, `K` steps added at once, `B` batch, `n` steps of the return, `M` rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key, PyTree
from jaxdl.rl import returns
from jaxdl.rl.replay import ring_buffer
from jaxdl.rl.replay.ring_buffer import RingState
from jaxdl.rl.types import EnvSpec, Experience, TimeStep, Transition


class WriteResult(NamedTuple):
    """The rows that a write changed, for whoever keeps something beside them (a priority)."""

    index: Array  # [M] int32, beyond the end where nothing was written
    is_transition: Array  # [M] bool: the row can now be read as a transition
    count: Array  # int32 [E] or (): rows that each environment wrote


class Storage(NamedTuple):
    """Rings of steps as pure functions. An index is a row."""

    init: Callable[[Array], PyTree]  # (obs [E, ...]) -> state without transitions
    item: Callable[[Array, Array, TimeStep], PyTree]  # (obs, action, TimeStep) -> what is stored of them [E, ...]
    add: Callable[[PyTree, PyTree], tuple[PyTree, WriteResult]]  # (state, items [K, E, ...])
    restart: Callable[[PyTree, Array], tuple[PyTree, WriteResult]]  # (state, obs): all environments were reset
    still_valid: Callable[[PyTree, Array, Array], Array]  # (state, index [M], count) -> [M] bool: transitions before the last
    # write, of `count` rows, and after it
    sample_indices: Callable[[PyTree, Key, int], Array] | None  # (state, key, B) -> index [B], uniform over all rows; None: not
    # every row is a transition
    read: Callable[[PyTree, Array], Transition]  # (state, index [B]) -> transitions
    size: Callable[[PyTree], Array]  # (state) -> rows in use, ()
    capacity: int  # rows


FLAG, NUMBER = jax.ShapeDtypeStruct((), jnp.bool_), jax.ShapeDtypeStruct((), jnp.float32)


def shape_of(space: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of one value of a space, as JAX holds it."""
    return jax.ShapeDtypeStruct(space.shape, jax.dtypes.canonicalize_dtype(space.dtype))


def experience_of(spec: EnvSpec) -> Experience:
    """One item of `full_transitions`, as shapes and dtypes."""
    obs = shape_of(spec.observation_space)
    return Experience(obs, shape_of(spec.action_space), NUMBER, obs, FLAG, FLAG)


def full_transitions(spec: EnvSpec, *, num_envs: int, buffer_size: int, n_steps: int, gamma: Array) -> Storage:
    """Steps with both of their observations, one row each; a step that only reset its environment is left out.

    Args:
        spec: the environment.
        num_envs: E.
        buffer_size: rows, a multiple of `num_envs`.
        n_steps: n.
        gamma: discount per step, a number or a traced scalar.

    Raises:
        UserError: the environments cannot share `buffer_size`.
    """
    buffer = ring_buffer.make(experience_of(spec), buffer_size, num_envs)

    def item(obs: Array, action: Array, ts: TimeStep) -> PyTree:
        return Experience(obs, action, ts.reward, ts.next_obs, ts.terminated, ts.truncated), ts.reset

    def add(state: RingState, items: PyTree) -> tuple[RingState, WriteResult]:
        items, reset = items
        valid = None if reset is None else ~reset
        k = items.reward.shape[0]
        index = buffer.write_indices(state, k, valid).reshape(-1)
        count = jnp.asarray(k, jnp.int32) if valid is None else valid.sum(0, dtype=jnp.int32)
        return buffer.add(state, items, valid), WriteResult(index, index < buffer_size, count)

    def restart(state: RingState, obs: Array) -> tuple[RingState, WriteResult]:
        # unfinished episodes are truncated, or returns of n steps would go on into the new ones
        state = buffer.update_newest(state, lambda item: item._replace(truncated=~item.terminated))
        nothing = jnp.full(obs.shape[0], buffer_size, jnp.int32)
        return state, WriteResult(nothing, jnp.zeros(obs.shape[0], bool), jnp.zeros((), jnp.int32))

    def still_valid(state: RingState, index: Array, count: Array) -> Array:
        count = jnp.broadcast_to(count, num_envs)
        return buffer.age(state, index) >= count.at[index // (buffer_size // num_envs)].get(mode="clip")

    def read(state: RingState, index: Array) -> Transition:
        items, available = buffer.read(state, index, n_steps)
        reward, discount, last = returns.n_step_transition(
            items.reward, items.terminated, items.terminated | items.truncated, available, gamma)
        first = jax.tree.map(lambda x: x[0], items)
        next_obs = first.next_obs
        if n_steps > 1:
            next_obs = items.next_obs.at[last, jnp.arange(index.shape[0])].get(mode="promise_in_bounds")
        return Transition(first.obs, first.action, reward, discount, next_obs)

    return Storage(lambda obs: buffer.init(), item, add, restart, still_valid, buffer.sample_indices, read,
                   lambda state: state.size.sum(), buffer_size)
