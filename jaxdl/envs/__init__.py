"""Environments by their Gymnasium id: on the device where there is a twin in JAX, on the host everywhere else.

make_device(id)            -> Env           N copies as pure functions (`jaxdl.envs.functional`)
make_host(id, N, how)      -> VectorEnv     Gymnasium's own, stepped by `host_reset` and `host_step`
"""

import difflib
import functools
import importlib.util
import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from jaxdl.envs.cartpole import CartPole
from jaxdl.envs.functional import adapt
from jaxdl.errors import EnvError
from jaxdl.types import Env, EnvSpec

os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is imported; without a screen nothing else renders
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

TWINS = {"CartPole-v1": CartPole}
_EXTRAS = {"gymnasium.envs.box2d": "box2d", "gymnasium.envs.mujoco": "mujoco", "ALE/": "atari"}  # beginnings


def spec(env_id: str) -> EnvSpec:
    """What an algorithm must know of an environment.

    Raises:
        EnvError: there is none of this id, or it cannot be made here; says what to install.
    """
    if env_id in TWINS:
        twin = TWINS[env_id]
        return EnvSpec(env_id, twin.observation_space, twin.action_space, gymnasium.spec(env_id).max_episode_steps)
    env = make_single(env_id)
    env.close()
    return EnvSpec(env_id, env.observation_space, env.action_space, env.spec.max_episode_steps)


def make_single(env_id: str, **options: Any) -> gymnasium.Env:
    """One environment of Gymnasium's; `options` as in `gymnasium.make`.

    Raises:
        EnvError: as in `spec`.
    """
    return _made(env_id, lambda: gymnasium.make(gymnasium.spec(env_id), **options))


def make_device(env_id: str) -> Env:
    """The environment's twin on the device.

    Raises:
        EnvError: it has none.
    """
    resolve_backend(env_id, "device")
    return adapt(TWINS[env_id](), spec(env_id))


def resolve_backend(env_id: str, backend: Literal["auto", "device", "host"]) -> Literal["device", "host"]:
    """Where the environment runs; auto is the device where it has a twin.

    Raises:
        EnvError: the device was asked for and there is no twin.
    """
    if backend == "auto":
        return "device" if env_id in TWINS else "host"
    if backend == "device" and env_id not in TWINS:
        raise EnvError(f"{env_id} does not run on the device; these do: {', '.join(TWINS)}; use backend=host")
    return backend


def check_spaces(spec: EnvSpec, algorithm: str, *, actions: Sequence[type], observations: Sequence[type]) -> None:
    """Refuse an environment whose spaces an algorithm cannot serve.

    Raises:
        EnvError: names the space and those that would do. A `Discrete` must count from 0.
    """
    for what, space, served in (("action", spec.action_space, actions), ("observation", spec.observation_space, observations)):
        if not isinstance(space, tuple(served)):
            raise EnvError(f"{algorithm} needs {what}s of {' or '.join(s.__name__ for s in served)}, and {spec.id} has {space}")
        if isinstance(space, gymnasium.spaces.Discrete) and space.start != 0:
            raise EnvError(f"{algorithm} needs {what}s that count from 0, and {spec.id} has {space}")
        if what == "observation" and isinstance(space, gymnasium.spaces.Box) and 0 in space.shape:
            raise EnvError(f"{algorithm} needs observations that are not empty, and {spec.id} has {space}")


def make_host(env_id: str, num_envs: int, vectorization: Literal["auto", "sync", "async", "native"] = "auto") -> VectorEnv:
    """N environments of Gymnasium's, each reset in the step after its episode's last (NEXT_STEP).

    Args:
        num_envs: N.
        vectorization: sync steps one after the other, async has a process for each, native is a vector environment of
            the environment's own, auto is native where there is one, else sync.

    Raises:
        EnvError: as in `spec`; there is no native one; or it resets otherwise.
    """
    mode = {"auto": None, "sync": "sync", "async": "async", "native": "vector_entry_point"}[vectorization]
    if vectorization == "native" and not has_native(env_id):
        raise EnvError(f"{env_id} has no vector environment of its own; use vectorization=sync or async")
    venv = _made(env_id, lambda: gymnasium.make_vec(gymnasium.spec(env_id), num_envs, mode))
    if venv.metadata.get("autoreset_mode") != AutoresetMode.NEXT_STEP:
        venv.close()
        raise EnvError(f"{env_id} resets its episodes in the mode {venv.metadata.get('autoreset_mode')}, "
                       "expected Gymnasium's NEXT_STEP")
    return venv


