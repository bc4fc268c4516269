"""Rules that take the curvature of the loss over the batch they are given, and search along a line: for a whole dataset.

    lbfgs       x + t d,  d = -H g with H from the last m changes of x and g
                Liu & Nocedal, "On the limited memory BFGS method for large scale optimization" (1989); optax's, with its line
                search for the strong Wolfe conditions (Nocedal & Wright 2006, algorithms 3.5 and 3.6)
    newton_cg   x + t d,  (H + damping I) d = -g solved by conjugate gradients on products H v, as far as it pays
                Nocedal & Wright 2006, algorithm 7.1; Martens, "Deep learning via Hessian-free optimization" (2010)

Products H v are gradients of g . v: reverse over reverse, so that layers whose gradients are written out (`nn.conv`) serve too.
The solver stops at |r| <= min(1/100, sqrt|g|) |g| (theirs is 1/2, at which narrow valleys are crossed slowly), and at a
direction along which the loss curves down; the first of these is -g itself. Its line search halves t from 1 until the loss
falls as a ten-thousandth of the slope says (Armijo).

Loss, gradient and products are means over microbatches and shards before anything is decided, so all devices decide alike.

Shapes: `P` parameters, as one vector.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxdl.core import axis
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.optim.config import Config
from jaxdl.optim.gradients import microbatches

_SEARCH_STEPS = 20  # evaluations of a line search at most


class Problem(NamedTuple):
    """The loss of a batch as functions of a vector, means over all microbatches and shards."""

    value: Callable[[Array], Array]  # ([P]) -> (); its gradient is `both`'s
    both: Callable[[Array], tuple[Array, Array, Any]]  # ([P]) -> loss (), gradient [P], what else the loss returns
    product: Callable[[Array, Array], Array]  # (where [P], direction [P]) -> Hessian times direction [P]


def lbfgs(config: Config, penalty: Callable[[PyTree], Array]) -> tuple[Callable, Callable]:
    """`init` and `descend` (`Optimizer`) of L-BFGS; `penalty` of the parameters is added to the loss."""
    search = optax.scale_by_zoom_linesearch(_SEARCH_STEPS, initial_guess_strategy="one")
    tx = optax.lbfgs(memory_size=config.lbfgs_memory, linesearch=search)

    def direction(problem: Problem, x: Array, g: Array) -> Array:
        del problem, x
        return g

    return _descender(config, penalty, tx, direction)


def newton_cg(config: Config, penalty: Callable[[PyTree], Array]) -> tuple[Callable, Callable]:
    """`init` and `descend` (`Optimizer`) of Newton's method by truncated conjugate gradients."""
    search = optax.scale_by_backtracking_linesearch(_SEARCH_STEPS, decrease_factor=0.5, increase_factor=jnp.inf)
    tx = optax.chain(optax.scale(-1.0), search)

    def direction(problem: Problem, x: Array, g: Array) -> Array:
        return -solve(lambda v: problem.product(x, v) + config.damping * v, g, config.cg_steps)

    return _descender(config, penalty, tx, direction)


def solve(matrix: Callable[[Array], Array], g: Array, steps: int) -> Array:
    """A vector d [P] with `matrix(d)` about -g, and d . g < 0, after at most so many steps of conjugate gradients."""
    size = jnp.linalg.norm(g)
    enough = jnp.square(jnp.minimum(0.01, jnp.sqrt(size)) * size)

    def going(state: tuple) -> Array:
        _, r, _, i, stopped = state
        return (i < steps) & ~stopped & (r @ r > enough)

    def body(state: tuple) -> tuple:
        d, r, p, i, _ = state
        curved = matrix(p)
        curvature, rr = p @ curved, r @ r
        down = curvature <= 0
        length = rr / jnp.where(down, 1.0, curvature)
        new_r = r + length * curved
        new_p = -new_r + (new_r @ new_r) / rr * p
        new_d = jnp.where(down, jnp.where(i == 0, -g, d), d + length * p)
        return new_d, new_r, new_p, i + 1, down

    start = jnp.zeros_like(g), g, -g, jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return jax.lax.while_loop(going, body, start)[0]


def _descender(config: Config, penalty: Callable[[PyTree], Array], tx: optax.GradientTransformationExtraArgs,
               direction: Callable[[Problem, Array, Array], Array]) -> tuple[Callable, Callable]:
    def init(params: PyTree) -> PyTree:
        return tx.init(ravel_pytree(params)[0])

    def descend(loss_fn: Callable, params: PyTree, opt: PyTree, batch: PyTree, key: Key, axis_name: str | None,
                batch_axis: PyTree) -> tuple[PyTree, PyTree, Any]:
        x, unravel = ravel_pytree(params)
        problem = _problem(loss_fn, penalty, unravel, batch, key, config.grad_accumulation, axis_name, batch_axis)
        value, g, aux = problem.both(x)
        step, opt = tx.update(direction(problem, x, g), opt, x, value=value, grad=g, value_fn=problem.value)
        return unravel(x + step), opt, aux

    return init, descend


def _problem(loss_fn: Callable, penalty: Callable[[PyTree], Array], unravel: Callable[[Array], PyTree], batch: PyTree, key: Key,
             n: int, axis_name: str | None, batch_axis: PyTree) -> Problem:
    def loss(x: Array, batch: PyTree, key: Key) -> tuple[Array, Any]:
        params = unravel(x)
        value, aux = loss_fn(params, batch, key)
        return value + penalty(params), aux

    def both(x: Array) -> tuple[Array, Array, Any]:
        def of_part(x: Array, batch: PyTree, key: Key) -> tuple[PyTree, Any]:
            (value, aux), g = jax.value_and_grad(loss, has_aux=True)(x, batch, key)
            return (value, g), aux

        found, aux = microbatches(of_part, x, batch, key, n, batch_axis)
        return *axis.mean_over(found, axis_name), aux

    def product(x: Array, v: Array) -> Array:
        def of_part(x: Array, batch: PyTree, key: Key) -> tuple[Array, None]:
            return jax.grad(lambda x: jax.grad(loss, has_aux=True)(x, batch, key)[0] @ v)(x), None

        return axis.mean_over(microbatches(of_part, x, batch, key, n, batch_axis)[0], axis_name)

    @jax.custom_vjp  # a derivative through the mean over shards would be each shard's own
    def value(x: Array) -> Array:
        return both(x)[0]

    value.defvjp(lambda x: both(x)[:2], lambda g, cotangent: (cotangent * g,))
    return Problem(value, both, product)
