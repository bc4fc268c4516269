"""Atari games through ALE's vector environment, stepped from the host or from within a compiled program.

Bellemare et al., "The Arcade Learning Environment" (2013), with the usual preprocessing (Mnih et al. 2015): a random
number of actions that do nothing (`noop_max`), FIRE where a game begins with it, `frame_skip` frames an action with the
maximum of the last two, 84 x 84 grey, `atari_stack` frames. Observations are uint8 [S, 84, 84], the oldest frame first,
zeros before an episode's first. Rewards are the game's, unclipped.

With `episodic_life` a lost life is `terminated`, and the game goes on: the next step is a transition like any other. Only the
step after a game's end resets it. A reset is recognized by the number of frames of all earlier games, which changes with a
reset alone. An action out of range would hang ALE for ever, so actions are clipped.

Shapes: `N` environments, `S` frames.
"""

import contextlib
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core import processes
from jaxdl.core.errors import EnvError
from jaxdl.core.types import Array, Key
from jaxdl.rl.envs import gymnasium_envs
from jaxdl.rl.envs.config import Config
from jaxdl.rl.envs.family import Family, Vectorization
from jaxdl.rl.envs.host_envs import HostEnvs, make_checked
from jaxdl.rl.types import Env, EnvSpec, Stack, TimeStep

_PREFIX = "ALE/"  # of all ids


class AtariState(NamedTuple):
    """A handle to N games, whose state is in ALE, outside JAX and in no checkpoint."""

    handle: Array  # [8] uint8: an address in this process
    earlier: Array  # [N] int32: frames of the games before this one


def ids() -> list[str]:
    """Games that can be made here."""
    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401  # registers them
    return gymnasium_envs.newest("ALE")


def backends(env_id: str) -> tuple[str, ...]:
    """Where a game runs, the preferred one first.

    Raises:
        EnvError: ale_py is not installed.
    """
    return ("device", "host") if gymnasium_envs.or_env_error(env_id, on_device, "atari") else ("host",)


def on_device() -> bool:
    """Whether ALE can be called from programs of JAX's default backend."""
    import ale_py

    backend = jax.default_backend()
    return backend == "cpu" or (backend == "gpu" and hasattr(ale_py._ale_py, "VectorXLAStepGPU"))


def spec(env_id: str, settings: Config) -> EnvSpec:
    """The spec of a game, of which one is made.

    Raises:
        EnvError: there is none of this id, ale_py is not installed, or the settings are not for Atari.
    """
    return _spec(env_id, settings, _vector(env_id, settings, 1))


def make_host(env_id: str, num_envs: int, vectorization: Vectorization, settings: Config) -> HostEnvs:
    """N games on the host.

    Raises:
        EnvError: as in `spec`; or `vectorization` is not ALE's own.
    """
    if vectorization in ("sync", "async"):
        raise EnvError(f"{env_id} has threads of its own for its games; use vectorization=auto")
    def make() -> Any:
        venv = _vector(env_id, settings, num_envs)
        step, last = venv.step, venv.single_action_space.n - 1
        venv.step = lambda action: step(np.clip(action, 0, last))
        return venv

    return make_checked(env_id, settings.env_timeout, make, episodes=_earlier)


def make_device(env_id: str, settings: Config, num_envs: int | None) -> Env:
    """N games as functions for compiled programs. They exist once, outside JAX: every state is a handle to the same N games.

    A reset starts new games, whatever state it is given; a handle is of no use in another process.

    Raises:
        EnvError: as in `spec`; or `num_envs` was not given.
    """
    if num_envs is None:
        raise EnvError(f"{env_id} must be told how many environments to make: num_envs")
    venv = _vector(env_id, settings, num_envs)
    last = int(venv.single_action_space.n) - 1
    handle, xla_reset, xla_step = venv.xla()
    handle = np.asarray(handle)

    def reset(key: Key, n: int) -> tuple[AtariState, Array]:
        if n != num_envs:
            raise EnvError(f"{env_id} was made with {num_envs} environments and cannot be reset as {n}")
        seeds = jax.random.randint(key, (n,), 0, np.iinfo(np.int32).max)
        after, (obs, info) = xla_reset(handle, seeds)
        return AtariState(after, _earlier(info)), obs

    def step(state: AtariState, action: Array, keys: Key) -> tuple[AtariState, TimeStep]:
        del keys
        after, (obs, reward, terminated, truncated, info) = xla_step(
            state.handle, jnp.clip(action, 0, last).astype(jnp.int32))
        earlier = _earlier(info)
        out = TimeStep(obs, reward.astype(jnp.float32), terminated, truncated, obs, reset=earlier != state.earlier)
        return AtariState(after, earlier), out

    return Env(_spec(env_id, settings, venv), reset, step, keys=0)


def _spec(env_id: str, settings: Config, venv: Any) -> EnvSpec:
    return EnvSpec(env_id, venv.single_observation_space, venv.single_action_space, _steps(settings),
                   Stack(settings.atari_stack, "zero"), "emulator", settings.episodic_life)


def _steps(settings: Config) -> int:
    """The time limit, in steps."""
    steps = -(-settings.max_frames // settings.frame_skip)
    return steps if settings.time_limit is None else min(steps, settings.time_limit)


def _vector(env_id: str, settings: Config, num_envs: int) -> Any:
    if settings.frame_stack != 1:
        raise EnvError(f"frame_stack={settings.frame_stack} is not for Atari, whose observations are stacks already; "
                       f"use atari_stack for {env_id}")

    if settings.env_kwargs:
        raise EnvError(f"{env_id} takes no env_kwargs; it has flags of its own: frame_skip, noop_max, sticky_actions, "
                       "full_action_space, ...")

    def make() -> gymnasium.vector.VectorEnv:
        from ale_py.vector_env import AtariVectorEnv  # its package registers the games

        return AtariVectorEnv(
            gymnasium.spec(env_id).kwargs["game"], num_envs, num_threads=min(processes.cores(), num_envs),
            frameskip=settings.frame_skip,
            max_num_frames_per_episode=_steps(settings) * settings.frame_skip, stack_num=settings.atari_stack,
            repeat_action_probability=float(settings.sticky_actions), full_action_space=settings.full_action_space,
            noop_max=settings.noop_max, life_loss_info=settings.episodic_life, reward_clipping=False)

    return gymnasium_envs.or_env_error(env_id, make, "atari")


def _earlier(info: dict) -> Any:
    """Frames of the games before the current one."""
    return info["frame_number"] - info["episode_frame_number"]


FAMILY = Family("emulator", lambda env_id: env_id.startswith(_PREFIX), ids, backends, spec, make_device, make_host)