def has_native(env_id: str) -> bool:
    """Whether Gymnasium has a vector environment made for it."""
    return _made(env_id, lambda: gymnasium.spec(env_id)).vector_entry_point is not None


def host_reset(venv: VectorEnv, seed: int) -> np.ndarray:
    """First observations [N, ...].

    Raises:
        EnvError: the environment failed, or gave what its space does not hold.
    """
    obs, _ = _asked(venv, lambda: venv.reset(seed=int(seed) % 2**31))
    return _checked(venv, obs)


def host_step(venv: VectorEnv, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Step all environments: obs [N, ...], reward [N] float32, terminated [N], truncated [N].

    Raises:
        EnvError: the environment failed, or gave what its space does not hold or a reward that is not finite.
    """
    obs, reward, terminated, truncated, _ = _asked(venv, lambda: venv.step(action))
    reward = np.asarray(reward, np.float32)
    if not np.isfinite(reward).all():
        raise EnvError(f"{_name(venv)} gave a reward that is not finite: {reward}")
    return _checked(venv, obs), reward, terminated, truncated


def listing() -> list[tuple[str, list[str]]]:
    """Ids that can be made here, newest versions only, and the backends of each."""
    newest: dict[str, Any] = {}
    for entry in gymnasium.registry.values():
        name = f"{entry.namespace}/{entry.name}" if entry.namespace else entry.name
        if not entry.disable_env_checker and entry.namespace in (None, "ALE") and _importable(str(entry.entry_point)):
            newest[name] = max(newest.get(name, entry), entry, key=lambda e: e.version or 0)
    ids = sorted(entry.id for entry in newest.values())
    return [(env_id, ["device", "host"] if env_id in TWINS else ["host"]) for env_id in ids]


def _made(env_id: str, make: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return make()
    except Exception as e:
        raise _refusal(env_id, e) from e


def _refusal(env_id: str, error: Exception) -> EnvError:
    entry = gymnasium.registry.get(env_id)
    places = (env_id, str(entry.entry_point) if entry else "")
    extra = next((extra for start, extra in _EXTRAS.items() if any(p.startswith(start) for p in places)), None)
    absent = gymnasium.error.DependencyNotInstalled | gymnasium.error.NamespaceNotFound | ImportError
    if isinstance(error, absent) and extra:
        return EnvError(f"{env_id} needs packages that are not installed: pip install 'jaxdl[{extra}]'")
    if isinstance(error, gymnasium.error.Error) and env_id not in gymnasium.registry:
        close = difflib.get_close_matches(env_id, list(gymnasium.registry), n=1)
        hint = f"did you mean '{close[0]}'?" if close else "'jaxdl list' names those that can be made here"
        return EnvError(f"there is no environment '{env_id}'; {hint}")
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return EnvError(f"{env_id} cannot be made: {reason}")


def _name(venv: VectorEnv) -> str:
    return venv.spec.id if venv.spec else type(venv).__name__


def _asked(venv: VectorEnv, ask: Any) -> Any:
    try:
        return ask()
    except Exception as e:
        raise EnvError(f"{_name(venv)} failed: {type(e).__name__}: {e}") from e


def _checked(venv: VectorEnv, obs: np.ndarray) -> np.ndarray:
    space = venv.observation_space
    if not isinstance(obs, np.ndarray) or obs.shape != space.shape or obs.dtype != space.dtype:
        found = f"{obs.dtype}{list(obs.shape)}" if isinstance(obs, np.ndarray) else type(obs).__name__
        raise EnvError(f"{_name(venv)} gave observations {found}, its space has {space.dtype}{list(space.shape)}")
    if obs.dtype.kind == "f" and not np.isfinite(obs).all():
        raise EnvError(f"{_name(venv)} gave an observation that is not finite")
    return obs


@functools.cache
def _importable(entry_point: str) -> bool:
    """Whether what an environment needs is there, without making it."""
    if ":" not in entry_point:
        return False
    module = entry_point.split(":")[0]
    needs = next((need for part, need in (("box2d", "Box2D"), ("mujoco", "mujoco"), ("ale_py", "ale_py"),
                                          ("phys2d", None), ("tabular", None)) if part in module.lower()), module.split(".")[0])
    return needs is not None and importlib.util.find_spec(needs) is not None
