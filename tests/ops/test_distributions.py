"""Densities, entropies and divergences against scipy; draws have the moments and frequencies they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from scipy import special, stats

from jaxdl.ops import distributions as d

variants = pytest.mark.parametrize("variant", [jax.jit, lambda f: f], ids=["jit", "plain"])
MEAN, LOG_VAR = jnp.array([0.0, -1.5, 3.0]), jnp.array([0.0, 1.2, -4.0])
STD = np.exp(np.float64(LOG_VAR) / 2)
LOGITS = jnp.array([[0.0, 1.0, -2.0, 0.5], [30.0, 0.0, 0.0, -30.0]])
N = 20_000


@variants
def test_gaussian_log_prob_and_entropy(variant):
    x = jnp.array([0.5, 2.0, 2.9])
    log_prob = variant(d.gaussian_log_prob)(x, MEAN, LOG_VAR)
    np.testing.assert_allclose(log_prob, stats.norm(MEAN, STD).logpdf(x), rtol=1e-5)
    np.testing.assert_allclose(variant(d.gaussian_entropy)(LOG_VAR), stats.norm(MEAN, STD).entropy(), rtol=1e-6)


@variants
def test_gaussian_kl(variant):
    mean_q, log_var_q = jnp.array([1.0, -1.5, 2.0]), jnp.array([0.5, 1.2, -2.0])
    p, q = stats.norm(MEAN, STD), stats.norm(mean_q, np.exp(np.float64(log_var_q) / 2))
    expected = [stats.norm(p.mean()[i], p.std()[i]).expect(lambda z: p.logpdf(z)[i] - q.logpdf(z)[i]) for i in range(3)]  # noqa: B023
    np.testing.assert_allclose(variant(d.gaussian_kl)(MEAN, LOG_VAR, mean_q, log_var_q), expected, rtol=1e-5, atol=1e-6)


@variants
def test_gaussian_draws(variant):
    draws = variant(d.gaussian_sample)(jax.random.key(0), jnp.tile(MEAN, (N, 1)), jnp.tile(LOG_VAR, (N, 1)))
    for i in range(3):
        assert stats.kstest(draws[:, i], stats.norm(MEAN[i], STD[i]).cdf).pvalue > 1e-3
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.03)


def test_gaussian_draws_are_reparameterized():
    key = jax.random.key(1)
    x = d.gaussian_sample(key, MEAN, LOG_VAR)
    d_mean, d_log_var = jax.grad(lambda m, v: d.gaussian_sample(key, m, v).sum(), (0, 1))(MEAN, LOG_VAR)
    np.testing.assert_allclose(d_mean, 1)
    np.testing.assert_allclose(d_log_var, (x - MEAN) / 2, rtol=1e-5)


@variants
def test_bernoulli(variant):
    logits = jnp.array([-40.0, -1.0, 0.0, 2.0])
    for x in (0.0, 1.0):
        expected = special.log_expit(np.float64(logits) * (2 * x - 1))
        np.testing.assert_allclose(variant(d.bernoulli_log_prob)(x, logits), expected, rtol=1e-6)
    draws = variant(d.bernoulli_sample)(jax.random.key(2), jnp.tile(logits, (N, 1)))
    assert draws.dtype == jnp.float32
    assert set(np.unique(draws)) == {0.0, 1.0}
    np.testing.assert_allclose(draws.mean(0), special.expit(logits), atol=0.015)


@variants
def test_categorical(variant):
    p = special.softmax(np.float64(LOGITS), -1)
    for x in range(4):
        got = variant(d.categorical_log_prob)(jnp.full(2, x), LOGITS)
        np.testing.assert_allclose(got, np.log(p[:, x]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variant(d.categorical_entropy)(LOGITS), stats.entropy(p, axis=-1), rtol=1e-5, atol=1e-6)
    draws = variant(d.categorical_sample)(jax.random.key(3), jnp.tile(LOGITS[0], (N, 1)))
    np.testing.assert_allclose(np.bincount(draws, minlength=4) / N, p[0], atol=0.015)


def test_a_class_that_is_ruled_out_adds_no_entropy_and_no_nan():
    logits = jnp.array([0.0, -jnp.inf, 0.0])
    np.testing.assert_allclose(d.categorical_entropy(logits), np.log(2), rtol=1e-6)
    assert np.isfinite(jax.grad(d.categorical_entropy)(logits)).all()


def test_log_prob_of_draws_averages_to_minus_entropy():
    k = jax.random.split(jax.random.key(4))
    x = d.gaussian_sample(k[0], jnp.tile(MEAN, (N, 1)), jnp.tile(LOG_VAR, (N, 1)))
    np.testing.assert_allclose(-d.gaussian_log_prob(x, MEAN, LOG_VAR).mean(0), d.gaussian_entropy(LOG_VAR), atol=0.03)
    c = d.categorical_sample(k[1], jnp.tile(LOGITS[0], (N, 1)))
    np.testing.assert_allclose(-d.categorical_log_prob(c, jnp.tile(LOGITS[0], (N, 1))).mean(),
                               d.categorical_entropy(LOGITS[0]), atol=0.03)


# --- The projection onto evenly spaced atoms.


def project(atoms, probs, low=-1.0, high=3.0, size=5):
    """Onto -1, 0, 1, 2, 3."""
    return np.asarray(d.categorical_projection(jnp.float32(atoms), jnp.float32(probs), low, high, size))


def test_an_atom_between_two_gives_to_each_in_proportion_to_its_nearness():
    np.testing.assert_allclose(project([0.25], [1.0]), [0, 0.75, 0.25, 0, 0], atol=1e-6)
    np.testing.assert_allclose(project([0.25, 2.5, -0.9], [0.5, 0.3, 0.2]), [0.18, 0.375 + 0.02, 0.125, 0.15, 0.15], atol=1e-6)


def test_an_atom_of_the_support_keeps_what_it_has_and_one_beyond_goes_to_the_end():
    for i, atom in enumerate((-1.0, 0.0, 1.0, 2.0, 3.0)):
        np.testing.assert_array_equal(project([atom], [1.0]), np.eye(5, dtype=np.float32)[i])
    np.testing.assert_array_equal(project([-1.5, -100.0, 3.5, np.inf], [0.5, 0.25, 0.125, 0.125]), [0.75, 0, 0, 0, 0.25])


@pytest.mark.parametrize(("low", "high", "size"), [(-10.0, 10.0, 51), (0.0, 110.0, 51), (-100.0, 0.0, 7), (-1.0, 1.0, 2)])
def test_a_support_that_does_not_move_stays_as_it_is(low, high, size):
    probs = np.random.default_rng(0).dirichlet(np.ones(size)).astype(np.float32)
    np.testing.assert_allclose(project(jnp.linspace(low, high, size), probs, low, high, size), probs, atol=1e-5)


@variants
def test_the_projection_is_that_of_rlax_and_keeps_all_mass(variant):
    k = jax.random.split(jax.random.key(0), 3)
    support = jnp.linspace(-4.0, 6.0, 21)
    atoms = jax.random.normal(k[0], (3, 8, 1)) + 1.1 * jax.random.uniform(k[1], (3, 8, 1)) * support
    probs = jax.nn.softmax(2 * jax.random.normal(k[2], (3, 8, 21)))
    got = variant(lambda a, p: d.categorical_projection(a, p, -4.0, 6.0, 21))(atoms, probs)
    theirs = jax.vmap(jax.vmap(lambda a, p: rlax.categorical_l2_project(a, p, support)))(atoms, probs)
    np.testing.assert_allclose(got, theirs, atol=2e-6)
    np.testing.assert_allclose(got.sum(-1), 1, rtol=1e-6)
    assert (got >= 0).all()
    inside = np.clip(atoms, -4, 6)  # and the mean of what lies within
    np.testing.assert_allclose((got * support).sum(-1), (inside * probs).sum(-1), atol=1e-5)


def test_all_of_a_return_that_is_certain_is_at_its_place():
    """After a termination every atom is the reward."""
    np.testing.assert_allclose(project(np.full(5, 1.75), np.full(5, 0.2)), [0, 0, 0.25, 0.75, 0], atol=1e-6)
