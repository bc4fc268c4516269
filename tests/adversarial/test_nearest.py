"""Attacks that look for the smallest change: of linear functions it is known; and the search without gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.adversarial import attacks, ball, nearest
from jaxdl.adversarial.square import _hill, _hills, square

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


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.15), ("l2", 0.6)])
def test_squares_keep_the_ball_and_lower_the_margin(norm, epsilon):
    found = jit(lambda key: square(linear, X, LABELS, epsilon, norm, key, 300))(jax.random.key(0))
    assert float(ball.size(found.x - X, norm).max()) <= np.float32(epsilon)
    assert float(found.x.min()) >= 0
    assert float(found.x.max()) <= 1
    np.testing.assert_allclose(found.margin, attacks.margin(linear(found.x), LABELS), rtol=1e-4, atol=1e-5)
    assert (found.margin <= attacks.margin(linear(X), LABELS) + 1e-5).mean() > 0.9
    lowest = (1 - distances(norm).min(-1) / epsilon) > 0  # that any point of the ball breaks
    broken = np.asarray(found.margin < 0)
    assert not (broken & ~lowest).any()
    assert broken.sum() > 0.5 * lowest.sum()
    assert (found.queries[broken] < 300).all()
    assert (found.queries[~broken] == 300).all()


def test_one_query_is_the_first_change_alone():
    for norm in ("linf", "l2"):
        found = square(linear, X, LABELS, 0.1, norm, jax.random.key(0), 1)
        assert (found.queries == 1).all()
        np.testing.assert_allclose(ball.size(found.x - X, norm), 0.1, rtol=1e-3)  # no pixel meets its end


def test_a_hill_is_its_sum_and_has_a_negative_below():
    """Of a window of 5x5: 2 rows about their second, 3 below about their middle; the sum over j of 1 / j^2 from d + 1 to 3."""
    hill = _hill(jnp.arange(7)[:, None] - 1, jnp.arange(7)[None] - 1, jnp.array(5), 7)
    by_distance = [1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9]
    middle = np.array([[max(abs(r - 1), abs(c - 2)) for c in range(5)] for r in range(2)])
    below = np.array([[max(abs(r - 3), abs(c - 2)) for c in range(5)] for r in range(2, 5)])
    want = np.zeros((7, 7))
    want[1:6, 1:6] = np.concatenate([np.take(by_distance, middle), -np.take(by_distance, below)])
    np.testing.assert_allclose(hill, want, rtol=1e-5)


def test_a_hill_takes_what_a_second_window_held_and_what_was_not_used():
    """Algorithm 3: the squared length is kept where all of it was used, and becomes the whole of it where none was."""
    change = 0.01 * jax.random.normal(jax.random.key(3), (N, 9, 9, 2))
    middle, length = jnp.full((N, 9, 9, 2), 0.5), ball.size(change, "l2")
    for epsilon, want in ((jnp.float32(0), length), (2 * length[:, None, None, None], 2 * length)):
        new = jit(_hills)(jax.random.key(1), middle + change, middle, epsilon, jnp.array(5)) - middle
        np.testing.assert_allclose(ball.size(new, "l2"), want, rtol=1e-4)
    moved = jnp.abs(new - change).max(-1) > 1e-6
    assert (moved.sum((1, 2)) <= 2 * 25).all()
    assert (moved.sum((1, 2)) >= 25).all()


def test_rounds_of_fab_find_nothing_farther_away_and_the_nearest_class():
    one, more = (jit(lambda x, key, n=n: nearest.fab_t(linear, x, LABELS, "l2", key, 10, n, 0.2)[:2])(X, jax.random.key(0))
                 for n in (1, 3))
    assert (more[1] <= one[1] + 1e-6).all()
    np.testing.assert_allclose(one[1], distances("l2").min(-1), rtol=0.06)


def test_attacks_towards_a_class_say_it():
    targets = (LABELS + 1) % Y
    near = jit(lambda x: nearest.carlini_wagner(linear, x, LABELS, 100, 0.02, 5, targets=targets)[:2])(X)
    of_target = np.asarray(distances("l2"))[np.arange(N), targets]
    assert (linear(near[0]).argmax(-1) == targets).all()
    assert (near[1] >= 0.99 * of_target).all()
    found = jit(lambda key: square(linear, X, LABELS, 0.3, "linf", key, 400, targets=targets))(jax.random.key(0))
    assert float((linear(found.x).argmax(-1) == targets).mean()) > 0.6
    np.testing.assert_allclose(found.margin, attacks.margin(linear(found.x), LABELS), rtol=1e-4, atol=1e-5)
