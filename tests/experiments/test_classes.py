"""Commands that draw with a conditional model hold its class and say it; too few images, or no spread, are a sentence."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.core.task import Completer, Features, Latents, Sampler
from jaxdl.experiments import latents
from jaxdl.experiments.commands import arithmetic, complete, encode, interpolate, sample, transfer, traverse

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 40)
SPLIT = data.from_arrays(RNG.integers(0, 256, (40, 4, 4)).astype(np.uint8), LABELS, "tiny", num_classes=3)


OPENED = SimpleNamespace(task=SimpleNamespace(splits={"train": SPLIT, "test": SPLIT}, abilities={}), params=None)


@pytest.fixture
def told(monkeypatch):
    """A decoder of classes, what it was told (`labels`), and commands that use it, with or without an encoder (`use`)."""
    found = []

    def decode(params, z, labels=None):
        found.append(labels)
        return jnp.zeros((len(z), 4, 4, 1)) + (1 + jnp.tanh(z[:, :1, None, None])) / 2

    monkeypatch.setattr(latents.jax, "jit", lambda f, **how: f)  # labels are then numbers
    def encodes(params, examples, key):
        return jnp.asarray(examples.labels)[:, None] + jnp.asarray(examples.images).reshape(-1, 16)[:, :3] / 1000

    def prior(key, n):
        return jnp.arange(3 * n).reshape(n, 3) / n

    def use(encode, classes=3):
        space = Latents(decode, encodes if encode else None, prior, classes)
        for module in (interpolate, traverse, arithmetic):
            monkeypatch.setattr(module.latents, "open_latents", lambda args: (space, None, OPENED))

    return SimpleNamespace(labels=found, use=use)


def test_a_row_of_interpolate_is_of_one_class(told, tmp_path, capsys):
    args = interpolate.Args(run=tmp_path, out=tmp_path / "x.png", num=4, steps=5)
    told.use(encode=False)
    assert interpolate.run(args)["classes"] == [0, 1, 2, 0]
    assert "classes of the rows: 0, 1, 2, 0" in capsys.readouterr().out
    np.testing.assert_array_equal(told.labels[0], np.repeat([0, 1, 2, 0], 5))
    told.use(encode=True)
    found = interpolate.run(args)
    np.testing.assert_array_equal(told.labels[1], np.repeat(found["classes"], 5))
    told.use(encode=False, classes=None)
    assert "classes" not in interpolate.run(args)
    assert told.labels[2] is None


def test_both_images_of_a_pair_are_of_the_class_of_their_row(told):
    space = Latents(None, lambda params, examples, key: jnp.asarray(examples.labels)[:, None], None, 3)
    first, second, classes = latents.pairs_of(space, None, SPLIT, 10, 0)
    np.testing.assert_array_equal(first[:, 0], classes)
    np.testing.assert_array_equal(second[:, 0], classes)
    assert len(set(np.asarray(classes).tolist())) == 3
    other = latents.pairs_of(space, None, SPLIT, 10, 1)[2]
    assert not np.array_equal(other, classes)


@pytest.mark.parametrize(("classes", "most"), [(None, 20), (3, sum(n // 2 for n in np.bincount(LABELS)))])
def test_more_pairs_than_images_are_refused(told, tmp_path, classes, most):
    told.use(encode=True, classes=classes)
    args = {"run": tmp_path, "out": tmp_path / "x.png", "steps": 2}
    interpolate.run(interpolate.Args(num=most, **args))
    with pytest.raises(UserError, match=f"num must be at most {most}, the pairs of test images.* of tiny, got {most + 1}"):
        interpolate.run(interpolate.Args(num=most + 1, **args))


@pytest.mark.parametrize("encode", [False, True])
def test_traverse_stays_in_one_class(told, tmp_path, capsys, encode):
    told.use(encode)
    found = traverse.run(traverse.Args(run=tmp_path, out=tmp_path / "x.png", num=2, steps=3, seed=1))
    first = LABELS[np.random.default_rng(1).permutation(40)[0]] if encode else 0
    assert (found["class"], set(np.asarray(told.labels[0]).tolist())) == (first, {first})
    assert f"all of class {first}" in capsys.readouterr().out


def test_arithmetic_tells_a_conditional_decoder_the_class_to_go_to(told, tmp_path, monkeypatch):
    told.use(encode=True)
    monkeypatch.setattr(arithmetic.sample_judge, "judge", lambda *of: SimpleNamespace(
        classes=lambda images: np.arange(len(images)) % 3))
    monkeypatch.setitem(arithmetic._ATTRIBUTES, "slant", lambda images: images[:, 0, 0, 0])
    arithmetic.run(arithmetic.Args(run=tmp_path, out=tmp_path / "x.png", num=2, classes=(0, 2)))
    own, *between, first, second = told.labels
    assert sorted(np.asarray(own).tolist()) == sorted(LABELS.tolist())
    assert all(np.array_equal(x, own) for x in between)
    assert (set(np.asarray(first).tolist()), set(np.asarray(second).tolist())) == ({0}, {2})


def test_a_collapsed_model_has_no_directions(told, tmp_path, monkeypatch):
    told.use(encode=False)
    monkeypatch.setattr(arithmetic.sample_judge, "judge", lambda *of: SimpleNamespace(
        classes=lambda images: np.zeros(len(images), int)))
    space = Latents(lambda params, z, labels: jnp.full((len(z), 4, 4, 1), 0.5), None, lambda key, n: jnp.ones((n, 3)))
    monkeypatch.setattr(arithmetic.latents, "open_latents", lambda args: (space, None, OPENED))
    with pytest.raises(UserError, match=r"do not differ in ink and slant.*collapsed"):
        arithmetic.run(arithmetic.Args(run=tmp_path, out=tmp_path / "x.png"))


def test_complete_tells_the_classes_of_the_images_to_all_their_copies(tmp_path, monkeypatch, capsys):
    def rest(params, key, images, known, labels=None):  # each image as bright as its class
        return jnp.broadcast_to(labels[:, None, None, None] / 4, images.shape)

    monkeypatch.setitem(OPENED.task.abilities, Completer, Completer(rest, 3))
    monkeypatch.setattr(complete, "open_sampler", lambda args: (OPENED, Sampler(None, at_once=5)))
    monkeypatch.setattr(complete, "asdict", lambda options: {})
    seen = []
    monkeypatch.setattr(complete.pictures, "save_png", lambda path, image: seen.append(image))
    monkeypatch.setattr(complete.pictures, "table", lambda images, columns: images)
    args = SimpleNamespace(num=4, draws=3, rows=None, seed=0, sampler=None, out=tmp_path / "x.png")
    found = complete.run(args)
    which = np.random.default_rng(0).choice(40, 4, replace=False)
    assert found["classes"] == LABELS[which].tolist()
    assert f"classes: {', '.join(map(str, LABELS[which]))}" in capsys.readouterr().out
    bright = seen[0].reshape(4, 4, 4, 4, 1)[:, 1:, 0, 0, 0]
    np.testing.assert_array_equal(bright, np.repeat(LABELS[which, None] / 4, 3, 1))


def test_every_image_of_a_sample_is_drawn_anew_and_classes_go_on_over_calls():
    found = sample.draw(lambda params, key, n, labels: labels[:, None] + jax.random.uniform(key, (n, 1)), None, 0, 11, 4,
                        np.arange(11) % 3).images
    np.testing.assert_array_equal(np.floor(found[:, 0]), np.arange(11) % 3)
    assert len(np.unique(found % 1)) == 11


def test_every_code_that_a_prior_draws_is_decoded_as_itself(monkeypatch):
    for levels in (2, 3, 12, 50, 100, 128, 200, 256):
        codes = SimpleNamespace(num_codes=levels, encode=lambda params, one, key: jnp.zeros((1, levels, 1), int),  # noqa: B023
                                decode=lambda params, z: z[..., None])
        monkeypatch.setattr(encode, "_open", lambda args, codes=codes: (SimpleNamespace(
            params=None, task=SimpleNamespace(spec=SPLIT.spec)), codes))
        monkeypatch.setattr(encode.jax, "jit", lambda f: f)
        decode = encode.decoder("run", levels, (levels, 1))
        drawn = (np.arange(levels, dtype=np.float32) / np.float32(levels - 1)).reshape(1, levels, 1, 1)
        np.testing.assert_array_equal(decode(drawn).ravel(), np.arange(levels))


# --- Transfer.


class Linear(linen.Module):
    """Images -> two numbers of each."""

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(x.reshape(len(x), -1))


def test_transfer_leaves_a_frozen_encoder_as_it_is_and_is_judged_by_test_images():
    """Features of a learned encoder of zeros say nothing, until it learns. The test images have the other label."""
    labels = np.arange(40) % 2
    images = np.where(labels[:, None, None] == np.eye(4, dtype=int), 200, 20).astype(np.uint8)
    train, test = data.from_arrays(images, labels), data.from_arrays(images, 1 - labels)
    encoder = Features(Linear(), lambda network, x: network(x), lambda x: x / 255, None)
    learned = {"Dense_0": {"kernel": jnp.zeros((16, 2)), "bias": jnp.zeros(2)}}
    accuracy = transfer.compiled(encoder, train.spec, test, learned, 40, 100, 0.05)
    for beginning, expected in (("frozen", 0.5), ("finetuned", 0), ("scratch", 0)):
        assert float(accuracy(beginning, images, labels, 0)) == expected, beginning
