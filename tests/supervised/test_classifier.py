"""The classifier that judges pictures: what it is given, and what it learns."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec
from jaxdl.data import augment
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import classifier


def test_images_are_moved_by_whole_pixels_each_its_own_way():
    images = jnp.arange(1, 251, dtype=jnp.uint8)[:, None, None, None] * jnp.zeros((1, 7, 7, 1), jnp.uint8).at[0, 3, 3, 0].set(1)
    moved = np.asarray(augment.shifted(images, jax.random.key(0), 2))
    assert (moved.shape, moved.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(moved.sum((1, 2, 3)), np.arange(1, 251))
    places = {tuple(int(i) for i in np.argwhere(image)[0][:2]) for image in moved}
    assert places == {(i, j) for i in range(1, 6) for j in range(1, 6)}
    np.testing.assert_array_equal(augment.shifted(images, jax.random.key(0), 0), images)


def test_it_tells_digits_apart():
    digits, test = (data.load("digits", split=split) for split in ("train", "test"))
    spec = digits.spec
    config = classifier.Config(network="mlp", total_steps=400, max_shift=0, hidden_sizes=(32, 16))
    classifier.validate(config)
    driver = make_device_driver(lambda c: classifier.make_run(c, spec), [config], digits.on_device(), [0], quick=True)
    state, report = driver.chunk(driver.start(), 400)
    assert report.metrics["accuracy"].total > 0.7 * report.metrics["accuracy"].count  # from the first update on
    model = classifier.make(config, spec)
    logits, features = jit(lambda p, x: (model.logits(p, x), model.features(p, x)))(driver.params(state), test.images)
    assert (logits.shape, features.shape) == ((360, 10), (360, 16))
    assert (logits.argmax(-1) == test.labels).mean() > 0.85
    head = driver.params(state)["params"]["CategoricalHead_0"]["Dense_0"]
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, rtol=1e-4, atol=1e-4)


def test_it_needs_labels_and_widths():
    with pytest.raises(UserError, match="a classifier needs labels, and the dataset x has none"):
        classifier.make(classifier.Config(), DataSpec("x", 10, (4, 4, 1)))
    with pytest.raises(UserError, match="hidden_sizes must be one or more widths above 0"):
        classifier.validate(classifier.Config(hidden_sizes=()))
