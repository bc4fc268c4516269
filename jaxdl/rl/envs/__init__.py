"""Environments by their id, on the device as pure functions where that is possible, on the host everywhere else.

make_device(id)        -> Env        N copies as pure functions (`functional`)
make_host(id, N, how)  -> HostEnvs   Gymnasium's own, checked and watched (`host_envs`)

| id                  | environment                                      | device | host | family           |
| `CartPole-v1` ...   | Gymnasium's, with a twin in JAX (`TWINS`)        | yes    | yes  | `TWIN_FAMILY`    |
| `LunarLander-v3` .. | Gymnasium's                                      |        | yes  | `gymnasium_envs` |
| `ALE/Pong-v5` ...   | Atari                                            | yes    | yes  | `atari`          |
| `Breakout-MinAtar`  | gymnax's MinAtar                                 | yes    |      | `minatar`        |
| `module:Class`      | a user's `FuncEnv`                               | yes    |      | `user_envs`      |

A new family is a module with a `Family` and a line in `FAMILIES`; a new twin is a module and a line in `TWINS`.
`Dict` and `Tuple` observations are flattened into vectors everywhere (`composite_spaces`).
"""

import os
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import jax
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core.errors import EnvError
from jaxdl.rl.envs import atari, composite_spaces, functional, gymnasium_envs, minatar, user_envs
from jaxdl.rl.envs.acrobot import Acrobot
from jaxdl.rl.envs.cartpole import CartPole
from jaxdl.rl.envs.config import Config
from jaxdl.rl.envs.family import Backend, Family, Vectorization
from jaxdl.rl.envs.host_envs import HostEnvs
from jaxdl.rl.envs.mountain_car import MountainCar, MountainCarContinuous
from jaxdl.rl.envs.pendulum import Pendulum
from jaxdl.rl.types import Env, EnvSpec, Lives

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is imported; without a screen nothing else renders
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

