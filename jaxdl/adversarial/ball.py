"""Balls around inputs, within the range of pixels: what an attack may choose from, to the last bit.

    linf   |x' - x| <= epsilon of each number        l2   ||x' - x||_2 <= epsilon of each input

Shapes: `N` inputs, `...` one input.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key

_ROUNDED = 2.0**-24  # by which a number below 1 may be moved when it is rounded
Norm = Literal["linf", "l2"]


def size(change: Array, norm: Norm) -> Array:
    """The norm of each change [N, ...], [N]."""
    flat = change.reshape(len(change), -1)
    return jnp.abs(flat).max(-1) if norm == "linf" else jnp.sqrt(jnp.square(flat).sum(-1))


def project(x: Array, near: Array, epsilon: float | Array, norm: Norm) -> Array:
    """The points of the balls around `near` [N, ...], of pixels in [0, 1], next to x.

    The bounds hold of the differences of what is returned, which are rounded: what would be a hair outside is drawn in.
    """
    if norm == "linf":
        low, high = _inside(near, epsilon)
        return jnp.clip(x, low, high)
    change = jnp.clip(x, 0, 1) - near
    length = wide(size(change, "l2"), change)
    most = jnp.maximum(epsilon * (1 - 1e-6) - _ROUNDED * math.sqrt(x[0].size), 0)  # sums of pixels and changes are rounded
    return jnp.clip(near + change * jnp.minimum(1, most / jnp.maximum(length, 1e-30)), 0, 1)


def unbounded(x: Array, near: Array, epsilon: float | Array, norm: Norm) -> Array:
    """The same of numbers of any range, to rounding."""
    if norm == "linf":
        return jnp.clip(x, near - epsilon, near + epsilon)
    change = x - near
    return near + change * jnp.minimum(1, epsilon / wide(jnp.maximum(size(change, "l2"), 1e-30), change))


def _inside(near: Array, epsilon: float | Array) -> tuple[Array, Array]:
    """The lowest and highest float32 of each pixel whose difference to it, as float32 has it, is within epsilon."""
    low, high = jnp.maximum(near - epsilon, 0), jnp.minimum(near + epsilon, 1)
    low = jnp.where(near - low > epsilon, jnp.nextafter(low, near), low)
    return low, jnp.where(high - near > epsilon, jnp.nextafter(high, near), high)


def random(key: Key, near: Array, epsilon: float | Array, norm: Norm, project: Callable[..., Array] = project) -> Array:
    """Uniform points of the balls around `near`, as `project` (or `unbounded`) has them."""
    if norm == "linf":
        return project(near + epsilon * jax.random.uniform(key, near.shape, minval=-1.0, maxval=1.0), near, epsilon, norm)
    k_way, k_far = jax.random.split(key)
    way = jax.random.normal(k_way, near.shape)
    numbers = way[0].size
    far = epsilon * jax.random.uniform(k_far, (len(near),)) ** (1 / numbers)
    return project(near + way * wide(far / jnp.maximum(size(way, "l2"), 1e-30), way), near, epsilon, norm)


def steepest(grad: Array, norm: Norm) -> Array:
    """The step of length 1 in the norm along which a function with this gradient [N, ...] rises most."""
    if norm == "linf":
        return jnp.sign(grad)
    return grad / wide(jnp.maximum(size(grad, "l2"), 1e-30), grad)


def wide(of_input: Array, like: Array) -> Array:
    """[N] as [N, 1, ...], to be combined with [N, ...]."""
    return of_input.reshape(-1, *[1] * (like.ndim - 1))
