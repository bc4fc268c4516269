"""Nonlinearities by name, as functions of what the layer before gives. Those that learn have parameters, in a `compact` module.

    relu          max(0, x)                leaky_relu    max(0.01 x, x)
    prelu         x or a x, a learned (He et al. 2015)
    elu           x or e^x - 1 (Clevert et al. 2016)
    maxout        max(x, x') of two halves (Goodfellow et al. 2013)
    silu, swish   x sigmoid(x) (Elfwing et al. 2018)
    gelu          x Phi(x) (Hendrycks & Gimpel 2016)
    tanh, sigmoid

Of maxout the layer before has `pieces` times the width, so that widths are of what comes out.

Shapes: `F` features, last.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.config import suggest
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array


class PReLU(linen.Module):
    """A ReLU that is not flat below zero: its slope there is learned, one for each feature, from 1/4 on (He et al. 2015)."""

    @linen.compact
    def __call__(self, x: Array) -> Array:
        slope = self.param("slope", linen.initializers.constant(0.25), x.shape[-1:])
        return jnp.where(x >= 0, x, slope * x)


def maxout(x: Array) -> Array:
    """The larger of the numbers in two halves: [..., 2 F] -> [..., F]."""
    return jnp.maximum(*jnp.split(x, 2, -1))


_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
    "prelu": lambda x: PReLU()(x),
    "maxout": maxout,
}


def activation(name: str) -> Callable[[Array], Array]:
    """The nonlinearity called `name`.

    Raises:
        UserError: unknown; lists the known ones.
    """
    if name not in _ACTIVATIONS:
        raise UserError(f"there is no activation '{name}'{suggest(name, _ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def pieces(name: str) -> int:
    """How many numbers of the layer before become one."""
    return 2 if name == "maxout" else 1
