"""Kernels: the parameters that map inputs to outputs, which decay, penalties, Muon and spectral normalization act on."""

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, PyTree


def is_kernel(path: tuple, leaf: Array) -> bool:
    """Whether the parameter at `path` is a kernel: two axes or more, and no bias or scale of layers that are stacked."""
    return leaf.ndim > 1 and not _name(path).endswith(("bias", "scale"))


def is_bias(path: tuple) -> bool:
    """Whether the parameter at `path` is the bias of a layer."""
    return _name(path).endswith("bias")


def only_kernels(params: PyTree, biases: bool = False) -> PyTree:
    """The same tree with zeros in the place of all that is no kernel (or, with `biases`, no bias either)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, p: p if is_kernel(path, p) or (biases and is_bias(path)) else jnp.zeros_like(p), params)


def as_matrix(kernel: Array) -> Array:
    """A kernel as the matrix of its layer, inputs by outputs: [I, O] as it is, [h, w, C, O] -> [h w C, O].

    Of a stack of layers, with one axis more, [L, ...], a matrix for each.
    """
    lead = kernel.shape[: kernel.ndim % 2]
    return kernel.reshape(*lead, -1, kernel.shape[-1])


def _name(path: tuple) -> str:
    return str(getattr(path[-1], "key", "") if path else "")
