"""Returns of a policy in Gymnasium's own environment, whatever it was trained on.

Every lane of a vector environment plays a fixed number of episodes: taking the first so many that end would favour short ones.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import envs
from jaxdl.types import Actor, Array, PyTree

_LANES = 10  # environments side by side, where each is a Python object


class Evaluation(NamedTuple):
    """Undiscounted returns of whole episodes (a time limit ends one too)."""

    returns: np.ndarray  # [episodes] float64
    lengths: np.ndarray  # [episodes] int64, in steps

    @property
    def episodes(self) -> int:
        """How many."""
        return len(self.returns)

    @property
    def return_mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def return_std(self) -> float:
        """Standard deviation of the returns, over the episodes."""
        return float(self.returns.std())


def evaluate(actor: Actor, params: PyTree, env_id: str, *, episodes: int, seed: int) -> Evaluation:
    """Play `episodes` episodes.

    Args:
        actor: the policy.
        params: its parameters.
        env_id: Gymnasium id.
        episodes: at least 1.
        seed: of the environments and of the policy.

    Raises:
        EnvError: the environment cannot be made or failed.
    """
    native = envs.has_native(env_id)
    lanes = min(episodes, 100 if native else _LANES)
    allotted = np.full(lanes, episodes // lanes)
    allotted[: episodes % lanes] += 1
    act, key = program(actor), jax.random.key(seed)
    venv = envs.make_host(env_id, lanes, "native" if native else "sync")
    try:
        obs = envs.host_reset(venv, seed)
        carry, t = jax.jit(actor.init, static_argnums=0)(lanes), 0
        total, length, begins = np.zeros(lanes), np.zeros(lanes, np.int64), np.zeros(lanes, bool)
        returns, lengths = [], []
        while allotted.any():
            carry, action = act(params, carry, begins, obs, key, np.int32(t))
            obs, reward, terminated, truncated = envs.host_step(venv, np.asarray(action))
            t += 1
            total, length = np.where(begins, 0, total + reward), np.where(begins, 0, length + 1)
            ended = (terminated | truncated) & ~begins
            for lane in np.flatnonzero(ended & (allotted > 0)):
                returns.append(total[lane])
                lengths.append(length[lane])
            allotted -= ended & (allotted > 0)
            begins = ended  # the coming step only resets these
    finally:
        venv.close()
    return Evaluation(np.array(returns), np.array(lengths))


@functools.lru_cache(maxsize=16)
def program(actor: Actor) -> Callable:
    """The actor, compiled once for all evaluations; where an episode begins anew so does its carry."""

    def act(params: PyTree, carry: PyTree, begins: Array, obs: Array, key: Array, t: Array) -> tuple[PyTree, Array]:
        carry, action, _ = actor.act(params, carry, obs, jax.random.fold_in(key, t), t)
        fresh = actor.init(obs.shape[0])
        carry = jax.tree.map(lambda new, old: jnp.where(begins.reshape(-1, *[1] * (old.ndim - 1)), new, old), fresh, carry)
        return carry, action

    return jax.jit(act)
