"""Layers of a function by name, their outputs and gradients, while the networks in it stay as they are.

A layer is a flax module that is called while the function runs; its name is its path, and a number where it is called again:
"cnn/Conv_0", "core/inputs#2".

Shapes: `N` inputs, `...` one input or one layer's output.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.config import suggest
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array

Function = Callable[..., Any]


def of(f: Function, *args: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """The layers of `f` at these arguments, in the order in which they end, and what they give.

    Layers whose output is no array are left out.
    """
    found: dict[str, jax.ShapeDtypeStruct] = {}

    def note(name: str, out: Array) -> Array:
        found[name] = jax.ShapeDtypeStruct(out.shape, out.dtype)
        return out

    jax.eval_shape(lambda *args: intercepted(f, note)(*args), *args)
    return found


def intercepted(f: Function, change: Callable[[str, Array], Array]) -> Function:
    """`f`, each of whose layers gives what `change(name, output)` makes of its output."""
    def changed(*args: Any) -> Any:
        times: dict[str, int] = {}

        def intercept(call: Callable, given: tuple, named: dict, context: linen.module.InterceptorContext) -> Any:
            out = call(*given, **named)
            if context.method_name != "__call__" or not isinstance(out, jax.Array):
                return out
            path = "/".join(context.module.path)
            times[path] = times.get(path, 0) + 1
            return change(path if times[path] == 1 else f"{path}#{times[path]}", out) if path else out

        with linen.intercept_methods(intercept):
            return f(*args)

    return changed


def activations(f: Function, names: Iterable[str]) -> Function:
    """`f` that returns the outputs of these layers beside its own: (result, {name: output})."""
    names = tuple(names)

    def with_layers(*args: Any) -> tuple[Any, dict[str, Array]]:
        kept: dict[str, Array] = {}

        def keep(name: str, out: Array) -> Array:
            if name in names:
                kept[name] = out
            return out

        return intercepted(f, keep)(*args), kept

    return with_layers


class _Reached(Exception):
    """Nothing more of a function is needed."""


def upto(f: Function, names: Iterable[str]) -> Callable[..., dict[str, Array]]:
    """The outputs of these layers, {name: output}. What follows the last of them is not even traced.

    So a convolution can be asked for on pictures of any size, although the dense layers above it take one size alone.

    Raises:
        UserError: when it is called and a layer is not there.
    """
    names = tuple(dict.fromkeys(names))

    def first_part(*args: Any) -> dict[str, Array]:
        kept: dict[str, Array] = {}
        passed: list[str] = []

        def keep(name: str, out: Array) -> Array:
            passed.append(name)
            if name in names:
                kept[name] = out
            if len(kept) == len(names):
                raise _Reached
            return out

        try:
            intercepted(f, keep)(*args)
        except _Reached:
            return {name: kept[name] for name in names}
        for name in names:
            check(name, passed)
        return kept

    return first_part


def moved(f: Function, by: Mapping[str, Array]) -> Function:
    """`f` with these numbers added to the outputs of layers."""
    return intercepted(f, lambda name, out: out + by[name] if name in by else out)


def gradients(f: Callable[..., Array], name: str, *args: Any) -> tuple[Array, Array]:
    """The output of a layer and the gradient of `f`, which gives one number, with respect to it.

    Raises:
        UserError: there is no such layer.
    """
    shape = of(f, *args)
    check(name, shape)

    def number(by: Array) -> tuple[Array, Array]:
        value, kept = activations(moved(f, {name: by}), [name])(*args)
        return value, kept[name]

    grad, output = jax.grad(number, has_aux=True)(jnp.zeros(shape[name].shape, shape[name].dtype))
    return output, grad


def check(name: str, known: Iterable[str]) -> None:
    """Refuse a layer that is not there.

    Raises:
        UserError: names those that are near.
    """
    known = list(known)
    if name not in known:
        raise UserError(f"there is no layer '{name}'{suggest(name, known)}; the layers are {', '.join(known)}")
