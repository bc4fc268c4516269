"""Gymnasium's own environments: made with the given settings, or refused in one sentence."""

import difflib
import functools
import importlib.util
import re
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, FrameStackObservation, TimeLimit
from gymnasium.wrappers import vector as vectors

from jaxdl.core.errors import EnvError, first_line
from jaxdl.rl.envs import composite_spaces, user_envs
from jaxdl.rl.envs.calls import Calls, fail
from jaxdl.rl.envs.config import Config
from jaxdl.rl.envs.family import Family, Vectorization
from jaxdl.rl.envs.host_envs import Checked, CheckedVector, HostEnvs, make_checked
from jaxdl.rl.envs.workers import Workers
from jaxdl.rl.types import EnvSpec, Stack

_EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco"}  # by the beginning of the module


def spec(env_id: str, settings: Config) -> EnvSpec:
    """The spec of an environment, which is made and closed for it.

    Raises:
        EnvError: as in `make_env`, or it failed.
    """
    with Calls(env_id, settings.env_timeout) as call:
        env = call("make", lambda: make_env(env_id, settings))
        stack = None if settings.frame_stack == 1 else Stack(settings.frame_stack, "repeat")
        found = EnvSpec(env_id, env.observation_space, env.action_space, env.spec.max_episode_steps, stack, lives="host")
        call("close", env.close)
    return found


def make_env(env_id: str, settings: Config, **options: Any) -> gymnasium.Env:
    """One environment; `options` as in `gymnasium.make`. Observations of several parts are vectors (`composite_spaces`).

    Raises:
        EnvError: there is none of this id, or it cannot be made; says what to install. Or observations cannot be vectors.
    """
    if settings.time_limit is not None:
        options = {"max_episode_steps": settings.time_limit} | options

    def make() -> gymnasium.Env:
        return _arranged(env_id, gymnasium.make(registered(env_id), **settings.kwargs, **options), settings)

    return or_env_error(env_id, make)


def make_vector_env(env_id: str, num_envs: int, vectorization: Vectorization, settings: Config, render: bool = False
                    ) -> HostEnvs:
    """N environments, each reset in the step after its episode's last; with `render` they draw pictures.

    Raises:
        EnvError: as in `make_env`; there is no native one, or not with these settings; or it resets otherwise.
    """
    how = resolve(env_id, vectorization, settings)
    if how == "native" and not has_native(env_id):
        raise EnvError(f"{env_id} has no vector environment of its own; use vectorization=sync or async")
    if how == "native" and settings.frame_stack > 1:
        raise EnvError(f"{env_id}'s own vector environment does not stack frames; use frame_stack=1, or vectorization=sync "
                       "or async")

    def make() -> gymnasium.vector.VectorEnv:
        entry = registered(env_id)
        if how == "native":
            limit = {} if settings.time_limit is None else {"max_episode_steps": settings.time_limit}
            return _flattened(env_id, gymnasium.make_vec(entry, num_envs, "vector_entry_point", **limit, **settings.kwargs))
        one = functools.partial(_checked, env_id, entry, settings, render)
        return SyncVectorEnv([one] * num_envs) if how == "sync" else Workers(one, num_envs, env_id)

    return make_checked(env_id, settings.env_timeout, lambda: or_env_error(env_id, make))


def resolve(env_id: str, vectorization: Vectorization, settings: Config) -> Vectorization:
    """How several environments are stepped: auto is native where a native one can be made and answers as it must, else sync.

    Raises:
        EnvError: as in `make_env`; or a native one does not answer at all.
    """
    if vectorization != "auto":
        return vectorization
    if settings.frame_stack > 1 or not has_native(env_id):
        return "sync"
    venv = None
    try:
        venv = make_vector_env(env_id, 1, "native", settings)
        venv.reset(0)
        venv.step(venv.venv.action_space.sample())
        venv.close()
        return "native"
    except EnvError:
        if venv is not None and venv.hung:
            raise
        return "sync"
    finally:
        if venv is not None:
            venv.close()


