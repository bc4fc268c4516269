"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for kernels; Adam for all else.

    L <- b L + (1 - b) G G^T    R <- b R + (1 - b) G^T G    L = U D U^T, R = V E V^T
    update = U adam(U^T G V) V^T

Vyas et al., "SOAP: improving and stabilizing Shampoo using Adam" (2024), algorithm 3; Gupta, Koren & Singer, "Shampoo:
preconditioned stochastic tensor optimization" (2018). Where Adam divides by the size of each number of the gradient, and so
depends on the axes that a layer happens to have, SOAP finds the axes along which gradients vary. The bases are made anew every
`soap_every` updates, by one step of orthogonal iteration (QR of L U); the first by an eigendecomposition, and that update moves
no kernel: along most of the first basis the first gradient is but rounding.

How this differs: no basis for a side above 4096; what is a hundred-thousandth of the largest root of a matrix counts as
rounding, and is divided by no less: in the basis of one gradient the same gradient again is zeros and rounding.

Shapes: `m n` a kernel as a matrix (`nn.kernels.as_matrix`), which a stack of layers has for each of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxdl.core.types import Array, PyTree
from jaxdl.nn.kernels import as_matrix, is_kernel

_LARGEST_SIDE = 4096
_ROUNDING = 1e-5


class Side(NamedTuple):
    """What is known of one side of a kernel: [..., m, m] each; none where the side is too large."""

    factor: Array  # L or R
    basis: Array  # its eigenvectors, as columns


class Kernel(NamedTuple):
    """What is known of a kernel, as a matrix [..., m, n]."""

    left: Side | None
    right: Side | None
    mean: Array  # of gradients
    square: Array  # of gradients' squares, in the basis


class State(NamedTuple):
    """State of the transform."""

    kernels: list[Kernel]
    adam: PyTree  # of all that is no kernel, as one vector
    count: Array  # int32 (): updates done


def scale_by_soap(beta1: float | Array, beta2: float | Array, eps: float | Array, every: int, bias_correction: bool,
                  adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """SOAP's updates of kernels, and those of `adam` for all else."""

    def init(params: PyTree) -> State:
        kernels, rest = _split(params)
        return State([_begin(as_matrix(w)) for w in kernels], adam.init(ravel_pytree(rest)[0]), jnp.zeros((), jnp.int32))

    def update(grads: PyTree, state: State, params: PyTree | None = None) -> tuple[PyTree, State]:
        del params
        kernels, rest = _split(grads)
        flat, unravel = ravel_pytree(rest)
        flat, adam_state = adam.update(flat, state.adam)
        steps = [_step(as_matrix(g), kernel, state.count, beta1, beta2, eps, every, bias_correction)
                 for g, kernel in zip(kernels, state.kernels, strict=True)]
        updates = _join(grads, [step.reshape(g.shape) for (step, _), g in zip(steps, kernels, strict=True)], unravel(flat))
        return updates, State([kernel for _, kernel in steps], adam_state, state.count + 1)

    return optax.GradientTransformation(init, update)


def _begin(matrix: Array) -> Kernel:
    def side(n: int) -> Side | None:
        shape = (*matrix.shape[:-2], n, n)
        return Side(jnp.zeros(shape), jnp.broadcast_to(jnp.eye(n), shape)) if n <= _LARGEST_SIDE else None

    m, n = matrix.shape[-2:]
    return Kernel(side(m), side(n), jnp.zeros_like(matrix), jnp.zeros_like(matrix))


def _step(g: Array, kernel: Kernel, count: Array, beta1: Array, beta2: Array, eps: Array, every: int, bias_correction: bool
          ) -> tuple[Array, Kernel]:
    left, right = _learn(kernel.left, g @ g.mT, count, beta2, every), _learn(kernel.right, g.mT @ g, count, beta2, every)
    g = jnp.where(count == 0, 0, g)
    mean = beta1 * kernel.mean + (1 - beta1) * g
    square = beta2 * kernel.square + (1 - beta2) * jnp.square(_turn(g, left, right))
    top, below = _turn(mean, left, right), square
    if bias_correction:
        t = jnp.maximum(count, 1)
        top, below = top / (1 - beta1**t), below / (1 - beta2**t)
    root = jnp.sqrt(below)
    root += eps + _ROUNDING * root.max((-2, -1), keepdims=True)
    return _turn(top / root, left, right, back=True), Kernel(left, right, mean, square)


def _learn(side: Side | None, product: Array, count: Array, beta: Array, every: int) -> Side | None:
    """A side that has seen one more gradient."""
    if side is None:
        return None
    factor = jnp.where(count == 0, product, beta * side.factor + (1 - beta) * product)
    how = jnp.where(count == 0, 0, jnp.where(count % every == 0, 1, 2))
    return Side(factor, jax.lax.switch(how, (lambda l, u: jnp.linalg.eigh(l)[1], lambda l, u: jnp.linalg.qr(l @ u)[0],
                                             lambda l, u: u), factor, side.basis))


def _turn(x: Array, left: Side | None, right: Side | None, back: bool = False) -> Array:
    """A matrix [..., m, n] into the bases of its sides, or back."""
    if left is not None:
        x = (left.basis if back else left.basis.mT) @ x
    if right is not None:
        x = x @ (right.basis.mT if back else right.basis)
    return x


def _split(tree: PyTree) -> tuple[list[Array], list[Array]]:
    """The kernels, and the other leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [x for path, x in leaves if is_kernel(path, x)], [x for path, x in leaves if not is_kernel(path, x)]


def _join(like: PyTree, kernels: list[Array], rest: list[Array]) -> PyTree:
    """The tree that `_split` took apart."""
    kernels, rest = iter(kernels), iter(rest)
    take: Callable = lambda path, x: next(kernels if is_kernel(path, x) else rest)  # noqa: E731
    return jax.tree_util.tree_map_with_path(take, like)
