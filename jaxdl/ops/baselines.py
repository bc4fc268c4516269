"""Baselines of score-function estimators: what a reward is compared with, so that the gradient's variance is low.

    grad E[R] = E[grad log pi(a) (R - b)]    for any b that does not depend on a

    none            b = 0
    constant        a moving average of earlier rewards
    batch           the mean of a group of n rewards, one's own among them: the expected gradient is (1 - 1/n) of the true one
    leave_one_out   the mean of the others of the group (Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!")
    value           learned, of what is known before the action is drawn (Sutton et al. 2000)

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning" (1992). A group are the
draws for one example, where there are several, else the examples of the batch.

Shapes: `B` examples, `D` draws for each.
"""

from typing import Literal

import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.types import Array, Mean

Name = Literal["none", "constant", "batch", "leave_one_out", "value"]


def none_yet() -> Mean:
    """The moving average before there was any reward."""
    return Mean(jnp.zeros(()), jnp.zeros(()))


def moved(average: Mean, new: Mean, decay: float | Array) -> Mean:
    """The moving average with new rewards, which reduces the weight of earlier ones by a factor."""
    return Mean(decay * average.total + new.total, decay * average.count + new.count)


def value_of(average: Mean) -> Array:
    """The moving average, 0 before there was any reward: ()."""
    return average.total / jnp.maximum(average.count, 1e-8)


def others_mean(total: Array, own: Array, num: Array | int) -> Array:
    """The mean of all others of a group of `num` that sums to `total` with one's `own`, [...]; 0 where there are none."""
    return (total - own) / jnp.maximum(num - 1, 1) * (num > 1)


def of_group(name: Name, total: Array, own: Array, num: Array | int) -> Array:
    """`batch` or `leave_one_out` of a group of `num` rewards that sum to `total`, for the one that is `own`: [...]."""
    return others_mean(total, own, num) if name == "leave_one_out" else total / jnp.maximum(num, 1)


def among_draws(name: Name, reward: Array, axis_name: str | None = None) -> Array:
    """`batch` or `leave_one_out` of rewards [B, D, ...], over the draws for an example, or if D is 1 over all examples.

    Args:
        name: of the baseline.
        reward: of this shard's examples; further axes are compared each by itself.
        axis_name: the mapped axis of devices, whose examples are one group.
    """
    if reward.shape[1] > 1:
        return of_group(name, reward.sum(1, keepdims=True), reward, reward.shape[1])
    total, num = axis.sum_over((reward.sum((0, 1)), jnp.float32(reward.shape[0])), axis_name)
    return of_group(name, total, reward, num)


def compared_with(name: Name, reward: Array, value: Array, average: Mean | None, axis_name: str | None = None) -> Array:
    """What rewards [B, D, ...] are compared with, in a shape that broadcasts with theirs.

    Args:
        name: of the baseline.
        reward: of this shard's examples.
        value: what was learned to expect, where it is the baseline.
        average: the moving average, where it is the baseline.
        axis_name: as in `among_draws`.
    """
    if name == "none":
        return jnp.zeros(())
    if name == "constant":
        return value_of(average)
    return value if name == "value" else among_draws(name, reward, axis_name)
