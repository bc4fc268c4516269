"""Muon: momentum whose singular values are all made about one, for the kernels of dense and convolutional layers.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the update's size is Adam's, about 0.2 as
a root mean square, by Liu et al., "Muon is scalable for LLM training" (2025), eq. 4, so that one learning rate serves the
kernels and the rest, which is Adam's. The Newton-Schulz iteration is optax's. Here kernels of one shape, transposed or not,
are one stack and so one batched product: a network has few shapes, and each product of a small matrix costs its launch.

How this differs from Jordan: the first and the last layer's kernels are orthogonalized like the others, and a convolution's
[..., I, O] is one matrix [... * I, O].
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxdl.types import Array, PyTree

UPDATE_RMS = 0.2  # of Adam's updates (Liu et al. 2025, section 2.2)


class State(NamedTuple):
    """State of the transform."""

    muon: PyTree  # the momentum of the stacks, {shape: [n, a, b]} with a <= b
    adam: PyTree


def scale_by_muon(momentum: float | Array, adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Orthogonalized Nesterov momentum for leaves of two and more axes; `adam` for all others, as one vector."""
    matrices = optax.contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)  # axis 0: each for itself
    inner = optax.contrib.scale_by_muon(
        beta=momentum, weight_dimension_numbers=lambda stacks: jax.tree.map(lambda _: matrices, stacks))

    def init(params: PyTree) -> State:
        stacks, rest = _split(params)
        return State(inner.init(stacks), adam.init(ravel_pytree(rest)[0]))

    def update(grads: PyTree, state: State, params: PyTree | None = None) -> tuple[PyTree, State]:
        del params
        stacks, rest = _split(grads)
        stacks, muon_state = inner.update(stacks, state.muon)
        stacks = {shape: UPDATE_RMS * math.sqrt(x.shape[2]) * x for shape, x in stacks.items()}
        rest, unravel = ravel_pytree(rest)
        rest, adam_state = adam.update(rest, state.adam)
        return _join(stacks, unravel(rest), grads), State(muon_state, adam_state)

    return optax.GradientTransformation(init, update)


def _split(tree: PyTree) -> tuple[dict[str, Array], list[Array]]:
    """Stacks of the leaves of two and more axes by the shape of their matrices, and the other leaves."""
    groups, rest = {}, []
    for leaf in jax.tree.leaves(tree):
        if leaf.ndim < 2:
            rest.append(leaf)
            continue
        matrix = _matrix(leaf)
        groups.setdefault("x".join(map(str, matrix.shape)), []).append(matrix)
    return {shape: jnp.stack(group) for shape, group in groups.items()}, rest


def _matrix(leaf: Array) -> Array:
    matrix = leaf.reshape(-1, leaf.shape[-1])
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _join(stacks: dict[str, Array], rest: list[Array], like: PyTree) -> PyTree:
    """The tree that `_split` took apart."""
    groups, rest = {shape: iter(stack) for shape, stack in stacks.items()}, iter(rest)

    def take(leaf: Array) -> Array:
        if leaf.ndim < 2:
            return next(rest)
        rows, columns = math.prod(leaf.shape[:-1]), leaf.shape[-1]
        matrix = next(groups[f"{min(rows, columns)}x{max(rows, columns)}"])
        return (matrix.T if rows > columns else matrix).reshape(leaf.shape)

    return jax.tree.map(take, like)
