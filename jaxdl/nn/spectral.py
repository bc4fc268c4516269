"""Spectral normalization: every kernel of a tree divided by its largest singular value, which is followed as it changes.

    v <- W u / |W u|,   u <- W^T v / |W^T v|,   sigma = v^T W u,   W / sigma

Miyato et al., "Spectral normalization for generative adversarial networks" (2018), algorithm 1, with a kernel as W [hwC, O].
The vectors are state of their own: `advance` takes one step of the power iteration, and `normalize` takes them as constants, so
its gradient goes through W alone, in sigma too (their eq. 12).

Shapes: `h w C O` a kernel; dense ones have no window.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key, PyTree
from jaxdl.nn.kernels import is_kernel


class Vectors(NamedTuple):
    """Approximations of the singular vectors of one kernel, of length 1."""

    left: Array  # v [hwC]
    right: Array  # u [O]


def start(params: PyTree, key: Key) -> list[Vectors]:
    """Vectors for each kernel (`is_kernel`), after one step from a random direction."""
    rights = [jax.random.normal(jax.random.fold_in(key, i), w.shape[-1:]) for i, w in enumerate(_kernels(params))]
    return [_step(w, u) for w, u in zip(_kernels(params), rights, strict=True)]


def advance(params: PyTree, vectors: list[Vectors]) -> list[Vectors]:
    """One step of the power iteration for each kernel."""
    return [_step(w, v.right) for w, v in zip(_kernels(params), vectors, strict=True)]


def normalize(params: PyTree, vectors: list[Vectors]) -> PyTree:
    """The same tree with each kernel divided by v^T W u."""
    rest = iter(vectors)
    return jax.tree_util.tree_map_with_path(
        lambda path, w: w / _sigma(w, next(rest)) if is_kernel(path, w) else w, params)


def _sigma(w: Array, vectors: Vectors) -> Array:
    return jax.lax.stop_gradient(vectors.left) @ w.reshape(-1, w.shape[-1]) @ jax.lax.stop_gradient(vectors.right)


def _step(w: Array, right: Array) -> Vectors:
    w = jax.lax.stop_gradient(w).reshape(-1, w.shape[-1])
    left = _unit(w @ right)
    return Vectors(left, _unit(left @ w))


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def _kernels(params: PyTree) -> list[Array]:
    return [w for path, w in jax.tree_util.tree_leaves_with_path(params) if is_kernel(path, w)]