TWINS: dict[str, type[FuncEnv]] = {
    "Acrobot-v1": Acrobot, "CartPole-v1": CartPole, "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous, "Pendulum-v1": Pendulum}
DEFAULTS = Config()


def _twin(env_id: str, settings: Config) -> FuncEnv:
    del settings
    env = TWINS[env_id]()
    env.max_episode_steps = gymnasium.spec(env_id).max_episode_steps
    return env


TWIN_FAMILY = functional.family(_twin, TWINS.__contains__, lambda: list(TWINS), lives="host", backends=("device", "host"),
                                make_host=gymnasium_envs.make_vector_env)
FAMILIES = (atari.FAMILY, minatar.FAMILY, user_envs.FAMILY, TWIN_FAMILY, gymnasium_envs.FAMILY)  # the last one takes any id


def family(env_id: str) -> Family:
    """The family of an environment: the first of `FAMILIES` that contains its id."""
    return next(f for f in FAMILIES if f.contains(env_id))


def lives(env_id: str) -> Lives:
    """Where an environment runs; `EnvSpec.lives` without making it."""
    return family(env_id).lives


def spec(env_id: str, settings: Config = DEFAULTS) -> EnvSpec:
    """The spec of an environment.

    Raises:
        EnvError: there is none of this id, or it cannot be made here; says what to install.
    """
    return family(env_id).spec(env_id, settings)


def make_env(env_id: str, settings: Config = DEFAULTS, **options: Any) -> gymnasium.Env:
    """One environment of Gymnasium's; `options` as in `gymnasium.make`. Settings of Atari have no effect.

    Raises:
        EnvError: as in `spec`.
    """
    return gymnasium_envs.make_env(env_id, settings, **options)


def make_device(env_id: str, settings: Config = DEFAULTS, num_envs: int | None = None) -> Env:
    """The environment on the device.

    Args:
        env_id: of the environment.
        settings: how it is made.
        num_envs: N, needed for emulators alone: their games are made here, once.

    Raises:
        EnvError: it does not run there, cannot be made, or is an emulator and `num_envs` was not given.
    """
    resolve_backend(env_id, "device", settings)
    return family(env_id).make_device(env_id, settings, num_envs)


def make_host(env_id: str, num_envs: int, vectorization: Vectorization = "auto", settings: Config = DEFAULTS) -> HostEnvs:
    """N environments of Gymnasium's, each reset in the step after its episode's last (NEXT_STEP).

    Args:
        env_id: of the environments.
        num_envs: N.
        vectorization: sync steps one after the other, async has a process for each, native is a vector environment of
            the environment's own, auto is native where there is one that works with the settings, else sync.
        settings: how they are made.

    Raises:
        EnvError: as in `spec`; it does not run on the host, or not vectorized in this way; or it resets otherwise.
    """
    resolve_backend(env_id, "host", settings)
    return family(env_id).make_host(env_id, num_envs, vectorization, settings)


def resolve_backend(env_id: str, backend: Literal["auto", "device", "host"], settings: Config = DEFAULTS) -> Backend:
    """Where the environment runs; auto is the device where it can run there with these settings.

    Raises:
        EnvError: it does not run on `backend`.
    """
    there = family(env_id).backends(env_id)
    if settings.env_kwargs and family(env_id) is TWIN_FAMILY:
        if backend == "device":
            raise EnvError(f"the twin of {env_id} on the device takes no env_kwargs; use backend=host")
        there = ("host",)
    if backend == "auto":
        return there[0]
    if backend in there:
        return backend
    if backend == "host":
        raise EnvError(f"{env_id} runs on the device alone; use backend=device")
    on_device = [i for f in FAMILIES for i in f.ids() if f.lives != "emulator" and "device" in f.backends(i)]
    raise EnvError(f"{env_id} does not run on the device; these do: {', '.join(on_device)}; use backend=host")


def is_vectorized(env_id: str, settings: Config = DEFAULTS, vectorization: Vectorization = "auto") -> bool:
    """Whether several of Gymnasium's environments are stepped as rows of arrays by a native vector environment.

    Raises:
        EnvError: as in `spec`.
    """
    return lives(env_id) == "host" and gymnasium_envs.resolve(env_id, vectorization, settings) == "native"


def is_gymnasiums(env_id: str) -> bool:
    """Whether an environment comes with Gymnasium, and is not the user's or another package's."""
    return gymnasium_envs.is_gymnasiums(env_id)


def check_spaces(spec: EnvSpec, algorithm: str, *, actions: Sequence[type], observations: Sequence[type]) -> None:
    """Refuse an environment whose spaces an algorithm cannot serve.

    Args:
        spec: of the environment.
        algorithm: its name.
        actions: kinds of spaces that it serves.
        observations: kinds of spaces that it serves.

    Raises:
        EnvError: names the space and those that would do.
    """
    for what, space, served in (("action", spec.action_space, actions), ("observation", spec.observation_space, observations)):
        if not isinstance(space, tuple(served)):
            raise EnvError(f"{algorithm} needs {what}s of {' or '.join(s.__name__ for s in served)}, and {spec.id} has {space}")
        counts = composite_spaces.bounds_of_counts(space)
        if counts is not None:
            held = np.iinfo(jax.dtypes.canonicalize_dtype(space.dtype))
            if np.min(counts[0]) < held.min or np.max(counts[1]) > held.max:
                raise EnvError(f"{spec.id} has {what}s beyond {held.dtype}, {space}; count them from 0 in a wrapper")
        if what == "observation" and isinstance(space, gymnasium.spaces.Box) and 0 in space.shape:
            raise EnvError(f"{algorithm} needs observations that are not empty, and {spec.id} has {space}")


def listing() -> list[tuple[str, list[str]]]:
    """Ids that can be made here, newest versions only, and the backends of each."""
    found = sorted({i for f in FAMILIES for i in f.ids()})
    return [(i, sorted(family(i).backends(i))) for i in found]