def has_native(env_id: str) -> bool:
    """Whether an environment was registered with a vector environment of its own.

    Raises:
        EnvError: as in `make_env`.
    """
    return or_env_error(env_id, lambda: registered(env_id)).vector_entry_point is not None


def registered(env_id: str) -> Any:
    """Gymnasium's entry of an id, after importing the module of `module:Id-v0`.

    Raises:
        EnvError: it is one of Atari's old names, which would train on raw frames.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        user_envs.import_module(module)
    entry = gymnasium.spec(name)
    if entry.namespace is None and str(entry.entry_point).startswith("ale_py"):
        raise _unknown(env_id)
    return entry


def is_gymnasiums(env_id: str) -> bool:
    """Whether an environment comes with Gymnasium."""
    entry = gymnasium.registry.get(env_id)
    return entry is not None and str(entry.entry_point).startswith("gymnasium.")


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
    except BaseException as e:
        fail(env_id, "make", e)


def newest(namespace: str | None = None) -> list[str]:
    """Ids of a namespace that can be made here, newest versions only."""
    found: dict[str, Any] = {}
    for entry in _entries(namespace):
        if not entry.disable_env_checker and _importable(str(entry.entry_point)):
            found[entry.name] = max(found.get(entry.name, entry), entry, key=lambda e: e.version or 0)
    return [entry.id for entry in found.values()]


FAMILY = Family("host", lambda env_id: True, newest, lambda env_id: ("host",), spec, make_host=make_vector_env)


def _checked(env_id: str, entry: Any, settings: Config, render: bool) -> gymnasium.Env:
    """One environment of several, every answer checked.

    Before its time limit is applied, whose own error would say less; where wrappers were registered with it, after them:
    they may need the limit.
    """
    options = settings.kwargs | {"disable_env_checker": True} | ({"render_mode": "rgb_array"} if render else {})

    def make() -> gymnasium.Env:
        if entry.additional_wrappers:
            return Checked(gymnasium.make(entry, max_episode_steps=settings.time_limit, **options), env_id)
        env = Checked(gymnasium.make(entry, max_episode_steps=-1, **options), env_id)
        limit = settings.time_limit or entry.max_episode_steps
        return env if limit is None else TimeLimit(env, limit)

    return _arranged(env_id, or_env_error(env_id, make), settings)


def _arranged(env_id: str, env: gymnasium.Env, settings: Config) -> gymnasium.Env:
    """`env` with observations as algorithms see them: Dict and Tuple flattened, then stacked."""
    try:
        if composite_spaces.flat_space(env_id, env.observation_space) is not env.observation_space:
            env = FlattenObservation(env)
        return env if settings.frame_stack == 1 else FrameStackObservation(env, settings.frame_stack, padding_type="reset")
    except Exception:
        env.close()
        raise


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
    found = _of_other_libraries(env_id)
    near = difflib.get_close_matches(env_id, ids, n=1) or difflib.get_close_matches(
        env_id.lower(), [i.lower() for i in ids], n=1)
    close = [i for i in ids if i in found] or [i for i in ids if i.lower() == (near[0].lower() if near else None)]
    hint = f"did you mean '{close[0]}'?" if close else "'jaxdl list' names those that can be made here"
    return EnvError(f"there is no environment '{env_id}'; {hint}")


def _of_other_libraries(env_id: str) -> tuple[str, ...]:
    """What an id of other libraries is called here: Atari's old names, MinAtar's own and those of EnvPool."""
    game = re.fullmatch(r"(?:ALE/|MinAtar/)?(\w+?)(?:-?ram)?(?:Deterministic|NoFrameskip)?(?:-MinAtar)?(?:-v\d+)?", env_id)
    if game is None:
        return ()
    name = "".join(part[:1].upper() + part[1:] for part in game[1].split("_"))
    return (f"{name}-MinAtar",) if "minatar" in env_id.lower() else (f"ALE/{name}-v5",)


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
