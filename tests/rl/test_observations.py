"""What networks take observations for: classes, pictures with their axes, bytes, vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from gymnasium import spaces

from jaxdl import nn
from jaxdl.rl import observations
from jaxdl.rl.types import EnvSpec, Stack


def spec_of(space, stacked=False):
    return EnvSpec("Some-v0", space, spaces.Discrete(2), None, Stack(space.shape[0], "repeat") if stacked else None)


def form_of(shape, dtype=np.uint8, high=255, stacked=False):
    return observations.form(spec_of(spaces.Box(0, high, shape, dtype), stacked))


class Encoder(linen.Module):
    form: nn.Form

    @linen.compact
    def __call__(self, obs):
        return nn.encode(obs, self.form)


def encoded(obs, form):
    """Features, and the shapes of the parameters, of a network with fixed weights."""
    encoder = Encoder(form)
    params = encoder.init(jax.random.key(0), obs)
    return np.asarray(encoder.apply(params, obs)), jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize(("shape", "picture", "doubtful"), [
    ((40, 40, 1), "HWC", False), ((40, 40, 3), "HWC", False), ((210, 160, 3), "HWC", False), ((10, 10, 7), "HWC", False),
    ((5, 5, 20), "HWC", False), ((3, 3, 3), "HWC", False), ((1, 40, 40), "CHW", False), ((3, 40, 40), "CHW", False),
    ((4, 84, 84), "CHW", False), ((3, 210, 160), "CHW", False), ((7, 10, 10), "CHW", False), ((4, 12, 48), "HWC", True),
    ((40, 3, 40), "HWC", True), ((1, 5, 9), "HWC", False)])
def test_the_channels_of_a_picture_are_found_by_its_shape_or_said_to_be_in_doubt(shape, picture, doubtful):
    for dtype, high in ((np.uint8, 255), (np.float32, 1)):
        assert form_of(shape, dtype, high).picture == picture
        sentence = observations.doubt(spec_of(spaces.Box(0, high, shape, dtype)))
        assert (sentence is not None) == doubtful
    stacked = spaces.Box(0, 255, (2, *shape), np.uint8)
    assert observations.form(spec_of(stacked, stacked=True)) == nn.Form(True, picture, True)
    if doubtful:
        assert f"{list(shape)}, are read as pictures of {shape[0]} x {shape[1]} pixels with {shape[2]} channels" in sentence


@pytest.mark.parametrize("side", [10, 40])
def test_a_picture_is_the_same_in_every_order_of_its_axes(side):
    images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    wanted, shapes = encoded(images, form_of((side, side, 3)))
    for obs, form in ((images.transpose(0, 3, 1, 2), form_of((3, side, side))),):
        found, same = encoded(obs, form)
        assert same == shapes
        np.testing.assert_array_equal(found, wanted)
    grey = images[..., :1]
    wanted, shapes = encoded(grey, form_of((side, side, 1)))
    for obs, form in ((grey[..., 0], form_of((side, side))), (grey.transpose(0, 3, 1, 2), form_of((1, side, side)))):
        found, same = encoded(obs, form)
        assert same == shapes
        np.testing.assert_array_equal(found, wanted)


def test_frames_of_a_stack_are_channels_in_every_order_of_the_axes():
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 10, 10, 3)).astype(np.uint8)
    plain = np.moveaxis(frames, 1, -1).reshape(2, 10, 10, 12)  # as networks of earlier versions have them
    wanted, _ = encoded(plain, nn.Form(picture="HWC", scaled=True))
    for obs in (frames, np.moveaxis(frames, -1, 2)):
        np.testing.assert_array_equal(encoded(obs, form_of(obs.shape[1:], stacked=True))[0], wanted)
    grey = frames[..., 0]
    wanted, _ = encoded(np.moveaxis(grey, 1, -1), nn.Form(picture="HWC", scaled=True))
    np.testing.assert_array_equal(encoded(grey, form_of((4, 10, 10), stacked=True))[0], wanted)


@pytest.mark.parametrize(("shape", "dtype", "high", "divisor"), [
    ((6,), np.uint8, 255, 255), ((2, 3), np.uint8, 255, 255), ((2, 2, 3), np.uint8, 255, 255), ((6,), np.uint8, 5, 1),
    ((9, 9), np.uint8, 12, 1), ((9, 9), np.float32, 255, 1), ((6,), np.int32, 255, 1)])
def test_bytes_that_no_convolution_reads_are_numbers_from_0_to_1_and_others_are_as_they_are(shape, dtype, high, divisor):
    obs = np.arange(2 * np.prod(shape)).reshape(2, *shape).astype(dtype)
    found, params = encoded(obs, form_of(shape, dtype, high))
    assert params == {}
    np.testing.assert_allclose(found, obs.reshape(2, -1) / divisor, rtol=1e-6)


@pytest.mark.parametrize(("space", "numbers", "hot"), [
    (spaces.Discrete(3), [2, 0], [[0, 0, 1], [1, 0, 0]]),
    (spaces.Discrete(3, start=-2), [-2, 0], [[1, 0, 0], [0, 0, 1]]),
    (spaces.Discrete(3, start=2**31 - 3), [2**31 - 3, 2**31 - 1], [[1, 0, 0], [0, 0, 1]]),
    (spaces.Discrete(120, dtype=np.int8, start=-128), [-128, -9], np.eye(120)[[0, 119]]),
    (spaces.MultiDiscrete([2, 3]), [[1, 0], [0, 2]], [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]),
    (spaces.MultiDiscrete([2, 3], start=[5, -1]), [[6, -1], [5, 1]], [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]),
    (spaces.MultiDiscrete([[2], [3]]), [[[1], [0]], [[0], [2]]], [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]])])
def test_classes_are_one_hot_wherever_they_begin(space, numbers, hot):
    obs = np.array(numbers, space.dtype).astype(np.int32 if space.dtype == np.int64 else space.dtype)
    np.testing.assert_array_equal(encoded(obs, observations.form(spec_of(space)))[0], hot)
