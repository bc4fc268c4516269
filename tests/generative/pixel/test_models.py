"""PixelCNN and PixelRNN: what sees what, probabilities that sum to one, two samplers that agree."""

import functools
import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit, random_like

from jaxdl.core.config import from_dict, leaves_as_arrays
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative.pixel import autoregressive, outputs, pixelcnn, pixelrnn, plusplus
from jaxdl.optim import Config as OptimConfig

KEY = jax.random.key(0)
MODELS = {"plain": pixelcnn, "gated": pixelcnn, "plusplus": pixelcnn, "row": pixelrnn, "diagonal": pixelrnn}
SMALL = {"width": 6, "num_blocks": 2, "window": 3, "head_features": 12, "num_mixtures": 2}
each_model = pytest.mark.parametrize("variant", MODELS)


def config_of(variant, **settings):
    scales = {"num_scales": 2} if variant == "plusplus" else {}
    return MODELS[variant].Config(variant=variant, **SMALL | scales | settings)


def spec_of(shape):
    return DataSpec("tiny", 40, shape, 4)


def network_of(variant, shape, **settings):
    return MODELS[variant].network(config_of(variant, **settings), spec_of(shape))


def random_params(network, seed=0):
    return random_like(jax.eval_shape(network.init, KEY), seed)


# --- Probabilities.


@each_model
def test_the_probabilities_of_all_binary_images_sum_to_one(variant):
    bits = np.array(list(itertools.product((0, 255), repeat=9)), np.uint8).reshape(512, 3, 3, 1)
    config = config_of(variant, binarize="threshold", conditional=True)
    model = MODELS[variant].make(config, spec_of((3, 3, 1)))
    params = random_like(jax.eval_shape(model.learner.init, KEY).params)
    log_prob = jit(lambda params, label: model.log_prob(params, Examples(bits, jnp.full(512, label)), KEY))
    by_class = [np.exp(np.float64(log_prob(params, label))) for label in (0, 3)]
    for p in by_class:
        assert p.max() < 0.9
        assert p.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(by_class[0] - by_class[1]).max() > 1e-4

    alone = MODELS[variant].make(config_of(variant, binarize="threshold"), spec_of((3, 3, 1)))
    params = random_like(jax.eval_shape(alone.learner.init, KEY).params)
    total = jit(lambda params: jax.nn.logsumexp(alone.log_prob(params, Examples(bits), KEY)))(params)
    assert total == pytest.approx(0, abs=1e-5)


# --- What sees what.


@functools.cache
def sensitivity(variant, shape, **settings):
    """|d output / d input| summed over outputs and a few images: [H, W, G, H, W, C]."""
    network, _ = network_of(variant, shape, **settings)
    params = random_params(network)
    x = np.random.default_rng(1).uniform(-1, 1, (3, *shape)).astype(np.float32)

    def outputs(params, x):
        out = network.apply(params, x[None], None, None)[0]
        return out @ jnp.cos(jnp.arange(out.shape[-1]))

    return np.asarray(jit(lambda p, x: jnp.abs(jax.lax.map(lambda x: jax.jacrev(outputs, 1)(p, x), x)).sum(0))(params, x))


L = SMALL["num_blocks"]
REACH = {  # of rows up and columns to the right, in the past: what a model of L blocks and windows of 3 sees
    "plain": lambda up, right: (up <= L + 1) & (-right <= L + 1) & (right <= up),  # without the blind spot
    "gated": lambda up, right: (up <= L + 1) & (abs(right) <= L + 1),
    "plusplus": lambda up, right: up >= 0,
    "row": lambda up, right: (-right <= up + L + 1) & (right <= up),  # a triangle
    "diagonal": lambda up, right: up >= 0,  # but see below
}


