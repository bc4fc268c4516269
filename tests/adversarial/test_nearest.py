"""Attacks that look for the smallest change: of linear functions it is known; and the search without gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.adversarial import attacks, ball, nearest
from jaxdl.adversarial.square import square

N, Y = 16, 3
X = 0.35 + 0.3 * jax.random.uniform(jax.random.key(0), (N, 4, 4, 1))
WEIGHTS = jax.random.normal(jax.random.key(1), (16, Y))
LABELS = (X.reshape(N, -1) @ WEIGHTS).argmax(-1)
DUAL = {"linf": lambda w: np.abs(w).sum(-1), "l2": lambda w: np.sqrt((w**2).sum(-1))}


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def distances(norm):
    """To the boundary of each other class, where no pixel meets its end: [N, Y]."""
    z, w = np.asarray(linear(X)), np.asarray(WEIGHTS)
    own = w[:, LABELS].T[:, None]  # [N, 1, F]
    far = (z[np.arange(N), LABELS][:, None] - z) / np.maximum(DUAL[norm](own - w.T[None]), 1e-9)
    far[np.arange(N), LABELS] = np.inf
    return far


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_nearest_boundary_of_a_linear_function_is_found(norm):
    want = distances(norm).min(-1)
    found = jit(lambda x: nearest.deepfool(linear, x, LABELS, norm, steps=5, overshoot=1e-3)[:2])(X)
    np.testing.assert_allclose(found[1], want, rtol=0.02)
    assert (attacks.margin(linear(found[0]), LABELS) < 0).all()
    every = []
    for c in range(1, Y):
        targets = (LABELS + c) % Y
        one = jit(lambda x, t: nearest.fab(linear, x, LABELS, t, norm, steps=20)[:2])(X, targets)
        assert (attacks.margin(linear(one[0]), LABELS) < 0).all()
        np.testing.assert_allclose(ball.size(one[0] - X, norm), one[1], rtol=1e-4)
        every.append(one[1])
    np.testing.assert_allclose(np.min(every, 0), want, rtol=0.06)


def test_carlini_and_wagner_come_near_to_it():
    found = jit(lambda x: nearest.carlini_wagner(linear, x, LABELS, steps=150, rate=0.02, searches=6)[:2])(X)
    want = distances("l2").min(-1)
    assert (attacks.margin(linear(found[0]), LABELS) < 0).all()
    assert float(np.mean(found[1] / want)) < 1.1
    assert float(np.min(found[1] / want)) > 0.99


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projections_are_nearest_and_on_the_plane(norm):
    rng = np.random.default_rng(0)
    x, way = np.float32(rng.uniform(size=(8, 6))), np.float32(rng.normal(size=(8, 6)))
    gap = np.float32([0.3, -0.3, 0.1, 0.0, 0.5, -0.2, 9.0, -9.0])
    z = np.asarray(nearest.onto_plane(jnp.asarray(x), jnp.asarray(way), jnp.asarray(gap), norm))
    reached = (way * (z - x)).sum(-1)
    np.testing.assert_allclose(reached[:6], gap[:6], atol=1e-4)
    ends = np.where((way > 0) == (gap[:, None] > 0), 1, 0)  # what cannot be reached is as near as pixels let it
    np.testing.assert_allclose(reached[6:], (way * (ends - x)).sum(-1)[6:], atol=1e-3)
    for _ in range(200):  # no other point of the plane and the range is nearer
        other = np.clip(z + 0.05 * rng.normal(size=z.shape), 0, 1)
        on = np.abs((way * (other - x)).sum(-1)) >= np.abs(gap) - 1e-6
        size = DUAL["l2"](other - x) if norm == "l2" else np.abs(other - x).max(-1)
        mine = DUAL["l2"](z - x) if norm == "l2" else np.abs(z - x).max(-1)
        same = np.sign((way * (other - x)).sum(-1)) == np.sign(gap)
        assert (size >= mine - 1e-4)[on & same].all()


def test_squares_keep_the_ball_and_lower_the_margin():
    epsilon = 0.15
    found = jit(lambda key: square(linear, X, LABELS, epsilon, key, 300)[:2])(jax.random.key(0))
    assert float(jnp.abs(found[0] - X).max()) <= np.float32(epsilon)
    np.testing.assert_allclose(found[1], attacks.margin(linear(found[0]), LABELS), rtol=1e-4, atol=1e-5)
    assert (found[1] <= attacks.margin(linear(X), LABELS) + 1e-5).mean() > 0.9
    lowest = (1 - distances("linf").min(-1) / epsilon) > 0  # that any point of the ball breaks
    broken = np.asarray(found[1] < 0)
    assert not (broken & ~lowest).any()
    assert broken.sum() > 0.5 * lowest.sum()
