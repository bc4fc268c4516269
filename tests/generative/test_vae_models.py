"""The VAE's other models: closed forms of a linear-Gaussian one, two layers of latents, likelihoods, classes, convolutions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tools import jit

from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative import estimators, likelihoods, vae_network
from jaxdl.generative import vae as vaes
from jaxdl.ops import distributions
from jaxdl.optim import Config as OptimConfig

RNG = np.random.default_rng(0)
SPEC = DataSpec("tiny", 50, (2, 3, 1), 3)
SGD = OptimConfig(optimizer="sgd", learning_rate=1.0)
IMAGES = jnp.asarray(RNG.integers(0, 256, (20, 2, 3, 1)), jnp.uint8)


# --- A linear decoder and a Gaussian likelihood: x = W z + b + noise is itself Gaussian.

VARIANCE = 0.1
W, OFFSET = 0.3 * RNG.normal(size=(2, 6)), RNG.uniform(size=6)


@pytest.fixture(scope="module")
def linear():
    """A VAE p(x) = N(b, W^T W + v I), with a posterior that is near the true one, and log p(x) of the images."""
    config = vaes.Config(likelihood="gaussian", variance=VARIANCE, latent_size=2, hidden_sizes=())
    vae = vaes.make(config, SPEC)
    cov = np.linalg.inv(np.eye(2) + W @ W.T / VARIANCE)  # of the true posterior, Bishop (2006), eq. 2.117
    gain = cov @ W / VARIANCE
    head = {"mean": {"kernel": gain.T, "bias": -gain @ OFFSET},
            "log_var": {"kernel": np.zeros((6, 2)), "bias": np.log(1.5 * np.diag(cov))}}
    params = {"params": {"posterior": head, "pixels": {"kernel": W, "bias": OFFSET}}}
    exact = stats.multivariate_normal(OFFSET, W.T @ W + VARIANCE * np.eye(6)).logpdf(np.asarray(IMAGES).reshape(20, 6) / 255)
    return vae._replace(log_prob=jit(vae.log_prob, static_argnums=(3, 4))), jax.tree.map(jnp.float32, params), exact


def test_importance_sampling_gives_the_closed_form(linear):
    vae, params, exact = linear
    found = vae.log_prob(params, Examples(IMAGES), jax.random.key(0), 5000, 500)
    np.testing.assert_allclose(found, exact, atol=0.1)
    assert abs(np.mean(found - exact)) < 0.01


def test_the_bound_rises_with_samples_and_stays_below_what_it_bounds(linear):
    vae, params, exact = linear
    many = Examples(jnp.repeat(IMAGES, 400, 0))
    means = [float(vae.log_prob(params, many, jax.random.key(1), k, 5).mean()) for k in (1, 2, 5, 25)]
    assert means == sorted(means)
    assert np.diff(means).min() > 0.01
    assert exact.mean() - 0.2 < means[-1] < exact.mean()
    assert means[0] == pytest.approx(float(jnp.divide(*vae.measure(params, many, jax.random.key(2))["elbo"])), abs=0.03)


# --- Objectives: the loss of an update by the definitions.


def trained(**settings):
    config = vaes.Config(**{"latent_size": 2, "hidden_sizes": (4,), "activation": "tanh", "batch_size": 20, "total_steps": 10,
                            "optim": OptimConfig(optimizer="sgd", learning_rate=1.0)} | settings)
    vaes.validate(config)
    vae = vaes.make(config, SPEC)
    state = jit(vae.learner.init)(jax.random.key(0))
    return vae, state._replace(params=jax.tree.map(lambda x: 2 * x + 0.1, state.params))


def loss_of(vae, state, key=0, labels=None):
    new, aux = jit(vae.learner.update)(state, Examples(IMAGES, labels), jax.random.key(key))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(new.params))
    return {name: float(mean.total / mean.count) for name, mean in aux.metrics.items()}, new


def test_the_elbo_weighs_its_parts():
    for settings, expected in (({}, lambda m: m["kl"] - m["reconstruction"]),
                               ({"beta": 4.0, "num_samples": 3}, lambda m: 4 * m["kl"] - m["reconstruction"]),
                               ({"free_bits": 100.0}, lambda m: 200 - m["reconstruction"]),
                               ({"free_bits": 1e-6}, lambda m: m["kl"] - m["reconstruction"])):
        metrics, _ = loss_of(*trained(**settings))
        assert metrics["loss"] == pytest.approx(expected(metrics), rel=1e-4), settings


def test_free_bits_leave_the_posterior_alone():
    vae, state = trained(free_bits=100.0)
    still = jax.tree.map(jnp.zeros_like, state.params["params"]["pixels"])  # nothing to reconstruct with
    state = state._replace(params={"params": state.params["params"] | {"pixels": still}})
    _, new = loss_of(vae, state)
    for name in ("mean", "log_var"):
        np.testing.assert_array_equal(new.params["params"]["posterior"][name]["kernel"],
                                      state.params["params"]["posterior"][name]["kernel"])


def test_free_bits_count_the_latent_numbers_over_all_shards():
    config = vaes.Config(latent_size=2, hidden_sizes=(4,), batch_size=20, total_steps=10, free_bits=0.3, num_samples=1,
                         optim=OptimConfig(optimizer="sgd", learning_rate=1.0), binarize="threshold")
    alone, sharded = (vaes.make(config, SPEC, axis).learner for axis in (None, "shards"))
    state = jit(alone.init)(jax.random.key(0))
    silent = {"kernel": jnp.zeros((4, 2)), "bias": jnp.full(2, -30.0)}  # no noise: shards and the whole see the same
    params = state.params["params"]
    state = state._replace(params={"params": params | {"posterior": params["posterior"] | {"log_var": silent}}})
    several, _ = jit(jax.vmap(lambda x: sharded.update(state, Examples(x), jax.random.key(0)), axis_name="shards"))(
        IMAGES.reshape(2, 10, 2, 3, 1))
    whole, _ = jit(alone.update)(state, Examples(IMAGES), jax.random.key(0))
    for a, b in zip(jax.tree.leaves(several.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-4)


def test_one_importance_sample_is_the_elbo_and_many_are_a_higher_bound():
    one = loss_of(*trained(objective="iwae"))[0]
    assert one["loss"] == pytest.approx(-one["reconstruction"] + one["kl"], abs=1.5)  # its KL is a sample
    many = loss_of(*trained(objective="iwae", num_samples=200))[0]
    assert many["loss"] < many["kl"] - many["reconstruction"] - 0.05


def test_the_mean_of_weights_is_taken_before_the_logarithm():
    log_w = jnp.array([[0.0, 1000.0], [np.log(3), 1000.0]])
    np.testing.assert_allclose(estimators.log_mean_exp(log_w), [np.log(2), 1000], rtol=1e-6)


# --- Two layers of latents.


def test_two_layers_are_integrated_over_both():
    """Probabilities of all binary images sum to one, and agree with an average over draws of the prior."""
    vae, state = trained(second_latent_size=1, second_hidden_sizes=(3,))
    state = state._replace(params=jax.tree.map(lambda x: 0.35 * x, state.params))  # or weights have heavy tails
    bits = ((np.arange(64)[:, None] >> np.arange(6)) & 1).astype(np.uint8)
    images = Examples(jnp.asarray(255 * bits.reshape(64, 2, 3, 1)))
    log_prob = jit(vae.log_prob, static_argnums=(3, 4))(state.params, images, jax.random.key(0), 4000, 1000)
    assert np.exp(log_prob).sum() == pytest.approx(1, abs=0.01)
    drawn = jit(vae.sample, static_argnums=2)(state.params, jax.random.key(1), 20_000).reshape(-1, 6)
    expected = np.stack([np.prod(np.where(b == 1, drawn, 1 - drawn), 1).mean() for b in bits])
    np.testing.assert_allclose(np.exp(log_prob), expected, atol=4e-3)
    assert vae.prior(jax.random.key(0), 5).shape == (5, 1)
    assert vae.encode(state.params, images, jax.random.key(0)).shape == (64, 1)
    assert loss_of(vae, state)[0]["kl"] > 0


def test_without_free_bits_the_loss_of_two_layers_is_minus_the_elbo():
    """Also where the sampled KL of a latent number is below 0 in the mean over a batch."""
    vae, state = trained(second_latent_size=2, second_hidden_sizes=(3,), latent_size=6)
    state = state._replace(params=jax.tree.map(lambda x: 0.05 * x, state.params))  # q is near p: its KL is near 0
    update = jit(vae.learner.update)
    for key in range(5):
        metrics = update(state, Examples(IMAGES), jax.random.key(key))[1].metrics
        assert float(metrics["loss"].total) == pytest.approx(-float(metrics["elbo"].total / 20), rel=1e-5)


def test_both_layers_are_told_the_class_either_way():
    _, state = trained(second_latent_size=2, second_hidden_sizes=(3,), conditional=True)
    network = vae_network.Network(SPEC.shape, 1, "mlp", (), (4,), "tanh", 2, 2, (3,))
    y = jnp.eye(3)[:2]
    for method in ("second_encode", "second_decode"):
        mean, _ = network.apply(state.params, jnp.ones((2, 2)), y, method=method)
        assert np.abs(mean[0] - mean[1]).max() > 1e-3, method


def test_an_importance_weighted_model_is_chosen_by_its_bound():
    config = vaes.Config(objective="iwae", num_samples=50)
    assert (vaes.score(config).name, vaes.score(vaes.Config()).name) == ("iwae", "elbo")
    vae, state = trained(objective="iwae", num_samples=50, binarize="threshold")
    many = Examples(jnp.repeat(IMAGES, 50, 0))
    told = jit(vae.measure)(state.params, many, jax.random.key(0))
    elbo, iwae = (float(told[name].total / told[name].count) for name in ("elbo", "iwae"))
    assert elbo + 0.05 < iwae == pytest.approx(
        float(jit(vae.log_prob, static_argnums=(3, 4))(state.params, many, jax.random.key(1), 50, 50).mean()), abs=0.15)


# --- Gradients that leave the density of q out.


def gradients_of(estimator, keys, **settings):
    """Gradients for all parameters of one model, a row for each key of noise: `{"encoder": [keys, P], "decoder": ...}`."""
    config = vaes.Config(latent_size=2, hidden_sizes=(4,), activation="tanh", objective="iwae", num_samples=3,
                         estimator=estimator, binarize="threshold", optim=SGD, **settings)
    learner = vaes.make(config, SPEC).learner
    state = jit(learner.init)(jax.random.key(1))
    state = state._replace(params=jax.tree.map(lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size).reshape(x.shape)), state.params))
    new = jit(jax.vmap(lambda key: learner.update(state, Examples(IMAGES[:2]), key)[0].params))(keys)
    parts = {"encoder": [], "decoder": []}
    for name, layer in jax.tree.map(lambda old, new: old - new, state.params, new)["params"].items():
        rows = np.concatenate([np.asarray(x).reshape(len(keys), -1) for x in jax.tree.leaves(layer)], 1)
        parts["encoder" if "encoder" in name or "posterior" in name else "decoder"].append(rows)
    return {part: np.concatenate(rows, 1) for part, rows in parts.items()}


@pytest.mark.parametrize("settings", [{}, {"second_latent_size": 2, "second_hidden_sizes": (3,)}])
def test_the_doubly_reparameterized_gradient_has_the_same_mean_and_less_noise(settings):
    keys = jax.random.split(jax.random.key(0), 20_000)
    once, doubly = (gradients_of(estimator, keys, **settings) for estimator in ("reparameterized", "doubly_reparameterized"))
    np.testing.assert_allclose(doubly["decoder"], once["decoder"], rtol=1e-3, atol=1e-4)
    difference = doubly["encoder"] - once["encoder"]
    error = difference.std(0) / math.sqrt(len(keys))
    assert (np.abs(difference.mean(0)) < 4.5 * error + 1e-6).all()
    assert np.abs(difference).mean() > 0.01
    assert doubly["encoder"].var(0).sum() < 0.8 * once["encoder"].var(0).sum()


def test_the_doubly_reparameterized_gradient_by_its_formula():
    """Tucker et al. (2019), eq. 8, of a linear model: all derivatives by hand, in float64."""
    config = vaes.Config(likelihood="gaussian", variance=VARIANCE, latent_size=2, hidden_sizes=(), objective="iwae",
                         num_samples=4, estimator="doubly_reparameterized", optim=SGD)
    learner = vaes.make(config, SPEC).learner
    state, key = jit(learner.init)(jax.random.key(0)), jax.random.key(7)
    new, aux = jit(learner.update)(state, Examples(IMAGES), key)
    p = jax.tree.map(np.float64, state.params["params"])
    x, (_, k_latent) = np.asarray(IMAGES).reshape(20, 6) / 255, jax.random.split(key)
    noise = np.stack([jax.random.normal(k, (20, 2)) for k in jax.random.split(k_latent, 4)])
    mean, log_var = (x @ p["posterior"][name]["kernel"] + p["posterior"][name]["bias"] for name in ("mean", "log_var"))
    z = mean + np.exp(log_var / 2) * noise  # [K, B, Z]
    rest = x - z @ p["pixels"]["kernel"] - p["pixels"]["bias"]
    log_w = -np.square(rest).sum(-1) / (2 * VARIANCE) + 0.5 * (np.square(noise) + log_var - np.square(z)).sum(-1)
    share = np.exp(log_w - log_w.max(0)) / np.exp(log_w - log_w.max(0)).sum(0)
    bound = np.log(np.exp(log_w).mean(0)).mean() - 3 * math.log(2 * math.pi * VARIANCE)
    assert float(jnp.divide(*aux.metrics["loss"])) == pytest.approx(-bound, rel=1e-5)
    by_z = rest @ p["pixels"]["kernel"].T / VARIANCE - z + noise * np.exp(-log_var / 2)  # of log w, q's moments held
    by_mean = (np.square(share)[..., None] * by_z).sum(0)
    by_log_var = (np.square(share)[..., None] * by_z * 0.5 * np.exp(log_var / 2) * noise).sum(0)
    change = jax.tree.map(lambda new, old: new - old, new.params["params"], p)
    for name, by in (("mean", by_mean), ("log_var", by_log_var)):
        np.testing.assert_allclose(change["posterior"][name]["kernel"], x.T @ by / 20, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(change["posterior"][name]["bias"], by.mean(0), rtol=1e-3, atol=1e-4)
    by_offset = (share[..., None] * rest).sum(0).mean(0) / VARIANCE
    np.testing.assert_allclose(change["pixels"]["bias"], by_offset, rtol=1e-3, atol=1e-4)


# --- Likelihoods.


def test_a_discretized_logistic_is_a_distribution_at_any_scale():
    x = jnp.arange(256.0)
    for mean in (-40.0, 0.0, 100.3, 255.0, 400.0):
        for log_scale in (-6.0, 0.0, 3.0, 8.0):
            log_p = distributions.discretized_logistic_log_prob(x, jnp.float32(mean), jnp.float32(log_scale))
            assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
            cdf = stats.logistic(mean, math.exp(log_scale)).cdf
            p = np.diff(np.concatenate([[0], cdf(np.arange(255) + 0.5), [1]]))
            np.testing.assert_allclose(np.exp(log_p), p, atol=2e-6)
            big = p > 1e-12  # float64 loses digits in the difference below
            np.testing.assert_allclose(log_p[big], np.log(p[big]), rtol=1e-3, atol=1e-3)


def test_a_discretized_logistic_has_gradients_everywhere():
    x = jnp.array([0.0, 1.0, 128.0, 254.0, 255.0])
    for mean, log_scale in ((0.0, -7.0), (128.0, -7.0), (300.0, 0.0), (-1e4, 1.0), (100.0, 15.0)):
        grads = jax.grad(lambda m, s: distributions.discretized_logistic_log_prob(x, m, s).sum(), (0, 1))(mean, log_scale)
        assert np.isfinite(grads).all()


def test_pixels_of_each_likelihood():
    x = jnp.asarray(IMAGES.reshape(20, 6) / 255, jnp.float32)
    out = jnp.asarray(RNG.normal(size=(4, 20, 2, 6)), jnp.float32)
    gaussian = likelihoods.make("gaussian", variance=0.2)
    expected = stats.norm(out[..., 0, :], math.sqrt(0.2)).logpdf(x).sum(-1)
    np.testing.assert_allclose(gaussian.log_prob(out[..., :1, :], x), expected, rtol=1e-4)
    learned = likelihoods.make("gaussian")
    assert (gaussian.outputs, learned.outputs) == (1, 2)
    low = -np.log(12) - 2 * np.log(255)
    scale = np.sqrt(np.exp(low + np.log1p(np.exp(out[..., 1, :] - low))))
    np.testing.assert_allclose(learned.log_prob(out, x), stats.norm(out[..., 0, :], scale).logpdf(x).sum(-1), rtol=1e-3)
    bins = likelihoods.make("discretized_logistic")
    assert (bins.log_prob(out, x) < 0).all()  # probabilities, not densities
    exact = out.at[..., 0, :].set(x).at[..., 1, :].set(-50.0)
    assert bins.log_prob(exact, x).min() > -1.0
    for made in (gaussian, learned, bins):
        assert np.array_equal(made.target(IMAGES, jax.random.key(0)), x)
        assert 0 <= made.mean(out[..., : made.outputs, :]).min() <= made.mean(out[..., : made.outputs, :]).max() <= 1


def test_a_discretized_logistic_has_its_scale_in_bytes_and_its_expectation_as_mean():
    bins = likelihoods.make("discretized_logistic")
    values = jnp.arange(256.0)
    for location, log_scale in ((0.4, -3.0), (0.98, -2.0), (-0.3, -1.0), (0.5, 1.0), (0.2004, -9.0), (1.3, 0.0)):
        low = -math.log(255) - 2
        scale = 255 * math.exp(low + np.logaddexp(0, log_scale - low))
        cdf = stats.logistic(255 * location, scale).cdf
        p = np.diff(np.concatenate([[0], cdf(np.arange(255) + 0.5), [1]]))
        out = jnp.tile(jnp.array([[location], [log_scale]]), (256, 1, 1))
        np.testing.assert_allclose(np.exp(bins.log_prob(out, values[:, None] / 255)), p, atol=1e-5)
        assert bins.mean(out)[0, 0] == pytest.approx((p * np.arange(256)).sum() / 255, abs=2e-5)


def test_white_is_always_one_and_black_never():
    for how in ("fixed", "dynamic", "threshold", "none"):
        for byte in (0, 255):
            bits = likelihoods.binarized(jnp.full((2, 90, 90, 1), byte, jnp.uint8), jax.random.key(0), how)
            assert (bits == byte / 255).all(), (how, byte)


def test_fixed_bits_are_a_function_of_the_image_and_as_frequent_as_it_is_bright():
    grey = jnp.asarray(RNG.integers(0, 256, (3000, 4, 4, 1)), jnp.uint8)
    bits = likelihoods.binarized(grey, jax.random.key(0), "fixed")
    np.testing.assert_array_equal(bits, likelihoods.binarized(grey, jax.random.key(1), "fixed"))
    order = RNG.permutation(3000)
    np.testing.assert_array_equal(bits[order], likelihoods.binarized(grey[order], jax.random.key(0), "fixed"))
    p = np.asarray(grey).reshape(3000, 16) / 255
    z = (np.asarray(bits) - p).sum(0) / np.sqrt((p * (1 - p)).sum(0))
    assert np.abs(z).max() < 4.5
    same = likelihoods.binarized(jnp.full((1, 60, 60, 1), 128, jnp.uint8), jax.random.key(0), "fixed")
    assert 0.45 < same.mean() < 0.55
    residual = np.asarray(bits) - p
    assert abs((residual[:, 0] * residual[:, 1]).mean()) < 0.02
    changed = grey.at[:, 0, 0, 0].add(1)
    assert 0.2 < np.mean(likelihoods.binarized(changed, jax.random.key(0), "fixed")[:, 1:] != bits[:, 1:]) < 0.45


# --- Classes and convolutions.


@pytest.mark.parametrize("settings", [
    {}, {"network": "conv", "conv_channels": (2, 3), "likelihood": "discretized_logistic"}], ids=str)
def test_a_conditional_model_is_told_the_class_on_both_sides(settings):
    vae, state = trained(conditional=True, **settings)
    labels = jnp.arange(20) % 3
    loss_of(vae, state, labels=labels)
    z = vae.prior(jax.random.key(0), 1)
    decode = jit(vae.decode)
    first, second = (decode(state.params, z, jnp.array([c])) for c in (0, 1))
    assert first.shape == (1, 2, 3, 1)
    assert np.abs(first - second).max() > 1e-3
    encode = jit(vae.encode)
    codes = [encode(state.params, Examples(IMAGES[:1], jnp.array([c])), jax.random.key(0)) for c in (0, 1)]
    assert np.abs(codes[0] - codes[1]).max() > 1e-3
    both = jit(lambda params, key: [vae.sample(params, key, 4, labels) for labels in (None, jnp.array([0, 1, 2, 0]))])
    np.testing.assert_allclose(*both(state.params, jax.random.key(1)), rtol=1e-5)


@pytest.mark.parametrize(("settings", "message"), [
    ({"objective": "iwae", "beta": 2.0}, "beta=2.0 is of objective=elbo, and objective is iwae"),
    ({"estimator": "doubly_reparameterized"}, "estimator=doubly_reparameterized is of objective=iwae, and objective is elbo"),
    ({"variance": 1.0}, "variance=1.0 is of likelihood=gaussian, and likelihood is bernoulli"),
    ({"num_samples": 0}, "num_samples must be above 0"), ({"free_bits": -1.0}, "free_bits must be 0 or above"),
    ({"second_latent_size": 0}, "second_latent_size must be above 0"), ({"beta": 0.0}, "beta must be above 0"),
    ({"network": "conv", "conv_channels": ()}, "conv_channels must be at least one for network=conv"),
])
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        vaes.validate(vaes.Config(**settings))


def test_a_label_that_is_no_class_is_refused_or_not_a_number():
    vae, state = trained(conditional=True)
    with pytest.raises(UserError, match="labels must lie between 0 and 2, got 0 to 3"):
        vae.sample(state.params, jax.random.key(0), 4, jnp.arange(4))
    with pytest.raises(UserError, match="got -1 to 1"):
        vae.sample(state.params, jax.random.key(0), 2, np.array([-1, 1]))
    drawn = jit(vae.sample, static_argnums=2)(state.params, jax.random.key(0), 4, jnp.arange(4))
    np.testing.assert_array_equal(np.isnan(drawn).all((1, 2, 3)), [False, False, False, True])


def test_a_conditional_model_needs_labels():
    with pytest.raises(UserError, match="conditional=True needs labels, and the dataset tiny has none"):
        vaes.make(vaes.Config(conditional=True), SPEC._replace(num_classes=None))