@each_model
def test_a_pixel_sees_the_past_within_reach_and_nothing_else(variant):
    shape = (5, 9)
    seen = sensitivity(variant, (*shape, 1))[:, :, 0, ..., 0] > 0
    r, c, row, column = np.indices((*shape, *shape))
    expected = ((row < r) | (row == r) & (column < c)) & REACH[variant](r - row, column - c)
    if variant == "diagonal":  # the first window lets no pixel of its own row see the last one, so that no right LSTM brings it
        expected &= (row < r - 1) | (column < 8) | (c >= 8 - SMALL["window"] // 2)
    np.testing.assert_array_equal(seen, expected)


def test_the_blind_spot_is_in_the_plain_one_alone():
    above_and_right = (4, 4, 0, 3, 6, 0)  # the row above, two to the right
    assert sensitivity("plain", (5, 9, 1))[above_and_right] == 0
    for variant in ("gated", "plusplus", "diagonal"):
        assert sensitivity(variant, (5, 9, 1))[above_and_right] > 0


@each_model
def test_channels_of_a_pixel_are_in_order(variant):
    ordered = variant != "plusplus"
    output = {"likelihood": "categorical", "levels": 3} if ordered else {"likelihood": "mixture", "levels": 4}
    seen = sensitivity(variant, (2, 3, 3), width=18, head_features=18, **output) > 0  # enough that some are not cut off
    groups = seen.shape[2]
    assert groups == (3 if ordered else 1)
    order = np.arange(6)[:, None] * groups + np.arange(3) * ordered  # of (pixel, channel)
    at = order[:, :groups].reshape(-1, 1)
    seen = seen.reshape(len(at), -1)
    assert not seen[at <= order.reshape(-1)].any()
    own = np.arange(6).repeat(groups)[:, None] == np.arange(6).repeat(3)
    assert seen[own & (order.reshape(-1) < at)].all()
    left = np.arange(6).repeat(groups)[:, None] - 1 == np.arange(6).repeat(3)
    left[3 * groups : 4 * groups] = False  # first in its row
    assert seen[left].all()


# --- Two samplers.


@functools.cache
def samplers(variant, shape, conditional, **settings):
    network, output = network_of(variant, shape, conditional=conditional, **settings)

    @jit
    def both(params, noise, given, known, y, temperature):
        x, out = autoregressive.incremental(network, output, params, noise, given, known, y, temperature)
        return x, out, autoregressive.naive(network, output, params, noise, given, known, y, temperature), network.apply(
            params, output.inputs(x), y, None)

    return network, output, both


def check_agreement(made, shape, params, n, known=0, temperature=1.0, labels=None, seed=0):
    _, output, both = made
    keys = jax.random.split(jax.random.key(seed))
    noise = jax.random.uniform(keys[0], (n, *shape[:2], output.groups, output.uniforms))
    given = jnp.floor(jax.random.uniform(keys[1], (n, *shape)) * output.levels)
    mask = np.arange(shape[0] * shape[1]).reshape(shape[:2]) < known
    y = None if labels is None else jax.nn.one_hot(jnp.asarray(labels), 4)
    x, out, (x_naive, out_naive), whole = both(params, noise, given, mask, y, temperature)
    np.testing.assert_array_equal(x, x_naive)
    assert x.shape == given.shape
    assert np.isin(x, np.arange(output.levels)).all()
    np.testing.assert_array_equal(x[:, mask], given[:, mask])
    assert out.shape == whole.shape == (n, *shape[:2], output.groups, output.outputs)
    for other in (out_naive, whole):
        np.testing.assert_array_less(np.abs(out - other) / np.maximum(1, np.abs(other)), 1e-5)
    return x, out


GREY = (5, 7, 1)


@pytest.mark.parametrize("variant", [name if name not in ("gated", "plusplus") else pytest.param(name, marks=pytest.mark.slow)
                                     for name in MODELS])  # these two are seen below
def test_the_samplers_agree_on_grey_images(variant):
    made = samplers(variant, GREY, False)
    params = random_params(made[0])
    x, _ = check_agreement(made, GREY, params, 3)
    assert 0.05 < x.mean() < 0.95
    check_agreement(made, GREY, params, 3, known=17, temperature=0.5, seed=1)
    check_agreement(made, GREY, trained(variant)[0].ema, 3, seed=2)
    check_agreement(made, GREY, trained(variant)[0].params, 3, known=35, temperature=2.0)


@pytest.mark.parametrize("variant", [name if name != "plain" else pytest.param(name, marks=pytest.mark.slow)
                                     for name in MODELS])
def test_the_samplers_agree_on_colours_of_a_class(variant):
    shape = (5, 3, 3) if variant == "plusplus" else (3, 4, 3)
    output = {"likelihood": "categorical", "levels": 5} if variant != "plusplus" else {"likelihood": "mixture", "levels": 16}
    made = samplers(variant, shape, True, **output)
    params = random_params(made[0])
    _, one = check_agreement(made, shape, params, 1, labels=[1])
    _, other = check_agreement(made, shape, params, 1, labels=[3])
    assert np.abs(one - other)[0, 0, 0].max() > 1e-3
    check_agreement(made, shape, params, 1, known=5, temperature=0.7, labels=[2], seed=1)


@each_model
def test_the_program_of_the_sampler_does_not_grow_with_depth(variant):
    def size(num_blocks):
        network, output = network_of(variant, (4, 4, 1), num_blocks=num_blocks)
        args = (jax.eval_shape(network.init, KEY), jnp.zeros((1, 4, 4, 1, output.uniforms)), jnp.zeros((1, 4, 4, 1)),
                jnp.zeros((4, 4), bool), None)
        return len(str(jax.make_jaxpr(functools.partial(autoregressive.incremental, network, output))(*args)))

    assert size(8) < 1.02 * size(2)


# --- Public functions.


def test_known_pixels_are_kept_and_an_images_noise_is_of_its_place_alone():
    shape = (3, 3, 1)
    model = pixelcnn.make(config_of("plain", binarize="threshold"), spec_of(shape))
    params = random_like(jax.eval_shape(model.learner.init, KEY).params)
    complete = jit(model.complete)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, *shape)), jnp.uint8)
    known = np.arange(9).reshape(3, 3) < 4
    filled = complete(params, KEY, images, known)
    np.testing.assert_array_equal(filled[:, known], images[:, known] >= 128)
    drawn = complete(params, KEY, images, np.zeros((3, 3), bool))
    assert not np.array_equal(drawn[:, known], filled[:, known])
    np.testing.assert_array_equal(jit(lambda p: model.sample(p, KEY, 2))(params), drawn[:2])
    np.testing.assert_array_equal(jit(lambda p: model.sample(p, KEY, 5, sampler="naive"))(params), drawn)
    assert not np.array_equal(complete(params, jax.random.key(1), images, np.zeros((3, 3), bool)), drawn)
    with pytest.raises(UserError, match=r"pixel \(0, 0\)"):
        model.complete(params, KEY, images, np.arange(9).reshape(3, 3) > 4)


