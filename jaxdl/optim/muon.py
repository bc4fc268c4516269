"""Muon: momentum whose singular values are all brought near one, for kernels.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the update has the size of Adam's, by Liu et
al., "Muon is scalable for LLM training" (2025), eq. 4, so that one learning rate serves the kernels and the rest, which is
Adam's. The momentum (Nesterov's, its bias corrected) and the Newton-Schulz iteration are optax's. Matrices of one shape,
transposed or not, are one stack and so one batched product: a network has few shapes, and on a GPU each product of a small
matrix costs its launch.

How this differs from Jordan: every kernel is orthogonalized, those of the first and the last layer too, and each [I, O] matrix
for itself, so that a convolution's is one for each of its taps and a stack of layers one for each layer.

Shapes: `I O` inputs and outputs of a layer; `a b` a matrix with a <= b; `n` matrices in a stack.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxdl.core.types import Array, PyTree
from jaxdl.nn.kernels import is_kernel

UPDATE_RMS = 0.2  # of Adam's updates (Liu et al. 2025, section 2.2)


class State(NamedTuple):
    """State of the transform."""

    muon: PyTree  # optax's, of the stacks {"axb": [n, a, b]}
    adam: PyTree  # of all that is no kernel, one vector a moment


def scale_by_muon(momentum: float | Array, adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Orthogonalized momentum for kernels [..., I, O]; `adam` for all else, as one vector."""
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
    """The matrices of the kernels by their shape, and the other leaves."""
    groups, rest = {}, []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not is_kernel(path, leaf):
            rest.append(leaf)
            continue
        matrices = leaf.reshape(-1, *leaf.shape[-2:])
        matrices = matrices.mT if _is_tall(leaf) else matrices
        groups.setdefault(_shape(leaf), []).append(matrices)
    return {shape: jnp.concatenate(group) for shape, group in groups.items()}, rest


def _join(stacks: dict[str, Array], rest: list[Array], like: PyTree) -> PyTree:
    """The tree that `_split` took apart."""
    taken, rest = dict.fromkeys(stacks, 0), iter(rest)

    def take(path: tuple, leaf: Array) -> Array:
        if not is_kernel(path, leaf):
            return next(rest)
        shape, n = _shape(leaf), math.prod(leaf.shape[:-2])
        matrices = stacks[shape][taken[shape] : taken[shape] + n]
        taken[shape] += n
        return (matrices.mT if _is_tall(leaf) else matrices).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(take, like)


def _is_tall(kernel: Array) -> bool:
    return kernel.shape[-2] > kernel.shape[-1]


def _shape(kernel: Array) -> str:
    return "x".join(map(str, sorted(kernel.shape[-2:])))
