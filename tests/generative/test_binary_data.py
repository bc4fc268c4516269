"""Data that is binary already, such as the fixed binarizations of the literature, trains as it is: binarize=none."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec, Examples
from jaxdl.generative import likelihoods, vae
from jaxdl.generative.pixel import pixelcnn, pixelrnn
from jaxdl.runtime import dataset_task

BITS = np.array(list(itertools.product((0, 1), repeat=9)), np.uint8).reshape(512, 3, 3, 1)
SPEC = DataSpec("bits", 512, (3, 3, 1))
SMALL = {"width": 6, "num_blocks": 1, "window": 3, "head_features": 12, "binarize": "none"}


@pytest.mark.parametrize("top", [1, 255])
def test_the_log_likelihood_is_that_of_the_bits_that_are_stored(top):
    logits = np.random.default_rng(0).normal(size=(512, 1, 9)) * 3
    likelihood = likelihoods.make("bernoulli", "none")
    x = likelihood.target(jnp.asarray(top * BITS), jax.random.key(0))
    p, bits = 1 / (1 + np.exp(-logits[:, 0])), BITS.reshape(512, 9).astype(np.float64)
    exact = (bits * np.log(p) + (1 - bits) * np.log(1 - p)).sum(-1)
    np.testing.assert_allclose(likelihood.log_prob(jnp.asarray(logits), x), exact, rtol=1e-5)


@pytest.mark.parametrize(("module", "settings"), [(pixelcnn, {"variant": "gated"}), (pixelrnn, {"variant": "row"})])
def test_the_density_of_a_model_of_pixels_is_that_of_the_bits_whatever_the_key(module, settings):
    model = module.make(module.Config(**SMALL, **settings), SPEC)
    params = jit(lambda key: model.learner.params(model.learner.init(key)))(jax.random.key(0))
    log_prob = jit(lambda images, key: model.log_prob(params, Examples(images), key))
    found = [log_prob(jnp.asarray(top * BITS), jax.random.key(top)) for top in (1, 255)]
    np.testing.assert_array_equal(*found)
    assert float(jax.nn.logsumexp(found[0])) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("make", "config"), [
    (vae.make, vae.Config(binarize="none")), (pixelcnn.make, pixelcnn.Config(**SMALL)),
    (pixelrnn.make, pixelrnn.Config(**SMALL))])
def test_images_that_are_not_binary_are_refused_by_name(make, config):
    grey = data.load("digits").spec
    with pytest.raises(UserError, match=r"binarize=none takes images that are binary.*the dataset digits have other values"):
        make(config, grey)
    make(config, grey._replace(binary=True))


def test_other_likelihoods_do_not_ask_for_binary_images():
    vae.make(vae.Config(likelihood="gaussian", binarize="none"), data.load("digits").spec)


def test_a_split_with_other_values_makes_the_dataset_one_that_is_not_binary(tmp_path):
    np.savez(tmp_path / "mine.npz", train_images=255 * BITS, test_images=BITS)
    assert [d.spec.binary for d in data.load_splits("arrays", tmp_path)] == [True, True]
    np.savez(tmp_path / "mine.npz", train_images=255 * BITS, test_images=7 * BITS)
    assert [d.spec.binary for d in data.load_splits("arrays", tmp_path)] == [False, False]


@pytest.mark.parametrize(("top", "said"), [
    (1, "bytes from 0 to 1, and 255 is white.*multiply them by 255, or --binarize none"),
    (3, "bytes from 0 to 3, and 255 is white.*whatever --levels says.*multiply them by 85$")])
def test_bytes_that_hardly_begin_to_be_grey_are_said_with_the_remedy(top, said):
    dark = data.from_arrays(top * BITS)
    assert re.search(said, dataset_task.too_dark(dark, vae.Config()))
    assert dataset_task.too_dark(dark, vae.Config(binarize="none")) is None


@pytest.mark.parametrize("images", [255 * BITS, BITS.astype(bool), BITS.astype(np.float32), 0 * BITS, 16 * BITS])
def test_nothing_is_said_of_images_that_are_white_somewhere(images):
    assert dataset_task.too_dark(data.from_arrays(images), vae.Config()) is None