def test_known_pixels_have_no_gap():
    known = np.arange(12).reshape(3, 4)
    for count in (0, 1, 4, 7, 12):
        autoregressive.check_prefix(known < count)
    for gap, message in (((1, 2), r"pixel \(1, 2\)"), ((0, 0), r"pixel \(0, 0\)")):
        mask = known < 8
        mask[gap] = False
        with pytest.raises(UserError, match=message):
            autoregressive.check_prefix(mask)


# --- Training.


@functools.cache
def trained(variant):
    """The state after 30 updates, its losses, and a state whose running mean has no memory."""
    config = leaves_as_arrays(config_of(variant, optim=OptimConfig(learning_rate=0.02), total_steps=30))
    images = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2, 1, *GREY)) * 255, jnp.uint8).repeat(4, 1)
    learner = MODELS[variant].make(config, spec_of(GREY)).learner

    @jit
    def update(config, state, key):
        learner = MODELS[variant].make(config, spec_of(GREY)).learner
        state, aux = learner.update(state, Examples(images.reshape(8, *GREY)), key)
        return state, aux.metrics["nll"].total / aux.metrics["nll"].count

    state, losses = jit(learner.init)(KEY), []
    no_memory, _ = update(replace(config, ema_decay=np.float32(0)), state, KEY)
    for t in range(30):
        state, loss = update(config, state, jax.random.key(t))
        losses.append(float(loss))
    return state, losses, no_memory


@each_model
def test_an_update_learns(variant):
    state, losses, no_memory = trained(variant)
    assert int(state.count) == 30
    assert losses[0] == pytest.approx(35 * np.log(2), rel=0.15)  # nats of 35 pixels of which nothing is known
    assert np.mean(losses[-3:]) < 0.6 * losses[0]
    equal = jax.tree.map(np.array_equal, no_memory.ema, no_memory.params)
    assert all(jax.tree.leaves(equal))
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, state.ema, state.params)))


def test_the_running_mean_is_short_at_first():
    config = config_of("gated", ema_decay=0.999, optim=OptimConfig(optimizer="sgd", learning_rate=0.5))
    learner = pixelcnn.make(config, spec_of(GREY)).learner
    old = jit(learner.init)(KEY)
    new, _ = jit(learner.update)(old, Examples(jnp.full((2, *GREY), 255, jnp.uint8)), KEY)
    for mean, before, after in zip(*map(jax.tree.leaves, (new.ema, old.params, new.params)), strict=True):
        np.testing.assert_allclose(mean, 0.1 * before + 0.9 * after, rtol=1e-4, atol=1e-6)


