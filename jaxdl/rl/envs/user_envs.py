"""Environments of others, by the name of their class: `module:Class`, a `FuncEnv` of Gymnasium's functional interface.

Its observation and action spaces are attributes, and so is `max_episode_steps` where episodes have a time limit.
"""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core import imports
from jaxdl.core.errors import EnvError
from jaxdl.core.imports import described
from jaxdl.rl.types import Env

_OLD_HOME = "jaxdl.envs."


def is_class(env_id: str) -> bool:
    """Whether an id names a class: `package.module:Class`."""
    return imports.is_name(env_id)


def load(env_id: str) -> FuncEnv:
    """The environment that `module:Class` names; modules are also looked for in the current folder.

    Raises:
        EnvError: no such module or class, it is no `FuncEnv`, it cannot be made, or its spaces are none.
    """
    found = imports.load_object(_moved(env_id), "environment", EnvError)
    if not isinstance(found, type):
        raise EnvError(f"there is no environment '{env_id}': it is no class but {type(found).__name__}")
    if not issubclass(found, FuncEnv):
        raise EnvError(f"{env_id} is no environment for the device: its class must be a subclass of gymnasium.experimental."
                       "functional.FuncEnv; register one of Gymnasium's usual kind with gymnasium.register, and use its id")
    try:
        env = found()
    except (Exception, SystemExit) as e:
        raise EnvError(f"{env_id} cannot be made: {described(e)}") from e
    for space in ("observation_space", "action_space"):
        if not isinstance(getattr(env, space, None), gymnasium.Space):
            raise EnvError(f"{env_id} needs an attribute {space} that is a gymnasium.Space, "
                           f"got {type(getattr(env, space, None)).__name__}")
    limit = getattr(env, "max_episode_steps", None)
    if limit is not None and not (isinstance(limit, int) and limit > 0):
        raise EnvError(f"{env_id} needs max_episode_steps above 0 or None, got {limit!r}")
    return env


def _moved(name: str) -> str:
    """The name today of a module that an earlier version had elsewhere."""
    return name.replace(_OLD_HOME, "jaxdl.rl.envs.", 1) if name.startswith(_OLD_HOME) else name


def import_module(name: str) -> Any:
    """A module of the Python path or of the current folder."""
    return imports.import_module(_moved(name))


def check(env: Env) -> Env:
    """`env`, traced once, so that what is wrong with it is said where it is made.

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
