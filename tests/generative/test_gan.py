"""GANs: what an update does step by step, what its parts see, what is refused, and that each objective learns."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl import nn
from jaxdl.core.config import from_dict
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative import adversarial, gan
from jaxdl.generative.gan_networks import Discriminator, Generator
from jaxdl.nn import spectral
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.device_driver import make_device_driver

SPEC = DataSpec("tiny", 40, (8, 8, 1), 2)
SGD = OptimConfig(optimizer="sgd", learning_rate=0.1)
SMALL = {"batch_size": 4, "latent_size": 3, "width": 2, "total_steps": 100, "optim": SGD,
         "discriminator_learning_rate": 0.1}


def examples(count=4, seed=0):
    images = jax.random.randint(jax.random.key(seed), (count, *SPEC.shape), 0, 256).astype(jnp.uint8)
    return Examples(images, jnp.arange(count) % 2)


def made(**settings):
    config = gan.Config(**SMALL | settings)
    gan.validate(config)
    model = gan.make(config, SPEC)
    return config, model, started(model)


def started(model):
    """A first state whose networks make something of what they see: kernels begin small."""
    return jit(lambda key: jax.tree.map(lambda x: 10 * x if x.ndim > 1 else x, model.learner.init(key)))(jax.random.key(1))


def close(a, b, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def same_step(new, expected, old):
    """Each array to a thousandth of how far it went."""
    for a, b, c in zip(*map(jax.tree.leaves, (new, expected, old)), strict=True):
        went = np.linalg.norm(b - c)
        assert went > 1e-5 or c.ndim == 1  # a Wasserstein critic's last bias has no gradient
        assert np.linalg.norm(a - b) <= 1e-3 * went + 1e-6


def by_hand(config, state, batch, key):
    """An update in plain steps: the new discriminator, each step's vectors, the new generator, the means of the logits."""
    steps, penalty = gan.critic_steps(config), gan.penalty_of(config)
    norm = config.network == "dcgan" and penalty is None and not config.spectral_norm
    generator = Generator(SPEC.shape, config.network, config.width, config.hidden_size)
    discriminator = Discriminator(config.network, config.width, norm, config.class_conditioning, config.hidden_size)
    k_steps, k_latent, k_penalty = jax.random.split(key, 3)
    size = len(batch.images) // steps
    y = jax.nn.one_hot(batch.labels, 2) if config.conditional else None
    x = batch.images / 127.5 - 1

    def generate(params, key, y):
        z = jax.random.normal(key, (size, config.latent_size))
        return generator.apply(state.generator | {"params": params}, z, y, True, mutable=["batch_stats"])

    def logits(params, vectors, images, y):
        params = spectral.normalize(params, vectors) if config.spectral_norm else params
        return discriminator.apply({"params": params}, images, y, mutable=["batch_stats"])[0]

    against, told, vectors = state.discriminator, [], [state.vectors]
    for i in range(steps):
        part = slice(i * size, (i + 1) * size)
        own = None if y is None else y[part]
        if steps > 1:
            k_fake, k_penalty = jax.random.split(jax.random.split(k_steps, steps)[i])
        else:
            k_fake = k_latent
        fake = generate(state.generator["params"], k_fake, own)[0]
        vectors.append(spectral.advance(against, vectors[-1]) if config.spectral_norm else [])

        def loss_fn(params, part=part, own=own, fake=fake, vectors=vectors[-1], k_penalty=k_penalty):
            found = logits(params, vectors, x[part], own), logits(params, vectors, fake, own)
            loss = adversarial.discriminator_loss(config.objective, *found).mean()
            if penalty is None:
                return loss, found
            return loss + penalty * adversarial.gradient_penalty(
                lambda images: logits(params, vectors, images, own), x[part], fake, k_penalty).mean(), found

        grads, found = jax.grad(loss_fn, has_aux=True)(against)
        told.append(jnp.stack(found))
        against = jax.tree.map(lambda p, g: p - 0.1 * g, against, grads)

    def generator_loss(params):
        fake, new = generate(params, k_latent, None if y is None else y[-size:])
        own = None if y is None else y[-size:]
        return adversarial.generator_loss(config.objective, logits(against, vectors[-1], fake, own)).mean(), new

    grads, new = jax.grad(generator_loss, has_aux=True)(state.generator["params"])
    params = jax.tree.map(lambda p, g: p - 0.1 * g, state.generator["params"], grads)
    return against, vectors[-1], {"params": params} | new, jnp.stack(told).mean((0, 2))


@pytest.mark.parametrize("settings", [
    {"objective": "minimax"},
    {"objective": "wgan_gp", "n_critic": 2, "spectral_norm": True, "conditional": True, "class_conditioning": "concatenation"},
    pytest.param({"network": "resnet", "objective": "hinge", "spectral_norm": True, "conditional": True},
                 marks=pytest.mark.slow)], ids=str)
