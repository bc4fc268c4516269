"""Environments by their id, on the device as pure functions where that can be had, on the host everywhere else.

make_device(id)        -> Env        N copies as pure functions (`jaxdl.envs.functional`)
make_host(id, N, how)  -> HostEnvs   Gymnasium's own, checked and watched (`jaxdl.envs.vector`)

| id                  | what                                             | device | host |
| `CartPole-v1` ...   | Gymnasium's, with a twin in JAX (`TWINS`)        | yes    | yes  |
| `LunarLander-v3` .. | Gymnasium's                                      |        | yes  |
| `ALE/Pong-v5` ...   | Atari (`jaxdl.envs.atari`)                       | yes    | yes  |
| `Breakout-MinAtar`  | gymnax's MinAtar (`jaxdl.envs.minatar`)          | yes    |      |
| `module:Class`      | anyone's `FuncEnv` (`jaxdl.envs.custom`)         | yes    |      |

Observations of several parts, `Dict` or `Tuple`, are vectors everywhere (`jaxdl.envs.parts`).
"""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core.errors import EnvError
from jaxdl.rl.envs import atari, composite_spaces, functional, gymnasium_envs, minatar, user_envs
from jaxdl.rl.envs.acrobot import Acrobot
from jaxdl.rl.envs.cartpole import CartPole
from jaxdl.rl.envs.config import Config
from jaxdl.rl.envs.gymnasium_envs import Vectorization
from jaxdl.rl.envs.host_envs import HostEnvs
from jaxdl.rl.envs.mountain_car import MountainCar, MountainCarContinuous
from jaxdl.rl.envs.pendulum import Pendulum
from jaxdl.rl.types import Env, EnvSpec, Stack

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is imported; without a screen nothing else renders
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

