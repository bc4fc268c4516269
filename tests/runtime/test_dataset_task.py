"""Held-out examples: a validation split of training chooses, the test examples judge, whatever the order of the file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl import data
from jaxdl.core.config import from_dict
from jaxdl.core.errors import UserError
from jaxdl.core.types import Mean
from jaxdl.data import from_arrays, from_tree
from jaxdl.runtime import dataset_task
from jaxdl.runtime.dataset_task import Evaluation, TrainConfig, blocks, for_validation

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (200, 4, 4)).astype(np.uint8), np.sort(RNG.integers(0, 4, 200))
DATA = from_arrays(IMAGES, LABELS, "tiny")


def rows_of(dataset):
    return {image.tobytes() for image in dataset.images}


def test_a_tenth_of_training_validates_and_the_order_of_the_file_does_not_matter():
    learned, held = for_validation(DATA, TrainConfig(eval_every=10))
    assert (learned.spec.num_examples, held.spec.num_examples) == (180, 20) == (len(learned.images), len(held.images))
    assert rows_of(learned) | rows_of(held) == rows_of(DATA)
    assert len(np.unique(held.labels)) == 4  # the file is sorted by class
    order = RNG.permutation(200)
    again = for_validation(from_arrays(IMAGES[order], LABELS[order], "other"), TrainConfig(eval_every=10))
    assert [rows_of(x) for x in again] == [rows_of(learned), rows_of(held)]
    assert rows_of(for_validation(DATA, TrainConfig(eval_every=10, validation=50))[1]) > rows_of(held)
    assert (data.drawn(DATA, "validation") != data.drawn(DATA, "judging")).any()


def test_nothing_is_held_out_where_nothing_is_chosen():
    for config in (TrainConfig(), TrainConfig(eval_every=5, validation=0)):
        assert for_validation(DATA, config) == (DATA, None)
    assert from_dict(TrainConfig, {"eval_every": 5}).validation == 0  # of a run before there was such a split
    with pytest.raises(UserError, match="validation=20 is of eval_every"):
        for_validation(DATA, TrainConfig(validation=20))
    for wrong in (-1, 200):
        with pytest.raises(UserError, match=f"validation must be at least 0 and at most 199.*got {wrong}"):
            for_validation(DATA, TrainConfig(eval_every=5, validation=wrong))


def test_of_a_stream_the_end_is_held_out():
    learned, held = for_validation(from_tree({"tokens": np.arange(100, dtype=np.int32)}), TrainConfig(eval_every=5))
    np.testing.assert_array_equal(learned.arrays["tokens"], np.arange(90))
    np.testing.assert_array_equal(held.arrays["tokens"], np.arange(90, 100))


def test_every_batch_that_is_evaluated_has_noise_of_its_own():
    keys = [jax.random.key_data(key).tobytes() for seed in (0, 1) for key, _ in blocks(DATA, seed, 30)]
    assert len(set(keys)) == 14
    trained = [key for seed in (0, 1) for key in (jax.random.key(seed), *jax.random.split(jax.random.key(seed), 8))]
    assert not set(keys) & {jax.random.key_data(key).tobytes() for key in trained}
    model = type("Model", (), {"measure": staticmethod(
        lambda params, batch, key: {"noise": Mean.of(jax.random.normal(key, (len(batch.images),))),
                                    "light": Mean.of(batch.images)})})
    found = dataset_task._measured(model, Evaluation(None))
    options = type("Options", (), {"seed": 0, "validate": lambda self: None})()
    told = found(jnp.zeros(()), options, DATA)
    expected = [jax.random.normal(key, (100,)) for key, _ in blocks(DATA, 0)]
    assert told["noise"] == pytest.approx(float(np.concatenate(expected).mean()), abs=1e-5)
    assert (told["num"], told["light"]) == (200, pytest.approx(IMAGES.mean(), rel=1e-5))