def test_an_update_is_the_steps_of_the_discriminator_and_then_one_of_the_generator(settings):
    config, model, state = made(**settings)
    batch = examples(4 * gan.critic_steps(config))
    new, aux = jit(model.learner.update)(state, batch, jax.random.key(2))
    expected = jit(lambda state, batch, key: by_hand(config, state, batch, key))
    against, vectors, made_by, told = expected(state, batch, jax.random.key(2))
    same_step(new.discriminator, against, state.discriminator)
    same_step(new.vectors, vectors, state.vectors)
    same_step(new.generator, made_by, state.generator)
    assert bool(new.vectors) == config.spectral_norm
    assert ("penalty" in aux.metrics) == (config.objective == "wgan_gp")
    close([aux.metrics[f"logit_{kind}"].total / len(batch.images) for kind in ("real", "fake")], list(told), 1e-4)
    assert aux.metrics["logit_real"].count == len(batch.images)


def test_what_is_sampled_is_a_running_mean_of_parameters_and_statistics():
    _, model, state = made(ema_decay=0.15)
    update = jit(model.learner.update)
    close(model.learner.params(state), state.generator)
    one, _ = update(state, examples(), jax.random.key(0))
    two, _ = update(one, examples(), jax.random.key(1))
    close(model.learner.params(one), jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, state.generator, one.generator))
    close(model.learner.params(two), jax.tree.map(lambda a, b: 0.15 * a + 0.85 * b, one.ema, two.generator))  # 2 / 11 is longer


def test_samples_are_images_made_with_running_statistics():
    _, model, state = made()
    params = model.learner.params(state)
    x = jit(model.sample, static_argnums=2)(params, jax.random.key(0), 6)
    assert x.shape == (6, *SPEC.shape)
    assert 0 <= x.min() < x.max() <= 1
    z, decode = model.prior(jax.random.key(0), 6), jit(model.decode)
    close(decode(params, z), x)
    close(decode(params, z.at[1:].set(9))[:1], x[:1])  # whatever else is in the batch


def test_both_players_are_told_the_class():
    _, model, state = made(conditional=True)
    z = jnp.tile(model.prior(jax.random.key(0), 1), (4, 1))
    x = jit(model.decode)(state.ema, z, jnp.array([0, 1, 0, 1]))
    close(x[:2], x[2:])
    assert np.abs(x[0] - x[1]).max() > 1e-3
    close(jit(model.decode)(state.ema, z), x)  # classes in turn
    for how in ("projection", "concatenation"):
        discriminator = Discriminator("dcgan", 2, False, how)
        params = jit(lambda key, network=discriminator: nn.init(network, key, x, jnp.zeros((4, 2))))(jax.random.key(3))
        params = {"params": jax.tree.map(lambda x: 10 * x, params["params"])}
        told = [discriminator.apply(params, x[:1], jnp.eye(2)[i : i + 1]) for i in (0, 1)]
        assert abs(float(told[0][0] - told[1][0])) > 1e-4, how


def test_a_critic_under_the_penalty_sees_each_image_by_itself():
    config = gan.Config(objective="wgan_gp", **SMALL)
    with pytest.raises(UserError, match=r"discriminator_norm=batch.*gradient penalty"):
        gan.validate(gan.Config(objective="wgan_gp", discriminator_norm="batch"))
    with pytest.raises(UserError, match="discriminator_norm=batch"):
        gan.validate(gan.Config(gradient_penalty=1.0, discriminator_norm="batch"))
    gan.validate(gan.Config(objective="hinge", discriminator_norm="batch"))
    state = jax.eval_shape(gan.make(config, SPEC).learner.init, jax.random.key(0))
    assert "BatchNorm_0" not in state.discriminator
    assert "BatchNorm_0" in jax.eval_shape(gan.make(gan.Config(**SMALL), SPEC).learner.init, jax.random.key(0)).discriminator


@pytest.mark.parametrize(("settings", "message"), [
    ({"epochs": 1, "total_steps": 5}, "give one"), ({"width": 0}, "width must be above 0"),
    ({"n_critic": 0}, "n_critic must be above 0"), ({"ema_decay": 1.0}, "ema_decay must be at least 0 and below 1"),
    ({"gradient_penalty": -1.0}, "gradient_penalty must be above 0"),
    ({"discriminator_learning_rate": 0.0}, "discriminator_learning_rate must be above 0, got 0.0"),
    ({"optim": OptimConfig(grad_accumulation=2)}, "grad_accumulation=2 would cut a batch whose statistics"),
])
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        gan.validate(gan.Config(**settings))


