"""Returns and lengths of the episodes that are being played.

Shapes: `E` environments.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Mean, Metrics, PyTree
from jaxdl.rl.types import Actor, TimeStep


class Episodes(NamedTuple):
    """Each environment's current episode."""

    sums: Array  # [2, E] float32: its return and its length so far, as one array: each costs a kernel a step

    @staticmethod
    def init(num_envs: int) -> "Episodes":
        """Statistics before the first step."""
        return Episodes(jnp.zeros((2, num_envs)))

    def step(self, ts: TimeStep) -> tuple["Episodes", Array, Array]:
        """Add a step.

        Where resets are steps of their own, an episode is over with the reset, and its sums are those of the steps before: a
        lost life may terminate what is learned while the game goes on.

        Returns:
            The episodes, their sums [2, E] with this step, and bool [E]: which are over with it.
        """
        sums = self.sums + jnp.stack([ts.reward, jnp.ones_like(ts.reward)])
        if ts.reset is None:
            over, finished = ts.terminated | ts.truncated, sums
        else:
            over, finished = ts.reset, self.sums
        return Episodes(jnp.where(over, 0, sums)), finished, over

    def add(self, ts: TimeStep) -> tuple["Episodes", Metrics]:
        """Add a step; returns the episodes and the metrics of those that are over with it."""
        episodes, sums, over = self.step(ts)
        return episodes, finished_metrics(*sums, over)


def finished_metrics(total: Array, length: Array, over: Array) -> Metrics:
    """Metrics of the episodes that are `over`: their returns, their lengths and a mask, three arrays of one shape."""
    return {"episode_return": Mean.of(total, over), "episode_length": Mean.of(length, over)}


def reset_carry(actor: Actor, carry: PyTree, first: Array) -> PyTree:
    """The recurrent state [E, ...], reset to the actor's initial one where an episode begins (`first`, bool [E])."""
    return jax.tree.map(lambda new, old: jnp.where(first.reshape(-1, *[1] * (old.ndim - 1)), new, old),
                        actor.init(len(first)), carry)
