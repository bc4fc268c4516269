"""Gymnasium's own environments: made as the settings say, or refused in a sentence."""

import contextlib
import difflib
import functools
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, Literal

import gymnasium
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, FrameStackObservation, TimeLimit
from gymnasium.wrappers import vector as vectors

from jaxdl.core.errors import EnvError
from jaxdl.rl.envs import composite_spaces, minatar, user_envs
from jaxdl.rl.envs.config import Config
from jaxdl.rl.envs.host_envs import Checked, CheckedVector, HostEnvs

ATARI = "ALE/"  # what ids of Atari games begin with
_EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco", ATARI: "atari"}  # beginnings
Vectorization = Literal["auto", "sync", "async", "native"]


def single(env_id: str, settings: Config, **options: Any) -> gymnasium.Env:
    """One environment; `options` as in `gymnasium.make`. Observations of several parts are vectors (`jaxdl.envs.parts`).

    Raises:
        EnvError: there is none of this id, or it cannot be made; says what to install. Or observations cannot be vectors.
    """
    if settings.time_limit is not None:
        options = {"max_episode_steps": settings.time_limit} | options

    def make() -> gymnasium.Env:
        return _arranged(env_id, gymnasium.make(registered(env_id), **options), settings)

    return made(env_id, make)


def several(env_id: str, num_envs: int, vectorization: Vectorization, settings: Config) -> HostEnvs:
    """N environments, each reset in the step after its episode's last.

    Raises:
        EnvError: as in `single`; there is no native one, or not with these settings; or it resets otherwise.
    """
    native = has_native(env_id)
    if vectorization == "native" and not native:
        raise EnvError(f"{env_id} has no vector environment of its own; use vectorization=sync or async")
    if vectorization == "native" and settings.frame_stack > 1:
        raise EnvError(f"{env_id}'s own vector environment does not stack frames; use frame_stack=1, or vectorization=sync "
                       "or async")
    if vectorization == "auto":
        vectorization = "native" if native and settings.frame_stack == 1 else "sync"
    entry = made(env_id, lambda: registered(env_id))

    def make() -> gymnasium.vector.VectorEnv:
        if vectorization == "native":
            limit = {} if settings.time_limit is None else {"max_episode_steps": settings.time_limit}
            return _flattened(env_id, gymnasium.make_vec(entry, num_envs, "vector_entry_point", **limit))
        kind = SyncVectorEnv if vectorization == "sync" else AsyncVectorEnv
        return kind([functools.partial(_checked, entry, settings)] * num_envs)

    return HostEnvs(made(env_id, make), env_id, settings.env_timeout)


def has_native(env_id: str) -> bool:
    """Whether Gymnasium has a vector environment made for it.

    Raises:
        EnvError: as in `single`.
    """
    return made(env_id, lambda: registered(env_id)).vector_entry_point is not None


def registered(env_id: str) -> Any:
    """Gymnasium's entry of an id: `module:Id-v0` once the module was imported, and Atari's once ale_py was."""
    module, _, name = env_id.rpartition(":")
    if module or env_id.startswith(ATARI):
        user_envs.import_module(module or "ale_py")
    return gymnasium.spec(name)


def made(env_id: str, make: Callable[[], Any]) -> Any:
    """What `make` makes.

    Raises:
        EnvError: it failed; says why, or what to install, or which id is near.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except EnvError:
        raise
    except Exception as e:
        raise _refusal(env_id, e) from e


def unknown(env_id: str) -> EnvError:
    """There is no environment of this id; names the nearest that there is."""
    close = difflib.get_close_matches(env_id, [entry.id for entry in _entries()] + list(minatar.GAMES), n=1)
    hint = f"did you mean '{close[0]}'?" if close else "'jaxdl list' names those that can be made here"
    return EnvError(f"there is no environment '{env_id}'; {hint}")


def newest() -> list[str]:
    """Ids that can be made here, newest versions only."""
    found: dict[str, Any] = {}
    for entry in _entries():
        name = f"{entry.namespace}/{entry.name}" if entry.namespace else entry.name
        if not entry.disable_env_checker and _importable(str(entry.entry_point)):
            found[name] = max(found.get(name, entry), entry, key=lambda e: e.version or 0)
    return [entry.id for entry in found.values()]


def _checked(entry: Any, settings: Config) -> gymnasium.Env:
    """One of several: checked as it comes from the environment, and limited, flattened and stacked after that."""
    env = Checked(gymnasium.make(entry, max_episode_steps=-1, disable_env_checker=True), entry.id)
    limit = settings.time_limit or entry.max_episode_steps
    if limit is not None:
        env = TimeLimit(env, limit)
    return _arranged(entry.id, env, settings)


def _arranged(env_id: str, env: gymnasium.Env, settings: Config) -> gymnasium.Env:
    """Its observations as algorithms see them: several parts as one vector, the last few in one."""
    if composite_spaces.flat_space(env_id, env.observation_space) is not env.observation_space:
        env = FlattenObservation(env)
    return env if settings.frame_stack == 1 else FrameStackObservation(env, settings.frame_stack, padding_type="reset")


def _flattened(env_id: str, venv: gymnasium.vector.VectorEnv) -> gymnasium.vector.VectorEnv:
    """Its observations' several parts as one vector."""
    if composite_spaces.flat_space(env_id, venv.single_observation_space) is venv.single_observation_space:
        return venv
    return vectors.FlattenObservation(CheckedVector(venv, env_id))


def _refusal(env_id: str, error: Exception) -> EnvError:
    entry = gymnasium.registry.get(env_id)
    places = (env_id, str(entry.entry_point) if entry else "")
    extra = next((extra for start, extra in _EXTRAS.items() if any(p.startswith(start) for p in places)), None)
    absent = gymnasium.error.DependencyNotInstalled | gymnasium.error.NamespaceNotFound | ImportError
    if isinstance(error, absent) and extra:
        return EnvError(f"{env_id} needs packages that are not installed: pip install 'jaxdl[{extra}]'")
    if isinstance(error, gymnasium.error.Error) and entry is None:
        return unknown(env_id)
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return EnvError(f"{env_id} cannot be made: {reason}")


def _entries() -> list[Any]:
    """Gymnasium's entries, Atari's with them where they are installed, but not Atari's of old names ('Pong-v4')."""
    with contextlib.suppress(ImportError):
        import ale_py  # noqa: F401
    return [e for e in gymnasium.registry.values()
            if e.namespace in (None, "ALE") and (e.namespace == "ALE" or not str(e.entry_point).startswith("ale_py"))]


@functools.cache
def _importable(entry_point: str) -> bool:
    """Whether what an environment needs is there, without making it."""
    if ":" not in entry_point:
        return False
    module = entry_point.split(":")[0]
    needs = next((need for part, need in (("box2d", "Box2D"), ("mujoco", "mujoco"), ("ale_py", "ale_py"),
                                          ("phys2d", None), ("tabular", None)) if part in module.lower()), module.split(".")[0])
    return needs is not None and importlib.util.find_spec(needs) is not None
