"""Pools."""

import jax
import numpy as np
from jax import numpy as jnp

from jaxdl import nn


def test_the_largest_of_each_map_and_its_place():
    x = jax.random.normal(jax.random.key(0), (3, 4, 5, 2))
    np.testing.assert_array_equal(nn.max_over_places(x), x.max((1, 2)))
    grad = jax.grad(lambda x: (nn.max_over_places(x) * jnp.array([1.0, 2.0])).sum())(x)
    np.testing.assert_array_equal(grad, jnp.where(x == x.max((1, 2), keepdims=True), jnp.array([1.0, 2.0]), 0))
    tied = jax.grad(lambda x: nn.max_over_places(x).sum())(jnp.zeros((1, 2, 2, 1)))
    assert tied.sum() == 1  # one place, and no division
