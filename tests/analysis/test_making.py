"""Pictures that are made: priors and Gram matrices by hand, closed forms of linear functions, losses that fall."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from tools import assert_close, jit, random_like

from jaxdl import nn
from jaxdl.analysis import ascent, inversion, priors, texture
from jaxdl.analysis.ascent import Priors
from jaxdl.core.errors import UserError

KEY = jax.random.key(0)
SHAPE = (12, 10, 2)
X = jax.random.uniform(KEY, (3, *SHAPE))
WEIGHTS = jax.random.normal(jax.random.key(1), SHAPE)


def linear(x):
    return (x * WEIGHTS).sum((1, 2, 3))


def grey(num=3):
    return jnp.full((num, *SHAPE), 0.5)


def test_total_variation_by_hand():
    x = jnp.array([[0.0, 3.0], [4.0, 3.0]])[None, ..., None]
    np.testing.assert_allclose(priors.total_variation(x, 0.0), [4 + 0 + 3 + 1])
    np.testing.assert_allclose(priors.total_variation(x, 1.0), [np.sqrt([17, 1, 10, 2]).sum() - 4], rtol=1e-6)


def test_a_blur_keeps_what_is_even_and_spreads_a_point_as_a_normal_density():
    assert_close(priors.blurred(grey(), 1.5), grey())
    point = jnp.zeros((1, 21, 21, 1)).at[0, 10, 10].set(1)
    found = np.asarray(priors.blurred(point, 1.2, 6))[0, :, :, 0]
    at = np.arange(-10, 11)
    want = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.2**2)) / (2 * np.pi * 1.2**2)
    np.testing.assert_allclose(found, want, atol=1e-4)
    assert_close(priors.blurred(X, 0.0), X)


def test_what_is_small_becomes_zero():
    by = jnp.arange(10.0).reshape(1, 2, 5)
    found = priors.without_small(jnp.ones((1, 2, 5, 3)), by, 0.4)
    np.testing.assert_array_equal(found[0, ..., 0].ravel(), [0] * 4 + [1] * 6)


def test_frequencies_are_divided_by_their_size():
    assert_close(priors.evenly(X, 0.0), X, atol=1e-5)
    at = jnp.arange(16)
    wave = {f: jnp.broadcast_to(jnp.sin(2 * jnp.pi * f * at / 16)[:, None, None], (1, 16, 16, 1)) for f in (1, 4)}
    for f, x in wave.items():
        assert_close(priors.evenly(x, 1.0), x * 16 / f, rtol=1e-4, atol=1e-4)


def test_ascent_of_a_linear_function_goes_along_its_weights():
    made = jit(lambda x, key: ascent.ascend(linear, x, key, steps=10, rate=0.02))(grey(), KEY)
    by = WEIGHTS / jnp.sqrt((WEIGHTS**2).mean())
    want = 0.5 + 0.02 * 5.5 * by  # the rate falls from 0.02 to 0.002 in ten steps
    np.testing.assert_allclose(made.x, jnp.broadcast_to(jnp.clip(want, 0, 1), made.x.shape), atol=1e-5)
    np.testing.assert_allclose(made.values[0], linear(grey()), rtol=1e-5)
    np.testing.assert_allclose(made.values[-1], linear(made.x), rtol=1e-5)


def test_each_prior_does_what_it_says():
    rise = functools.partial(ascent.ascend, linear, grey(), KEY, steps=20)
    plain = rise().x
    away = lambda x: float(jnp.abs(x - 0.5).mean())  # noqa: E731
    assert away(rise(Priors(decay=0.2)).x) < 0.6 * away(plain)
    for keep in (Priors(variation=0.5), Priors(blur=1.0), Priors(even=1.0)):
        smooth = rise(keep).x
        assert (priors.total_variation(smooth) / away(smooth)).max() < 0.8 * (priors.total_variation(plain) / away(plain)).min()
    for keep in (Priors(clip_pixels=0.3), Priors(clip_gradients=0.3)):
        np.testing.assert_allclose((rise(keep).x == 0.5).all(-1).mean((1, 2)), 0.3, atol=0.02)
    assert_close(rise(Priors(jitter=0)).x, plain)
    moved = rise(Priors(jitter=3)).x  # the weights are blurred over places
    assert (priors.total_variation(moved) / away(moved)).max() < (priors.total_variation(plain) / away(plain)).min()
    with pytest.raises(UserError, match=r"decay.*1\.5"):
        Priors(decay=1.5).validate()
    with pytest.raises(UserError, match=r"jitter.*-1"):
        Priors(jitter=-1).validate()


class Net(linen.Module):
    """Convolutions with a pool, and a dense layer of one size of pictures."""

    @linen.compact
    def __call__(self, x):
        x = jax.nn.relu(nn.Conv(6, (3, 3))(x))
        x = jax.nn.relu(nn.Conv(8, (3, 3), (2, 2))(x))
        return nn.Dense(4)(x.reshape(len(x), -1))


PARAMS = random_like(jit(Net().init)(KEY, X))


def net(x):
    return Net().apply(PARAMS, x)


def test_classes_and_units_rise_and_a_dream_is_of_any_size():
    target = jnp.array([2, 0, 3])
    for objective in (ascent.of_class(net, target), ascent.of_unit(net, "Conv_1", target), ascent.of_layer(net, "Conv_0")):
        values = jit(lambda x, objective=objective: ascent.ascend(objective, x, KEY, steps=20))(grey()).values
        assert values.shape == (21, 3)
        assert (values[-1] > values[0] + 0.1 * jnp.abs(values[0])).all()
    np.testing.assert_allclose(ascent.of_class(net, target)(X), np.asarray(net(X))[np.arange(3), target], rtol=1e-5)
    large = jax.random.uniform(KEY, (1, 30, 41, 2))
    made = ascent.dream(ascent.of_layer(net, "Conv_1"), large, KEY, Priors(jitter=2), octaves=2, steps=5)
    assert made.x.shape == large.shape
    assert made.values[1] > 1.2 * made.values[0]
    assert_close(ascent.dream(ascent.of_layer(net, "Conv_1"), large, KEY, octaves=2, rate=0.0, steps=2).x, large, atol=1e-5)


def test_a_dream_begins_each_size_with_all_that_the_smaller_ones_gained():
    x, keep = jax.random.uniform(KEY, (1, 18, 27, 2)), Priors(jitter=1)
    objective = lambda x: (x**2).sum((1, 2, 3))  # noqa: E731
    went, gained = None, jnp.zeros((1, 18, 27, 2))
    for key, size in zip(jax.random.split(KEY, 3), ((8, 12), (12, 18), (18, 27)), strict=True):
        small = jax.image.resize(x, (1, *size, 2), "linear")
        begin = jnp.clip(small + jax.image.resize(gained, small.shape, "linear"), 0, 1)
        went = ascent.ascend(objective, begin, key, keep, 3, 0.1).x
        gained = went - small
    assert_close(ascent.dream(objective, x, KEY, keep, octaves=3, scale=1.5, steps=3, rate=0.1).x, went)


class Turned(linen.Module):
    """An invertible layer: pixels, turned."""

    @linen.compact
    def __call__(self, x):
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(x[0].size,) * 2))[0]
        return nn.Dense(x[0].size, use_bias=False, kernel_init=lambda *_: jnp.asarray(turn, jnp.float32))(
            x.reshape(len(x), -1))


def test_the_inversion_of_an_invertible_layer_is_the_picture():
    x = X[:2, :6, :5]
    params = Turned().init(KEY, x)
    f = lambda x: Turned().apply(params, x)  # noqa: E731
    made = jit(lambda x: inversion.invert(f, "Dense_0", x, KEY, 0.0, 0.0, steps=300))(x)
    np.testing.assert_allclose(made.x, x, atol=0.01)
    assert (made.losses[1] < 1e-4 * made.losses[0]).all()
    smooth = jit(lambda x: inversion.invert(f, "Dense_0", x, KEY, 10.0, 0.0, steps=300))(x)
    assert (priors.total_variation(smooth.x) < 0.3 * priors.total_variation(x)).all()
    far = jit(lambda x: inversion.invert(f, "Dense_0", x, KEY, 0.0, 100.0, steps=300))(x)
    assert jnp.abs(far.x - 0.5).max() < 0.3


def test_deeper_layers_keep_less_of_a_picture():
    lost = [jit(lambda x, layer=layer: inversion.invert(net, layer, x, KEY, 0.05, steps=100))(X)
            for layer in ("Conv_0", "Dense_0")]
    assert all((one.losses[1] < 0.1 * one.losses[0]).all() for one in lost)
    first, last = (float(((one.x - X) ** 2).mean()) for one in lost)
    assert first < 0.5 * last


def test_a_gram_matrix_by_hand():
    maps = jnp.array([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [2.0, -1.0]]])[None]
    np.testing.assert_allclose(texture.gram(maps)[0], [[14 / 4, 12 / 4], [12 / 4, 22 / 4]])
    shuffled = maps.reshape(1, 4, 1, 2)[:, ::-1]
    assert_close(texture.gram(shuffled), texture.gram(maps))  # it does not say where


@pytest.mark.parametrize("features", [texture.of_random_filters(KEY, 2, num=8, window=5, scales=3),
                                      texture.of_network(net, ["Conv_0", "Conv_1"])])
def test_the_loss_of_a_texture_falls(features):
    of = jnp.tile(jax.random.uniform(KEY, (1, 4, 4, 2)), (1, 5, 6, 1))
    made = jit(lambda of: texture.synthesize(features, of, (17, 23), KEY, steps=60))(of)
    assert made.x.shape == (1, 17, 23, 2)
    assert made.losses[-1] < 0.1 * made.losses[0]
    assert_close(texture.loss(features, texture.wanted(features, of), of), jnp.zeros(1))


def test_random_filters_know_no_mean_and_stop_where_they_do_not_fit():
    maps = texture.of_random_filters(KEY, 2, num=8, window=5, scales=6)(jnp.full((1, 24, 20, 2), 0.7))
    assert list(maps) == ["pixels", "scale 0", "scale 1"]
    assert np.abs(maps["scale 0"]).max() < 1e-5
    assert maps["scale 1"].shape == (1, 8, 6, 8)


def test_a_style_is_taken_and_the_content_stays():
    features = texture.of_random_filters(KEY, 2, num=8, window=5, scales=2)
    style = jnp.tile(jax.random.uniform(KEY, (1, 4, 4, 2)), (1, 5, 5, 1))
    x = jax.random.uniform(KEY, (1, 20, 20, 2))
    go = jit(lambda weight: texture.restyle(features, x, style, ["scale 0"], weight, steps=60))
    (much, lost), (little, kept) = go(100.0), go(1e-3)
    assert lost["style"][1] < 0.5 * lost["style"][0]
    assert kept["style"][1] > lost["style"][1]
    assert kept["content"][1] < 0.1 * lost["content"][1]
    assert float(jnp.abs(little.x - x).mean()) < float(jnp.abs(much.x - x).mean())
    by_hand = inversion.difference(features(much.x)["scale 0"], features(x)["scale 0"])
    assert_close(lost["content"][1], by_hand[0], rtol=1e-4)
