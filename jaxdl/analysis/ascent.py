"""Pictures made by going up: what a class or a unit answers to most (Simonyan et al. 2014), and dreams.

A step goes along the gradient g of what is to be large, of length one a pixel in the mean, and keeps to priors:

    x' = x + rate (g / rms(g) - variation dTV/dx),   then decay towards grey, blur, and what is small becomes grey

Yosinski et al., "Understanding neural networks through deep visualization" (2015) have decay, blur and what is small; Olah et
al., "Feature visualization" (2017) total variation, jitter and even frequencies. Here the gradient is normalized, so that rates
and weights mean the same for any network and unit.

`dream` goes up at growing sizes ("octaves") of a picture, each beginning with the details that the smaller ones gained:
Mordvintsev et al., "Inceptionism" (2015).

Shapes: `N` pictures, `H W C` a picture, `T` steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.analysis import priors
from jaxdl.analysis.receptive import maps_of
from jaxdl.core.config import require
from jaxdl.core.types import Array, Key

Objective = Callable[[Array], Array]  # pictures [N, H, W, C] -> what is to be large [N]


@dataclass(frozen=True, kw_only=True)
class Priors:
    """What keeps a picture from being noise; all zero: nothing does."""

    decay: float = 0.0
    """Share of the distance from grey that is lost a step (Simonyan et al. 2014)."""
    blur: float = 0.0
    """Deviation of a blur every four steps, in pixels."""
    clip_pixels: float = 0.0
    """Share of the pixels, those nearest to grey, that become grey."""
    clip_gradients: float = 0.0
    """Share of the pixels, those that matter least for what is to be large, that become grey."""
    variation: float = 0.0
    """Weight of the total variation."""
    jitter: int = 0
    """Pixels by which the picture is moved at random before each step."""
    even: float = 0.0
    """Power of a frequency by which its part of the gradient is divided; 1 is that of photographs."""

    def validate(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UserError: names the field.
        """
        for field in ("decay", "clip_pixels", "clip_gradients"):
            require(self, field, 0 <= getattr(self, field) < 1, "at least 0 and below 1")
        for field, most in {"blur": 4, "variation": 1000, "jitter": 1000, "even": 4}.items():
            require(self, field, 0 <= getattr(self, field) <= most, f"between 0 and {most}")


class Made(NamedTuple):
    """Pictures, and how large what was to be large was before each step and at the end."""

    x: Array  # [N, H, W, C]
    values: Array  # [T + 1, N]


_BLUR_EVERY = 4  # steps


def of_class(f: Callable[[Array], Array], target: Array) -> Objective:
    """The outputs `target` [N] of a function [N, H, W, C] -> [N, K]."""
    return lambda x: jnp.take_along_axis(f(x), target[:, None], 1)[:, 0]


def of_unit(f: Callable[[Array], Array], layer: str, units: Array) -> Objective:
    """Of each picture a unit [N] of a layer; of maps the mean over places."""
    maps = maps_of(f, layer)
    return lambda x: jnp.take_along_axis(maps(x).mean((1, 2)), units[:, None], 1)[:, 0]


def of_layer(f: Callable[[Array], Array], layer: str) -> Objective:
    """The mean square of all that a layer says, which a dream makes larger: whatever it sees, more of it."""
    maps = maps_of(f, layer)
    return lambda x: (maps(x) ** 2).mean((1, 2, 3))


def ascend(objective: Objective, x: Array, key: Key, keep: Priors = Priors(), steps: int = 200,
           rate: float | Array = 0.02, grey: Array | float = 0.5) -> Made:
    """Pictures in [0, 1] for which the objective is large; the rate falls to zero in the course.

    Args:
        x: where it begins, [N, H, W, C].
        key: of jitter.
        grey: what is no picture: a number, or one a channel.
    """
    def step(x: Array, at: tuple[Array, Key]) -> tuple[Array, Array]:
        i, key = at
        shift = jax.random.randint(key, (2,), -keep.jitter, keep.jitter + 1)
        moved = jnp.roll(x, shift, (1, 2))
        value, back = jax.vjp(objective, moved)
        gradient = jnp.roll(back(jnp.ones_like(value))[0], -shift, (1, 2))
        by = priors.evenly(gradient, keep.even) if keep.even else gradient
        by = by / jnp.maximum(jnp.sqrt((by**2).mean((1, 2, 3), keepdims=True)), 1e-20)
        if keep.variation:
            by = by - keep.variation * jax.grad(lambda x: priors.total_variation(x).sum())(x)
        away = (1 - keep.decay) * (x + rate * (1 - i / steps) * by - grey)
        if keep.blur:
            away = jnp.where(i % _BLUR_EVERY == 0, priors.blurred(away, keep.blur), away)
        if keep.clip_pixels:
            away = priors.without_small(away, jnp.sqrt((away**2).sum(-1)), keep.clip_pixels)
        if keep.clip_gradients:
            away = priors.without_small(away, jnp.abs((away * gradient).sum(-1)), keep.clip_gradients)
        return jnp.clip(grey + away, 0, 1), value

    x, values = jax.lax.scan(step, x, (jnp.arange(steps), jax.random.split(key, steps)))
    return Made(x, jnp.concatenate([values, objective(x)[None]]))


def dream(objective: Objective, x: Array, key: Key, keep: Priors = Priors(jitter=8), octaves: int = 4,
          scale: float = 1.4, steps: int = 20, rate: float = 0.02) -> Made:
    """A picture [N, H, W, C] in which a network sees more of what it sees.

    Args:
        octaves: sizes, the last is the picture's own.
        scale: of a size to the one before.
        steps: at each size.

    Returns:
        values [2, N]: of the picture as it was, and of the dream.
    """
    size, made = x.shape[1:3], jnp.zeros((len(x), 1, 1, x.shape[-1]))
    for octave, k in zip(reversed(range(octaves)), jax.random.split(key, octaves), strict=True):
        small = tuple(max(round(side / scale**octave), 1) for side in size)
        base = jax.image.resize(x, (len(x), *small, x.shape[-1]), "linear")
        begin = jnp.clip(base + jax.image.resize(made, base.shape, "linear"), 0, 1)
        went = jax.jit(lambda begin, key: ascend(objective, begin, key, keep, steps, rate).x)(begin, k)
        made = went - base
    return Made(went, jnp.stack([objective(x), objective(went)]))
