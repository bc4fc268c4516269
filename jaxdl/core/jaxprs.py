"""Traced functions, evaluated equation by equation under other rules: other gradients, intervals in the place of numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.extend.core import Literal as Constant

Run = Callable[..., list[Any]]  # values of an equation -> what it gives
Rule = Callable[[Any, Run, list[Any]], list[Any]]  # (equation, how it is run as it is, its inputs) -> what it gives

_CALLS = ("jit", "pjit", "closed_call", "remat2", "checkpoint")


def traced(f: Callable[..., Any], *args: Any) -> tuple[ClosedJaxpr, Any]:
    """The equations of `f` at these arguments, and the structure of what it gives."""
    closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
    return closed, jax.tree.structure(shape)


def evaluated(closed: ClosedJaxpr, args: Sequence[Any], rule: Rule) -> list[Any]:
    """What traced equations give when each is evaluated by a rule; those of jitted functions within come one by one."""
    jaxpr, values = closed.jaxpr, {}

    def read(var: Any) -> Any:
        return var.val if isinstance(var, Constant) else values[var]

    values.update(zip(jaxpr.constvars, closed.consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        if eqn.primitive.name in _CALLS and "jaxpr" in eqn.params:
            out = evaluated(inner(eqn.params["jaxpr"]), inputs, rule)
        else:
            out = rule(eqn, _as_it_is(jaxpr, eqn), inputs)
        values.update(zip(eqn.outvars, out, strict=True))
    return [read(var) for var in jaxpr.outvars]


def inner(jaxpr: Any) -> ClosedJaxpr:
    """The equations within an equation."""
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def _as_it_is(jaxpr: Any, eqn: Any) -> Run:
    """One equation as a function of its own: how a primitive is called is not the same in all versions of JAX."""
    places = [i for i, var in enumerate(eqn.invars) if not isinstance(var, Constant)]
    own = {eqn.invars[i]: i for i in places}  # a value may be given twice
    one = jaxpr.replace(constvars=[], invars=list(own), outvars=eqn.outvars, eqns=[eqn])
    run = jaxpr_as_fun(ClosedJaxpr(one, ()))
    return lambda *inputs: run(*[inputs[i] for i in own.values()])
