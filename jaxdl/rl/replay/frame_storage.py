"""Storage of stacked observations in which each frame is stored once: 7.1 kB for a transition of Atari in place of 56.

A row holds a step without its observations, and the newest frame of the observation that the step led to. A reset has a row
too, with the first frame of its episode. Stacks are put together when transitions are read. One ring, for stacks of S = 4:

    slot     0   1   2   3   4   5   6   7  |  8   9  10  11  12  13  14
    frame   a7  a8  a9  b0  b1  b2  b3  b4  | a-1 a0  a1  a2  a3  a4  a5 ...
    step     .   .   .   R   .   .   .   .  |  x   x   x   x   .   .   .
                                            ^ cursor: the oldest row, which is overwritten next

- The step of slot 6 has the `obs` that ends one row before it, [b0 b0 b1 b2] (or with a zero in place of the repeated b0),
  and the `next_obs` that ends with it, [b0 b1 b2 b3]. Both lie in the S + 1 rows that end with slot 6.
- R, the first row of an episode, is a reset and no transition. Frames of rows before it belong to another episode.
- x, the S oldest rows, are no transitions: frames of their `obs` have been overwritten.

Shapes: `E` environments, `K` steps added at once, `B` batch, `n` steps of the return, `S` frames of a stack, `W` rows of a
window, `F` words of a frame.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.errors import UserError
from jaxdl.core.types import Array
from jaxdl.rl import returns
from jaxdl.rl.replay import ring_buffer
from jaxdl.rl.replay.ring_buffer import Layout, Ring, RingBuffer, RingState
from jaxdl.rl.replay.storage import FLAG, NUMBER, Storage, WriteResult, shape_of
from jaxdl.rl.types import EnvSpec, Experience, TimeStep, Transition


class FramesState(NamedTuple):
    """State of `deduplicated_frames`."""

    steps: RingState  # of `Experience` without observations
    frames: Array  # [E * L, F] uint32: in each row the newest frame of the observation that its step led to


class _Frames(NamedTuple):
    """What the functions of a storage of frames share."""

    spec: EnvSpec
    ring: Ring
    steps: RingBuffer  # of `Experience` without observations
    pixels: Layout  # of a frame
    n_steps: int
    gamma: Array


def deduplicated_frames(spec: EnvSpec, *, num_envs: int, buffer_size: int, n_steps: int, gamma: Array) -> Storage:
    """Each frame once, for stacked observations of environments that reset in steps of their own (`TimeStep.reset`).

    Args:
        spec: the environment; its observations are stacks.
        num_envs: E.
        buffer_size: rows, a multiple of `num_envs`.
        n_steps: n.
        gamma: discount per step, a number or a traced scalar.

    Raises:
        UserError: the environments cannot share `buffer_size`, or their shares are too small for stacks.
    """
    size, *shape = spec.observation_space.shape
    frame = jax.ShapeDtypeStruct(tuple(shape), jax.dtypes.canonicalize_dtype(spec.observation_space.dtype))
    step = Experience(None, shape_of(spec.action_space), NUMBER, None, FLAG, FLAG, FLAG)
    steps = ring_buffer.make(step, buffer_size, num_envs)
    ring = Ring(buffer_size // num_envs, num_envs)
    if ring.length < 2 * size + n_steps:
        raise UserError(f"buffer_size={buffer_size} leaves an environment {ring.length} steps, too few for stacks of {size} "
                        f"frames and returns of {n_steps} steps; raise it to {num_envs * (2 * size + n_steps)}")
    f = _Frames(spec, ring, steps, Layout.of(frame), n_steps, gamma)

    def init(obs: Array) -> FramesState:
        return restart(f, FramesState(steps.init(), jnp.zeros((buffer_size, f.pixels.width), jnp.uint32)), obs)[0]

    add_, restart_, still_valid_, read_ = (functools.partial(g, f) for g in (add, restart, still_valid, read))
    return Storage(init, item, add_, restart_, still_valid_, None, read_, lambda state: state.steps.size.sum(), buffer_size)


def item(obs: Array, action: Array, ts: TimeStep) -> tuple[Experience, Array]:
    """What is stored of a step: the step itself, and the newest frame of what it led to."""
    del obs
    return Experience(None, action, ts.reward, None, ts.terminated, ts.truncated, ts.reset), ts.next_obs[:, -1]


def add(f: _Frames, state: FramesState, items: tuple[Experience, Array]) -> tuple[FramesState, WriteResult]:
    """Write steps [K, E, ...] and their frames; the rows that follow them have lost a frame and are transitions no more."""
    steps, frames = items
    k, size = steps.reward.shape[0], f.spec.stack.frames
    index = f.steps.write_indices(state.steps, k).reshape(-1)
    rows = f.pixels.pack(frames).reshape(-1, f.pixels.width)
    state = FramesState(f.steps.add(state.steps, steps), ring_buffer.write(state.frames, index, rows))
    lost = min(k, size)  # of the S oldest rows the last ones were transitions until now
    oldest = jnp.arange(lost, dtype=jnp.int32)[:, None] + size - lost
    retired = f.ring.rows_of(f.ring.wrap(state.steps.cursor + oldest))
    has_frames = jnp.arange(k)[:, None] >= k - (f.ring.length - size)  # of very many steps the first lost theirs at once
    is_transition = jnp.concatenate([(~steps.reset & has_frames).reshape(-1), jnp.zeros(retired.size, bool)])
    return state, WriteResult(jnp.concatenate([index, retired.reshape(-1)]), is_transition, jnp.asarray(k, jnp.int32))


def restart(f: _Frames, state: FramesState, obs: Array) -> tuple[FramesState, WriteResult]:
    """Truncate the unfinished episodes and write a reset with the newest frame of `obs` [E, S, ...]."""
    cut = f.steps.update_newest(state.steps, lambda step: step._replace(truncated=~step.terminated & ~step.reset))
    num_envs, action = f.ring.num_envs, shape_of(f.spec.action_space)
    no = jnp.zeros(num_envs, bool)
    no_action = jnp.zeros((num_envs, *action.shape), action.dtype)
    first = Experience(None, no_action, jnp.zeros(num_envs), None, no, no, ~no)
    return add(f, state._replace(steps=cut), jax.tree.map(lambda x: x[None], (first, obs[:, -1])))


def still_valid(f: _Frames, state: FramesState, index: Array, count: Array) -> Array:
    """Whether transitions [M] have neither been overwritten by the last `count` rows nor lost frames; bool [M]."""
    age = f.steps.age(state.steps, index)
    return (age >= count) & (age < f.ring.length - f.spec.stack.frames)


def read(f: _Frames, state: FramesState, index: Array) -> Transition:
    """Transitions of n steps that begin at rows [B]."""
    steps, available = f.steps.read(state.steps, index, f.n_steps)
    reward, discount, last = returns.n_step_transition(
        steps.reward, steps.terminated, steps.terminated | steps.truncated, available, f.gamma)
    size = f.spec.stack.frames
    if f.n_steps == 1:  # both stacks lie in one window, and most frames are read once
        window = stacks(f, state, index, size + 1)
        obs, next_obs = window[:, :-1], window[:, 1:]
    else:
        ends = [f.ring.behind(index, jnp.ones((), jnp.int32)), f.ring.ahead(index, last)]
        obs, next_obs = jnp.split(stacks(f, state, jnp.concatenate(ends), size), 2)
    return Transition(obs, steps.action[0], reward, discount, next_obs)


def stacks(f: _Frames, state: FramesState, index: Array, width: int) -> Array:
    """The frames [B, W, ...] of `width` rows that end with rows [B], padded before the first frame of the episode."""
    ages = jnp.arange(width, dtype=jnp.int32)  # 0 is the newest frame
    window = f.ring.behind(index[:, None], ages)
    is_first = f.steps.read(state.steps, window[:, :-1].reshape(-1))[0].reset.reshape(-1, width - 1)
    # a frame is of another episode where a newer row of the window is the first of its episode
    same_episode = jnp.cumsum(is_first, 1, dtype=jnp.int32) == 0
    inside_episode = jnp.concatenate([jnp.ones((index.shape[0], 1), bool), same_episode], 1)
    first_age = inside_episode.sum(1, dtype=jnp.int32)[:, None] - 1  # of the oldest frame of the episode
    rows = f.ring.behind(index[:, None], jnp.minimum(ages, first_age))[:, ::-1]  # the oldest first, the first repeated
    frames = f.pixels.unpack(state.frames.at[rows].get(mode="promise_in_bounds"))
    if f.spec.stack.padding == "zero":
        inside = inside_episode[:, ::-1]
        frames = jnp.where(inside.reshape(*inside.shape, *[1] * (frames.ndim - 2)), frames, 0)
    return frames
