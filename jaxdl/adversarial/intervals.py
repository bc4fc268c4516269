"""What a function can give at most and at least when its input lies in a box: interval bound propagation.

    linear        centre W c + b, radius |W| r
    monotone      the function of both ends
    products      of two intervals: the lowest and highest of the four products of ends

(Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust models", 2018.) The function
is traced, and its equations are evaluated on intervals one by one: networks need not know. Everything linear after the last
nonlinearity is taken as one map, whose bounds are exact for a box of what goes into it: so differences of logits have bounds
that forget nothing of the last layer, which the paper calls elision.

Bounds are computed in float32 and may be wrong by its rounding.

Shapes: `N` inputs, `...` one input, `K` outputs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core import jaxprs
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array

Function = Callable[[Array], Array]  # inputs [N, ...] -> [N, K]

# Equations that move numbers, copy them or add them up: the same for centre and radius. Further inputs are indices.
_MOVES = {"reshape", "broadcast_in_dim", "transpose", "squeeze", "expand_dims", "slice", "rev", "reduce_sum", "copy", "gather",
          "convert_element_type", "dynamic_slice", "cumsum", "reduce_window_sum", "reduce_precision", "split", "copy_p"}
_RISES = {"max", "min", "tanh", "logistic", "exp", "log", "log1p", "sqrt", "erf", "reduce_max", "reduce_min", "clamp",
          "reduce_window_max", "cbrt", "expm1", "stop_gradient"}
_PRODUCTS = {"dot_general", "conv_general_dilated"}


class Interval(NamedTuple):
    """Numbers of which each lies between two, and how they come from those of the last nonlinearity."""

    low: Array
    high: Array
    of: Any = None  # (low, high) of the numbers from which these follow linearly; None: of these themselves
    by: Callable[[Array], Array] | None = None  # the linear map from there

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the numbers."""
        return self.low.shape

    def root(self) -> tuple[tuple[Array, Array], Callable[[Array], Array]]:
        """The interval from which this one follows linearly, and how."""
        return ((self.low, self.high), lambda x: x) if self.by is None else (self.of, self.by)


def bounds(f: Function, low: Array, high: Array) -> tuple[Array, Array]:
    """The least and the most [N, K] of `f` for inputs between `low` and `high` [N, ...]; outputs of a row are of its input.

    Raises:
        UserError: `f` computes something of which no bounds are known.
    """
    traced, _ = jaxprs.traced(f, low)
    [out] = jaxprs.evaluated(traced, [Interval(low, high)], _rule)
    if not isinstance(out, Interval):  # it hangs on nothing
        return out, out
    (low, high), by = out.root()
    centre, radius = (low + high) / 2, (high - low) / 2
    middle, back = jax.vjp(by, centre)
    rows = jax.vmap(lambda row: back(jnp.broadcast_to(row, middle.shape))[0])(jnp.eye(middle.shape[-1]))
    far = (jnp.abs(rows) * radius).reshape(*rows.shape[:2], -1).sum(-1).T  # [N, K]
    return middle - far, middle + far


def worst_margins(f: Function, x: Array, labels: Array, epsilon: float | Array) -> Array:
    """The most of z_c - z_y in the box of `epsilon` around x and within [0, 1], [N, Y]; 0 of the label itself.

    Where all others are below 0 no change of at most epsilon makes the network say another class.
    """
    def margins(x: Array) -> Array:
        logits = f(x)
        return logits - jnp.take_along_axis(logits, labels[:, None], 1, mode="clip")

    return bounds(margins, jnp.maximum(x - epsilon, 0), jnp.minimum(x + epsilon, 1))[1]


def certified(f: Function, x: Array, labels: Array, epsilon: float | Array) -> Array:
    """Of which inputs no change of at most `epsilon` in any number makes the network wrong, bool [N]."""
    others = jnp.where(jax.nn.one_hot(labels, jax.eval_shape(f, x).shape[-1], dtype=bool), -jnp.inf,
                       worst_margins(f, x, labels, epsilon))
    return others.max(-1) < 0


