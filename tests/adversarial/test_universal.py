"""One change for all inputs: what is best of a linear function, the ball, and a class that is to be said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.adversarial import ball
from jaxdl.adversarial.universal import applied, universal

N, EPSILON = 200, 0.05
WEIGHTS = jax.random.normal(jax.random.key(1), (12,))
X = 0.3 + 0.4 * jax.random.uniform(jax.random.key(0), (N, 4, 3, 1))


def two(x):
    """Two classes, of a linear function."""
    z = x.reshape(len(x), -1) @ WEIGHTS
    return jnp.stack([jnp.zeros(len(x)), z - 0.5 * WEIGHTS.sum()], -1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_a_linear_function_it_is_the_weights(norm):
    """All are of class 1, so the loss of each rises along -w: -epsilon sign(w), or -epsilon w / |w|."""
    change = jit(lambda key: universal(two, X, jnp.ones(N, jnp.int32), EPSILON, norm, key, 200, 32))(jax.random.key(0))
    w = WEIGHTS.reshape(change.shape)
    want = -EPSILON * (jnp.sign(w) if norm == "linf" else w / jnp.linalg.norm(w))
    np.testing.assert_allclose(change, want, atol=2e-3 * EPSILON)
    for epsilon in (EPSILON, 0.7):
        moved = applied(change * (epsilon / EPSILON), X, epsilon, norm)
        assert float(ball.size(moved - X, norm).max()) <= np.float32(epsilon)
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 1


def test_a_class_is_said_of_all():
    weights = jax.random.normal(jax.random.key(2), (12, 4))
    linear = lambda x: (x - 0.5).reshape(len(x), -1) @ weights  # noqa: E731
    labels = linear(X).argmax(-1)
    made = jit(lambda key: universal(linear, X[:100], labels[:100], 0.3, "linf", key, 100, 32, target=2))(jax.random.key(0))
    held_out = applied(made, X[100:], 0.3, "linf")
    assert float((linear(X[100:]).argmax(-1) == 2).mean()) < 0.5
    assert float((linear(held_out).argmax(-1) == 2).mean()) > 0.95


def test_what_is_wrong_by_far_carries_nothing():
    """Of three inputs the loss is 40 and rises with the last pixel, of one it is small and falls with it."""
    def f(x):
        far, near = 40 + 100 * (x[:, 1] - 0.5), -10 * (x[:, 1] - 0.5)
        return jnp.stack([jnp.where(x[:, 0] > 0.5, far, near), jnp.zeros(len(x))], -1)

    x, labels = jnp.array([[0.9, 0.5]] * 3 + [[0.1, 0.5]]), jnp.ones(4, jnp.int32)
    for most, sign in ((9, -1), (1e9, 1)):
        change = jit(lambda key, most=most: universal(f, x, labels, 0.02, "linf", key, 50, 16, most=most))(jax.random.key(0))
        assert float(change[1]) == pytest.approx(sign * 0.02)
