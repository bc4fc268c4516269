"""Autoencoder and VQ-VAE: their losses by hand, the codebook's running means, and what they learn of digits."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative import autoencoder, vqvae
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.device_driver import make_device_driver

RNG = np.random.default_rng(0)
SPEC = DataSpec("tiny", 50, (5, 6, 1), 3)
IMAGES = jnp.asarray(RNG.integers(0, 256, (10, 5, 6, 1)), jnp.uint8)
SGD = OptimConfig(optimizer="sgd", learning_rate=0.01)
AE = {"hidden_sizes": (4,), "conv_channels": (2, 3), "latent_size": 2, "batch_size": 10, "optim": SGD}


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_an_autoencoder_descends_the_squared_error_of_its_reconstructions(network):
    model = autoencoder.make(autoencoder.Config(network=network, **AE), SPEC)
    state = jit(model.learner.init)(jax.random.key(0))
    x = IMAGES / 255.0
    assert jit(model.encode)(state.params, Examples(IMAGES)).shape == (10, 2)
    told = jit(model.measure)(state.params, Examples(IMAGES), jax.random.key(0))
    again = jit(model.reconstruct)(state.params, Examples(IMAGES), jax.random.key(0))
    assert again.shape == IMAGES.shape
    assert np.square(again - x).mean() <= told["mse"].total / told["mse"].count + 1e-6  # pictures are clipped
    for _ in range(5):
        state, aux = jit(model.learner.update)(state, Examples(IMAGES), jax.random.key(0))
    assert told["mse"].total * SPEC.size > aux.metrics["loss"].total


@pytest.mark.parametrize(("corruption", "level"), [("gaussian", 0.3), ("mask", 0.7)])
def test_a_denoising_autoencoder_sees_damage_and_is_asked_for_the_image(corruption, level):
    """A decoder of constants: its gradient is that of the clean image, whatever the encoder saw."""
    config = autoencoder.Config(network="mlp", corruption=corruption, corruption_level=level, **AE)
    model = autoencoder.make(config, SPEC)
    state = jit(model.learner.init)(jax.random.key(0))
    blind = jax.tree.map(jnp.zeros_like, state.params["decoder"])
    still = state._replace(params=state.params | {"decoder": blind})
    new, aux = jit(model.learner.update)(still, Examples(IMAGES), jax.random.key(1))
    x = np.asarray(IMAGES).reshape(10, -1) / 255
    np.testing.assert_allclose(aux.metrics["loss"].total, np.square(x).sum(), rtol=1e-4)
    np.testing.assert_allclose(new.params["decoder"]["params"]["Dense_0"]["bias"], 0.01 * 2 * x.mean(0), rtol=1e-4)
    found = jit(model.measure)(state.params, Examples(IMAGES), jax.random.key(0))
    assert found["mse_corrupted"].total != found["mse"].total


def test_damage_is_what_it_says():
    x = jnp.full((100, 10, 10, 1), 0.5)
    mask = autoencoder.corrupted(autoencoder.Config(corruption="mask", corruption_level=0.7), x, jax.random.key(0))
    assert set(np.unique(mask)) == {0, 0.5}
    assert (mask == 0).mean() == pytest.approx(0.7, abs=0.02)
    noise = autoencoder.corrupted(autoencoder.Config(corruption="gaussian", corruption_level=0.2), x, jax.random.key(0))
    assert (noise.mean(), noise.std()) == pytest.approx((0.5, 0.2), abs=0.01)
    np.testing.assert_array_equal(autoencoder.corrupted(autoencoder.Config(), x, jax.random.key(0)), x)


@pytest.mark.parametrize(("settings", "message"), [
    ({"latent_size": 0}, "latent_size must be above 0"), ({"conv_channels": ()}, "conv_channels must be at least one"),
    ({"corruption": "mask", "corruption_level": 1.0}, "corruption_level must be at least 0 and below 1 for corruption=mask"),
    ({"corruption": "gaussian", "corruption_level": -1.0}, "corruption_level must be 0 or above")])
def test_an_autoencoder_refuses_what_makes_no_sense(settings, message):
    with pytest.raises(UserError, match=message):
        autoencoder.validate(autoencoder.Config(**settings))


# --- The codebook.


def test_each_encoding_gets_its_nearest_code():
    z, codes = RNG.normal(size=(3, 4, 5)) + 10, RNG.normal(size=(7, 5)) + 10
    expected = np.square(z[..., None, :] - codes).sum(-1).argmin(-1)
    found = vqvae.nearest(jnp.asarray(z, jnp.float32), jnp.asarray(codes, jnp.float32))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == jnp.int32


Z = jnp.asarray(RNG.normal(size=(6, 2)), jnp.float32)
CHOSEN = jnp.array([0, 0, 2, 0, 2, 2])
BOOK = vqvae.Codebook(jnp.array([2.0, 2.0, 2.0]), 2 * jnp.array([[1.0, 1.0], [5.0, 5.0], [-1.0, 0.0]]))


def test_codes_are_running_means_of_the_encodings_that_chose_them():
    new, share = vqvae.moved(BOOK, Z, CHOSEN, jax.random.key(0), 0.8)
    np.testing.assert_allclose(share, [0.5, 0, 0.5])
    for k, count in ((0, 3), (2, 3)):
        assert new.count[k] == pytest.approx(0.8 * 2 + 0.2 * count)
        np.testing.assert_allclose(new.codes[k], (0.8 * BOOK.total[k] + 0.2 * Z[k == CHOSEN].sum(0)) / (1.6 + 0.6), rtol=1e-5)
    np.testing.assert_allclose(new.codes[1], BOOK.codes[1], rtol=1e-6)  # unused, and not dead yet
    np.testing.assert_allclose(vqvae.perplexity(share), 2, rtol=1e-6)
    assert vqvae.perplexity(jnp.full(8, 1 / 8)) == pytest.approx(8)


def test_a_dead_code_begins_anew_at_an_encoding():
    dying = BOOK._replace(count=BOOK.count.at[1].set(0.2))  # below a tenth of 6 / 3, after 0.8
    new, _ = vqvae.moved(dying, Z, CHOSEN, jax.random.key(0), 0.8)
    assert (np.abs(new.codes[1] - Z).max(1) < 1e-5).any()
    assert new.count[1] == 2


def test_shards_have_one_codebook():
    halves = Z.reshape(2, 3, 2), CHOSEN.reshape(2, 3)
    dying = BOOK._replace(count=BOOK.count.at[1].set(0.2))
    keys = jax.random.split(jax.random.key(0))
    for book in (BOOK, dying):
        several, share = jax.vmap(lambda z, c, key, book=book: vqvae.moved(book, z, c, key, 0.8, "shards"), axis_name="shards")(
            *halves, keys)
        alone, expected = vqvae.moved(book, Z, CHOSEN, jax.random.key(0), 0.8)
        for a in jax.tree.leaves(several):
            np.testing.assert_array_equal(a[0], a[1])
        np.testing.assert_allclose(share[0], expected)
        rows = [0, 2] if book is dying else [0, 1, 2]
        np.testing.assert_allclose(several.total[0][jnp.array(rows)], alone.total[jnp.array(rows)], rtol=1e-5)


def test_the_gradient_goes_straight_through_the_choice_of_the_code():
    """Without commitment the encoder's gradient is the decoder's at the code; the codebook has none."""
    config = vqvae.Config(conv_channels=(2,), num_codes=4, embedding_size=2, batch_size=10, commitment=0.0, optim=SGD)
    model = vqvae.make(config, SPEC)
    state = jit(model.learner.init)(jax.random.key(0))
    new, _ = jit(model.learner.update)(state, Examples(IMAGES), jax.random.key(1))
    down, up = vqvae.Encoder((2,), 2), vqvae.Decoder((2,), SPEC.shape)
    x = IMAGES / 255.0

    def loss(params, push):
        z = down.apply(params["encoder"], x)
        code = state.codebook.codes[vqvae.nearest(z, state.codebook.codes)]
        return (jnp.square(up.apply(params["decoder"], code + push) - x).sum((1, 2, 3)) / 0.1).mean()

    push = jax.eval_shape(lambda: down.apply(state.params["encoder"], x))
    slope = jit(jax.grad(loss, 1))(state.params, jnp.zeros(push.shape))
    expected = jit(jax.grad(lambda params: (down.apply(params, x) * slope).sum()))(state.params["encoder"])
    for a, b, g in zip(*map(jax.tree.leaves, (new.params["encoder"], state.params["encoder"], expected)), strict=True):
        np.testing.assert_allclose(a, b - 0.01 * g, rtol=1e-4, atol=1e-6)


def test_codes_are_all_that_a_picture_is_made_of_and_digits_are_recognized_by_them():
    digits = data.load("digits")
    spec = digits.spec
    config = vqvae.Config(conv_channels=(8,), num_codes=16, embedding_size=4, total_steps=300, batch_size=32,
                          optim=OptimConfig(learning_rate=3e-3))
    driver = make_device_driver(lambda c: vqvae.make_run(c, spec), [config], digits.on_device(), [0], quick=True)
    state, report = driver.chunk(driver.start(), 300)
    assert report.bad_step == -1
    params, model = driver.params(state), vqvae.make(config, spec)
    test = data.load("digits", split="test").on_device()
    codes = jit(model.encode)(params, test)
    assert (codes.shape, codes.dtype) == ((360, 4, 4), jnp.int32)
    told = jit(model.measure)(params, test, jax.random.key(0))
    mse, perplexity = (float(told[name].total / told[name].count) for name in ("mse", "perplexity"))
    again = jit(model.reconstruct)(params, test, jax.random.key(0))
    np.testing.assert_array_equal(again, jit(model.decode)(params, codes))
    assert 5 < perplexity <= 16
    assert mse < 0.4 * (np.asarray(test.images) / 255).var(0).mean()
