"""Distributions of a pixel: probabilities that sum to one, exact at both ends, and draws that follow them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from tools import jit

from jaxdl.generative.pixel import outputs

KEY = jax.random.key(0)
HIGHEST = np.nextafter(np.float32(1), np.float32(0))
RNG = np.random.default_rng(0)


def make(*args, **settings):
    output = outputs.make(*args, **settings)
    return output._replace(log_prob=jit(output.log_prob), draw=jit(output.draw))


def mixture_outputs(channels, components, log_scale=-1.0, n=1, spread=1.0):
    """Random outputs [n, 1, P]: logits, means in and beyond [-1, 1], log-scales around one, slopes before tanh."""
    parts = [RNG.normal(size=(n, 1, 1, components)), spread * RNG.uniform(-1.3, 1.3, (n, 1, channels, components)),
             log_scale + 0.3 * RNG.normal(size=(n, 1, channels, components)),
             RNG.normal(size=(n, 1, channels * (channels - 1) // 2, components))]
    return np.concatenate(parts, 2).reshape(n, 1, -1).astype(np.float32)


def mixture_by_numpy(out, x, levels, components):
    """The mixture's log p [n] in float64: outputs [n, 1, P] and values [n, C], written out channel by channel."""
    out, x = np.float64(out[:, 0]), np.float64(x)
    n, channels = x.shape
    out = out.reshape(n, -1, components)
    logits, means, log_scales, slopes = np.split(out, [1, 1 + channels, 1 + 2 * channels], 1)
    total = special.log_softmax(logits[:, 0], -1)
    pairs = [(c, before) for c in range(channels) for before in range(c)]
    half = 2 / (levels - 1)  # a level in units of the network's inputs
    seen = half * x - 1
    for c in range(channels):
        mean = means[:, c]
        for k, (later, before) in enumerate(pairs):
            if later == c:
                mean = mean + np.tanh(slopes[:, k]) * seen[:, before, None]
        scale = np.exp(np.maximum(log_scales[:, c], -7))
        upper, lower = ((seen[:, c, None] + side * half / 2 - mean) / scale for side in (1, -1))
        flip = lower > 0  # the difference of two numbers near 1 is that of two near 0 on the other side
        upper, lower = np.where(flip, -lower, upper), np.where(flip, -upper, lower)
        first, last = x[:, c, None] == 0, x[:, c, None] == levels - 1
        lower = np.where(first & ~flip | last & flip, -np.inf, lower)
        upper = np.where(last & ~flip | first & flip, np.inf, upper)
        above, below = stats.logistic.logcdf(upper), stats.logistic.logcdf(lower)
        total = total + above + np.log(-np.expm1(below - above))
    return special.logsumexp(total, -1)


def all_values(levels, channels):
    return np.array(list(itertools.product(range(levels), repeat=channels)), np.float32)


# --- Probabilities.


@pytest.mark.parametrize("log_scale", [-20.0, -7.0, -4.0, -1.0, 2.0, 8.0])
def test_a_mixture_of_256_levels_sums_to_one(log_scale):
    output = make("mixture", 1, components=3)
    out = mixture_outputs(1, 3, log_scale, n=5)
    log_p = output.log_prob(out[:, None], all_values(256, 1))
    assert log_p.shape == (5, 256)
    np.testing.assert_allclose(np.exp(np.float64(log_p)).sum(-1), 1, atol=1e-4)


@pytest.mark.parametrize(("name", "levels"), [("bernoulli", 2), ("categorical", 4), ("mixture", 5)])
def test_three_channels_sum_to_one_over_all_triples(name, levels):
    output = make(name, 3, levels, components=2)
    out, x = RNG.normal(size=(4, 1, output.groups, output.outputs)).astype(np.float32), all_values(levels, 3)
    p = np.exp(np.float64(output.log_prob(out.repeat(len(x), 1), x[None].repeat(4, 0))))
    assert p.shape == (4, levels**3)
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-5)


def test_a_group_of_bernoulli_and_categorical_is_by_itself():
    logits = RNG.normal(size=(6, 3, 4)).astype(np.float32)
    x = RNG.integers(0, 4, (6, 3)).astype(np.float32)
    expected = np.take_along_axis(special.log_softmax(logits, -1), x.astype(int)[..., None], -1).sum((1, 2))
    np.testing.assert_allclose(make("categorical", 3, 4).log_prob(logits, x), expected, rtol=1e-5)
    bits = x // 2
    expected = stats.bernoulli.logpmf(bits, special.expit(logits[..., 0])).sum(-1)
    np.testing.assert_allclose(make("bernoulli", 3).log_prob(logits[..., :1], bits), expected, rtol=1e-5)


