"""How networks compute while they learn, switched from outside of them.

    bfloat16   dense and convolutional layers multiply in bfloat16; their parameters stay float32, and so is what they give:
               normalization, distributions, losses and gradients (Micikevicius et al., "Mixed precision training", 2018)
    remat      blocks keep what goes into them and compute the rest again in the backward pass (Chen et al., "Training deep
               nets with sublinear memory cost", 2016)

Modules know nothing of it: flax hands over each call before it is made.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.convolution import Conv, ConvTranspose
from jaxdl.nn.noisy import NoisyDense

_LAYERS = (linen.Dense, linen.Conv, Conv, ConvTranspose, NoisyDense)
BLOCK = "RECOMPUTED"  # a class attribute, true of modules that are blocks: stacked, and without state beside their parameters


def switched(loss_fn: Callable[..., Any], compute: str, remat: bool) -> Callable[..., Any]:
    """`loss_fn`, any function that applies networks, with them switched; as it is where nothing is."""
    if compute == "float32" and not remat:
        return loss_fn

    def handed(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if compute == "bfloat16" and isinstance(module, _LAYERS):
            object.__setattr__(module, "dtype", jnp.bfloat16)  # of this call alone: modules are bound anew for each
            return jax.tree.map(_wide, call(*args, **kwargs))
        if remat and getattr(module, BLOCK, False):
            return jax.checkpoint(lambda *args: call(*args, **kwargs))(*args)
        return call(*args, **kwargs)

    def run(*args: Any) -> Any:
        with linen.intercept_methods(handed):
            return loss_fn(*args)

    return run


def _wide(x: Array) -> Array:
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
