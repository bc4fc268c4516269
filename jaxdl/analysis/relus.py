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
from jax.extend.core import ClosedJaxpr

from jaxdl.core import jaxprs
from jaxdl.core.types import Array

Rule = Literal["deconvnet", "guided"]


def with_rule(f: Callable[..., Any], rule: Rule) -> Callable[..., Any]:
    """`f` with the same results, whose gradient goes through ReLUs by a rule; those within loops stay."""
    relu = _RELUS[rule]

    def changed(*args: Any) -> Any:
        traced, structure = jaxprs.traced(f, *args)
        return jax.tree.unflatten(structure, jaxprs.evaluated(traced, jax.tree.leaves(args), _in_place(relu)))

    return changed


def count(f: Callable[..., Any], *args: Any) -> int:
    """How many ReLUs `f` calls at these arguments."""
    found = 0

    def counted(x: Array) -> Array:
        nonlocal found
        found += 1
        return jax.nn.relu(x)

    traced, _ = jaxprs.traced(f, *args)
    jax.eval_shape(lambda *leaves: jaxprs.evaluated(traced, leaves, _in_place(counted)), *jax.tree.leaves(args))
    return found


def _in_place(relu: Callable[[Array], Array]) -> jaxprs.Rule:
    def rule(eqn: Any, run: jaxprs.Run, inputs: list[Any]) -> list[Any]:
        is_relu = eqn.primitive.name == "custom_jvp_call" and _is_relu(eqn.params["call_jaxpr"])
        return [relu(*inputs)] if is_relu else run(*inputs)

    return rule


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
