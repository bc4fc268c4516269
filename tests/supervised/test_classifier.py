"""The classifier that judges pictures: what it is given, and what it learns."""


import numpy as np
import pytest
from tools import jit

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import classifier


def test_it_tells_digits_apart():
    digits, test = (data.load("digits", split=split) for split in ("train", "test"))
    spec = digits.spec
    config = classifier.Config(network="mlp", total_steps=400, batch_size=100, hidden_sizes=(32, 16),
                               optim=OptimConfig(learning_rate=3e-3))
    classifier.validate(config)
    driver = make_device_driver(lambda c: classifier.make_run(c, spec), [config], digits.on_device(), [0], quick=True)
    state, report = driver.chunk(driver.start(), 400)
    assert report.metrics["accuracy"].total > 0.7 * report.metrics["accuracy"].count  # from the first update on
    model = classifier.make(config, spec)
    logits, features = jit(lambda p, x: (model.logits(p, x), model.features(p, x)))(driver.params(state), test.images)
    assert (logits.shape, features.shape) == ((360, 10), (360, 16))
    assert (logits.argmax(-1) == test.labels).mean() > 0.85
    head = driver.params(state).params["params"]["head"]
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], logits, rtol=1e-4, atol=1e-4)


def test_it_needs_labels_and_widths():
    with pytest.raises(UserError, match="a classifier needs labels, and the dataset x has none"):
        classifier.make(classifier.Config(), DataSpec("x", 10, (4, 4, 1)))
    with pytest.raises(UserError, match="hidden_sizes must be one or more widths above 0"):
        classifier.validate(classifier.Config(hidden_sizes=()))
