"""Square: an attack in l-infinity that asks for outputs alone, by random search (Andriushchenko et al. 2020).

A change is +- epsilon in every pixel: stripes at first, then squares at random places, whose side shrinks by a schedule; a
square stays where the margin falls.

Shapes: `N` inputs, `H W C` a picture.
"""

import jax
import jax.numpy as jnp

from jaxdl.adversarial import ball
from jaxdl.adversarial.attacks import Found, Function, margin
from jaxdl.core.types import Array, Key

_HALVED_AT = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries


def square(f: Function, x: Array, labels: Array, epsilon: float | Array, key: Key, queries: int = 1000, share: float = 0.8
           ) -> Found:
    """The attack; `share` is the part of the picture that the first squares cover."""
    num, height, width, channels = x.shape
    k_stripes, k_search = jax.random.split(key)
    stripes = epsilon * _signs(k_stripes, (num, 1, width, channels))
    now = ball.project(x + stripes, x, epsilon, "linf")
    halved = jnp.array(_HALVED_AT) * queries / 10_000

    def body(state: tuple[Array, Array], at: tuple[Array, Key]) -> tuple[tuple[Array, Array], None]:
        now, far = state
        k, key = at
        k_place, k_sign = jax.random.split(key)
        covered = share / 2.0 ** (k >= halved).sum()
        side = jnp.clip(jnp.round(jnp.sqrt(covered * height * width)), 1, min(height, width) - 1)
        top, left = (jax.random.uniform(k_place, (2, num)) * (jnp.array([height, width])[:, None] - side + 1)).astype(jnp.int32)

        def inside(first: Array, n: int) -> Array:
            pixel = jnp.arange(n)
            return (pixel >= first[:, None]) & (pixel < first[:, None] + side)

        here = (inside(top, height)[:, :, None] & inside(left, width)[:, None])[..., None]
        new = jnp.where(here, x + epsilon * _signs(k_sign, (num, 1, 1, channels)), now)
        new = ball.project(new, x, epsilon, "linf")
        new_far = margin(f(new), labels)
        lower = (new_far < far) & (far > 0)  # what is wrong stays
        return (jnp.where(lower[:, None, None, None], new, now), jnp.where(lower, new_far, far)), None

    steps = jnp.arange(queries), jax.random.split(k_search, queries)
    (x, far), _ = jax.lax.scan(body, (now, margin(f(now), labels)), steps)
    return Found(x, far, 0)


def _signs(key: Key, shape: tuple[int, ...]) -> Array:
    return jax.random.rademacher(key, shape, jnp.float32)
