"""Functions whose ReLUs have another gradient: deconvnet and guided backpropagation.

    backpropagation   dx = dy (x > 0)
    deconvnet         dx = max(0, dy)                Zeiler & Fergus 2014
    guided            dx = max(0, dy) (x > 0)        Springenberg et al. 2015

The function is traced, and where `jax.nn.relu` was called in it another function takes its place: networks need not know.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.extend.core import Literal as Constant

from jaxdl.core.types import Array

Rule = Literal["deconvnet", "guided"]


def with_rule(f: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    """`f` with the same results, whose gradient goes through ReLUs by a rule."""
    relu = _RELUS[rule]

    def changed(*args: Any) -> Any:
        traced, shape = jax.make_jaxpr(f, return_shape=True)(*args)
        out = _evaluated(traced, jax.tree.leaves(args), relu)
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return changed


def count(f: Callable[..., Any], *args: Any) -> int:
    """How many ReLUs `f` calls at these arguments."""
    found = 0

    def counted(x: Array) -> Array:
        nonlocal found
        found += 1
        return jax.nn.relu(x)

    traced = jax.make_jaxpr(f)(*args)
    jax.eval_shape(lambda *leaves: _evaluated(traced, leaves, counted), *jax.tree.leaves(args))
    return found


def _evaluated(closed: ClosedJaxpr, args: Any, relu: Callable[[Array], Array]) -> list[Array]:
    """What a traced function gives, with another function in the place of its ReLUs; those within loops stay."""
    jaxpr, values = closed.jaxpr, {}

    def read(var: Any) -> Any:
        return var.val if isinstance(var, Constant) else values[var]

    values.update(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        name = eqn.primitive.name
        if name == "custom_jvp_call" and _is_relu(eqn.params["call_jaxpr"]):
            out = [relu(*inputs)]
        elif name in ("jit", "pjit", "closed_call", "remat2", "checkpoint") and "jaxpr" in eqn.params:
            inner = eqn.params["jaxpr"]
            inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            out = _evaluated(inner, inputs, relu)
        else:
            out = _plainly(jaxpr, eqn, read)
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _plainly(jaxpr: Any, eqn: Any, read: Callable[[Any], Any]) -> list[Array]:
    """What one equation gives, as a function of its own: how a primitive is called is not the same in all versions of JAX."""
    inputs = list(dict.fromkeys(var for var in eqn.invars if not isinstance(var, Constant)))
    one = jaxpr.replace(constvars=[], invars=inputs, outvars=eqn.outvars, eqns=[eqn])
    return jaxpr_as_fun(ClosedJaxpr(one, ()))(*map(read, inputs))


def _is_relu(jaxpr: ClosedJaxpr) -> bool:
    return any(eqn.params.get("name") == "relu" for eqn in jaxpr.jaxpr.eqns)


@jax.custom_vjp
def _deconvnet(x: Array) -> Array:
    return jnp.maximum(x, 0)


_deconvnet.defvjp(lambda x: (jnp.maximum(x, 0), None), lambda _, dy: (jnp.maximum(dy, 0),))


@jax.custom_vjp
def _guided(x: Array) -> Array:
    return jnp.maximum(x, 0)


_guided.defvjp(lambda x: (jnp.maximum(x, 0), x > 0), lambda positive, dy: (jnp.where(positive, jnp.maximum(dy, 0), 0),))
_RELUS = {"deconvnet": _deconvnet, "guided": _guided}
