"""How a network computes while it learns, an argument of the networks that learners build.

    dtype="bfloat16"   dense and convolutional layers multiply in bfloat16; their parameters and outputs stay float32, and so
                       do normalization, distributions, losses and gradients (Micikevicius et al., "Mixed precision
                       training", 2018). Last layers multiply in float32: bfloat16 has steps of 0.25 at 40, and what is
                       compared, a value with another or a logit with another, differs by less
    remat=True         blocks keep their inputs and compute the rest again in the backward pass (Chen et al., "Training deep
                       nets with sublinear memory cost", 2016)

A learner builds its network twice, with one set of parameters: for the loss as its `optim` says, and in float32 for acting,
sampling and measuring.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array


class Compute(NamedTuple):
    """How a network of blocks computes; other networks take a `dtype` alone."""

    dtype: str = "float32"
    remat: bool = False

    def block(self, module: type[linen.Module]) -> type[linen.Module]:
        """The class of a block, which must be given a name, as this network applies it."""
        return linen.remat(module) if self.remat else module


FLOAT32 = Compute()


def to_compute(dtype: Any, *arrays: Array | None) -> list[Array | None]:
    """The arrays in the dtype in which a layer multiplies; None is the dtype that they promote to."""
    return linen.dtypes.promote_dtype(*arrays, dtype=dtype)


def widened(y: Array) -> Array:
    """The output of a layer: float32 where it multiplied in bfloat16."""
    return y.astype(jnp.float32) if y.dtype == jnp.bfloat16 else y
