"""The VAE against integrals over its latent, its gradient by hand, binarization as a distribution, and what it learns."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from tools import jit

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative import vae as vaes
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.device_driver import make_device_driver

P_VALUE = 1e-4  # seeds are fixed: the statistical tests hold or not, once and for all
SPEC = DataSpec("tiny", 50, (2, 3, 1))  # 6 pixels: all 64 binary images can be listed
CONFIG = vaes.Config(latent_size=2, hidden_sizes=(4,), activation="tanh", optim=OptimConfig(optimizer="sgd", learning_rate=0.5))
BITS = np.array(list(itertools.product([0, 1], repeat=6)))  # [64, 6]
IMAGES = Examples(jnp.asarray(255 * BITS.reshape(64, 2, 3, 1), jnp.uint8))  # binary already: binarizing them changes nothing


@pytest.fixture(scope="module")
def model():
    """A VAE, its functions compiled, and parameters that make its distributions far from trivial.

    Its posteriors are wider than the prior, and so than the true posteriors: importance weights have no heavy tails.
    """
    vae = vaes.make(CONFIG, SPEC)
    params = jit(vae.learner.init)(jax.random.key(0)).params
    noise = jax.random.normal(jax.random.key(5), (1000,))
    leaves, treedef = jax.tree.flatten(params)
    ends = np.cumsum([x.size for x in leaves])
    params = treedef.unflatten([1.5 * x + 0.5 * noise[end - x.size : end].reshape(x.shape)
                                for x, end in zip(leaves, ends, strict=True)])
    mean, log_var = (params["params"]["posterior"].pop(name) for name in ("mean", "log_var"))
    params["params"]["posterior"] = {"mean": jax.tree.map(lambda x: 0.5 * x, mean),
                                     "log_var": {"kernel": 0.1 * log_var["kernel"], "bias": jnp.array([0.2, 0.4])}}
    return vae._replace(measure=jit(vae.measure), log_prob=jit(vae.log_prob, static_argnums=(3, 4))), params


# The networks, written out.


def dense(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def encode(params, x):
    p = params["params"]
    h = jnp.tanh(dense(p["encoder"]["Dense_0"], x))
    return dense(p["posterior"]["mean"], h), dense(p["posterior"]["log_var"], h)


def decode(params, z):
    p = params["params"]
    return dense(p["pixels"], jnp.tanh(dense(p["decoder"]["Dense_0"], z)))


def log_likelihood(params, z, x):
    """Log-probability of x given z: z [..., Z], x [..., D] in {0, 1}."""
    logits = decode(params, z)
    return (x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)).sum(-1)


def gauss_hermite(n=80):
    """Points [n * n, 2] and weights [n * n]: expectations over the two standard normal coordinates of the latent."""
    x, w = np.polynomial.hermite_e.hermegauss(n)
    return np.stack(np.meshgrid(x, x), -1).reshape(-1, 2), np.outer(w, w).ravel() / w.sum() ** 2


POINTS, WEIGHTS = gauss_hermite()


def exact_log_prob(params):
    """Log-probabilities of all binary images [64] by quadrature over the prior."""
    given_z = np.asarray(log_likelihood(params, POINTS[:, None], BITS), np.float64)  # [points, 64]
    return special.logsumexp(given_z, b=WEIGHTS[:, None], axis=0)


def exact_elbo(params, x):
    """elbo, reconstruction and KL [B] of binary images [B, D], by quadrature over the posterior."""
    mean, log_var = encode(params, x)
    z = mean + jnp.exp(log_var / 2) * POINTS[:, None]
    reconstruction = (WEIGHTS[:, None] * log_likelihood(params, z, x)).sum(0)
    kl = 0.5 * (mean**2 + jnp.exp(log_var) - 1 - log_var).sum(-1)
    return reconstruction - kl, reconstruction, kl


# --- The bound and what it bounds.


def test_the_probabilities_of_all_binary_images_sum_to_one(model):
    vae, params = model
    exact = np.exp(exact_log_prob(params))
    assert exact.sum() == pytest.approx(1, abs=1e-5)
    assert exact.max() / exact.min() > 20
    sampled = np.exp(vae.log_prob(params, IMAGES, jax.random.key(0), 3100, 1000))
    assert sampled.sum() == pytest.approx(1, abs=0.01)  # the 900 draws too many of the last chunk would make it 1.29


def test_importance_sampling_agrees_with_quadrature(model):
    vae, params = model
    exact = exact_log_prob(params)
    estimates = np.stack([vae.log_prob(params, IMAGES, jax.random.key(i), 3100, 1000) for i in range(8)])
    error = estimates.std(0) / math.sqrt(8)
    assert estimates.std(0).max() < 0.1
    assert np.abs(estimates.mean(0) - exact).max() < 4.5 * error.max()
    assert np.sqrt(np.mean((estimates.mean(0) - exact) ** 2)) < 0.02


def test_one_sample_is_the_elbo_and_more_are_between_it_and_the_log_probability(model):
    vae, params = model
    exact, elbo = exact_log_prob(params), np.asarray(exact_elbo(params, BITS)[0])
    many = Examples(jnp.repeat(IMAGES.images, 400, 0))
    one, ten = (np.asarray(vae.log_prob(params, many, jax.random.key(1), k, 10)).reshape(64, 400).mean(1) for k in (1, 10))
    assert (elbo < exact).all()
    assert np.mean(exact - elbo) > 0.3  # a gap that one can see
    assert np.mean(one) == pytest.approx(np.mean(elbo), abs=0.03)
    assert np.mean(elbo) + 0.1 < np.mean(ten) < np.mean(exact)


def test_the_elbo_and_its_parts_agree_with_quadrature(model):
    vae, params = model
    for x in (BITS, BITS[13:14]):  # all images, and one alone
        images = jnp.repeat(jnp.asarray(255 * x.reshape(-1, 2, 3, 1), jnp.uint8), 64 * 500 // len(x), 0)
        told = vae.measure(params, Examples(images), jax.random.key(2))
        assert {float(m.count) for m in told.values()} == {len(images)}
        elbo, reconstruction, kl = (float(v.mean()) for v in exact_elbo(params, x))
        got = {name: float(m.total / m.count) for name, m in told.items()}
        assert got["kl"] == pytest.approx(kl, rel=1e-4)
        assert got["reconstruction"] == pytest.approx(reconstruction, abs=0.05)
        assert got["elbo"] == pytest.approx(got["reconstruction"] - got["kl"], rel=1e-4)
        assert elbo == pytest.approx(reconstruction - kl, rel=1e-5)


def test_without_variance_the_elbo_is_that_of_scipy(model):
    vae, params = model
    posterior = params["params"]["posterior"]
    silent = {"kernel": jnp.zeros((4, 2)), "bias": jnp.full(2, -50.0)}
    params = {"params": params["params"] | {"posterior": posterior | {"log_var": silent}}}
    told = vae.measure(params, IMAGES, jax.random.key(0))
    mean, _ = encode(params, BITS)
    reconstruction = stats.bernoulli.logpmf(BITS, special.expit(np.asarray(decode(params, mean), np.float64))).sum()
    entropy = 2 * stats.norm(scale=math.exp(-25)).entropy()
    cross = -stats.norm.logpdf(np.asarray(mean, np.float64)).sum(-1) + 2 * math.exp(-50) / 2
    np.testing.assert_allclose(told["reconstruction"].total, reconstruction, rtol=1e-4)
    np.testing.assert_allclose(told["kl"].total, (cross - entropy).sum(), rtol=1e-5)


def test_the_size_of_the_chunks_changes_nothing(model):
    vae, params = model
    key = jax.random.key(3)
    whole = vae.log_prob(params, IMAGES, key, 37, 37)
    for chunk in (1, 5, 50):
        np.testing.assert_allclose(vae.log_prob(params, IMAGES, key, 37, chunk), whole, rtol=1e-5, atol=1e-5)
    assert np.abs(vae.log_prob(params, IMAGES, jax.random.key(4), 37, 37) - whole).max() > 0.01


# --- The update.


def test_an_update_by_sgd_descends_the_gradient_of_minus_the_elbo(model):
    vae, params = model
    elbo = vaes.make(CONFIG, SPEC).measure
    images = Examples(jnp.asarray(np.random.default_rng(0).integers(0, 256, (10, 2, 3, 1)), jnp.uint8))
    key = jax.random.key(5)
    state = jit(vae.learner.init)(jax.random.key(0))._replace(params=params)
    new, aux = jit(vae.learner.update)(state, images, key)
    value, grads = jit(jax.value_and_grad(lambda p: -jnp.divide(*elbo(p, images, key)["elbo"])))(params)
    jax.tree.map(lambda n, p, g: np.testing.assert_allclose(n, p - 0.5 * g, rtol=1e-5, atol=1e-6), new.params, params, grads)
    assert float(aux.metrics["loss"].total / aux.metrics["loss"].count) == pytest.approx(float(value), rel=1e-6)
    assert set(aux.metrics) == {"loss", "elbo", "reconstruction", "kl"}
    assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(grads))


def test_the_mean_update_descends_the_gradient_of_the_integral(model):
    vae, params = model
    x = BITS[[5, 20, 33, 62]]
    images = Examples(jnp.asarray(255 * np.repeat(x, 5000, 0).reshape(-1, 2, 3, 1), jnp.uint8))
    state = jit(vae.learner.init)(jax.random.key(0))._replace(params=params)
    new, _ = jit(vae.learner.update)(state, images, jax.random.key(6))
    expected = jit(jax.grad(lambda p: exact_elbo(p, x)[0].mean()))(params)
    ascent = jax.tree.map(lambda n, p: (n - p) / 0.5, new.params, params)
    for a, b in zip(jax.tree.leaves(ascent), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(a - b) < 0.04 * np.linalg.norm(b) + 0.01


# --- Binarization: an autoencoder whose weights copy shows the binary pixels it got.


@pytest.fixture(scope="module")
def copying():
    """`(images [N, 16, 16, 1], key, mode)` -> their binary pixels [N, 256]."""
    spec, size = DataSpec("grey", 10, (16, 16, 1)), 256
    eye, zero = jnp.eye(size), jnp.zeros(size)
    params = {"params": {"posterior": {"mean": {"kernel": eye, "bias": zero}, "log_var": {"kernel": 0 * eye, "bias": zero}},
                         "pixels": {"kernel": 200 * eye, "bias": zero - 100}}}
    programs = {mode: jit(vaes.make(vaes.Config(latent_size=size, hidden_sizes=(), binarize=mode), spec).reconstruct)
                for mode in ("dynamic", "threshold")}

    def binary(images, key, mode="dynamic"):
        x = np.asarray(programs[mode](params, Examples(images), key)).reshape(len(images), size)
        assert set(np.unique(x.round(6))) <= {0.0, 1.0}
        return x.round()

    return binary


GREYS = jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint8).reshape(16, 16, 1), (4000, 16, 16, 1))


def test_a_pixel_is_one_as_often_as_its_intensity_says(copying):
    ones = copying(GREYS, jax.random.key(0)).sum(0)
    assert (ones[0], ones[255]) == (0, 4000)
    p = np.arange(1, 255) / 255
    z = (ones[1:255] - 4000 * p) / np.sqrt(4000 * p * (1 - p))
    assert 1e-4 < stats.chi2.cdf((z**2).sum(), 254) < 1 - 1e-4
    assert abs(z.sum()) / math.sqrt(254) < 4


def test_pixels_and_images_are_drawn_independently(copying):
    x = copying(GREYS, jax.random.key(1))[:, 64:192]
    p = np.arange(64, 192) / 255
    z = (x - p) / np.sqrt(p * (1 - p))
    for rows in (z, z[:1000].T):  # every two pixels; every two of the first images
        n, k = rows.shape
        products = (rows.T @ rows)[np.triu_indices(k, 1)] / math.sqrt(n)  # standard normal
        assert np.abs(products).max() < 6
        assert abs((products**2).mean() - 1) < 0.1
    again, other = (copying(GREYS[:50], jax.random.key(k)) for k in (1, 2))
    np.testing.assert_array_equal(again, copying(GREYS[:50], jax.random.key(1)))
    assert 0.2 < np.mean(again != other) < 0.45  # of two independent draws: a third


def test_a_threshold_needs_no_luck(copying):
    for seed in (0, 1):
        np.testing.assert_array_equal(copying(GREYS[:2], jax.random.key(seed), "threshold"), [np.arange(256) >= 128] * 2)


# --- What it makes.


def test_samples_are_pixel_means_of_latents_from_the_prior(model):
    vae, params = model
    x = jit(vae.sample, static_argnums=2)(params, jax.random.key(0), 20_000)
    assert x.shape == (20_000, 2, 3, 1)
    assert x.dtype == jnp.float32
    assert 0 <= x.min() < x.max() <= 1
    pixels = special.expit(np.asarray(decode(params, POINTS)))
    mean = (WEIGHTS[:, None] * pixels).sum(0)
    std = np.sqrt((WEIGHTS[:, None] * (pixels - mean) ** 2).sum(0))
    np.testing.assert_allclose(x.mean(0).ravel(), mean, atol=4 * std.max() / math.sqrt(20_000))
    np.testing.assert_allclose(x.std(0).ravel(), std, rtol=0.05)


def test_reconstructions_are_decoded_posterior_means(model):
    vae, params = model
    got = vae.reconstruct(params, IMAGES, jax.random.key(0))
    logits = np.asarray(decode(params, encode(params, BITS)[0])).reshape(64, 2, 3, 1)
    np.testing.assert_allclose(got, special.expit(logits), rtol=1e-5)


# --- Plans, and what is refused.


@pytest.mark.parametrize(("settings", "steps"), [
    ({}, 10 * 7), ({"epochs": 3}, 3 * 7), ({"total_steps": 5}, 5), ({"epochs": 2, "batch_size": 50}, 2),
    ({"batch_size": 8}, 60)])
def test_the_plan_by_hand(settings, steps):
    assert vaes.total_steps(vaes.Config(**{"batch_size": 7} | settings), SPEC) == steps


def test_one_of_epochs_and_steps_is_enough_and_layers_may_be_none():
    vaes.validate(vaes.Config(epochs=3))
    vaes.validate(vaes.Config(total_steps=3, hidden_sizes=()))


@pytest.mark.parametrize(("settings", "message"), [
    ({"epochs": 3, "total_steps": 10}, "epochs=3 and total_steps=10 both say how long to train"),
    *[({field: 0}, f"{field} must be above 0, got 0") for field in ("epochs", "total_steps", "batch_size", "latent_size")],
    ({"hidden_sizes": (0,)}, r"hidden_sizes must be widths above 0, got \(0,\)"),
    ({"activation": "tan"}, "no activation 'tan'; did you mean 'tanh'"),
    ({"optim": OptimConfig(learning_rate=0.0)}, "learning_rate must be above 0, got 0.0"),
    ({"optim": OptimConfig(grad_accumulation=3)}, "grad_accumulation=3 must divide the batch of 128"),
])
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        vaes.validate(vaes.Config(**settings))


def test_a_batch_above_the_dataset_is_refused_when_the_run_is_made():
    with pytest.raises(UserError, match="batch_size=51 is above the 50 examples"):
        vaes.make_run(vaes.Config(batch_size=51), SPEC)


# --- Learning.


def test_it_learns_what_independent_pixels_cannot_say():
    train, test = (data.load("digits", split=split) for split in ("train", "test"))
    spec = train.spec
    config = vaes.Config(total_steps=1000, batch_size=64, latent_size=8, hidden_sizes=(64,),
                         optim=OptimConfig(learning_rate=3e-3))
    driver = make_device_driver(lambda c: vaes.make_run(c, spec), [config], train.on_device(), [0])
    state, report = driver.chunk(driver.start(), 1000)
    assert report.bad_step == -1
    assert int(state.t) == 1000
    told = jit(vaes.make(config, spec).measure)(driver.params(state), test.on_device(), jax.random.key(0))
    elbo = float(told["elbo"].total / told["elbo"].count)
    p = np.clip(train.images.reshape(len(train.images), -1).mean(0) / 255, 1e-3, 1 - 1e-3)
    pixels = test.images.reshape(len(test.images), -1) / 255
    independent = (pixels * np.log(p) + (1 - pixels) * np.log1p(-p)).sum(1).mean()  # no latent: the best is the means
    assert elbo > independent + 2
