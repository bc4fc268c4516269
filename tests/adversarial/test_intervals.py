"""Interval bounds: by hand on small functions, exact behind the last nonlinearity, never exceeded within the box."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close, random_like

from jaxdl import nn
from jaxdl.adversarial import intervals
from jaxdl.core.errors import UserError
from jaxdl.supervised import networks

X = jax.random.uniform(jax.random.key(0), (3, 16, 16, 1))
LABELS = jnp.array([0, 2, 1])


def net(name, activation="relu", norm=None, **sizes):
    made = networks.make(networks.Network(name, 4, activation=activation, norm=norm, **sizes), X.shape[1:])
    variables = made.init(jax.random.key(1))
    params = random_like(variables.params)
    return lambda x: made.apply(variables._replace(params=params), x)


def test_of_a_linear_function_bounds_are_the_corners():
    w, b = jnp.array([[1.0, -2.0], [3.0, 0.5]]), jnp.array([0.0, 1.0])
    low, high = intervals.bounds(lambda x: x @ w + b, jnp.array([[0.0, 1.0]]), jnp.array([[1.0, 3.0]]))
    assert_close([low, high], [jnp.array([[3.0, -0.5]]), jnp.array([[10.0, 2.5]])])


def test_two_layers_by_hand():
    w = jnp.array([[1.0, -1.0]])
    f = lambda x: jax.nn.relu(x @ w) @ jnp.array([[1.0], [1.0]])  # noqa: E731, |x|, of which intervals know 0 to 2 alone
    low, high = intervals.bounds(f, jnp.array([[-1.0]]), jnp.array([[1.0]]))
    assert_close([low, high], [jnp.array([[0.0]]), jnp.array([[2.0]])])


def test_differences_of_logits_forget_nothing_of_the_last_layer():
    w = jax.random.normal(jax.random.key(3), (5, 4))
    f = lambda h: jax.nn.relu(h) @ w + 1.0  # noqa: E731
    h, labels, r = jnp.ones((1, 5)), jnp.array([2]), 0.5
    low, high = 1 - r, 1 + r
    difference = w - w[:, 2:3]
    best = jnp.where(difference > 0, high, low)

    def margins(h):
        z = f(h)
        return z - jnp.take_along_axis(z, labels[:, None], 1)

    found = intervals.bounds(margins, h - r, h + r)[1]
    assert_close(found, (best * difference).sum(0)[None])
    loose = intervals.bounds(f, h - r, h + r)
    assert (found < loose[1] - loose[0][:, 2:3])[0, jnp.array([0, 1, 3])].all()


@pytest.mark.parametrize(("name", "activation", "sizes"), [
    ("mlp", "relu", {}), ("conv", "relu", {}), ("lenet", "tanh", {}), ("mlp", "silu", {}), ("lenet", "relu", {}),
    ("resnet", "relu", {"depth": 8, "narrower": 8})])
def test_nothing_within_the_box_exceeds_the_bounds(name, activation, sizes):
    f = net(name, activation, **sizes)
    r = 0.05
    low, high = jax.jit(lambda x: intervals.bounds(f, x - r, x + r))(X)
    plain, near = jax.jit(f), jax.random.rademacher(jax.random.key(5), (20, *X.shape), jnp.float32)
    for way in near:
        z = plain(X + r * way)
        assert (z >= low - 1e-4).all()
        assert (z <= high + 1e-4).all()
    at_once = jax.jit(lambda x: intervals.bounds(f, x, x))(X)
    assert_close(at_once, (plain(X), plain(X)), rtol=1e-4, atol=1e-4)


def test_a_convolution_has_the_bounds_of_the_dense_layer_that_it_is():
    conv = nn.Conv(2, (3, 3), (2, 2))
    params = random_like(conv.init(jax.random.key(0), X))
    f = lambda x: conv.apply(params, x).reshape(len(x), -1)  # noqa: E731
    matrix = jax.jacobian(lambda x: f(x[None])[0])(X[0]).reshape(-1, 256)
    low, high = intervals.bounds(f, X - 0.1, X + 0.3)
    centre, radius = (X + 0.1).reshape(3, -1) @ matrix.T + f(0 * X), 0.2 * jnp.abs(matrix).sum(1)
    assert_close((low, high), (centre - radius, centre + radius), rtol=1e-4, atol=1e-4)


def test_what_is_certified_withstands_and_what_is_not_may_not():
    f = lambda x: x @ jnp.array([[2.0, 0.0], [0.0, 1.0]])  # noqa: E731, class 0 where 2 x_0 > x_1
    x, labels = jnp.array([[0.5, 0.5], [0.3, 0.5]]), jnp.array([0, 0])
    assert_close(intervals.worst_margins(f, x, labels, 0.1)[:, 1], jnp.array([-0.2, 0.2]))
    assert intervals.certified(f, x, labels, 0.1).tolist() == [True, False]


def test_gradients_go_through_bounds():
    made = networks.make(networks.Network("conv", 4), X.shape[1:])
    variables = made.init(jax.random.key(1))

    def of(params):
        return intervals.worst_margins(lambda x: made.apply(variables._replace(params=params), x), X, LABELS, 0.1).sum()

    grad = jax.grad(of)(variables.params)
    way = jax.tree.map(lambda x: np.sign(x), grad)
    step = 1e-4
    moved = jax.tree.map(lambda p, w: p + step * w, variables.params, way)
    expected = sum(jnp.abs(g).sum() for g in jax.tree.leaves(grad)) * step
    assert abs(of(moved) - of(variables.params)) == pytest.approx(float(expected), rel=0.2)


def test_what_has_no_bounds_is_named():
    with pytest.raises(UserError, match=r"'(rsqrt|square|integer_pow|div)'"):
        intervals.bounds(net("mlp", norm="layer"), X, X)
