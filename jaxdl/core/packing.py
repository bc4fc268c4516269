"""A pytree in few buffers: each buffer that a call is given costs microseconds."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.types import PyTree

_SMALL = 1 << 12  # bytes: a larger leaf would cost more to copy into the vector than a buffer of its own does


class Packing(NamedTuple):
    """How a pytree lies in few buffers: a vector for the small leaves of each dtype, and every large leaf as it is."""

    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    impls: tuple[Any, ...]  # of random keys, else None
    groups: dict[Any, list[int]]  # dtype -> the small leaves of it
    large: list[int]

    @staticmethod
    def of(tree: PyTree) -> "Packing":
        """The packing of trees like this one (arrays or `ShapeDtypeStruct`s)."""
        leaves, treedef = jax.tree.flatten(tree)
        impls = tuple(jax.random.key_impl(jnp.empty((), x.dtype)) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else None
                      for x in leaves)
        leaves = tuple(x if impl is None else jax.eval_shape(jax.random.key_data, x)
                       for x, impl in zip(leaves, impls, strict=True))
        groups, large = {}, []
        for i, x in enumerate(leaves):
            if math.prod(x.shape) * x.dtype.itemsize <= _SMALL:
                groups.setdefault(x.dtype, []).append(i)
            else:
                large.append(i)
        return Packing(treedef, leaves, impls, groups, large)

    def pack(self, tree: PyTree) -> list[jax.Array]:
        """The buffers of a tree."""
        flat = [x if impl is None else jax.random.key_data(x)
                for x, impl in zip(self.treedef.flatten_up_to(tree), self.impls, strict=True)]
        return [jnp.concatenate([flat[i].reshape(-1) for i in group]) for group in self.groups.values()] + [
            flat[i] for i in self.large]

    def unpack(self, buffers: list[jax.Array | np.ndarray]) -> PyTree:
        """The tree of `pack`'s buffers, which may have leading axes; leaves of numpy vectors are views of them."""
        flat: list[Any] = [None] * len(self.leaves)
        for group, vector in zip(self.groups.values(), buffers, strict=False):
            begin = 0
            for i in group:
                end = begin + math.prod(self.leaves[i].shape)
                flat[i] = vector[..., begin:end].reshape((*vector.shape[:-1], *self.leaves[i].shape))
                begin = end
        for i, buffer in zip(self.large, buffers[len(self.groups):], strict=True):
            flat[i] = buffer
        return self.treedef.unflatten([x if impl is None else jax.random.wrap_key_data(x, impl=impl)
                                       for x, impl in zip(flat, self.impls, strict=True)])
