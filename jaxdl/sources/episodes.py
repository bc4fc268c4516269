"""What a source keeps of the episodes that are being played.

Shapes: `E` environments.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.types import Actor, Array, HostStep, Mean, Metrics, PyTree, TimeStep


class Whole(NamedTuple):
    """Return and length of episodes, both [E] float32."""

    episode_return: Array
    episode_length: Array


class Episodes(NamedTuple):
    """Running return and length of each environment's current episode, both [E] float32."""

    total: Array
    length: Array

    @staticmethod
    def init(num_envs: int) -> "Episodes":
        """No episode has begun."""
        return Episodes(jnp.zeros(num_envs), jnp.zeros(num_envs))

    def step(self, ts: TimeStep | HostStep) -> tuple["Episodes", Whole, Array]:
        """One step on; what is whole where an episode is over [E] with it, or, where resets are steps, with the one before.

        A lost life may terminate what is learned, and the game goes on: there it is not over before the reset.
        """
        total, length = self.total + ts.reward, self.length + 1
        if ts.reset is None:
            over, whole = ts.terminated | ts.truncated, Whole(total, length)
        else:
            over, whole = ts.reset, Whole(self.total, self.length)
        return Episodes(jnp.where(over, 0, total), jnp.where(over, 0, length)), whole, over

    def add(self, ts: TimeStep | HostStep) -> tuple["Episodes", Metrics]:
        """One step on, and metrics of the episodes that are over."""
        episodes, whole, over = self.step(ts)
        return episodes, {name: Mean.of(x, over) for name, x in whole._asdict().items()}


def renewed(actor: Actor, carry: PyTree, begins: Array) -> PyTree:
    """The recurrent state [E, ...], a new one where an episode begins (bool [E])."""
    return jax.tree.map(lambda new, old: jnp.where(begins.reshape(-1, *[1] * (old.ndim - 1)), new, old),
                        actor.init(len(begins)), carry)