def test_bits_a_dimension_are_of_each_colour():
    config = config_of("gated", likelihood="categorical", levels=4)
    model = pixelcnn.make(config, spec_of((3, 3, 3)))
    params = jax.tree.map(jnp.zeros_like, jax.eval_shape(model.learner.init, KEY).params)  # any level is as likely: 2 bits
    found = jit(model.measure)(params, Examples(jnp.zeros((2, 3, 3, 3), jnp.uint8)), KEY)
    assert jnp.divide(*found["bits_per_dim"]) == pytest.approx(2, rel=1e-4)
    assert jnp.divide(*found["nll"]) == pytest.approx(27 * math.log(4), rel=1e-4)


def test_dropout_is_of_training_alone():
    """A network that tells whether it was given a key to drop by."""
    told = []

    def apply(params, x, y, key, compute=None):
        told.append(key is not None)
        return params * x[..., None]

    output = outputs.make("bernoulli", 1)
    network = autoregressive.Network(lambda key: jnp.ones(()), apply, None)
    model = autoregressive.make(config_of("plusplus", dropout=0.5), spec_of(GREY), network, output)
    images = Examples(jnp.zeros((2, *GREY), jnp.uint8))
    for f, of in ((model.measure, jnp.ones(())), (model.log_prob, jnp.ones(())),
                  (model.learner.update, jax.eval_shape(model.learner.init, KEY))):
        jax.eval_shape(f, of, images, KEY)
    assert told == [False, False, True]


def test_dropout_keeps_the_mean_of_what_it_drops():
    block = plusplus._Block(6, 0.5, "float32")
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 2, 2, 6)), jnp.float32)
    params = random_like(jax.eval_shape(lambda: block.init(KEY, (x, x), None, None)))
    params = jax.tree_util.tree_map_with_path(  # the gate is open, so that what is added is linear in what is dropped
        lambda path, w: w * (np.arange(12) < 6) + 50 * (np.arange(12) >= 6) * (w.ndim == 1)
        if "u_out" in jax.tree_util.keystr(path) else w, params)

    @jit
    def both(params):
        drawn = jax.vmap(lambda key: block.apply(params, (x, x), None, None, rngs={"dropout": key})[0][0])(
            jax.random.split(KEY, 4000))
        return drawn, block.apply(params, (x, x), None, None)[0][0]

    drawn, whole = both(params)
    assert np.abs(drawn.mean(0) - whole).max() < 5 * float(drawn.std(0).max()) / math.sqrt(4000)
    assert drawn.std(0).mean() > 0.1


# --- Settings.


@pytest.mark.parametrize("module", [pixelcnn, pixelrnn])
def test_likelihood_and_width_are_read_under_their_old_names(module):
    config = from_dict(module.Config, {"output": "categorical", "features": 6})
    assert (config.likelihood, config.width) == ("categorical", 6)


@pytest.mark.parametrize(("module", "settings", "message"), [
    (pixelcnn, {"window": 4}, "window"), (pixelrnn, {"window": 1}, "window"), (pixelcnn, {"levels": 1}, "levels"),
    (pixelrnn, {"levels": 257}, "levels"), (pixelcnn, {"variant": "gated", "dropout": 0.5}, "dropout"),
    (pixelcnn, {"variant": "plusplus", "dropout": 1.0}, "dropout"), (pixelcnn, {"num_scales": 0}, "num_scales"),
    (pixelrnn, {"ema_decay": 1.0}, "ema_decay"), (pixelrnn, {"width": 0}, "width"),
    (pixelcnn, {"epochs": 1, "total_steps": 1}, "epochs"),
])
def test_settings_that_make_no_sense_are_refused(module, settings, message):
    module.validate(module.Config())
    with pytest.raises(UserError, match=message):
        module.validate(module.Config(**settings))


@each_model
def test_what_does_not_fit_the_dataset_is_refused(variant):
    make = MODELS[variant].make
    with pytest.raises(UserError, match="labels"):
        make(config_of(variant, conditional=True), DataSpec("tiny", 40, GREY, None))
    colours = spec_of((3, 3, 3))
    if variant == "plusplus":
        for likelihood in ("bernoulli", "categorical"):
            with pytest.raises(UserError, match="mixture"):
                make(config_of(variant, likelihood=likelihood), colours)
    else:
        for field in ("width", "head_features"):
            with pytest.raises(UserError, match=f"{field}.*multiple of 3"):
                make(config_of(variant, likelihood="categorical", **{field: 8}), colours)
    make(config_of(variant, likelihood="mixture", width=7, head_features=8), colours)  # it orders them itself