TWINS: dict[str, type[FuncEnv]] = {
    "Acrobot-v1": Acrobot, "CartPole-v1": CartPole, "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous, "Pendulum-v1": Pendulum}
DEFAULTS = Config()


def spec(env_id: str, settings: Config = DEFAULTS) -> EnvSpec:
    """What an algorithm must know of an environment.

    Raises:
        EnvError: there is none of this id, or it cannot be made here; says what to install.
    """
    if is_atari(env_id):
        return atari.spec(env_id, settings)
    env = _functional(env_id)
    if env is not None:
        return functional.stacked_spec(_spec(env_id, env, settings), settings.frame_stack)
    env = make_single(env_id, settings)
    env.close()
    stack = None if settings.frame_stack == 1 else Stack(settings.frame_stack, "repeat")
    return EnvSpec(env_id, env.observation_space, env.action_space, env.spec.max_episode_steps, stack)


def make_single(env_id: str, settings: Config = DEFAULTS, **options: Any) -> gymnasium.Env:
    """One environment of Gymnasium's; `options` as in `gymnasium.make`. The settings of Atari are not for it.

    Raises:
        EnvError: as in `spec`.
    """
    return gymnasium_envs.single(env_id, settings, **options)


def make_device(env_id: str, settings: Config = DEFAULTS, num_envs: int | None = None) -> Env:
    """The environment on the device.

    Args:
        num_envs: how many there are. For Atari alone, which has its games outside of JAX: they are made here, once.

    Raises:
        EnvError: it does not run there, cannot be made, or is Atari and `num_envs` was not given.
    """
    resolve_backend(env_id, "device")
    if is_atari(env_id):
        if num_envs is None:
            raise EnvError(f"{env_id} must be told how many environments to make: num_envs")
        return atari.make_device(env_id, settings, num_envs)
    env = _functional(env_id)
    made = functional.stacked(functional.adapt(env, _spec(env_id, env, settings)), settings.frame_stack)
    return user_envs.check(made) if user_envs.is_class(env_id) else made


def make_host(env_id: str, num_envs: int, vectorization: Vectorization = "auto", settings: Config = DEFAULTS) -> HostEnvs:
    """N environments of Gymnasium's, each reset in the step after its episode's last (NEXT_STEP).

    Args:
        num_envs: N.
        vectorization: sync steps one after the other, async has a process for each, native is a vector environment of
            the environment's own, auto is native where there is one that the settings leave usable, else sync.

    Raises:
        EnvError: as in `spec`; it does not run on the host, or not vectorized in this way; or it resets otherwise.
    """
    resolve_backend(env_id, "host")
    if not is_atari(env_id):
        return gymnasium_envs.several(env_id, num_envs, vectorization, settings)
    if vectorization in ("sync", "async"):
        raise EnvError(f"{env_id} has threads of its own for its games; use vectorization=auto")
    return atari.make_host(env_id, num_envs, settings)


def resolve_backend(env_id: str, backend: Literal["auto", "device", "host"]) -> Literal["device", "host"]:
    """Where the environment runs; auto is the device where it can be there.

    Raises:
        EnvError: it does not run where it was asked to.
    """
    if not on_host(env_id):
        if backend == "host":
            raise EnvError(f"{env_id} runs on the device alone; use backend=device")
        return "device"
    if is_atari(env_id):
        if backend != "auto":
            return backend
        return "device" if gymnasium_envs.made(env_id, atari.on_device) else "host"
    if backend == "auto":
        return "device" if env_id in TWINS else "host"
    if backend == "device" and env_id not in TWINS:
        raise EnvError(f"{env_id} does not run on the device; these do: {', '.join([*TWINS, *minatar.GAMES])}; "
                       "use backend=host")
    return backend


def on_host(env_id: str) -> bool:
    """Whether it is an environment of Gymnasium's (if it is one): the others exist on the device alone."""
    return env_id not in minatar.GAMES and not user_envs.is_class(env_id)


def is_atari(env_id: str) -> bool:
    """Whether it is a game of ALE's: on the device too, but outside of JAX, so that there are no populations of it."""
    return env_id.startswith(gymnasium_envs.ATARI)


def is_vectorized(env_id: str, settings: Config = DEFAULTS) -> bool:
    """Whether several of Gymnasium's are stepped as rows of arrays, not one after the other: a native vector environment.

    Raises:
        EnvError: as in `spec`.
    """
    return settings.frame_stack == 1 and not is_atari(env_id) and gymnasium_envs.has_native(env_id)


def check_spaces(spec: EnvSpec, algorithm: str, *, actions: Sequence[type], observations: Sequence[type],
                 action_starts: bool = False) -> None:
    """Refuse an environment whose spaces an algorithm cannot serve.

    Args:
        spec: of the environment.
        algorithm: its name.
        actions: kinds of spaces that it serves.
        observations: kinds of spaces that it serves.
        action_starts: whether it adds the `start` of a `Discrete` or `MultiDiscrete` to its actions, which count from 0
            otherwise.

    Raises:
        EnvError: names the space and those that would do.
    """
    for what, space, served in (("action", spec.action_space, actions), ("observation", spec.observation_space, observations)):
        if not isinstance(space, tuple(served)):
            raise EnvError(f"{algorithm} needs {what}s of {' or '.join(s.__name__ for s in served)}, and {spec.id} has {space}")
        counts = isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete)
        if counts and np.any(space.start != 0) and not (what == "action" and action_starts):
            raise EnvError(f"{algorithm} needs {what}s that count from 0, and {spec.id} has {space}")
        if what == "observation" and isinstance(space, gymnasium.spaces.Box) and 0 in space.shape:
            raise EnvError(f"{algorithm} needs observations that are not empty, and {spec.id} has {space}")


def listing() -> list[tuple[str, list[str]]]:
    """Ids that can be made here, newest versions only, and the backends of each."""
    found = gymnasium_envs.newest()
    device = set(TWINS) | set(minatar.GAMES)
    if any(map(is_atari, found)) and atari.on_device():
        device |= set(filter(is_atari, found))
    if importlib.util.find_spec("gymnax") is not None:
        found += minatar.GAMES
    return [(i, [b for b, there in (("device", i in device), ("host", on_host(i))) if there]) for i in sorted(found)]


def _functional(env_id: str) -> FuncEnv | None:
    """What runs as pure functions, or None: an environment of Gymnasium's without a twin."""
    if env_id in TWINS:
        return TWINS[env_id]()
    if env_id in minatar.GAMES:
        return minatar.MinAtar(env_id)
    return user_envs.load(env_id) if user_envs.is_class(env_id) else None


def _spec(env_id: str, env: FuncEnv, settings: Config) -> EnvSpec:
    """Of one frame."""
    limit = settings.time_limit
    if limit is None:
        limit = gymnasium.spec(env_id).max_episode_steps if env_id in TWINS else getattr(env, "max_episode_steps", None)
    return EnvSpec(env_id, composite_spaces.flat_space(env_id, env.observation_space), env.action_space, limit)
