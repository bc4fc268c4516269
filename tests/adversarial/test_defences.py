"""Losses of defences, against hand-made functions; smoothing, against the closed form of a linear classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tools import assert_close

from jaxdl.adversarial import ball, defences, intervals, smoothing
from jaxdl.core.errors import UserError
from jaxdl.ops import losses

X = jax.random.uniform(jax.random.key(0), (6, 4, 4, 1), minval=0.3, maxval=0.7)
LABELS = jnp.array([0, 1, 2, 0, 1, 2])
WEIGHTS = jax.random.normal(jax.random.key(1), (16, 3))
KEY = jax.random.key(2)


def f(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def learned(done=1.0, learn=None, **settings):
    config = defences.Config(**settings)
    defences.validate(config)
    return defences.learned(config, f, learn or (lambda x: (f(x), {})), X, LABELS, KEY, jnp.float32(done))


def seen(**settings):
    """What the network is given to learn from."""
    given = []

    def learn(x):
        given.append(x)
        return f(x), {}

    out = learned(learn=learn, **settings)
    return given[0], out


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("defence", ["fgsm", "pgd"])
def test_what_is_learned_from_lies_in_the_ball_and_is_worse(defence, norm):
    moved, out = seen(defence=defence, epsilon=0.1, defence_norm=norm)
    assert (ball.size(moved - X, norm) <= 0.1).all()
    assert (losses.cross_entropy(f(moved), LABELS) > losses.cross_entropy(f(X), LABELS)).all()
    assert_close(out.loss, losses.cross_entropy(f(moved), LABELS))


def test_of_a_linear_classifier_of_two_classes_attacks_end_in_the_corner():
    two = lambda x: f(x)[:, :2]  # noqa: E731
    labels = LABELS % 2
    config = defences.Config(defence="pgd", epsilon=0.1)
    given = []
    defences.learned(config, two, lambda x: (given.append(x) or two(x), {}), X, labels, KEY, jnp.float32(1))
    way = jnp.sign((WEIGHTS[:, 1] - WEIGHTS[:, 0]) * jnp.where(labels[:, None] == 0, 1, -1)).reshape(X.shape)
    assert_close(given[0], X + 0.1 * way, atol=1e-5)


def test_without_a_random_start_fgsm_is_one_step_of_epsilon():
    moved, _ = seen(defence="fgsm", epsilon=0.1, random_start=False)
    grad = jax.grad(lambda x: losses.cross_entropy(f(x), LABELS).sum())(X)
    assert_close(moved, X + 0.1 * jnp.sign(grad), atol=1e-5)


def test_trades_is_the_loss_and_the_divergence_of_what_diverges_most():
    moved, out = seen(defence="trades", epsilon=0.1, trades_weight=2.0)
    x, under = moved[:6], moved[6:]
    assert_close(x, X)
    p, q = jax.nn.softmax(f(x)), jax.nn.softmax(f(under))
    assert_close(out.loss, losses.cross_entropy(f(x), LABELS) + 2 * (p * jnp.log(p / q)).sum(-1), rtol=1e-4)
    near = ball.random(KEY, X, 0.1, "linf")
    assert (defences.divergence(f(x), f(under)) > 3 * defences.divergence(f(x), f(near))).all()
    assert_close(learned(defence="trades", epsilon=0.1, trades_weight=0.0).loss, losses.cross_entropy(f(X), LABELS))


def test_bounds_take_their_share_as_epsilon_rises():
    worst = losses.cross_entropy(intervals.worst_margins(f, X, LABELS, 0.1), LABELS)
    plain = losses.cross_entropy(f(X), LABELS)
    assert_close(learned(defence="interval", epsilon=0.1, natural=0.25, ramp=0.5).loss, 0.25 * plain + 0.75 * worst, rtol=1e-4)
    half = losses.cross_entropy(intervals.worst_margins(f, X, LABELS, 0.05), LABELS)
    now = learned(0.25, defence="interval", epsilon=0.1, natural=0.25, ramp=0.5)
    assert_close(now.loss, 0.625 * plain + 0.375 * half, rtol=1e-4)
    assert_close(learned(0.0, defence="interval", epsilon=0.1, ramp=0.5).loss, plain, rtol=1e-4)
    assert_close(now.metrics["certified_accuracy"], intervals.certified(f, X, LABELS, 0.05))


def test_noise_has_the_deviation_that_is_asked_for():
    moved, _ = seen(defence="noise", epsilon=0.5)
    assert float((moved - X).std()) == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize(("settings", "words"), [
    ({"epsilon": 0.3}, "epsilon=0.3 is of defence"), ({"defence": "pgd", "epsilon": 1.5}, "epsilon must be above 0"),
    ({"defence": "noise", "attack_steps": 3}, "attack_steps=3 is of defence"),
    ({"defence": "pgd", "attack_steps": 0}, "attack_steps must be between 1"),
    ({"defence": "interval", "natural": 1.5}, "natural must be between 0 and 1"),
    ({"defence": "pgd", "ramp": -1.0}, "ramp must be between 0 and 1")])
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(UserError, match=words):
        defences.validate(defences.Config(**settings))


def test_smoothing_of_a_linear_classifier_knows_its_distance():
    w = jnp.array([1.0, 0.0])  # class 1 where x_0 > 0: the distance is |x_0|
    linear = lambda x: jnp.stack([0 * x[:, 0], x @ w], -1)  # noqa: E731
    x, sigma = jnp.array([[0.3, 1.0], [-0.2, 5.0], [0.0, 0.0]]), 0.25
    found = smoothing.certify(linear, x, sigma, jax.random.key(0), num=20_000)
    assert found.label.tolist()[:2] == [1, 0]
    p = stats.norm.cdf(np.abs([0.3, 0.2]) / sigma)
    assert (found.radius[:2] <= [0.3, 0.2]).all()
    assert found.radius[:2] == pytest.approx(sigma * stats.norm.ppf(p), rel=0.1)
    assert found.radius[2] < 0.02


def test_the_bound_is_clopper_and_pearsons():
    low = stats.binomtest(950, 1000).proportion_ci(1 - 2 * 0.001, "exact").low
    assert smoothing.radius(np.array([950]), 1000, 0.5)[0] == pytest.approx(0.5 * stats.norm.ppf(low))
    assert smoothing.radius(np.array([500, 0, 1000]), 1000, 0.5).tolist()[:2] == [0, 0]
    assert np.isfinite(smoothing.radius(np.array([1000]), 1000, 0.5)).all()
