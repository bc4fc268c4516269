"""Learning-rate schedules, written in jnp: the rate, the planned updates and the updates done may all be traced.

A schedule is a function of the share f of the planned updates (the horizon) that is done, after a linear rise over
`warmup_fraction`. With e = `final_fraction`, the part of the learning rate that is left at f = 1 and held from there on:

    constant 1    linear 1 + f (e - 1)    cosine e + (1 - e) (1 + cos(pi f)) / 2 (Loshchilov & Hutter 2017)
    exponential e^f    inverse_time 1 / (1 + f (1/e - 1))    step e^(floor(f * lr_steps) / lr_steps)
"""

from collections.abc import Callable

import jax.numpy as jnp

from jaxdl.core.types import Array
from jaxdl.optim.config import Config


def learning_rate(config: Config, horizon: int) -> Callable[[Array], Array]:
    """`updates done -> learning rate`; both may be traced. `horizon` is the number of planned updates."""

    def rate(count: Array) -> Array:
        count = jnp.asarray(count, jnp.float32)
        warmup = 0.0 if config.warmup_fraction is None else config.warmup_fraction * horizon  # updates
        f = jnp.clip((count - warmup) / (horizon - warmup), 0.0, 1.0)
        e = jnp.asarray(config.final_fraction, jnp.float32)
        left = {
            "constant": lambda: jnp.ones(()),
            "linear": lambda: 1.0 + f * (e - 1.0),
            "cosine": lambda: e + (1.0 - e) * 0.5 * (1.0 + jnp.cos(jnp.pi * f)),
            "exponential": lambda: e**f,
            "inverse_time": lambda: 1.0 / (1.0 + f * (1.0 / e - 1.0)),
            "step": lambda: e ** (jnp.floor(f * config.lr_steps) / config.lr_steps),
        }[config.schedule]()
        if config.warmup_fraction is not None:
            left = left * jnp.minimum((count + 1.0) / jnp.maximum(warmup, 1.0), 1.0)
        return config.learning_rate * left

    return rate
