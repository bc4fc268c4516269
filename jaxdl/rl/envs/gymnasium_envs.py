"""Gymnasium's own environments: made with the given settings, or refused in one sentence."""

import difflib
import functools
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, FrameStackObservation, TimeLimit
from gymnasium.wrappers import vector as vectors

from jaxdl.core.errors import EnvError, first_line
from jaxdl.rl.envs import composite_spaces, user_envs
from jaxdl.rl.envs.config import Config
from jaxdl.rl.envs.family import Family, Vectorization
from jaxdl.rl.envs.host_envs import Checked, CheckedVector, HostEnvs
from jaxdl.rl.types import EnvSpec, Stack

_EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco"}  # by the beginning of the module


def spec(env_id: str, settings: Config) -> EnvSpec:
    """The spec of an environment, which is made and closed for it.

    Raises:
        EnvError: as in `make_env`.
    """
    env = make_env(env_id, settings)
    env.close()
    stack = None if settings.frame_stack == 1 else Stack(settings.frame_stack, "repeat")
    return EnvSpec(env_id, env.observation_space, env.action_space, env.spec.max_episode_steps, stack, lives="host")


def make_env(env_id: str, settings: Config, **options: Any) -> gymnasium.Env:
    """One environment; `options` as in `gymnasium.make`. Observations of several parts are vectors (`composite_spaces`).

    Raises:
        EnvError: there is none of this id, or it cannot be made; says what to install. Or observations cannot be vectors.
    """
    if settings.time_limit is not None:
        options = {"max_episode_steps": settings.time_limit} | options

    def make() -> gymnasium.Env:
        return _arranged(env_id, gymnasium.make(registered(env_id), **options), settings)

    return or_env_error(env_id, make)


def make_vector_env(env_id: str, num_envs: int, vectorization: Vectorization, settings: Config) -> HostEnvs:
    """N environments, each reset in the step after its episode's last.

    Raises:
        EnvError: as in `make_env`; there is no native one, or not with these settings; or it resets otherwise.
    """
    native = has_native(env_id)
    if vectorization == "native" and not native:
        raise EnvError(f"{env_id} has no vector environment of its own; use vectorization=sync or async")
    if vectorization == "native" and settings.frame_stack > 1:
        raise EnvError(f"{env_id}'s own vector environment does not stack frames; use frame_stack=1, or vectorization=sync "
                       "or async")
    if vectorization == "auto":
        vectorization = "native" if native and settings.frame_stack == 1 else "sync"
    entry = or_env_error(env_id, lambda: registered(env_id))

    def make() -> gymnasium.vector.VectorEnv:
        if vectorization == "native":
            limit = {} if settings.time_limit is None else {"max_episode_steps": settings.time_limit}
            return _flattened(env_id, gymnasium.make_vec(entry, num_envs, "vector_entry_point", **limit))
        kind = SyncVectorEnv if vectorization == "sync" else AsyncVectorEnv
        return kind([functools.partial(_checked, entry, settings)] * num_envs)

    return HostEnvs(or_env_error(env_id, make), env_id, settings.env_timeout)


def has_native(env_id: str) -> bool:
    """Whether Gymnasium has a vector environment made for it.

    Raises:
        EnvError: as in `make_env`.
    """
    return or_env_error(env_id, lambda: registered(env_id)).vector_entry_point is not None


def registered(env_id: str) -> Any:
    """Gymnasium's entry of an id, after importing the module of `module:Id-v0`."""
    module, _, name = env_id.rpartition(":")
    if module:
        user_envs.import_module(module)
    return gymnasium.spec(name)