def _rule(eqn: Any, run: jaxprs.Run, inputs: list[Any]) -> list[Any]:
    """One equation on intervals."""
    name = eqn.primitive.name
    there = [i for i, x in enumerate(inputs) if isinstance(x, Interval)]
    if not there:
        return run(*inputs)
    within = next((eqn.params[key] for key in ("call_jaxpr", "call", "fun_jaxpr") if key in eqn.params), None)
    if within is not None:
        within = jaxprs.inner(within)
        if name == "custom_jvp_call" and _rises(within):
            return _both_ends(run, inputs)
        if name != "custom_vjp_call" or not _is_convolution(within):
            return jaxprs.evaluated(within, inputs, _rule)
    elif name in _RISES:
        return _both_ends(run, inputs)
    if name in ("mul", *_PRODUCTS) and len(there) == 2:
        return [_product(run, *inputs)] if name == "mul" else _unknown(name)
    if (name == "div" and there == [0]) or name in ("mul", *_PRODUCTS) or within is not None:
        return _linear(run, inputs, [jnp.abs(x) if i not in there else None for i, x in enumerate(inputs)])
    if name in ("add", "add_any", "sub", "neg", "concatenate", "pad", "select_n", *_MOVES):
        if name == "select_n" and 0 in there:
            return _unknown(name)
        keep = name in _MOVES or name == "select_n"  # indices and conditions: as they are
        rest = [None if i in there else x if keep and not (name == "select_n" and i) else jnp.zeros_like(x)
                for i, x in enumerate(inputs)]
        return _linear(run, inputs, rest, name in ("sub", "neg"))
    return _unknown(name)


def _linear(run: jaxprs.Run, inputs: list[Any], rest: list[Any], sums: bool = False) -> list[Any]:
    """A linear equation: on centres with the other inputs as they are, on radii with `rest` in their place.

    Args:
        rest: of each input that is no interval what meets the radii.
        sums: radii are added up, whatever becomes of the centres.
    """
    there = [i for i, x in enumerate(inputs) if isinstance(x, Interval)]
    at = lambda values, others: run(*[values.get(i, x) for i, x in enumerate(others)])  # noqa: E731
    centres = at({i: (inputs[i].low + inputs[i].high) / 2 for i in there}, inputs)
    half = {i: (inputs[i].high - inputs[i].low) / 2 for i in there}
    radii = [jnp.broadcast_to(sum(half.values()), centres[0].shape)] if sums else at(half, rest)
    roots = [inputs[i].root() for i in there]
    shared = all(root[0] is roots[0][0][0] for root, _ in roots)
    out = []
    for n, (centre, radius) in enumerate(zip(centres, radii, strict=True)):
        by = None
        if shared:
            def by(x: Array, n: int = n) -> Array:
                return at({i: inner(x) for i, (_, inner) in zip(there, roots, strict=True)}, inputs)[n]
        out.append(Interval(centre - radius, centre + radius, roots[0][0] if shared else None, by))
    return out


def _both_ends(run: jaxprs.Run, inputs: list[Any]) -> list[Interval]:
    """A function that rises with every input, of both ends."""
    low, high = (run(*[getattr(x, end) if isinstance(x, Interval) else x for x in inputs]) for end in ("low", "high"))
    return [Interval(a, b) for a, b in zip(low, high, strict=True)]


def _product(run: jaxprs.Run, a: Interval, b: Interval) -> Interval:
    """Of two intervals, number by number."""
    corners = jnp.stack([run(x, y)[0] for x in (a.low, a.high) for y in (b.low, b.high)])
    return Interval(corners.min(0), corners.max(0))


def _rises(closed: Any) -> bool:
    """Whether equations only move numbers or rise with them, as ReLUs and pools do."""
    return all(eqn.primitive.name in _RISES | _MOVES or ("jaxpr" in eqn.params and _rises(jaxprs.inner(eqn.params["jaxpr"])))
               for eqn in closed.jaxpr.eqns)


def _is_convolution(closed: Any) -> bool:
    """Whether equations are the forward pass of `nn.convolution.conv`, linear in images as in the kernel."""
    return closed.jaxpr.debug_info.func_name.split(" ")[0] == "_forward"


def _unknown(name: str) -> Any:
    raise UserError(f"bounds are known of dense layers, convolutions, pools and activations that rise, and this network "
                    f"computes '{name}' of its inputs; use activation=relu and no normalization")
