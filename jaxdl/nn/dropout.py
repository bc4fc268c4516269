"""What is left out at random while a network learns: units, weights, layers.

What is kept is divided by its probability, so that expectations stay, and nothing changes afterwards (inverted dropout).

Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting" (2014), who scale weights down after
training instead; Wan et al., "Regularization of neural networks using DropConnect" (2013), here with one mask of weights a
batch and not one an example; Huang et al., "Deep networks with stochastic depth" (2016), here one draw an example and not one a
batch.
"""

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array, Key, PyTree
from jaxdl.nn.kernels import is_kernel
from jaxdl.ops import hashing


def dropout(x: Array, rate: float | Array, key: Key, shape: tuple[int, ...] | None = None) -> Array:
    """Each number [...] is zero with probability `rate`, else divided by 1 - rate: its expectation stays.

    Args:
        shape: of the draws, which are broadcast to `x`; one a number if not given.
    """
    return jnp.where(hashing.uniform(key, x.shape if shape is None else shape) >= rate, x / (1 - rate), 0)


def dropout_in(module: linen.Module, x: Array, rate: float | Array | None, whole: bool = False) -> Array:
    """`x` [B, ...] within a module: with dropout if it has a rate and, because it learns, a key called "dropout".

    Args:
        whole: all of an example is dropped, or nothing of it.
    """
    if rate is None or not module.has_rng("dropout"):
        return x
    return dropout(x, rate, module.make_rng("dropout"), (len(x), *(1,) * (x.ndim - 1)) if whole else None)


def drop_connect(params: PyTree, rate: float | Array, key: Key) -> PyTree:
    """Parameters whose kernels have dropout, weight by weight."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    kept = [dropout(x, rate, jax.random.fold_in(key, i)) if is_kernel(path, x) else x for i, (path, x) in enumerate(leaves)]
    return jax.tree.unflatten(structure, kept)