@pytest.mark.parametrize(("old", "new"), [
    ("none", {"conditional": False}), ("projection", {"conditional": True}), (True, {"conditional": True}),
    ("concatenation", {"conditional": True, "class_conditioning": "concatenation"})])
def test_a_config_whose_conditional_was_a_word_is_read(old, new):
    assert from_dict(gan.Config, {"conditional": old}) == gan.Config(**new)


def test_data_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="conditional=True needs labels"):
        gan.make(gan.Config(conditional=True), SPEC._replace(num_classes=None))
    with pytest.raises(UserError, match="batch_size=50 is above the 40 examples"):
        gan.make_run(gan.Config(objective="wgan_gp", batch_size=10), SPEC)


@pytest.mark.parametrize("network", ["dcgan", "resnet"])
@pytest.mark.parametrize("shape", [(7, 5, 3), (8, 6, 1), (1, 8, 1)])
def test_images_of_any_sides_are_cut_from_larger_ones_and_seen_with_black_beside_them(network, shape):
    whole = (*(-(-side // 4) * 4 for side in shape[:2]), shape[2])
    z = jax.random.normal(jax.random.key(0), (2, 3))
    small, large = (Generator(sides, network, 2) for sides in (shape, whole))
    params = jit(lambda key: large.init(key, z, None, False))(jax.random.key(1))
    made, cut = (jit(lambda z, of=of: of.apply(params, z, None, False))(z) for of in (large, small))
    assert cut.shape == (2, *shape)
    np.testing.assert_allclose(cut, made[:, : shape[0], : shape[1]], atol=1e-6)
    judge = Discriminator(network, 2, False, "projection")
    params = jit(lambda key: judge.init(key, made, None))(jax.random.key(2))
    filled = jnp.full((2, *whole), -1.0).at[:, : shape[0], : shape[1]].set(cut)
    seen = jit(lambda x: judge.apply(params, x, None))
    np.testing.assert_allclose(seen(cut), seen(filled), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("settings", "rate"), [
    ({}, 2e-4), ({"discriminator_learning_rate": 0.3}, 0.3), ({"objective": "wgan_gp"}, 0.1)])
def test_the_discriminator_has_a_rate_of_its_own_over_all_its_steps(settings, rate):
    """By SGD with a rate that falls linearly to nothing over ten updates, a step is the gradient times the rate."""
    config = gan.Config(n_critic=2, optim=OptimConfig(optimizer="sgd", learning_rate=0.1, schedule="linear"), **settings)
    for optimizer, first, steps in zip(gan.optimizers(config, 10), (0.1, rate), (10, 20), strict=True):
        params, went = {"w": jnp.zeros(())}, []
        state = optimizer.init(params)
        for _ in range(steps + 2):
            new, state = optimizer.step({"w": jnp.ones(())}, state, params)
            went.append(float(params["w"] - new["w"]))
            params = new
        np.testing.assert_allclose(went[:steps], first * (1 - np.arange(steps) / steps), rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(went[steps:], 0, atol=1e-9)


def test_epochs_are_passes_of_the_discriminator():
    assert gan.total_steps(gan.Config(batch_size=8, epochs=3), SPEC) == 15
    assert gan.total_steps(gan.Config(batch_size=4, epochs=3, objective="wgan_gp"), SPEC) == 6


@pytest.mark.parametrize("objective", ["non_saturating", pytest.param("wgan_gp", marks=pytest.mark.slow)])
def test_it_learns_two_images_and_which_class_each_is(objective):
    """Images are bright above or bright below, by class."""
    top = np.zeros((8, 8, 1), np.uint8)
    top[:4] = 230
    noise = np.random.default_rng(0).integers(0, 25, (40, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(40, dtype=np.int32) % 2
    data = Examples(jnp.asarray(np.where(labels[:, None, None, None] == 0, top, top[::-1]) + noise), jnp.asarray(labels))
    config = gan.Config(objective=objective, conditional=True, batch_size=8, latent_size=4, width=8, total_steps=400,
                        n_critic=2 if objective == "wgan_gp" else 1, ema_decay=0.9,
                        discriminator_learning_rate=2e-3, optim=OptimConfig(learning_rate=2e-3, beta1=0.5))
    driver = make_device_driver(lambda c: gan.make_run(c, SPEC), [config], data, [0], quick=True)
    state, report = driver.chunk(driver.start(), 400)
    assert report.bad_step == -1
    x = np.asarray(jit(gan.make(config, SPEC).sample, static_argnums=2)(driver.params(state), jax.random.key(0), 100))
    lighter_above = x[:, :4].mean((1, 2, 3)) - x[:, 4:].mean((1, 2, 3))
    assert (lighter_above[::2] > 0.5).mean() > 0.9
    assert (lighter_above[1::2] < -0.5).mean() > 0.9
