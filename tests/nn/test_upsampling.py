"""Twice the sides, each way against a plain form; what leaves a checkerboard; networks of pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from tools import assert_close, jit, random_like

from jaxdl.nn import unet, upsampling
from jaxdl.nn.upsampling import LEARNED, Kind, Upsample

RNG = np.random.default_rng(0)
X = np.float32(RNG.normal(size=(2, 3, 4, 5)))
KINDS = Kind.__args__


def test_nearest_and_nails_are_copies():
    near, nails = np.zeros((2, 6, 8, 5), np.float32), np.zeros((2, 6, 8, 5), np.float32)
    for b, y, x, c in np.ndindex(X.shape):
        near[b, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2, c] = X[b, y, x, c]
        nails[b, 2 * y, 2 * x, c] = X[b, y, x, c]
    np.testing.assert_array_equal(upsampling.nearest(X), near)
    np.testing.assert_array_equal(upsampling.bed_of_nails(X), nails)


def test_maxima_go_back_to_where_they_were():
    """The first of equal ones; what a pool left out comes back as zeros."""
    tall = np.float32(RNG.integers(0, 4, (2, 6, 4, 3)))
    pooled, places = upsampling.max_pool_places(jnp.asarray(tall))
    back = np.asarray(upsampling.max_unpool(pooled, places))
    expected = np.zeros_like(tall)
    for b, y, x, c in np.ndindex(2, 3, 2, 3):
        window = tall[b, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2, c]
        i, j = np.unravel_index(window.argmax(), (2, 2))
        expected[b, 2 * y + i, 2 * x + j, c] = window.max()
        assert pooled[b, y, x, c] == window.max()
        assert places[b, y, x, c] == 2 * i + j
    np.testing.assert_array_equal(back, expected)
    again, same = upsampling.max_pool_places(jnp.asarray(back + 1))
    np.testing.assert_array_equal(again, pooled + 1)
    assert (same == places)[pooled > 0].all()
    odd, of_odd = upsampling.max_pool_places(jnp.asarray(RNG.normal(size=(1, 5, 7, 1)), jnp.float32))
    assert odd.shape == of_odd.shape == (1, 2, 3, 1)


def test_linear_is_between_centres():
    rows = (np.arange(6) + 0.5) / 2 - 0.5
    columns = (np.arange(8) + 0.5) / 2 - 0.5
    across = np.stack([[[np.interp(columns, np.arange(4), X[b, y, :, c]) for c in range(5)] for y in range(3)]
                       for b in range(2)])  # [B, H, C, 2W]
    expected = np.stack([[[np.interp(rows, np.arange(3), across[b, :, c, x]) for c in range(5)] for x in range(8)]
                         for b in range(2)]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(upsampling.linear(jnp.asarray(X)), expected, atol=1e-5)


def plain_transposed(x, kernel, bias):
    """Each pixel adds its window; windows begin two apart, and the border is cut so that sides are doubled."""
    b, h, w, _ = x.shape
    size = kernel.shape[0]
    whole = np.zeros((b, 2 * h + size, 2 * w + size, kernel.shape[-1]))
    for y, x_ in np.ndindex(h, w):
        whole[:, 2 * y : 2 * y + size, 2 * x_ : 2 * x_ + size] += np.einsum("bc,ijcd->bijd", x[:, y, x_], kernel)
    cut = (size - 2) // 2
    return whole[:, cut : cut + 2 * h, cut : cut + 2 * w] + bias


@functools.cache
def made(kind, features=3):
    layer = Upsample(kind, features)
    return layer, random_like(layer.init(jax.random.key(0), X, jnp.zeros((*X.shape[:3], features), jnp.uint8)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_way_is_its_plain_form(kind):
    layer, params = made(kind)
    places = jnp.asarray(RNG.integers(0, 4, (2, 3, 4, 3)), jnp.uint8)
    out = jit(layer.apply)(params, X, places)
    assert out.shape == (2, 6, 8, 3)
    own, = params["params"].values()
    if kind.startswith("transposed"):
        forms = [own["kernel"], own["kernel"][::-1, ::-1]]  # either way of counting a window's rows and columns
        assert min(np.abs(out - plain_transposed(X, np.asarray(k), own["bias"])).max() for k in forms) < 1e-5
        return
    convolved = lambda x: linen.Conv(3, (3, 3)).apply({"params": own}, x)  # noqa: E731
    expected = {"nearest": lambda: upsampling.nearest(convolved(X)),
                "bed_of_nails": lambda: upsampling.bed_of_nails(convolved(X)),
                "max_unpool": lambda: upsampling.max_unpool(convolved(X), places),
                "resize": lambda: convolved(upsampling.linear(jnp.asarray(X)))}[kind]()
    assert_close(out, expected, 1e-4, 1e-5)


@pytest.mark.parametrize("kind", LEARNED)
def test_windows_that_meet_unevenly_leave_a_checkerboard(kind):
    """Of a constant picture with constant weights: how far neighbours inside are apart, in shares of their mean."""
    layer, params = made(kind, 1)
    constant = jax.tree.map(lambda x: jnp.zeros_like(x) if x.ndim == 1 else jnp.ones_like(x), params)
    inside = np.asarray(layer.apply(constant, jnp.ones((1, 6, 6, 5))))[0, 3:-3, 3:-3, 0]
    if kind == "transposed_3":  # one pixel, two or four add up
        np.testing.assert_array_equal(np.unique(inside), [5, 10, 20])
    else:
        assert np.ptp(inside) < 1e-5 * inside.mean()


@pytest.mark.parametrize("network", ["fcn", "unet"])
@pytest.mark.parametrize("kind", KINDS)
def test_networks_give_each_pixel_scores(network, kind):
    net = unet.PixelNetwork(network, 4, (3, 4, 5), kind)
    shapes = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x), jnp.zeros((2, 12, 8, 3)))
    assert shapes[0].shape == (2, 12, 8, 4)
    assert shapes[0].dtype == jnp.float32
    if kind in LEARNED:
        assert any("Upsample" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes[1]))


def test_fully_convolutional_scores_are_sums_of_levels():
    """Without what is above the lowest level, a constant: a sum of each level's scores, which are made twice as large."""
    net = unet.PixelNetwork("fcn", 2, (3, 4), "transposed_2", norm=None)
    x = jnp.asarray(RNG.normal(size=(1, 4, 4, 1)), jnp.float32)
    params = random_like(net.init(jax.random.key(0), x))["params"]
    block = lambda name, x, features: unet.ConvBlock(features, None).apply({"params": params[name]}, x)  # noqa: E731
    high = block("ConvBlock_0", x, 3)
    low = block("ConvBlock_1", linen.max_pool(high, (2, 2), (2, 2)), 4)
    scores = lambda name, x: x @ params[name]["kernel"][0, 0] + params[name]["bias"]  # noqa: E731
    up = Upsample("transposed_2", 2).apply({"params": params["Upsample_0"]}, scores("Conv_0", low))
    assert_close(net.apply({"params": params}, x), scores("Conv_1", high) + up, 1e-4, 1e-5)


def test_what_is_beside_a_pixel_changes_it_and_far_away_nothing_does():
    """A U-Net of two levels sees as far as its convolutions reach."""
    net = unet.PixelNetwork("unet", 2, (3, 3), norm=None)
    x = jnp.asarray(RNG.normal(size=(1, 32, 32, 1)), jnp.float32)
    params = random_like(net.init(jax.random.key(0), x))
    grad = jit(jax.grad(lambda x: net.apply(params, x)[0, 16, 16, 0]))(x)[0, :, :, 0]
    reached = np.flatnonzero(np.abs(grad).sum(1))
    assert reached.min() >= 16 - 12
    assert reached.max() <= 16 + 12
    assert reached.max() - reached.min() > 8


def test_a_backbone_halves_sides_from_level_to_level():
    net = unet.Backbone((3, 4, 5))
    shape = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], jnp.zeros((2, 20, 13, 3)))
    assert shape.shape == (2, 3, 2, 5)
