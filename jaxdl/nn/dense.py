"""A dense layer whose precision is an argument."""

from typing import Any

import jax.numpy as jnp
from flax import linen
from jax import lax

from jaxdl.core.types import Array
from jaxdl.nn.initializers import lecun_uniform
from jaxdl.nn.precision import to_compute, widened


class Dense(linen.Module):
    """`linen.Dense` with the same parameters: [..., F] -> [..., features].

    It multiplies in `dtype` (None: that of its inputs), and its output is float32 even if that is bfloat16 (`precision`).
    """

    features: int
    use_bias: bool = True
    kernel_init: linen.initializers.Initializer = lecun_uniform
    dtype: Any = None

    @linen.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", linen.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = to_compute(self.dtype, x, kernel, bias)
        y = lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
        return widened(y if bias is None else y + jnp.reshape(bias, (1,) * (y.ndim - 1) + (-1,)))
