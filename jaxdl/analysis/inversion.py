"""Pictures made by going down: those of which a layer says the same as of another picture.

    |F(x) - F(x0)|^2 / |F(x0)|^2 + variation TV(x) / pixels + bound mean(|2 x - 1|^6)

Mahendran & Vedaldi, "Understanding deep image representations by inverting them" (2015). Here by Adam, begun from grey noise.

Shapes: `N` pictures, `H W C` a picture, `T` steps.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl.analysis import priors
from jaxdl.analysis.receptive import maps_of
from jaxdl.core.types import Array, Key

_NOISE = 0.05


class Made(NamedTuple):
    """Pictures, and the loss before each step and at the end."""

    x: Array  # [N, H, W, C]
    losses: Array  # [T + 1, N]


def descend(loss: Callable[[Array], Array], x: Array, steps: int = 300, rate: float = 0.05) -> Made:
    """Pictures in [0, 1] for which a loss [N] is small, by Adam, whose rate falls to zero as a cosine."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(state: tuple[Array, optax.OptState], _: None) -> tuple[tuple[Array, optax.OptState], Array]:
        x, opt = state
        value, back = jax.vjp(loss, x)
        by, opt = optimizer.update(back(jnp.ones_like(value))[0], opt)
        return (jnp.clip(x + by, 0, 1), opt), value

    (x, _), losses = jax.lax.scan(step, (x, optimizer.init(x)), length=steps)
    return Made(x, jnp.concatenate([losses, loss(x)[None]]))


def difference(out: Array, wanted: Array) -> Array:
    """|out - wanted|^2 / |wanted|^2, [N]."""
    axes = tuple(range(1, out.ndim))
    return ((out - wanted) ** 2).sum(axes) / jnp.maximum((wanted**2).sum(axes), 1e-12)


def grey_noise(key: Key, shape: tuple[int, ...]) -> Array:
    """Where pictures begin."""
    return 0.5 + _NOISE * jax.random.normal(key, shape)


def invert(f: Callable[[Array], Array], layer: str, x: Array, key: Key, variation: float | Array = 1.0,
           bound: float | Array = 0.01, steps: int = 300, rate: float = 0.05) -> Made:
    """Pictures that a layer takes for `x` [N, H, W, C], made from noise; the losses are `difference` alone.

    Raises:
        UserError: there is no such layer.
    """
    maps = maps_of(f, layer)
    wanted = maps(x)
    pixels = x[0].size

    def loss(x: Array) -> Array:
        far = bound * (jnp.abs(2 * x - 1) ** 6).mean((1, 2, 3))
        return difference(maps(x), wanted) + variation * priors.total_variation(x) / pixels + far

    begin = grey_noise(key, x.shape)
    made = descend(loss, begin, steps, rate).x
    return Made(made, jnp.stack([difference(maps(begin), wanted), difference(maps(made), wanted)]))
