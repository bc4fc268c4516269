"""Environments of others, by the name of their class: `module:Class`, a `FuncEnv` of Gymnasium's functional interface.

Its observation and action spaces are attributes, and so is `max_episode_steps` where episodes have a time limit.
"""

import importlib
import os
import re
import sys
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core.errors import EnvError
from jaxdl.rl.types import Env

_OLD_HOME = "jaxdl.envs."


def is_class(env_id: str) -> bool:
    """Whether an id names a class: `package.module:Class`."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", env_id) is not None


def load(env_id: str) -> FuncEnv:
    """The environment that `module:Class` names; modules are also looked for in the current folder.

    Raises:
        EnvError: no such module or class, it is no `FuncEnv`, it cannot be made, or its spaces are none.
    """
    name, cls = env_id.split(":")
    try:
        module = import_module(name)
    except (Exception, SystemExit) as e:
        if isinstance(e, ModuleNotFoundError) and e.name and (name == e.name or name.startswith(f"{e.name}.")):
            raise EnvError(f"there is no environment '{env_id}': no module '{e.name}' here or in the Python path") from e
        raise EnvError(f"{env_id} cannot be made: importing {name} failed with {_said(e)}") from e
    found = getattr(module, cls, None)
    if not isinstance(found, type):
        raise EnvError(f"there is no environment '{env_id}': {name} has {'no' if found is None else 'something else as'} "
                       f"class '{cls}'")
    if not issubclass(found, FuncEnv):
        raise EnvError(f"{env_id} is no environment for the device: its class must be a subclass of gymnasium.experimental."
                       "functional.FuncEnv; register one of Gymnasium's usual kind with gymnasium.register, and use its id")
    try:
        env = found()
    except (Exception, SystemExit) as e:
        raise EnvError(f"{env_id} cannot be made: {_said(e)}") from e
    for space in ("observation_space", "action_space"):
        if not isinstance(getattr(env, space, None), gymnasium.Space):
            raise EnvError(f"{env_id} needs an attribute {space} that is a gymnasium.Space, "
                           f"got {type(getattr(env, space, None)).__name__}")
    limit = getattr(env, "max_episode_steps", None)
    if limit is not None and not (isinstance(limit, int) and limit > 0):
        raise EnvError(f"{env_id} needs max_episode_steps above 0 or None, got {limit!r}")
    return env


def import_module(name: str) -> Any:
    """A module of the Python path or of the current folder."""
    if name.startswith(_OLD_HOME):  # the name that settings of earlier versions have
        name = name.replace(_OLD_HOME, "jaxdl.rl.envs.", 1)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a command's path has no current folder; last, so that it hides nothing
    return importlib.import_module(name)


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
        raise EnvError(f"{env.spec.id} cannot be traced by JAX: {_said(e)}") from e
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


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0]}" if lines else "")
