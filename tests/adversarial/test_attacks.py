"""Attacks: steps by hand, the ball to the last bit, and what is known of linear functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.adversarial import attacks, ball

N, Y = 64, 4
X = jax.random.uniform(jax.random.key(0), (N, 5, 3, 1))
WEIGHTS = jax.random.normal(jax.random.key(1), (15, Y))
LABELS = (X.reshape(N, -1) @ WEIGHTS).argmax(-1)
EPSILON = 0.08


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def bent(x):
    return jnp.tanh(3 * linear(x)) @ jnp.linspace(-1, 1, Y * Y).reshape(Y, Y) + linear(x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_of_a_ball_are_in_it_to_the_last_bit(norm):
    for i, epsilon in enumerate((0.3, 0.1, 8 / 255, 1e-3)):
        far = 0.5 + 3 * jax.random.normal(jax.random.key(i), X.shape)
        for moved in (jit(ball.project, static_argnums=3)(far, X, epsilon, norm),
                      jit(ball.random, static_argnums=3)(jax.random.key(i + 10), X, epsilon, norm)):
            assert float(moved.min()) >= 0
            assert float(moved.max()) <= 1
            change = np.asarray(moved) - np.asarray(X)  # in float32
            by_input = np.sqrt(np.square(change.astype(np.float64)).sum((1, 2, 3)))
            length = np.abs(change).max() if norm == "linf" else by_input.max()
            assert length <= np.float32(epsilon)
            assert length > 0.9 * epsilon


def test_a_point_inside_stays_where_it_is():
    inside = jnp.clip(X + 0.01, 0, 1)
    for norm in ("linf", "l2"):
        np.testing.assert_allclose(ball.project(inside, X, 0.5, norm), inside, atol=1e-7)


def test_fgsm_is_its_formula():
    found = attacks.fgsm(linear, X, LABELS, EPSILON, "linf")
    p = np.asarray(jax.nn.softmax(linear(X))) - np.eye(Y)[LABELS]
    want = np.clip(X + EPSILON * np.sign(p @ WEIGHTS.T).reshape(X.shape), 0, 1)
    np.testing.assert_allclose(found.x, want, atol=1e-6)
    np.testing.assert_allclose(found.margin, attacks.margin(linear(found.x), LABELS), rtol=1e-5)


def test_pgd_is_its_steps():
    found = attacks.iterated(bent, X, LABELS, EPSILON, "linf", steps=3, step=0.04)
    now, best, lowest = X, X, attacks.margin(bent(X), LABELS)
    for _ in range(3):
        grad = jax.grad(lambda x: attacks.loss_of(bent(x), LABELS, "cross_entropy").sum())(now)
        now = jnp.clip(jnp.clip(now + 0.04 * jnp.sign(grad), X - EPSILON, X + EPSILON), 0, 1)
        far = attacks.margin(bent(now), LABELS)
        best, lowest = jnp.where((far < lowest)[:, None, None, None], now, best), jnp.minimum(far, lowest)
    np.testing.assert_allclose(found.x, best, atol=1e-5)
    np.testing.assert_allclose(found.margin, lowest, rtol=1e-4, atol=1e-5)


def test_of_two_classes_of_a_linear_function_one_step_is_the_worst_there_is():
    """Max over |d| <= e of -(w . d) is e |w|_1, as long as no pixel meets its end."""
    middle = 0.3 + 0.4 * X
    two = lambda x: linear(x)[:, :2]  # noqa: E731
    labels = two(middle).argmax(-1)
    way = (WEIGHTS[:, 0] - WEIGHTS[:, 1])[None] * (1 - 2 * labels[:, None])
    for norm, most in (("linf", jnp.abs(way).sum(-1)), ("l2", jnp.sqrt((way**2).sum(-1)))):
        want = attacks.margin(two(middle), labels) - EPSILON * most
        for found in (attacks.fgsm(two, middle, labels, EPSILON, norm),
                      attacks.iterated(two, middle, labels, EPSILON, norm, steps=20),
                      attacks.apgd(two, middle, labels, EPSILON, norm, jax.random.key(0), steps=20)):
            np.testing.assert_allclose(found.margin, want, rtol=1e-3, atol=2e-4)


def test_stronger_attacks_break_more_and_none_breaks_what_noise_does_alone():
    rate = {}
    key = jax.random.key(3)
    rate["noise"] = attacks.noise(bent, X, LABELS, EPSILON, "linf", key)
    rate["fgsm"] = attacks.fgsm(bent, X, LABELS, EPSILON, "linf")
    one = lambda k: attacks.iterated(bent, X, LABELS, EPSILON, "linf", 20, key=k)  # noqa: E731
    rate["pgd"] = jit(lambda key: attacks.restarted(one, key, 5)[:2])(key)
    rate["apgd"] = jit(lambda key: attacks.apgd(bent, X, LABELS, EPSILON, "linf", key, 50)[:2])(key)
    kept = {name: float((attacks.margin(bent(found[0]), LABELS) > 0).mean()) for name, found in rate.items()}
    assert kept["noise"] > kept["fgsm"] >= kept["pgd"]
    assert abs(kept["apgd"] - kept["pgd"]) <= 2 / N
    for found in rate.values():
        assert float(jnp.abs(found[0] - X).max()) <= np.float32(EPSILON)


def test_the_worst_of_restarts_is_no_better_than_the_first():
    one, many = (attacks.restarted(lambda k: attacks.iterated(bent, X, LABELS, EPSILON, "linf", 5, key=k), jax.random.key(0), n)
                 for n in (1, 6))
    assert (many.margin <= one.margin + 1e-6).all()
    assert many.gradients == 6 * one.gradients


def test_queries_of_restarts_are_counted_until_one_succeeds():
    far = jnp.array([[0.5, 0.5, -1.0], [-1.0, 0.5, 0.5], [0.5, -1.0, 0.5]])  # of three inputs, by restart

    def attack(key):
        at = jax.random.randint(key, (), 0, 3)
        return attacks.Found(jnp.zeros((3, 1)), far[:, at], 0, jnp.full(3, 10))

    key = jax.random.key(1)
    order = [int(jax.random.randint(k, (), 0, 3)) for k in jax.random.split(key, 6)]
    want = [10 * next((n + 1 for n, at in enumerate(order) if row[at] < 0), 6) for row in far]
    assert len(set(want)) > 1
    np.testing.assert_array_equal(attacks.restarted(attack, key, 6).queries, want)


def test_a_target_is_said():
    targets = (LABELS + 1) % Y
    found = attacks.iterated(linear, X, LABELS, 0.6, "linf", 30, targets=targets)
    assert float((linear(found.x).argmax(-1) == targets).mean()) > 0.9


def test_the_ratio_of_differences_knows_no_scale():
    z = linear(X)
    np.testing.assert_allclose(attacks.loss_of(z, LABELS, "dlr"), attacks.loss_of(100 * z, LABELS, "dlr"), rtol=1e-4)
    top = np.sort(np.asarray(z), -1)[:, ::-1]
    np.testing.assert_allclose(attacks.loss_of(z, LABELS, "dlr"), -(top[:, 0] - top[:, 1]) / (top[:, 0] - top[:, 2]), rtol=1e-4)


def test_steps_are_halved_until_they_come_to_the_top():
    """Of a loss whose top lies within the ball, at places that differ by pixel: steps of 2 epsilon pass it again and again."""
    middle, epsilon = 0.3 + 0.4 * X, 0.1
    top = middle + epsilon * jax.random.uniform(jax.random.key(5), X.shape, minval=-0.8, maxval=0.8)

    def hill(x):
        far = jnp.square(x - top).sum((1, 2, 3))
        return jnp.stack([jnp.zeros(N), 1 - 50 * far], -1)

    found = jit(lambda key: attacks.apgd(hill, middle, jnp.zeros(N, jnp.int32), epsilon, "linf", key, 100)[:2])
    assert float(jnp.abs(found(jax.random.key(0))[0] - top).max()) < 0.1 * epsilon


def test_steps_are_halved_where_the_paper_has_it():
    assert attacks._checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
