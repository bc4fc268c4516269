"""Gradients that are right, gradients that are wrong in one leaf, and what has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import nn, optim
from jaxdl.core.errors import UserError

PARAMS = {"kernel": jax.random.normal(jax.random.key(0), (3, 4)), "bias": jnp.array([0.1, -2.0, 30.0, 0.0])}
X = jax.random.normal(jax.random.key(1), (5, 3))


def loss(params, x, labels):
    logits = jnp.tanh(x @ params["kernel"]) + params["bias"]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, labels[:, None], -1)[:, 0])


LABELS = jnp.array([0, 1, 2, 3, 0])


def test_a_right_gradient_is_met_in_float64_and_precision_elsewhere_stays():
    errors = optim.check_gradient(loss, PARAMS, X, LABELS)
    assert max(jax.tree.leaves(errors)) < 1e-7
    assert errors.keys() == PARAMS.keys()
    assert jnp.zeros(1).dtype == jnp.float32
    assert max(jax.tree.leaves(optim.check_gradient(lambda *a: (loss(*a), "more"), PARAMS, X, LABELS, has_aux=True))) < 1e-7
    assert max(jax.tree.leaves(optim.check_gradient(loss, PARAMS, X, LABELS, num=2))) < 1e-7


def test_a_wrong_leaf_is_the_one_that_is_found():
    def wrong(params, x, labels):
        grads = jax.grad(loss)(params, x, labels)
        return grads | {"bias": grads["bias"].at[1].multiply(1.1)}

    errors = optim.check_gradient(loss, PARAMS, X, LABELS, gradient=wrong)
    assert errors["kernel"] < 1e-7
    g = np.asarray(jax.grad(loss)(PARAMS, X, LABELS)["bias"], np.float64)
    expected = 0.1 * abs(g[1]) / np.linalg.norm(g * [1, 1.1, 1, 1])
    assert errors["bias"] == pytest.approx(expected, rel=1e-3)


def test_a_rule_that_forgets_a_term_is_found():
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (g * x,))  # the 2 is missing
    errors = optim.check_gradient(lambda p: square(p["a"]).sum() + p["b"] ** 3, {"a": jnp.arange(4.0), "b": 2.0})
    assert errors["a"] == pytest.approx(0.5)
    assert errors["b"] < 1e-8


def test_zero_is_zero_and_nan_is_nan():
    errors = optim.check_gradient(lambda p: 0.0 * p["a"].sum() + jnp.log(p["b"]), {"a": jnp.ones(2), "b": -1.0})
    assert errors["a"] == 0 or np.isnan(errors["a"])
    assert np.isnan(errors["b"])
    assert optim.check_gradient(lambda p: p["b"] ** 2, {"a": jnp.ones(2), "b": 1.0})["a"] == 0


def test_written_gradients_of_layers_pass():
    """Convolutions have their own on a CPU."""
    layer = nn.Conv(3, (3, 3), (2, 2))
    x = jax.random.normal(jax.random.key(2), (2, 5, 5, 2))
    params = layer.init(jax.random.key(3), x)
    errors = optim.check_gradient(lambda p, x: jnp.sin(layer.apply(p, x)).sum(), params, x, num=10)
    assert max(jax.tree.leaves(errors)) < 1e-3  # sums in float32


def test_what_has_no_gradient_is_refused():
    with pytest.raises(UserError, match=r"params\['n'\] is of int32"):
        optim.check_gradient(lambda p: p["n"].sum(), {"n": jnp.arange(3)})
    with pytest.raises(UserError, match=r"shape \[3\]"):
        optim.check_gradient(lambda p: p, jnp.ones(3))
