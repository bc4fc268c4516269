"""What a source keeps of the episodes that are being played.

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
        """No episode has begun."""
        return Episodes(jnp.zeros((2, num_envs)))

    def step(self, ts: TimeStep) -> tuple["Episodes", Array, Array]:
        """One step on: the episodes, their sums with it [2, E], and which are over with it, bool [E].

        Where resets are steps it is over with the reset, and the sums are those of the steps before: a lost life may terminate
        what is learned, and the game goes on.
        """
        sums = self.sums + jnp.stack([ts.reward, jnp.ones_like(ts.reward)])
        if ts.reset is None:
            over, whole = ts.terminated | ts.truncated, sums
        else:
            over, whole = ts.reset, self.sums
        return Episodes(jnp.where(over, 0, sums)), whole, over

    def add(self, ts: TimeStep) -> tuple["Episodes", Metrics]:
        """One step on, and metrics of the episodes that are over."""
        episodes, whole, over = self.step(ts)
        return episodes, of_whole(whole[0], whole[1], over)


def of_whole(total: Array, length: Array, over: Array) -> Metrics:
    """Metrics of the episodes that are `over`: three arrays of one shape, their returns, lengths and bool."""
    return {"episode_return": Mean.of(total, over), "episode_length": Mean.of(length, over)}


def renewed(actor: Actor, carry: PyTree, begins: Array) -> PyTree:
    """The recurrent state [E, ...], a new one where an episode begins (bool [E])."""
    return jax.tree.map(lambda new, old: jnp.where(begins.reshape(-1, *[1] * (old.ndim - 1)), new, old),
                        actor.init(len(begins)), carry)
