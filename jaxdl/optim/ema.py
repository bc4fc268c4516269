"""Exponential moving average of parameters, with a warm-up.

    mean <- mean + (1 - d) (new - mean),    d = min(decay, (1 + t) / (10 + t)) after t updates

The warm-up is that of TensorFlow's ExponentialMovingAverage: a mean over few updates forgets the initial parameters sooner.
"""

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, PyTree


def ema(mean: PyTree, new: PyTree, decay: float | Array, count: Array) -> PyTree:
    """The mean with `new` added to it; `count` int32 () is the number of updates before this one."""
    t = count.astype(jnp.float32)
    decay = jnp.minimum(decay, (1 + t) / (10 + t))
    return jax.tree.map(lambda mean, x: x + decay * (mean - x), mean, new)
