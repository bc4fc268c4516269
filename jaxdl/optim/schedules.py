"""Learning-rate schedules, written in jnp: the rate, the planned updates and the updates done may all be traced.

A schedule is a function of the share f of the planned updates (the horizon) that is done, after a linear rise over
`warmup_fraction`. With e = `final_fraction`, the part of the learning rate that is left at f = 1 and held from there on:

    constant 1    linear 1 + f (e - 1)    cosine e + (1 - e) (1 + cos(pi f)) / 2 (Loshchilov & Hutter 2017)
    cyclic the same within each of `lr_cycles` cycles, each `lr_cycle_growth` times as long as the one before (SGDR, theirs too)
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
        done, planned = count - warmup, horizon - warmup
        f = jnp.clip(done / planned, 0.0, 1.0)
        e = jnp.asarray(config.final_fraction, jnp.float32)
        left = {
            "constant": lambda: jnp.ones(()),
            "linear": lambda: 1.0 + f * (e - 1.0),
            "cosine": lambda: _cosine(f, e),
            "cyclic": lambda: _cosine(_in_cycle(done, planned, config.lr_cycles, config.lr_cycle_growth), e),
            "exponential": lambda: e**f,
            "inverse_time": lambda: 1.0 / (1.0 + f * (1.0 / e - 1.0)),
            "step": lambda: e ** (jnp.floor(f * config.lr_steps) / config.lr_steps),
        }[config.schedule]()
        if config.warmup_fraction is not None:
            left = left * jnp.minimum((count + 1.0) / jnp.maximum(warmup, 1.0), 1.0)
        return config.learning_rate * left

    return rate


def _cosine(f: Array, e: Array) -> Array:
    return e + (1.0 - e) * 0.5 * (1.0 + jnp.cos(jnp.pi * f))


def _in_cycle(done: Array, planned: Array, cycles: int, growth: float | Array) -> Array:
    """The share of its cycle that is done, 1 from the planned end on. Cycles begin at whole updates."""
    lengths = jnp.asarray(growth, jnp.float32) ** jnp.arange(cycles)
    ends = jnp.round(jnp.cumsum(lengths) / lengths.sum() * planned)
    k = jnp.sum(jnp.expand_dims(done, -1) >= ends[:-1], -1)
    begin = jnp.where(k == 0, 0.0, ends[k - 1])
    return jnp.clip((done - begin) / jnp.maximum(ends[k] - begin, 1.0), 0.0, 1.0)