@pytest.mark.parametrize("log_scale", [-20.0, -6.0, -3.0, 0.0, 8.0])
@pytest.mark.parametrize(("channels", "levels"), [(1, 256), (3, 256), (3, 7)])
def test_a_mixture_is_the_formula_in_float64(channels, levels, log_scale):
    out = mixture_outputs(channels, 4, log_scale, n=400)
    x = RNG.integers(0, levels, (400, channels)).astype(np.float32)
    x[:100] = np.where(x[:100] < levels / 2, 0, levels - 1)  # the ends, which take all that is beyond
    found = make("mixture", channels, levels, 4).log_prob(out, x)
    expected = mixture_by_numpy(out, x, levels, 4)
    assert np.isfinite(found).all()
    np.testing.assert_array_less(np.abs(found - expected) / np.maximum(1, np.abs(expected)), 2e-4)


def test_a_mixture_has_finite_gradients_far_from_its_means():
    output = outputs.make("mixture", 3, components=2)
    out = jnp.asarray(mixture_outputs(3, 2, -9.0, n=50, spread=3.0))
    x = jnp.asarray(RNG.integers(0, 256, (50, 3)), jnp.float32)
    assert np.isfinite(jit(jax.grad(lambda out: output.log_prob(out, x).sum()))(out)).all()


def test_later_channels_of_a_mixture_move_with_earlier_ones():
    output = make("mixture", 3, 3, components=1)
    out = mixture_outputs(3, 1, -1.0)
    slopes = slice(7, 10)  # after a logit, three means and three log-scales

    def joint(*values):
        out[0, 0, slopes] = values
        return np.exp(np.float64(output.log_prob(out, all_values(3, 3)))).reshape(3, 3, 3)

    alone = joint(0, 0, 0)
    marginals = alone.sum((1, 2)), alone.sum((0, 2)), alone.sum((0, 1))
    np.testing.assert_allclose(alone, np.einsum("a,b,c->abc", *marginals), atol=1e-6)
    for k, (later, other) in enumerate([(1, 2), (2, 1), (2, 0)]):
        moved = joint(*np.eye(3)[k])
        np.testing.assert_allclose(moved.sum((1, 2)), marginals[0], atol=1e-6)  # the first channel moves with none
        means = moved.sum(other) @ np.arange(3) / moved.sum((later, other))
        assert np.diff(means).min() > 0.05  # a greater value before, a greater one after
        rest = moved.sum(later)
        np.testing.assert_allclose(rest, np.outer(rest.sum(1), rest.sum(0)), atol=1e-6)  # no other pair is tied


# --- Draws.


def share(x, levels):
    return np.bincount(np.asarray(x).astype(int).reshape(-1), minlength=levels) / x.size


def test_draws_on_a_grid_of_uniforms_have_the_probabilities():
    grid = ((np.arange(2000) + 0.5) / 2000).astype(np.float32)
    for name, levels in (("bernoulli", 2), ("categorical", 6)):
        output = make(name, 1, levels)
        out = RNG.normal(size=output.outputs).astype(np.float32)
        x = output.draw(jnp.broadcast_to(out, (2000, len(out))), grid[:, None], 1.0)
        p = np.exp(output.log_prob(np.tile(out, (levels, 1, 1)), all_values(levels, 1)))
        np.testing.assert_allclose(share(x, levels), p, atol=1.01 / 2000)
    output = make("mixture", 1, 9, 3)
    out = mixture_outputs(1, 3)[0, 0]
    u = np.stack(np.meshgrid(grid[::5], grid[::5]), -1).reshape(-1, 2)
    x = output.draw(jnp.broadcast_to(out, (len(u), len(out))), u, 1.0)
    np.testing.assert_allclose(share(x, 9), np.exp(output.log_prob(out[None], all_values(9, 1))), atol=4 / 400)


def test_draws_of_three_tied_channels_have_their_joint_probabilities():
    output = make("mixture", 3, 3, 2)
    out, n = mixture_outputs(3, 2, -0.5)[0, 0], 200_000
    x = np.asarray(output.draw(jnp.broadcast_to(out, (n, len(out))), jax.random.uniform(KEY, (n, 4)), 1.0))
    count = np.bincount((x @ [9, 3, 1]).astype(int), minlength=27)
    p = np.exp(np.float64(output.log_prob(out[None], all_values(3, 3))))
    assert stats.chisquare(count, n * p / p.sum()).pvalue > 1e-3


