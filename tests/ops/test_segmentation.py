"""Losses of maps of classes, against NumPy; and intersection over union by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from maps import MAPS

from jaxdl.core.axis import AXIS
from jaxdl.metrics import classification
from jaxdl.ops import segmentation

RNG = np.random.default_rng(0)
TRUTH = RNG.choice(4, (4, 5, 6), p=[0.7, 0.25, 0.05, 0.0])
SCORES = np.float32(RNG.normal(size=(4, 5, 6, 4)))


def test_dice_is_of_the_classes_that_a_picture_has():
    p = np.exp(SCORES) / np.exp(SCORES).sum(-1, keepdims=True)
    expected = []
    for one, truth in zip(p, TRUTH, strict=True):
        dice = [2 * one[truth == c, c].sum() / (one[..., c].sum() + (truth == c).sum()) for c in np.unique(truth)]
        expected.append(1 - np.mean(dice))
    np.testing.assert_allclose(segmentation.dice_loss(SCORES, TRUTH), expected, rtol=1e-5)
    sure = 50 * jax.nn.one_hot(TRUTH, 4)
    np.testing.assert_allclose(segmentation.dice_loss(sure, TRUTH), 0, atol=1e-5)
    np.testing.assert_allclose(segmentation.dice_loss(jnp.roll(sure, 1, -1), TRUTH), 1, atol=1e-5)
    assert np.isfinite(jax.grad(lambda z: segmentation.dice_loss(z, TRUTH).sum())(50 * SCORES)).all()


@pytest.mark.parametrize("balance", [0.0, 0.25, 1.0])
def test_weights_of_classes_have_the_mean_one(balance):
    weights = np.asarray(segmentation.class_weights(jnp.asarray(TRUTH), 4, balance))
    num = np.bincount(TRUTH.ravel(), minlength=4)
    assert weights[3] == 0  # there is none
    np.testing.assert_allclose(weights[TRUTH].mean(), 1, rtol=1e-5)
    np.testing.assert_allclose(weights[:3] / weights[0], (num[:3] / num[0]) ** -balance, rtol=1e-5)
    if balance == 1:
        np.testing.assert_allclose(weights[:3] * num[:3], num.sum() / 3, rtol=1e-5)


@pytest.mark.parametrize("how", MAPS)
def test_weights_are_of_the_pixels_of_all_shards(how):
    expected = segmentation.class_weights(jnp.asarray(TRUTH), 4, 0.5)
    found = MAPS[how](lambda part, balance: segmentation.class_weights(part, 4, balance, AXIS), 2)(
        jnp.asarray(TRUTH).reshape(2, 2, 5, 6), jnp.float32(0.5))
    for shard in np.asarray(found):
        np.testing.assert_allclose(shard, expected, rtol=1e-6)


def test_intersection_over_union_by_hand():
    """Two classes, one that is never there and said once, and one of neither."""
    truth, said = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2])
    overlap = classification.iou(classification.confusion(said, truth, 4))
    np.testing.assert_allclose(overlap, [2 / 3, 1 / 3, 0, np.nan])
