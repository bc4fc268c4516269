"""A dataset is a tree of arrays and a spec of it, whatever the tree."""

import json
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jaxdl import data
from jaxdl.core.errors import DataError
from jaxdl.core.types import ArraySpec, DataSpec, Examples
from jaxdl.data.dataset import held_out


def test_images_of_ones_own():
    grey = data.from_arrays(np.zeros((4, 3, 2), np.uint8), [0, 1, 2, 300], name="mine")
    assert (grey.images.shape, grey.labels.dtype, grey.name) == ((4, 3, 2, 1), np.int32, "mine")
    assert grey.labels.tolist() == [0, 1, 2, 300]
    assert grey.spec[:4] == ("mine", 4, (3, 2, 1), 301)
    assert (grey.spec.input, grey.spec.target, grey.spec.size) == ("images", "labels", 6)
    colour = data.from_arrays(np.zeros((4, 3, 2, 4), np.uint8))
    assert (colour.images.shape, colour.labels, colour.spec.num_classes, colour.spec.target) == ((4, 3, 2, 4), None, None, None)


def test_floats_become_the_nearest_byte_and_booleans_black_and_white():
    x = np.array([0, 0.001, 0.0021, 0.5, 0.999, 1], np.float32).reshape(1, 2, 3)
    assert data.from_arrays(x).images.ravel().tolist() == [0, 0, 1, 128, 255, 255]
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for dtype in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(data.from_arrays((every / 255).astype(dtype)).images[..., 0], every)
    assert data.from_arrays(np.array([[[True, False]]])).images.ravel().tolist() == [255, 0]
    assert data.from_arrays(np.array([[[1, 0]]], np.uint8)).images.ravel().tolist() == [1, 0]


@pytest.mark.parametrize(("images", "labels", "message"), [
    (np.full((2, 3, 3), 1.01), None, r"images of float64 must lie in \[0, 1\], got values from 1.01 to 1.01; divide"),
    (np.full((2, 3, 3), -0.1), None, "from -0.1 to -0.1"),
    (np.full((2, 3, 3), np.nan), None, "from nan to nan"),
    (np.zeros((2, 3, 3), int), None, "images must be uint8.*got int64"),
    (np.zeros((2, 9), np.uint8), None, r"images must have shape .*got \[2, 9\]"),
    (np.zeros((0, 3, 3), np.uint8), None, r"no size 0, got \[0, 3, 3\]"),
    (np.zeros((2, 3, 8, 8), np.uint8), None, r"channels last.*\[2, 3, 8, 8\] looks like \[N, C, H, W\]; transpose"),
    (np.zeros((2, 1, 8, 8)), None, r"\[2, 1, 8, 8\] looks like"),
    ([[[1, 2], [3]]], None, "images cannot be made an array"),
    (np.zeros((2, 3, 3), np.uint8), [1, 2, 3], r"of shape \[2\].*got int64 of shape \[3\]"),
    (np.zeros((2, 3, 3), np.uint8), [0.0, 1.0], "labels must be integers.*got float64"),
    (np.zeros((2, 3, 3), np.uint8), [0, -1], "got labels from -1 to 0"),
    (np.zeros((2, 3, 3), np.uint8), [0, 2**31], "got values from 0 to 2147483648"),
])
def test_images_that_cannot_be_read_for_certain_are_refused(images, labels, message):
    with pytest.raises(DataError, match=message):
        data.from_arrays(images, labels)


class Scene(NamedTuple):
    picture: np.ndarray
    boxes: dict


def scenes(n=6):
    kinds = np.arange(5 * n).reshape(n, 5) % 7
    return Scene(np.zeros((n, 4, 4, 3), np.uint8), {"corners": np.zeros((n, 5, 4)), "kinds": kinds})


def test_any_tree_of_arrays_is_a_dataset():
    dataset = data.from_tree(scenes(), "scenes", target="boxes.kinds", num_classes=7)
    assert dataset.spec == DataSpec(
        "scenes", 6, (4, 4, 3), 7, None, None,
        (ArraySpec("picture", (4, 4, 3), "uint8"), ArraySpec("boxes.corners", (5, 4), "float32"),
         ArraySpec("boxes.kinds", (5,), "int32")), "picture", "boxes.kinds", True)
    part = dataset.rows([4, 1])
    assert isinstance(part, Scene)
    np.testing.assert_array_equal(part.boxes["kinds"], dataset.arrays.boxes["kinds"][[4, 1]])
    placed = dataset.on_device()
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(placed))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), placed) == jax.tree.map(lambda x: (x.shape, x.dtype), dataset.arrays)