@pytest.mark.parametrize("u", [np.float32(0), HIGHEST])
@pytest.mark.parametrize(("name", "channels"), [("bernoulli", 1), ("categorical", 1), ("mixture", 1), ("mixture", 3)])
def test_draws_from_the_least_and_the_greatest_uniform_are_levels_that_can_be(name, channels, u):
    output = make(name, channels, components=3)
    out = 3 * RNG.normal(size=(100, output.groups, output.outputs)).astype(np.float32)
    for temperature in (1.0, 0.01):
        x = output.draw(out[:, 0], np.full((100, output.uniforms), u), temperature)
        assert x.shape == (100, channels)
        assert x.dtype == jnp.float32
        assert np.isin(x, np.arange(output.levels)).all()


def test_a_class_that_cannot_be_is_never_chosen():
    logits = 3 * RNG.normal(size=(200, 256)).astype(np.float32)
    logits[:, :100] = logits[:, -100:] = -1e9
    found = jit(outputs.chosen)(logits[:, None], jnp.asarray([0.0, 1e-7, 0.5, 1 - 2**-23, HIGHEST]))
    assert found.min() >= 100
    assert found.max() < 156


def test_the_chosen_class_by_hand():
    logits = np.log(np.array([0.25, 0.5, 0.25], np.float32))
    u = np.array([0, 0.2, 0.3, 0.7, 0.8, HIGHEST], np.float32)
    np.testing.assert_array_equal(outputs.chosen(logits, u), [0, 0, 1, 1, 2, 2])
    assert outputs.chosen(np.array([0, -200.0], np.float32), HIGHEST) == 0


# --- Temperature.


def test_a_low_temperature_is_the_likeliest_value_and_a_high_one_is_any():
    u = np.linspace(0, 1, 50, endpoint=False, dtype=np.float32)
    logits = np.float32([0.3, -1, 1.2, 0.5])
    draw = make("categorical", 1, 4).draw
    wide = jnp.broadcast_to(logits, (50, 4))
    assert (draw(wide, u[:, None], 0.01) == 2).all()
    np.testing.assert_allclose(share(draw(wide, u[:, None], 1e4), 4), 0.25, atol=0.02)
    for logit in (-0.5, 0.5):
        assert (make("bernoulli", 1).draw(jnp.full((49, 1), logit), u[1:, None], 0.01) == (logit > 0)).all()

    out = np.float32([0.2, 1.0, 0.5, -0.25, 0.1, 0.1])  # two logits, means, log-scales: the second is the likelier
    x = make("mixture", 1, 256, 2).draw(jnp.broadcast_to(out, (49, 6)), jnp.stack([u[1:], u[1:]], -1), 0.001)
    assert np.abs(x - 0.75 * 127.5).max() <= 2


# --- What is seen of an image.


@pytest.mark.parametrize("name", ["categorical", "mixture"])
def test_values_are_even_ranges_of_bytes(name):
    images = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    for levels in (2, 5, 8, 256):
        x = np.asarray(make(name, 1, levels).values(images, KEY))
        assert x.shape == images.shape
        assert x.dtype == np.float32
        count = np.bincount(x.astype(int).reshape(-1), minlength=levels)
        assert count.sum() == 256
        assert np.ptp(count) <= 1
        assert (np.diff(x.reshape(-1)) >= 0).all()
    np.testing.assert_array_equal(x, images)


def test_binary_values_keep_the_shape_and_are_drawn_anew_if_dynamic():
    images = jnp.asarray(RNG.integers(0, 256, (20, 4, 5, 3)), jnp.uint8)
    cut = make("bernoulli", 3, binarize="threshold").values(images, KEY)
    np.testing.assert_array_equal(cut, images >= 128)
    dynamic = make("bernoulli", 3).values
    one, other = dynamic(images, KEY), dynamic(images, jax.random.key(1))
    assert one.shape == images.shape
    assert (one != other).any()
    assert np.corrcoef(one.reshape(-1), images.reshape(-1))[0, 1] > 0.4


@pytest.mark.parametrize(("name", "levels"), [("bernoulli", 2), ("categorical", 5), ("mixture", 256)])
def test_inputs_go_from_minus_one_to_one(name, levels):
    seen = make(name, 1, levels).inputs(jnp.arange(levels, dtype=jnp.float32))
    np.testing.assert_allclose(seen, np.linspace(-1, 1, levels), atol=1e-6)