def or_env_error(env_id: str, make: Callable[[], Any], extra: str | None = None) -> Any:
    """The result of `make()`.

    Args:
        env_id: the environment that an error names.
        make: a function that may fail in any way.
        extra: the extra of jaxdl with the packages that it needs; None: that of Gymnasium's entry.

    Raises:
        EnvError: `make` failed; says why, or what to install, or which id is near.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except EnvError:
        raise
    except Exception as e:
        raise _refusal(env_id, e, extra) from e


def newest(namespace: str | None = None) -> list[str]:
    """Ids of a namespace that can be made here, newest versions only."""
    found: dict[str, Any] = {}
    for entry in _entries(namespace):
        if not entry.disable_env_checker and _importable(str(entry.entry_point)):
            found[entry.name] = max(found.get(entry.name, entry), entry, key=lambda e: e.version or 0)
    return [entry.id for entry in found.values()]


FAMILY = Family("host", lambda env_id: True, newest, lambda env_id: ("host",), spec, make_host=make_vector_env)


def _checked(entry: Any, settings: Config) -> gymnasium.Env:
    """One environment of several: checked before its time limit, flattening and stacking are applied."""
    env = Checked(gymnasium.make(entry, max_episode_steps=-1, disable_env_checker=True), entry.id)
    limit = settings.time_limit or entry.max_episode_steps
    if limit is not None:
        env = TimeLimit(env, limit)
    return _arranged(entry.id, env, settings)


def _arranged(env_id: str, env: gymnasium.Env, settings: Config) -> gymnasium.Env:
    """`env` with observations as algorithms see them: Dict and Tuple flattened, then stacked."""
    if composite_spaces.flat_space(env_id, env.observation_space) is not env.observation_space:
        env = FlattenObservation(env)
    return env if settings.frame_stack == 1 else FrameStackObservation(env, settings.frame_stack, padding_type="reset")


def _flattened(env_id: str, venv: gymnasium.vector.VectorEnv) -> gymnasium.vector.VectorEnv:
    """`venv` with Dict and Tuple observations flattened."""
    if composite_spaces.flat_space(env_id, venv.single_observation_space) is venv.single_observation_space:
        return venv
    return vectors.FlattenObservation(CheckedVector(venv, env_id))


def _refusal(env_id: str, error: Exception, extra: str | None) -> EnvError:
    entry = gymnasium.registry.get(env_id)
    if entry is not None:
        extra = extra or next((e for start, e in _EXTRAS.items() if str(entry.entry_point).startswith(start)), None)
    absent = gymnasium.error.DependencyNotInstalled | gymnasium.error.NamespaceNotFound | ImportError
    if isinstance(error, absent) and extra:
        return EnvError(f"{env_id} needs packages that are not installed: pip install 'jaxdl[{extra}]'")
    if isinstance(error, gymnasium.error.Error) and entry is None:
        return _unknown(env_id)
    return EnvError(f"{env_id} cannot be made: {first_line(error)}")


def _unknown(env_id: str) -> EnvError:
    """The error of an id that nothing has; names the nearest that there is."""
    from jaxdl.rl import envs  # its table holds this module

    ids = [i for family in envs.FAMILIES for i in family.ids()]
    ids += [entry.id for entry in _entries(None)]
    close = difflib.get_close_matches(env_id, ids, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "'jaxdl list' names those that can be made here"
    return EnvError(f"there is no environment '{env_id}'; {hint}")


def _entries(namespace: str | None) -> list[Any]:
    """Gymnasium's entries of a namespace, without Atari's old names, which have none ('Pong-v4')."""
    return [e for e in gymnasium.registry.values()
            if e.namespace == namespace and not (namespace is None and str(e.entry_point).startswith("ale_py"))]


@functools.cache
def _importable(entry_point: str) -> bool:
    """Whether the packages of an environment are installed, without importing them."""
    if ":" not in entry_point:
        return False
    module = entry_point.split(":")[0]
    needs = next((need for part, need in (("box2d", "Box2D"), ("mujoco", "mujoco"), ("phys2d", None),
                                          ("tabular", None)) if part in module.lower()), module.split(".")[0])
    return needs is not None and importlib.util.find_spec(needs) is not None
