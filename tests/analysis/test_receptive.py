"""Receptive fields and filters: known by formula for convolutions made by hand, whatever computes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from tools import assert_close, jit, random_like

from jaxdl import nn
from jaxdl.analysis import layers, receptive
from jaxdl.core.errors import UserError
from jaxdl.nn.pooling import max_pool
from jaxdl.supervised import networks

KEY = jax.random.key(0)


def function(net, shape):
    params = random_like(jit(net.init)(KEY, jnp.zeros((1, *shape))))
    return lambda x: net.apply(params, x)


class Stack(linen.Module):
    """Convolutions (window, stride, padding), ReLUs, a pool before the last, and a dense layer of one size."""

    sizes: tuple = ((3, 1, "SAME"), (5, 2, "VALID"), (3, 1, "SAME"))
    channels: int = 4

    @linen.compact
    def __call__(self, x):
        for i, (window, stride, padding) in enumerate(self.sizes):
            if i == len(self.sizes) - 1:
                x = max_pool(x)
            x = jax.nn.relu(nn.Conv(self.channels, (window, window), (stride, stride), padding)(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


def by_formula(side, steps):
    """Intervals of an axis, through steps (window, stride, zeros before, size of the output)."""
    at = np.arange(steps[-1][3])
    first, last = at, at
    for i, (window, stride, low, _) in reversed(list(enumerate(steps))):
        size = steps[i - 1][3] if i else side
        first = np.clip(first * stride - low, 0, size - 1)
        last = np.clip(last * stride - low + window - 1, 0, size - 1)
    return np.stack([first, last + 1], 1)


@pytest.mark.parametrize("channels", [4, 64])  # of 64 channels, 3x3 are computed by fewer products on a CPU
def test_fields_are_those_of_the_formula(channels):
    side = 25
    f = function(Stack(channels=channels), (side, side, 2))
    steps = [(3, 1, 1, 25), (5, 2, 0, 11), (2, 2, 0, 5), (3, 1, 1, 5)]
    for layer, upto in {"Conv_0": 1, "Conv_1": 2, "Conv_2": 4}.items():
        want = by_formula(side, steps[:upto])
        found = receptive.fields(f, layer, (side, side, 2), KEY)
        np.testing.assert_array_equal(found.rows, want, err_msg=layer)
        np.testing.assert_array_equal(found.columns, want, err_msg=layer)
    assert receptive.fields(f, "Conv_2", (side, side, 2), KEY).size == (17, 17)  # 3 + 4, + 2 of the pool, + 4 * 2
    dense = receptive.fields(f, "Dense_0", (side, side, 2), KEY)
    # the pool leaves the last of 11 rows out: 2 * 9 + 5, and one more
    assert (dense.rows.tolist(), dense.columns.tolist()) == ([[0, 24]], [[0, 24]])


def test_rows_between_strides_are_gaps_and_rows_and_columns_are_told_apart():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = nn.Conv(2, (1, 1), (3, 2), "VALID")(x)
            return nn.Conv(2, (2, 3), (1, 1), "VALID")(x)

    found = receptive.fields(function(Net(), (12, 14, 1)), "Conv_1", (12, 14, 1), KEY)
    np.testing.assert_array_equal(found.rows, [[3 * i, 3 * i + 4] for i in range(3)])
    np.testing.assert_array_equal(found.columns, [[2 * i, 2 * i + 5] for i in range(5)])


def test_a_unit_depends_on_what_was_cut_out_and_on_nothing_else():
    side = 16
    net = Stack(sizes=((3, 1, "SAME"), (3, 1, "SAME")))
    f = function(net, (side, side, 1))
    maps, fields = receptive.maps_of(f, "Conv_1"), receptive.fields(f, "Conv_1", (side, side, 1), KEY)
    x = jax.random.uniform(KEY, (1, side, side, 1))
    for i, j in ((0, 0), (3, 7), (7, 2)):
        (top, after), (left, behind) = fields.rows[i], fields.columns[j]
        only = jnp.zeros_like(x).at[:, top:after, left:behind].set(x[:, top:after, left:behind])
        assert_close(maps(only)[0, i, j], maps(x)[0, i, j])
        for less in (only.at[:, top].set(0), only.at[:, after - 1].set(0), only.at[:, :, left].set(0)):
            assert np.abs(maps(less) - maps(x))[0, i, j].max() > 1e-6


def test_what_is_cut_out_lies_where_the_unit_sees_it():
    fields = receptive.Fields(np.array([[0, 2], [0, 3], [1, 4], [2, 4]]), np.array([[0, 3], [2, 4]]))
    picture = np.arange(16.0).reshape(4, 4, 1)
    np.testing.assert_array_equal(receptive.cut(picture, fields, (2, 0), -1)[..., 0], picture[1:4, :3, 0])
    np.testing.assert_array_equal(receptive.cut(picture, fields, (0, 0), -1)[..., 0], [[-1] * 3, [0, 1, 2], [4, 5, 6]])
    np.testing.assert_array_equal(receptive.cut(picture, fields, (3, 1), -1)[..., 0], [[10, 11, -1], [14, 15, -1], [-1] * 3])


def test_filters_are_the_weights():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = nn.Conv(5, (3, 5), (2, 1))(x)
            return nn.Conv(2, (3, 3))(jax.nn.relu(x))

    shape = (16, 16, 3)
    params = random_like(jit(Net().init)(KEY, jnp.zeros((1, *shape))))
    f = lambda x: Net().apply(params, x)  # noqa: E731
    found = receptive.filters(f, "Conv_0", shape, KEY)
    assert_close(found, np.asarray(params["params"]["Conv_0"]["kernel"]).transpose(3, 0, 1, 2), rtol=1e-4)
    with pytest.raises(UserError, match="Conv_1 is not linear"):
        receptive.filters(f, "Conv_1", shape, KEY)


def test_the_first_part_of_a_network_takes_pictures_of_any_size():
    f = function(Stack(), (25, 25, 1))
    x = jax.random.uniform(KEY, (2, 41, 33, 1))
    with pytest.raises(Exception, match="Dense_0"):  # of one size
        f(x)
    found = jit(layers.upto(f, ["Conv_1", "Conv_0"]))(x)
    assert set(found) == {"Conv_1", "Conv_0"}
    assert found["Conv_0"].shape == (2, 41, 33, 4)
    small = x[:, :25, :25]
    assert_close(layers.upto(f, ["Conv_1"])(small), layers.activations(f, ["Conv_1"])(small)[1])
    with pytest.raises(UserError, match=r"Conv_4.*did you mean 'Conv_"):
        layers.upto(f, ["Conv_4"])(small)


def test_a_network_keeps_the_form_of_the_pictures_it_was_made_for():
    net = networks.make(networks.Network("resnet", 10, depth=8, narrower=8), (32, 32, 3))
    variables = jit(net.init)(KEY)
    first = layers.upto(lambda x: net.apply(variables, x), ["cnn/Conv_0"])
    assert jax.eval_shape(first, jnp.zeros((1, 128, 128, 3)))["cnn/Conv_0"].shape == (1, 128, 128, 2)  # not a stride of 2
