"""Users' own environments, by the name of a class: `module:Class`, a `FuncEnv` of Gymnasium's functional interface.

Its attributes are `observation_space`, `action_space` and, where episodes have a time limit, `max_episode_steps`.
"""

import functools
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core import imports, stdio
from jaxdl.core.errors import EnvError, described
from jaxdl.rl.envs import functional
from jaxdl.rl.envs.calls import Calls, fail
from jaxdl.rl.envs.config import Config
from jaxdl.rl.types import Env

_MOVED = {"jaxdl.envs.": "jaxdl.rl.envs."}  # packages of jaxdl that ids in settings of earlier versions begin with


def load(env_id: str, settings: Config) -> FuncEnv:
    """The environment that `module:Class` names, made with `env_kwargs`; modules are also looked for in the current folder.

    Raises:
        EnvError: no such module or class, it is no `FuncEnv`, it cannot be made, or its spaces are none.
    """
    found = imports.load_object(_moved(env_id), "environment", EnvError)
    if not isinstance(found, type):
        raise EnvError(f"there is no environment '{env_id}': it is no class but {type(found).__name__}")
    if not issubclass(found, FuncEnv):
        raise EnvError(f"{env_id} is no environment for the device: its class must be a subclass of gymnasium.experimental."
                       f"functional.FuncEnv; register one of Gymnasium's usual kind in that module, with gymnasium.register("
                       f"'Mine-v0', {found.__name__}), and use the module with the id: {env_id.partition(':')[0]}:Mine-v0")
    with Calls(env_id, settings.env_timeout) as call:
        env = call("make", lambda: _made(env_id, found, settings))
    for space in ("observation_space", "action_space"):
        if not isinstance(getattr(env, space, None), gymnasium.Space):
            raise EnvError(f"{env_id} needs an attribute {space} that is a gymnasium.Space, "
                           f"got {type(getattr(env, space, None)).__name__}")
    limit = getattr(env, "max_episode_steps", None)
    if limit is not None and not (isinstance(limit, int) and limit > 0):
        raise EnvError(f"{env_id} needs max_episode_steps above 0 or None, got {limit!r}")
    return env


def _made(env_id: str, kind: type, settings: Config) -> FuncEnv:
    try:
        env = kind(**settings.kwargs)
        if not hasattr(env, "default_params"):  # its constructor did not call FuncEnv's
            env.default_params = env.get_default_params()
        return env
    except Exception as e:
        raise EnvError(f"{env_id} cannot be made: {described(e)}") from e


@functools.cache
def _moved(name: str) -> str:
    """The present name of a module or object that an id names; one of an earlier version is reported once, on stderr."""
    for old, new in _MOVED.items():
        if name.startswith(old):
            now = new + name.removeprefix(old)
            stdio.say(f"jaxdl: env_id {name} is now {now}; use that name")
            return now
    return name


def import_module(name: str) -> Any:
    """A module of the Python path or of the current folder."""
    return imports.import_module(_moved(name))


def check(env: Env) -> Env:
    """Trace `env` once, so that it is refused where it is made, and return it.

    Raises:
        EnvError: it cannot be traced, its observations are not what its space holds, or its state changes its form.
    """
    def play(key: jax.Array) -> tuple[Any, Any]:
        state, obs = env.reset(key, 2)
        action = jnp.zeros((2, *env.spec.action_space.shape), jax.dtypes.canonicalize_dtype(env.spec.action_space.dtype))
        after, out = env.step(state, action, env.sample_noise(jax.random.split(key, (env.keys, 2))))
        return (obs, out), (state, after)

    try:
        (obs, out), states = jax.eval_shape(play, jax.random.key(0))
    except EnvError:
        raise
    except Exception as e:
        raise EnvError(f"{env.spec.id} cannot be traced by JAX: {described(e)}") from e
    except BaseException as e:
        fail(env.spec.id, "step", e)
    for name in ("reward", "terminated"):
        if getattr(out, name).shape != (2,):
            raise EnvError(f"{env.spec.id} gives a {name} of shape {list(getattr(out, name).shape[1:])}, expected one number")
    space = env.spec.observation_space
    wanted = (2, *space.shape), jax.dtypes.canonicalize_dtype(space.dtype)
    for given in (obs, out.obs, out.next_obs):
        if (given.shape, given.dtype) != wanted:
            raise EnvError(f"{env.spec.id} gives observations {given.dtype}{list(given.shape[1:])}, its space has "
                           f"{wanted[1]}{list(space.shape)}")
    before, after = (jax.tree.map(lambda x: (x.shape, str(x.dtype)), state) for state in states)
    if before != after:
        raise EnvError(f"{env.spec.id} changes the form of its state in a step, from {before.inner} to {after.inner}")
    return env


FAMILY = functional.family(load, imports.is_name, list, check=check)
