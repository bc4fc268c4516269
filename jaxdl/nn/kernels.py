"""Kernels: the parameters that map inputs to outputs, which decay, penalties, Muon and spectral normalization act on."""

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, PyTree


def is_kernel(path: tuple, leaf: Array) -> bool:
    """Whether the parameter at `path` is a kernel: two axes or more, and no bias or scale of layers that are stacked."""
    return leaf.ndim > 1 and not str(getattr(path[-1], "key", "") if path else "").endswith(("bias", "scale"))


def only_kernels(params: PyTree) -> PyTree:
    """The same tree with zeros in the place of all that is no kernel."""
    return jax.tree_util.tree_map_with_path(lambda path, p: p if is_kernel(path, p) else jnp.zeros_like(p), params)
