"""The precision of layers, an argument of the networks that learners build.

With `dtype="bfloat16"` a dense or convolutional layer multiplies in bfloat16. Its parameters stay float32, and so is what it
gives: activations, normalization, distributions, losses and gradients (Micikevicius et al., "Mixed precision training", 2018).
A learner builds its network twice, with one set of parameters: as its `optim.compute_dtype` says for the loss, and in float32
for acting, sampling and measuring.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array

_LAYERS = ("Dense", "Conv", "ConvTranspose", "NoisyDense")
BLOCK = "RECOMPUTED"  # a class attribute, true of modules that are blocks: stacked, and without state beside their parameters


def switched(loss_fn: Callable[..., Any], compute: str, remat: bool) -> Callable[..., Any]:
    """`loss_fn`, any function that applies networks, with them switched; as it is where nothing is."""
    if compute == "float32" and not remat:
        return loss_fn

    def handed(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if compute == "bfloat16" and type(module).__name__ in _LAYERS:
            object.__setattr__(module, "dtype", jnp.bfloat16)  # of this call alone: modules are bound anew for each
            return jax.tree.map(widened, call(*args, **kwargs))
        if remat and getattr(module, BLOCK, False):
            return jax.checkpoint(lambda *args: call(*args, **kwargs))(*args)
        return call(*args, **kwargs)

    def run(*args: Any) -> Any:
        with linen.intercept_methods(handed):
            return loss_fn(*args)

    return run


def to_compute(dtype: Any, *arrays: Array | None) -> list[Array | None]:
    """The arrays in the dtype that a layer multiplies in; None is that which they promote to."""
    return linen.dtypes.promote_dtype(*arrays, dtype=dtype)


def widened(y: Array) -> Array:
    """What a layer gives: float32 where it multiplied in bfloat16."""
    return y.astype(jnp.float32) if y.dtype == jnp.bfloat16 else y