def test_a_spec_is_plain_values():
    spec = data.from_tree({"text": np.array([0, 2, 1])}, "letters", vocabulary="abc").spec
    assert (spec.shape, spec.size, spec.vocabulary, spec.num_classes) == ((), 1, ("a", "b", "c"), None)
    assert json.loads(json.dumps(spec)) == json.loads(json.dumps(tuple(spec)))
    hash(spec)


def test_classes_are_what_is_told_not_what_is_there():
    images = np.zeros((2, 1, 1, 1), np.uint8)
    assert data.from_tree(Examples(images, np.array([0, 1])), target="labels", num_classes=5).spec.num_classes == 5
    named = data.from_arrays(np.zeros((2, 1, 1), np.uint8), [0, 1], class_names=["cat", "dog", "frog"])
    assert (named.spec.num_classes, named.spec.class_names) == (3, ("cat", "dog", "frog"))


@pytest.mark.parametrize(("arrays", "options", "message"), [
    ({}, {}, "dataset mine has no arrays"),
    ({"a": np.zeros(3), "b": np.zeros((4, 2))}, {}, r"as many examples.*a \[3\], b \[4, 2\]"),
    ({"a": np.zeros(())}, {}, r"one or more.*a \[\]"),
    ({"a": np.zeros((0, 3))}, {}, r"a \[0, 3\]"),
    ({"a": np.array(["x", "y"])}, {}, "a must hold numbers, got <U1"),
    ({"a": np.array([{}, None])}, {}, "a must hold numbers, got object"),
    ({"a": np.array([2**40])}, {}, r"a must lie between .* \(int32\), got values from 1099511627776"),
    ({"a": np.zeros(3)}, {"input": "b"}, "input='b' is no array of the dataset mine; its arrays are a"),
    ({"a": np.zeros(3)}, {"target": "b"}, "target='b' is no array"),
    ({"a": np.array([0, 5])}, {"target": "a", "num_classes": 5}, "a must lie between 0 and 4, got a from 0 to 5"),
    ({"a": np.array([0, 5])}, {"vocabulary": "abcde"}, "the vocabulary of mine has 5 tokens, got a from 0 to 5"),
    ({"a": np.array([0.5])}, {"vocabulary": "ab"}, "a must be integers, got float32"),
    ({"a": np.array([0])}, {"num_classes": 2, "class_names": ["x"]}, "class_names must have one for each of num_classes=2"),
])
def test_trees_that_make_no_dataset_are_refused(arrays, options, message):
    with pytest.raises(DataError, match=message):
        data.from_tree(arrays, "mine", **options)


@pytest.mark.parametrize(("values", "binary"), [
    ([0, 1, 1], True), ([0, 255, 0], True), ([0, 0, 0], True),
    ([0, 1, 255], False), ([0, 2, 2], False), ([0, 254, 255], False)])
def test_it_is_known_whether_images_are_binary(values, binary):
    assert data.from_arrays(np.array(values, np.uint8).reshape(3, 1, 1)).spec.binary is binary
    assert data.from_tree({"x": np.array(values)}).spec.binary is None


def test_fingerprints_tell_datasets_apart():
    x, y = np.arange(8, dtype=np.uint8).reshape(2, 2, 2), [0, 1]
    first = data.from_arrays(x, y).fingerprint()
    assert first == data.from_arrays(np.asfortranarray(x), y).fingerprint()
    assert len({first, data.from_arrays(x + 1, y).fingerprint(), data.from_arrays(x, y[::-1]).fingerprint(),
                data.from_arrays(x).fingerprint()}) == 4


@pytest.mark.parametrize("n", [5, 6, 9, 10, 101])
def test_what_is_held_out_is_every_fifth(n):
    train, test = held_out(n, "train"), held_out(n, "test")
    assert sorted([*train, *test]) == list(range(n))
    assert test.tolist() == list(range(4, n, 5))


def test_too_few_to_hold_out_are_refused():
    with pytest.raises(DataError, match="4 examples are too few"):
        held_out(4, "test")
