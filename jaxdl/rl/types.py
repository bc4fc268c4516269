"""Signatures of reinforcement learning: environments, what they answer, policies, and runs with environments on the host.

Shapes: `B` batch, `N` environments, `T` time, `...` the shape of one observation or action.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import gymnasium
import jax.numpy as jnp
import numpy as np

from jaxdl.core.types import Array, Key, Learner, Metrics, PyTree, RunState, no_feedback


class Stack(NamedTuple):
    """An observation that is several frames, the oldest first along its leading axis."""

    frames: int
    padding: Literal["zero", "repeat"]  # what stands for the frames before an episode's first: zeros, or that first one


# Where an environment runs. "jax": its state is an array, on the device alone. "host": it is one of Gymnasium's, and may have
# a twin in JAX to train on. "emulator": its state is an emulator's, outside JAX, even where compiled programs can call it.
Lives = Literal["jax", "host", "emulator"]


class EnvSpec(NamedTuple):
    """What is known of an environment before it is made."""

    id: str
    observation_space: gymnasium.Space  # of one environment
    action_space: gymnasium.Space  # of one environment
    max_episode_steps: int | None
    stack: Stack | None = None  # observations are [frames, ...]; None: they are no stacks
    lives: Lives = "jax"
    lives_lost_end_returns: bool = False  # `terminated` may be a lost life, after which the game and its score go on


class TimeStep(NamedTuple):
    """The answer of N environments to N actions.

    An environment whose episode ends is reset in one of two ways. Within the same step: `obs` is then the first observation
    of the next episode, and `next_obs` the last of the old one. Or in a step of its own, which `reset` marks and which is no
    transition (Gymnasium's NEXT_STEP autoreset): its reward is 0, its action was ignored, and `obs` is always the successor.
    """

    obs: Array  # [N, ...] what the policy sees next
    reward: Array  # [N] float32
    terminated: Array  # [N] bool: the task ended; there is no value after it
    truncated: Array  # [N] bool: the recording ended (a time limit); the value goes on
    next_obs: Array | None = None  # [N, ...] the true successor, also where an episode ended; None: it is `obs`
    reset: Array | None = None  # [N] bool: this step only reset the environment; None: no step does


def pack_step(step: TimeStep, *more: Array) -> Array:
    """Reward, `terminated`, `truncated` and `more` [N] as the rows of one float32 array [3 + k, N]; of NumPy a NumPy array.

    One array, because each that a loop on a GPU writes costs a kernel a step, and each that the host gives to a program 2.5
    microseconds.
    """
    rows = step.reward, step.terminated, step.truncated, *more
    return np.array(rows, np.float32) if isinstance(step.reward, np.ndarray) else jnp.stack(rows)


def unpack_step(rows: Array) -> tuple[Array, ...]:
    """The reward and the flags that `pack_step` made rows of; `more` are taken for flags."""
    return rows[0], *(rows[1:] > 0)


class Env(NamedTuple):
    """N copies of an environment as pure functions on the device."""

    spec: EnvSpec
    reset: Callable[[Key, int], tuple[PyTree, Array]]  # (key, N) -> (state, obs [N, ...])
    step: Callable[[PyTree, Array, PyTree], tuple[PyTree, TimeStep]]  # (state, action [N, ...], noise) -> (state, TimeStep)
    keys: int  # k: random keys that a step takes for each environment
    sample_noise: Callable[[Key], PyTree] = lambda keys: keys  # (keys [k, N]) -> noise [..., N, ...], drawn without the state

    @property
    def outside_jax(self) -> bool:
        """Whether the state is an emulator's: it cannot be checkpointed, copied or vmapped, and resets are steps."""
        return self.spec.lives == "emulator"


class Experience(NamedTuple):
    """One step of one environment as a replay memory stores it. What is None is stored elsewhere or not at all."""

    obs: Array | None
    action: Array
    reward: Array
    next_obs: Array | None
    terminated: Array
    truncated: Array
    reset: Array | None = None  # bool: the step only reset the environment


class Transition(NamedTuple):
    """What a Q-learner learns from: `reward + discount * value(next_obs)` is the target of `(obs, action)`."""

    obs: Array  # [B, ...]
    action: Array  # [B, ...]
    reward: Array  # [B] float32: the discounted sum of the rewards of the n steps
    discount: Array  # [B] float32: gamma ** n, and 0 where the episode terminated
    next_obs: Array  # [B, ...] the observation n steps on, or the last true one of the episode
    weight: Array | None = None  # [B] float32: of its loss, where some are drawn more often than others
    index: Array | None = None  # [B] int32: where the memory has it, to be given a new priority


class Trajectory(NamedTuple):
    """What a policy-gradient learner learns from: `T` consecutive steps of each of `B` environments by the current policy."""

    obs: Array  # [T, B, ...]
    choice: PyTree  # [T, B, ...] what the actor said of its action: itself before bounds, its distribution
    reward: Array  # [T, B] float32
    next_obs: Array  # [T, B, ...] the true successor, also where an episode ended inside
    terminated: Array  # [T, B] bool: no value after it
    truncated: Array  # [T, B] bool: the value goes on, the recording does not
    first: Array  # [T, B] bool: `obs` is the first of an episode, the recurrent state is new
    valid: Array  # [T, B] bool: false where a step only reset its environment
    carry: PyTree  # [B, ...] the recurrent state before the first step
    earlier: Array | None = None  # float32 (): environment steps before it, in rollouts; None: as many as were learned from


class Actor(NamedTuple):
    """A policy. `t` is the number of environment steps taken so far, unbatched, for schedules."""

    init: Callable[[int], PyTree]  # (N) -> recurrent carry, None where there is none
    act: Callable[..., tuple[PyTree, Array, PyTree]]  # (params, carry, obs [N, ...], noise, t) -> (carry, action, extras)
    # extras: for replay metrics by name, for rollouts what the learner needs of the action (`Trajectory.choice`)
    sample_noise: Callable[[Key, int], PyTree] = lambda key, n: key  # (key, N) -> noise, drawn without observations


class Agent(NamedTuple):
    """A learner with its two policies."""

    learner: Learner
    explore: Actor
    greedy: Actor
    outputs: Callable[[PyTree, PyTree, Array], Array] | None = None  # (params, carry, obs [N, ...]) -> [N, K]: what actions
    # are chosen by: values, logits, or means
    value: Callable[[PyTree, PyTree, Array], Array] | None = None  # (params, carry, obs [N, ...]) -> [N]: what is expected


class HostSource(NamedTuple):
    """A source whose environments live on the host: what they answer comes in from outside, a vector step at a time."""

    init: Callable[[Array], PyTree]  # (obs [N, ...]) -> source state
    restart: Callable[[PyTree, Array], PyTree]  # (source state, obs) -> source state: all environments begin anew
    observe: Callable[[PyTree, TimeStep], tuple[PyTree, Metrics]]  # (source state, step) -> (source state, metrics)
    act: Callable[..., tuple[PyTree, Array, Metrics]]  # (source state, params, key, t) -> (state, action, metrics)
    sample: Callable[..., tuple[PyTree, PyTree]]  # as in Source
    feedback: Callable[..., PyTree] = no_feedback  # as in Source
    env_axis: PyTree = None  # as in Source
    without_memory: Callable[[PyTree], PyTree] | None = None  # as in Source
    prepare: Callable[[PyTree, Key], PyTree] | None = None  # draws what acts need until the next sample; they get no key then


class HostRun(NamedTuple):
    """A training run whose environments live on the host: the same state, one call a vector step."""

    init: Callable[[Key, Array], RunState]  # (key, obs [N, ...]) -> state
    restart: Callable[[RunState, Array], RunState]  # (state, obs) -> state: after a checkpoint was read
    keys: Callable[[RunState], tuple[RunState, Key, Key]]  # (state) -> (state, key to act with, [updates, 2] to learn with)
    act: Callable[[RunState, Key | None], tuple[RunState, Array, Metrics]]  # (state, key) -> (state, action [N, ...], metrics)
    observe: Callable[[RunState, TimeStep], tuple[RunState, Metrics]]  # (state, step) -> (state, metrics)
    learn: Callable[[RunState, Key], tuple[RunState, Metrics]]  # (state, key) -> (state, metrics)
    num_envs: int
    stride: int  # environment steps of one round, after which `updates` are made; where `rows` counts it, the most it has
    rows: int | None  # vector steps of one round; None: it ends with the step that would else be the last before `stride`
    first_step: int  # environment steps of the warm-up, in which nothing is learned
    updates: int  # updates in one round
    params: Callable[[RunState], PyTree]
    source: HostSource
    ahead: bool = False  # acting needs a key only after learning: the source draws ahead
