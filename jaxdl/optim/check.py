"""A check of gradients: against centred differences in float64, whatever the precision is elsewhere.

    (f(x + h e_i) - f(x - h e_i)) / 2 h,    h = 6e-6 max(1, |x_i|)

h is the cube root of float64's epsilon, where rounding and truncation are about equal (Nocedal & Wright 2006, section 8.1): a
right gradient of a smooth function is met to 1e-8 or so, a wrong one hardly to 1e-3. At a kink (a ReLU at 0) the two differ.

A function that computes in float32 whatever it is given (layers with `dtype="float32"`) is met to 1e-2 at best.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxdl.core.errors import UserError
from jaxdl.core.types import PyTree

_STEP = float(np.finfo(np.float64).eps ** (1 / 3))


def check_gradient(fn: Callable[..., Any], params: PyTree, *args: Any, gradient: Callable[..., PyTree] | None = None,
                   has_aux: bool = False, num: int = 100, seed: int = 0) -> PyTree:
    """The relative error of each leaf's gradient, |g - d| / max(|g|, |d|) with d by differences; 0 where both are zero.

    Args:
        fn: `(params, *args) -> ()`, a pure function of JAX.
        params: a tree of real numbers, where the gradient is checked.
        args: passed on; floats in them become float64 too.
        gradient: `(params, *args) -> tree like params`, what is checked; `jax.grad(fn)` if not given.
        has_aux: `fn` returns a pair, whose first is the value.
        num: numbers of a leaf that are tried at most, drawn at random.
        seed: of the draw.

    Returns:
        A tree like `params`, of floats.

    Raises:
        UserError: a leaf holds no real numbers, or `fn` gives no single number.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise UserError(f"params{jax.tree_util.keystr(path)} is of {jnp.result_type(leaf)}, which has no gradient; pass "
                            "real numbers in params, and all else in args")
    with jax.enable_x64(True):
        params, args = jax.tree.map(_as_float64, (params, args))
        flat, unravel = ravel_pytree(params)

        def value(x: jax.Array) -> jax.Array:
            out = fn(unravel(x), *args)
            return out[0] if has_aux else out

        if (shape := jax.eval_shape(value, flat).shape) != ():
            raise UserError(f"the function must give one number, and it gives an array of shape {list(shape)}; take its mean "
                            "or sum")
        places = _places(params, num, seed)
        index = jnp.asarray(np.concatenate(places) if places else np.zeros(0, np.int64))
        steps = _STEP * jnp.maximum(1.0, jnp.abs(flat[index]))

        def slope(place: tuple[jax.Array, jax.Array]) -> jax.Array:
            i, h = place
            return (value(flat.at[i].add(h)) - value(flat.at[i].add(-h))) / (2 * h)

        slopes = np.asarray(jax.jit(lambda: jax.lax.map(slope, (index, steps)))(), np.float64)
        found = jax.grad(lambda p: value(ravel_pytree(p)[0]))(params) if gradient is None else gradient(params, *args)
        found = np.asarray(ravel_pytree(found)[0], np.float64)[np.asarray(index)]
    cuts = np.cumsum([len(p) for p in places])[:-1]
    errors = [_error(g, d) for g, d in zip(np.split(found, cuts), np.split(slopes, cuts), strict=True)] if places else []
    return jax.tree.unflatten(jax.tree.structure(params), errors)


def _as_float64(x: Any) -> Any:
    is_float = isinstance(x, float | np.ndarray | np.generic | jax.Array) and jnp.issubdtype(jnp.result_type(x), jnp.floating)
    return jnp.asarray(x, jnp.float64) if is_float else x


def _places(params: PyTree, num: int, seed: int) -> list[np.ndarray]:
    """The numbers of each leaf that are tried, as places in the vector of all."""
    random, begin, places = np.random.default_rng(seed), 0, []
    for leaf in jax.tree.leaves(params):
        places.append(begin + np.sort(random.choice(leaf.size, min(num, leaf.size), replace=False)))
        begin += leaf.size
    return places


def _error(g: np.ndarray, d: np.ndarray) -> float:
    size = max(np.linalg.norm(g), np.linalg.norm(d))
    return float(np.linalg.norm(g - d) / size) if size != 0 else 0.0  # a NaN stays one
