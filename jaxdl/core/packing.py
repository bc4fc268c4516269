"""A pytree in few buffers, because each buffer that is passed to a compiled program costs 2.5 microseconds."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.types import PyTree

_SMALL = 1 << 12  # bytes: a larger leaf would cost more to copy into the vector than a buffer of its own does


class Packing(NamedTuple):
    """Layout of a pytree in few buffers: one vector for the small leaves of each dtype, and each large leaf as it is."""

    treedef: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    impls: tuple[Any, ...]  # of random keys, else None
    groups: dict[Any, list[int]]  # dtype -> numbers of its small leaves
    large: list[int]  # numbers of the large leaves

    @staticmethod
    def of(tree: PyTree) -> "Packing":
        """The layout of trees like this one, of arrays or `ShapeDtypeStruct`s."""
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
        """The buffers of a tree: the vectors, then the large leaves."""
        flat = [x if impl is None else jax.random.key_data(x)
                for x, impl in zip(self.treedef.flatten_up_to(tree), self.impls, strict=True)]
        return [jnp.concatenate([flat[i].reshape(-1) for i in group]) for group in self.groups.values()] + [
            flat[i] for i in self.large]

    def unpack(self, buffers: list[jax.Array | np.ndarray]) -> PyTree:
        """The tree of which `buffers` are. They may have leading axes; leaves out of NumPy vectors are views of them."""
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
