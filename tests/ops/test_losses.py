"""Losses against numbers worked out by hand, optax and scipy; their gradients; no reduction over the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax
from scipy import integrate, special, stats

from jaxdl.ops import losses

variants = pytest.mark.parametrize("variant", [jax.jit, lambda f: f], ids=["jit", "plain"])
X = jnp.array([-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 4.0])


@variants
def test_squared_by_hand(variant):
    np.testing.assert_allclose(variant(losses.squared)(X), [4.5, 0.5, 0.125, 0, 0.03125, 0.5, 8])


@variants
def test_huber_by_hand(variant):
    np.testing.assert_allclose(variant(losses.huber)(X), [2.5, 0.5, 0.125, 0, 0.03125, 0.5, 3.5])
    np.testing.assert_allclose(variant(losses.huber)(X, 0.5), [1.375, 0.375, 0.125, 0, 0.03125, 0.375, 1.875])
    np.testing.assert_allclose(variant(losses.huber)(X, 2.0), optax.huber_loss(X, delta=2.0))


def test_the_gradient_of_huber_is_the_error_clipped():
    np.testing.assert_allclose(jax.grad(lambda x: losses.huber(x, 1.5).sum())(X), jnp.clip(X, -1.5, 1.5))


@variants
def test_cross_entropy(variant):
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])) + jnp.array([[3.0], [-50.0]])
    labels = jnp.array([1, 2])
    np.testing.assert_allclose(variant(losses.cross_entropy)(logits, labels), -np.log([0.2, 0.8]), rtol=2e-5)
    many = jax.random.normal(jax.random.key(0), (2, 5, 7)) * 10
    labels = jax.random.randint(jax.random.key(1), (2, 5), 0, 7)
    np.testing.assert_allclose(variant(losses.cross_entropy)(many, labels),
                               optax.softmax_cross_entropy_with_integer_labels(many, labels), rtol=1e-5, atol=1e-6)


@variants
def test_smoothed_cross_entropy_and_hinge(variant):
    logits, labels = jax.random.normal(jax.random.key(0), (6, 4)) * 3, jnp.array([0, 1, 2, 3, 0, 0])
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 4), 0.1)
    np.testing.assert_allclose(variant(lambda x, y: losses.smoothed_cross_entropy(x, y, 0.1))(logits, labels),
                               optax.softmax_cross_entropy(logits, targets), rtol=1e-5)
    by_hand = [sum(max(0, 1 + x[j] - x[y]) for j in range(4) if j != y)
               for x, y in zip(np.asarray(logits), np.asarray(labels), strict=True)]
    np.testing.assert_allclose(variant(losses.multiclass_hinge)(logits, labels), by_hand, rtol=1e-5, atol=1e-5)


def test_cross_entropy_is_finite_at_extreme_logits():
    np.testing.assert_allclose(losses.cross_entropy(jnp.array([[1e4, 0.0], [1e4, 0.0]]), jnp.array([0, 1])), [0, 1e4])


@variants
def test_binary_cross_entropy(variant):
    logits, targets = jnp.array([-30.0, -2.0, 0.0, 0.5, 30.0]), jnp.array([0.0, 1.0, 0.3, 1.0, 1.0])
    x, t = np.float64(logits), np.float64(targets)
    expected = -t * special.log_expit(x) - (1 - t) * special.log_expit(-x)
    np.testing.assert_allclose(variant(losses.binary_cross_entropy)(logits, targets), expected, rtol=1e-6)
    np.testing.assert_allclose(variant(losses.binary_cross_entropy)(logits, targets),
                               optax.sigmoid_binary_cross_entropy(logits, targets), rtol=1e-5)


def test_the_gradient_of_binary_cross_entropy_is_p_minus_target_everywhere():
    logits = jnp.array([-1e4, -90.0, -1.0, -0.0, 0.0, 1e-8, 3.0, 90.0, 1e4])
    for target in (0.0, 0.25, 1.0):
        slope = jax.vmap(jax.grad(losses.binary_cross_entropy), (0, None))(logits, target)
        np.testing.assert_allclose(slope, special.expit(np.float64(logits)) - target, rtol=1e-6, atol=1e-7)
        assert np.isfinite(losses.binary_cross_entropy(logits, target)).all()


@variants
def test_kl_to_a_standard_normal(variant):
    kl = variant(losses.kl_standard_normal)
    assert kl(jnp.zeros((4, 3)), jnp.zeros((4, 3))).tolist() == [0, 0, 0, 0]
    # (1 + 4 - 1 - log 4) / 2 + (0 + 1 / 4 - 1 + log 4) / 2
    np.testing.assert_allclose(kl(jnp.array([1.0, 0.0]), jnp.log(jnp.array([4.0, 0.25]))), 1.625, rtol=1e-6)


def test_kl_is_the_integral():
    q = stats.norm(0.7, 1.3)
    expected = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - stats.norm.logpdf(z)), -15, 15)[0]
    got = losses.kl_standard_normal(jnp.array([0.7]), 2 * jnp.log(jnp.array([1.3])))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@variants
def test_quantile_huber_by_hand(variant):
    quantiles, targets = jnp.array([0.0, 1.0]), jnp.array([0.5, 3.0, -1.0])  # at 1/4 and 3/4
    first = (0.25 * 0.125 + 0.25 * 2.5 + 0.75 * 0.5) / 3  # errors 0.5, 3, -1
    second = (0.25 * 0.125 + 0.75 * 1.5 + 0.25 * 1.5) / 3  # errors -0.5, 2, -2
    np.testing.assert_allclose(variant(losses.quantile_huber)(quantiles, targets), first + second, rtol=1e-6)
    first = (0.25 * 0.125 + 0.25 * 1.375 + 0.75 * 0.375) / 3 / 0.5  # linear from 0.5 on, and divided by it
    second = (0.25 * 0.125 + 0.75 * 0.875 + 0.25 * 0.875) / 3 / 0.5
    np.testing.assert_allclose(variant(losses.quantile_huber)(quantiles, targets, 0.5), first + second, rtol=1e-6)


@pytest.mark.parametrize("delta", [1.0, 0.3])
def test_quantile_huber_is_that_of_rlax(delta):
    quantiles = jax.random.normal(jax.random.key(0), (3, 4, 7))
    targets = 2 * jax.random.normal(jax.random.key(1), (3, 4, 5))
    tau = (jnp.arange(7) + 0.5) / 7
    theirs = jax.vmap(jax.vmap(lambda q, t: rlax.quantile_regression_loss(q, tau, t, delta)))(quantiles, targets)
    got = losses.quantile_huber(quantiles, targets, delta)
    assert got.shape == (3, 4)
    np.testing.assert_allclose(got, theirs / delta, rtol=1e-5)  # it leaves the division by delta out


def test_quantile_huber_is_least_at_the_quantiles():
    """Near delta = 0 the loss is that of quantile regression: its gradient vanishes where tau of the targets lie below."""
    targets = jnp.linspace(0.0, 1.0, 1001)
    tau = (np.arange(5) + 0.5) / 5
    slope = jax.grad(losses.quantile_huber)
    np.testing.assert_allclose(slope(jnp.asarray(tau, jnp.float32), targets, 1e-3), 0, atol=2e-3)
    np.testing.assert_allclose(slope(jnp.asarray(tau + 0.05, jnp.float32), targets, 1e-3), 0.05, atol=2e-3)


def test_nothing_is_reduced_over_the_batch():
    x = jnp.ones((2, 3, 4))
    assert losses.squared(x).shape == losses.huber(x).shape == losses.binary_cross_entropy(x, x).shape == (2, 3, 4)
    assert losses.kl_standard_normal(x, x).shape == losses.cross_entropy(x, jnp.zeros((2, 3), int)).shape == (2, 3)


def test_labels_and_variances_that_would_be_broadcast_are_refused():
    x = jnp.ones((2, 3, 4))
    for wrong in (lambda: losses.cross_entropy(x, jnp.zeros((1, 3), int)), lambda: losses.kl_standard_normal(x, x[:1])):
        with pytest.raises(AssertionError, match="shape"):
            wrong()
