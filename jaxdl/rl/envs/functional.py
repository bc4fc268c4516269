"""Environments on the device: N copies of a Gymnasium `FuncEnv` as one pair of pure functions.

An episode that ends is reset within the same step. The step returns both the true successor and the first observation of the
next episode, which the policy sees next. A time limit truncates without terminating (`jaxdl.rl.types.TimeStep`).

Shapes: `N` environments, `S` frames of a stack.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnasium.experimental.functional import FuncEnv
from gymnasium.vector.utils import batch_space

from jaxdl.core.types import Array, Key, PyTree
from jaxdl.rl.envs import composite_spaces
from jaxdl.rl.envs.config import Config
from jaxdl.rl.envs.family import Backend, Family, Vectorization
from jaxdl.rl.envs.host_envs import HostEnvs
from jaxdl.rl.types import Env, EnvSpec, Lives, Stack, TimeStep


class FunctionalState(NamedTuple):
    """State of N environments."""

    inner: PyTree  # the FuncEnv's, with a leading axis N
    steps: Array  # [N] int32 of the current episode


class StepNoise(NamedTuple):
    """Noise of one step of N environments: keys [N], and the first states of the episodes that begin where one ends."""

    move: Key
    reward: Key
    end: Key
    obs: Key
    fresh: PyTree  # states [N, ...]
    first: Array  # their observations [N, ...]


def family(load: Callable[[str, Config], FuncEnv], contains: Callable[[str], bool], ids: Callable[[], list[str]], *,
           lives: Lives = "jax", backends: tuple[Backend, ...] = ("device",), check: Callable[[Env], Env] = lambda env: env,
           make_host: Callable[[str, int, Vectorization, Config], HostEnvs] | None = None) -> Family:
    """The family of the `FuncEnv`s that `load` makes of ids.

    Args:
        load: (id, settings) -> the environment. Its attribute `max_episode_steps`, if it has one, is its time limit.
        contains: as in `Family`, like all that follow but `check`.
        ids: ids that can be made here.
        lives: where the original runs.
        backends: where it can run.
        check: (Env) -> the same, or an `EnvError`.
        make_host: makes the original, where there is one on the host.
    """
    def one(env_id: str, settings: Config) -> tuple[FuncEnv, EnvSpec]:
        env = load(env_id, settings)
        limit = getattr(env, "max_episode_steps", None) if settings.time_limit is None else settings.time_limit
        space = composite_spaces.flat_space(env_id, env.observation_space)
        return env, EnvSpec(env_id, space, env.action_space, limit, lives=lives)

    def spec(env_id: str, settings: Config) -> EnvSpec:
        return stacked_spec(one(env_id, settings)[1], settings.frame_stack)

    def make_device(env_id: str, settings: Config, num_envs: int | None) -> Env:
        del num_envs
        return check(stacked(adapt(*one(env_id, settings)), settings.frame_stack))

    return Family(lives, contains, ids, lambda env_id: backends, spec, make_device, make_host, load)


def adapt(env: FuncEnv, spec: EnvSpec) -> Env:
    """N copies of `env`, whose episodes are truncated after `spec.max_episode_steps` (None: never).

    `Dict` and `Tuple` observations are flattened (`composite_spaces`). A key that the environment does not use costs nothing,
    because the compiler removes it. A new episode is drawn for every environment at every step, used or not: programs without
    branches are what a device runs well, and a rollout draws the noise of all its steps at once.

    Raises:
        EnvError: when traced: Dict or Tuple observations are not in the environment's space.
    """
    parameters, space = env.default_params, getattr(env, "observation_space", None)

    def initial(keys: Array) -> PyTree:
        return jax.vmap(lambda k: env.initial(k, parameters))(keys)

    def observe(state: PyTree, keys: Array) -> Array:
        def one(s: PyTree, k: Key) -> Array:
            obs = env.observation(s, k, parameters)
            if not composite_spaces.has_parts(space):
                return obs
            composite_spaces.check(spec.id, space, obs)
            return composite_spaces.flatten(space, obs)

        return jax.vmap(one)(state, keys)

    def reset(key: Key, n: int) -> tuple[FunctionalState, Array]:
        k_state, k_obs = jax.random.split(key, (2, n))
        state = initial(k_state)
        return FunctionalState(state, jnp.zeros(n, jnp.int32)), observe(state, k_obs)

    def sample_noise(keys: Key) -> StepNoise:
        fresh = initial(keys[4])
        return StepNoise(*keys[:4], fresh, observe(fresh, keys[5]))

    def step(state: FunctionalState, action: Array, noise: StepNoise) -> tuple[FunctionalState, TimeStep]:
        def move(s, a, k_move, k_reward, k_end):
            successor = env.transition(s, a, k_move, parameters)
            reward = env.reward(s, a, successor, k_reward, parameters)
            return successor, jnp.asarray(reward, jnp.float32), jnp.asarray(env.terminal(successor, k_end, parameters), bool)

        successor, reward, terminated = jax.vmap(move)(state.inner, action, *noise[:3])
        steps = state.steps + 1
        truncated = jnp.zeros_like(terminated) if spec.max_episode_steps is None else steps >= spec.max_episode_steps
        done = terminated | truncated
        next_obs = observe(successor, noise.obs)
        inner = jax.tree.map(lambda new, old: _where(done, new, old), noise.fresh, successor)
        obs = _where(done, noise.first, next_obs)
        return FunctionalState(inner, jnp.where(done, 0, steps)), TimeStep(obs, reward, terminated, truncated, next_obs)

    return Env(spec, reset, step, keys=6, sample_noise=sample_noise)


class StackState(NamedTuple):
    """State of N environments whose observations are stacked."""

    inner: PyTree  # the environments'
    frames: Array  # [N, S, ...] the last observations of the current episode, the oldest first


def stacked_spec(spec: EnvSpec, frames: int) -> EnvSpec:
    """The spec of an environment whose last observations are stacked along a leading axis; of one frame, `spec` itself."""
    if frames == 1:
        return spec
    return spec._replace(observation_space=batch_space(spec.observation_space, frames), stack=Stack(frames, "repeat"))


def stacked(env: Env, frames: int) -> Env:
    """`env` with its last `frames` observations in one: Gymnasium's FrameStackObservation with the padding "reset".

    The first observation of an episode stands for those before it.
    """
    if frames == 1:
        return env

    def begin(obs: Array) -> Array:
        return jnp.repeat(obs[:, None], frames, axis=1)

    def reset(key: Key, n: int) -> tuple[StackState, Array]:
        inner, obs = env.reset(key, n)
        stack = begin(obs)
        return StackState(inner, stack), stack

    def step(state: StackState, action: Array, noise: PyTree) -> tuple[StackState, TimeStep]:
        inner, out = env.step(state.inner, action, noise)
        successor = jnp.concatenate([state.frames[:, 1:], out.next_obs[:, None]], axis=1)
        stack = _where(out.terminated | out.truncated, begin(out.obs), successor)
        return StackState(inner, stack), out._replace(obs=stack, next_obs=successor)

    return env._replace(spec=stacked_spec(env.spec, frames), reset=reset, step=step)


def _where(mask: Array, x: Array, y: Array) -> Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 1)), x, y)
