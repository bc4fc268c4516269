"""What a replay memory stores of a step, and how it gives a transition of n steps back.

`records` stores observation, action, reward, next observation and the two ends of an episode in one row. `frames` is for
observations that are stacks of frames: it stores a frame once, the newest of what each action led to, and puts stacks
together when they are read. There a reset has a row too, with the first frame of its episode, so that the last frame of an
episode and the first of the next are both stored; a row is no transition where it is a reset, or where the frames before it
have been overwritten.

A transition is put together when it is read, from n neighbours of one environment: it ends early at the end of an episode
and at the newest item, and then bootstraps from the last true observation it reached.

Shapes: `E` environments, `K` steps added at once, `B` batch, `n` steps of the return, `S` frames of a stack, `M` rows.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.rl import returns
from jaxdl.rl.replay import ring_buffer as memories
from jaxdl.rl.types import EnvSpec, Experience, TimeStep, Transition


class Written(NamedTuple):
    """What an `add` did to the rows of the memory."""

    index: Array  # [M] int32, beyond the end where nothing was written
    drawable: Array  # [M] bool: the row is now a transition
    count: Array  # int32 [E] or (): rows that each environment wrote


class Storage(NamedTuple):
    """Rings of steps as pure functions; an index is a row."""

    init: Callable[[Array], PyTree]  # (obs [E, ...]) -> state, with nothing in it
    item: Callable[[Array, Array, TimeStep], PyTree]  # (obs, action, what the step answered) -> what to store [E, ...]
    add: Callable[..., tuple[PyTree, Written]]  # (state, items [K, E, ...]) -> (state, written)
    begin: Callable[..., tuple[PyTree, Written]]  # (state, obs) -> (state, written): all environments begin anew
    survives: Callable[[PyTree, Array, Array], Array]  # (state, index [M], count) -> [M] bool: not lost to the last add
    draw: Callable[[PyTree, Key, int], Array] | None  # (state, key, B) -> index [B]: uniform; None: not without priorities
    read: Callable[[PyTree, Array], Transition]  # (state, index [B]) -> transitions
    size: Callable[[PyTree], Array]  # (state) -> rows in use, ()
    capacity: int  # rows


class _Step(NamedTuple):
    """A step without its observations."""

    action: Array
    reward: Array
    terminated: Array
    truncated: Array
    reset: Array  # the row is the first frame of an episode, and no transition


def _shape(space: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(space.shape, jax.dtypes.canonicalize_dtype(space.dtype))


_FLAG, _NUMBER = jax.ShapeDtypeStruct((), jnp.bool_), jax.ShapeDtypeStruct((), jnp.float32)


def experience_of(spec: EnvSpec) -> Experience:
    """One item of `records`, as shapes and dtypes."""
    obs = _shape(spec.observation_space)
    return Experience(obs, _shape(spec.action_space), _NUMBER, obs, _FLAG, _FLAG)


def records(spec: EnvSpec, *, num_envs: int, buffer_size: int, n_steps: int, gamma: Array) -> Storage:
    """Whole steps, one row each; a step that only reset its environment is left out.

    Args:
        spec: the environment.
        num_envs: E.
        buffer_size: rows, a multiple of `num_envs`.
        n_steps: n.
        gamma: discount per step, a number or a traced scalar.

    Raises:
        UserError: the environments cannot share `buffer_size`.
    """
    memory = memories.make(experience_of(spec), buffer_size, num_envs)

    def item(obs: Array, action: Array, ts: TimeStep) -> PyTree:
        return Experience(obs, action, ts.reward, ts.next_obs, ts.terminated, ts.truncated), ts.reset

    def add(state: memories.MemoryState, items: PyTree) -> tuple[memories.MemoryState, Written]:
        items, reset = items
        valid = None if reset is None else ~reset
        k = items.reward.shape[0]
        index = memory.places(state, k, valid).reshape(-1)
        count = jnp.asarray(k, jnp.int32) if valid is None else valid.sum(0, dtype=jnp.int32)
        return memory.add(state, items, valid), Written(index, index < buffer_size, count)

    def begin(state: memories.MemoryState, obs: Array) -> tuple[memories.MemoryState, Written]:
        # what was under way ends as by a truncation, or returns of n steps would go on into the new episodes
        state = memory.amend(state, lambda item: item._replace(truncated=~item.terminated))
        nothing = jnp.full(obs.shape[0], buffer_size, jnp.int32)
        return state, Written(nothing, jnp.zeros(obs.shape[0], bool), jnp.zeros((), jnp.int32))

    def survives(state: memories.MemoryState, index: Array, count: Array) -> Array:
        count = jnp.broadcast_to(count, num_envs)
        return memory.age(state, index) >= count.at[index // (buffer_size // num_envs)].get(mode="clip")

    def read(state: memories.MemoryState, index: Array) -> Transition:
        items, available = memory.read(state, index, n_steps)
        reward, discount, last = returns.n_step_transition(
            items.reward, items.terminated, items.terminated | items.truncated, available, gamma)
        first = jax.tree.map(lambda x: x[0], items)
        next_obs = first.next_obs
        if n_steps > 1:
            next_obs = items.next_obs.at[last, jnp.arange(index.shape[0])].get(mode="promise_in_bounds")
        return Transition(first.obs, first.action, reward, discount, next_obs)

    return Storage(lambda obs: memory.init(), item, add, begin, survives, memory.draw, read, lambda s: s.size.sum(),
                   buffer_size)


class FramesState(NamedTuple):
    """State of `frames`."""

    steps: memories.MemoryState  # of `_Step`s
    frames: Array  # [buffer_size, F] uint32: row by row the newest frame of the observation that the step led to


def frames(spec: EnvSpec, *, num_envs: int, buffer_size: int, n_steps: int, gamma: Array) -> Storage:
    """Each frame once, for environments that say when they reset (`TimeStep.reset`). Arguments as for `records`.

    Raises:
        UserError: the environments cannot share `buffer_size`, or their shares are too small for stacks.
    """
    stack, (size, *shape) = spec.stack, spec.observation_space.shape
    frame = jax.ShapeDtypeStruct(tuple(shape), jax.dtypes.canonicalize_dtype(spec.observation_space.dtype))
    memory = memories.make(_Step(_shape(spec.action_space), _NUMBER, _FLAG, _FLAG, _FLAG), buffer_size, num_envs)
    pixels = memories.layout(frame)
    length = buffer_size // num_envs
    if length < 2 * size + n_steps:
        raise UserError(f"buffer_size={buffer_size} leaves an environment {length} steps, too few for stacks of {size} "
                        f"frames and returns of {n_steps} steps; raise it to {num_envs * (2 * size + n_steps)}")

    def item(obs: Array, action: Array, ts: TimeStep) -> PyTree:
        return _Step(action, ts.reward, ts.terminated, ts.truncated, ts.reset), ts.next_obs[:, -1]

    def add(state: FramesState, items: PyTree) -> tuple[FramesState, Written]:
        steps, newest = items
        k = steps.reward.shape[0]
        index = memory.places(state.steps, k).reshape(-1)
        rows = pixels.pack(newest).reshape(-1, pixels.width)
        state = FramesState(memory.add(state.steps, steps),
                            memories.write(state.frames, index, rows))
        lost = min(k, size)
        oldest = jnp.arange(lost, dtype=jnp.int32)[:, None] + size - lost  # whose stacks have just lost a frame
        retired = (state.steps.cursor + oldest) % length + length * jnp.arange(num_envs, dtype=jnp.int32)
        index = jnp.concatenate([index, retired.reshape(-1)])
        whole = jnp.arange(k)[:, None] >= k - (length - size)  # of so many steps at once the first have lost frames already
        drawable = jnp.concatenate([(~steps.reset & whole).reshape(-1), jnp.zeros(lost * num_envs, bool)])
        return state, Written(index, drawable, jnp.asarray(k, jnp.int32))

    def begin(state: FramesState, obs: Array) -> tuple[FramesState, Written]:
        cut = memory.amend(state.steps, lambda item: item._replace(truncated=~item.terminated & ~item.reset))
        no, action = jnp.zeros(num_envs, bool), _shape(spec.action_space)
        first = _Step(jnp.zeros((num_envs, *action.shape), action.dtype), jnp.zeros(num_envs), no, no, ~no)
        return add(state._replace(steps=cut), jax.tree.map(lambda x: x[None], (first, obs[:, -1])))

    def init(obs: Array) -> FramesState:
        empty = FramesState(memory.init(), jnp.zeros((buffer_size, pixels.width), jnp.uint32))
        return begin(empty, obs)[0]

    def survives(state: FramesState, index: Array, count: Array) -> Array:
        age = memory.age(state.steps, index)
        return (age >= count) & (age < length - size)

    def behind(index: Array, offset: Array) -> Array:
        first = index // length * length
        slot = index - first - offset
        return first + jnp.where(slot < 0, slot + length, slot)

    def stacks(state: FramesState, index: Array, width: int) -> Array:
        """The `width` frames [B, width, ...] that end with those of rows [B], padded before the first of the episode.

        A row that follows the first of its episode says so for the rows that it can see: of the last `width` rows all but
        the oldest.
        """
        offset = jnp.arange(width, dtype=jnp.int32)
        rows = behind(index[:, None], offset)  # the newest first
        is_first = memory.read(state.steps, rows[:, :-1].reshape(-1))[0].reset.reshape(-1, width - 1)
        before = jnp.cumsum(is_first, 1, dtype=jnp.int32)  # 0 up to and with the episode's first row, were it shifted by one
        inside = jnp.concatenate([jnp.ones((index.shape[0], 1), bool), before == 0], 1)
        last = inside.sum(1, dtype=jnp.int32)[:, None] - 1
        found = behind(index[:, None], jnp.minimum(offset, last))[:, ::-1]
        words = state.frames.at[found].get(mode="promise_in_bounds")
        seen = pixels.unpack(words)
        if stack.padding == "zero":
            seen = jnp.where(inside[:, ::-1].reshape(*inside.shape, *[1] * len(shape)), seen, 0)
        return seen

    def read(state: FramesState, index: Array) -> Transition:
        steps, available = memory.read(state.steps, index, n_steps)
        reward, discount, last = returns.n_step_transition(
            steps.reward, steps.terminated, steps.terminated | steps.truncated, available, gamma)
        if n_steps == 1:  # both stacks lie in one row of frames
            both = stacks(state, index, size + 1)
            obs, next_obs = both[:, :-1], both[:, 1:]
        else:
            reached = index // length * length + (index % length + last) % length
            both = stacks(state, jnp.concatenate([behind(index, jnp.ones((), jnp.int32)), reached]), size)
            obs, next_obs = jnp.split(both, 2)
        return Transition(obs, steps.action[0], reward, discount, next_obs)

    return Storage(init, item, add, begin, survives, None, read, lambda s: s.steps.size.sum(), buffer_size)
