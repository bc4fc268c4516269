"""Judged samples: whatever the order of a file, whatever a split lacks, with or without a cache; and what cannot be judged."""


import jax
import numpy as np
import pytest

from jaxdl import data, optim
from jaxdl.core.errors import UserError
from jaxdl.core.task import Sampler
from jaxdl.generative import sample_judge, task
from jaxdl.supervised import classifier


def nearest(train):
    """A judge that needs no training: pixels are its features, the nearest mean of a class its guess."""
    means = np.stack([train.images[train.labels == c].reshape(-1, train.spec.size).mean(0) for c in np.unique(train.labels)])

    def features(images):
        return images.reshape(len(images), -1)[:, ::5] / 255

    def classes(images):
        distance = np.square(images.reshape(len(images), 1, -1) - means).sum(-1)
        return np.unique(train.labels)[distance.argmin(1)]

    return sample_judge.Judge(features, classes, 0.9, "abc")


def splits_of(**rows):
    """The digits, of each split the rows that `rows` chooses."""
    found = {}
    for name in ("train", "test"):
        whole = data.load("digits", split=name)
        index = rows.get(name, slice(None))
        found[name] = data.from_arrays(whole.images[index], whole.labels[index], "digits", num_classes=10)
    return found


def test_no_figure_depends_on_the_order_of_the_file():
    plain = splits_of()
    by_class = {name: np.argsort(split.labels, kind="stable") for name, split in plain.items()}
    judges = {"conv": nearest(plain["train"]), "mlp": nearest(plain["train"])}
    images = plain["train"].images[-100:]
    first, second = (sample_judge.figures(images, x["train"], x["test"], judges) for x in (plain, splits_of(**by_class)))
    assert first == pytest.approx(second)
    assert first["modes_floor"] == first["modes_floor_train"] == 10
    assert first["histogram_kl_floor"] < 0.1
    assert first["fid_floor"] != first["fid_floor_train"]
    assert first["fid_mlp_floor_train"] == first["fid_floor_train"]


def test_the_floor_among_training_images_is_of_two_sets_apart():
    splits = splits_of(train=slice(200))
    judges = {"conv": nearest(splits["train"])}
    found = sample_judge.floors(100, splits["train"], splits["test"], judges)
    assert found["fid_floor_train"] > 0.01
    assert "fid_floor_train" not in sample_judge.floors(101, splits["train"], splits["test"], judges)


def test_a_class_that_the_test_split_lacks_is_no_surprise():
    splits = splits_of(test=data.load("digits", split="test").labels != 3)
    images = splits["train"].images[:100]
    found = sample_judge.figures(images, splits["train"], splits["test"], {"conv": nearest(splits["train"])})
    assert found["modes"] == 10
    assert all(np.isfinite(x) for x in found.values() if isinstance(x, float))


DIGITS = data.load("digits")


@pytest.mark.parametrize(("splits", "message"), [
    ({"train": data.from_arrays(DIGITS.images)}, "has no labels to train one"),
    ({"train": data.from_arrays(DIGITS.images, np.full(len(DIGITS.images), 7))}, "of one class"),
    (splits_of(train=slice(5)), "the train split of digits has 5; it needs 6 or more"),
    (splits_of(test=slice(3)), "the test split of digits has 3"),
    (splits_of() | {"validation": splits_of(train=slice(2))["train"]}, "the validation split of digits has 2"),
])
def test_what_cannot_be_judged_is_refused(splits, message):
    with pytest.raises(UserError, match=message):
        sample_judge.check(splits)


@pytest.fixture
def bright(monkeypatch):
    """Images bright above (class 0) or below (class 1), and a judge of few updates."""
    monkeypatch.setattr(sample_judge, "JUDGES", {
        "mlp": (classifier.Config(total_steps=100, network="mlp", hidden_sizes=(8,),
                                  optim=optim.Config(learning_rate=0.02)), 0)})
    labels = np.arange(24) % 2
    images = np.where((np.arange(6)[:, None] < 3) == (labels == 0)[:, None, None], 200, 20) + np.zeros((24, 6, 6), int)
    images = (images + np.random.default_rng(0).integers(0, 20, images.shape)).astype(np.uint8)

    def make(labels):
        return data.from_arrays(images, labels, "bright", num_classes=3)

    return make, labels


def test_a_judge_is_of_labels_as_well_as_images_and_its_accuracy_is_on_test_images(bright, tmp_path, capsys):
    make, labels = bright
    for own in (labels, 1 - labels):
        judge = sample_judge.judge("mlp", make(own), make(1 - own), tmp_path)
        assert "training the mlp classifier" in capsys.readouterr().out
        np.testing.assert_array_equal(judge.classes(make(own).images), own)
        assert judge.accuracy == 0
    sample_judge.judge("mlp", make(labels), make(labels), tmp_path)
    assert not capsys.readouterr().out


def test_a_judge_never_names_a_class_of_which_it_saw_none(bright, tmp_path, monkeypatch):
    make, labels = bright

    def cached(folder, meta, like):
        return jax.tree.map(lambda x: np.ones(x.shape, x.dtype) * np.arange(x.shape[-1]), like)  # likes the last class

    monkeypatch.setattr(sample_judge, "_cached", cached)
    assert set(sample_judge.judge("mlp", make(labels), make(labels), tmp_path).classes(make(labels).images)) == {1}


@pytest.mark.parametrize("damage", ["a file", "a folder of others", "bytes"])
def test_a_cache_that_cannot_be_used_is_done_without(bright, tmp_path, capsys, damage):
    make, labels = bright
    cache = tmp_path / "cache"
    if damage == "a file":
        cache.write_text("")
    else:
        whole = sample_judge.judge("mlp", make(labels), make(labels), cache)
        (step,) = cache.glob("judges/*/*")
        capsys.readouterr()
        for path in step.rglob("*"):
            if path.is_file() and damage == "bytes":
                path.write_bytes(b"cposix\nsystem\n(S'false'\ntR.")  # a pickle, which nothing may load
        if damage == "a folder of others":
            (step / "manifest" / "manifest.json").unlink()
    judge = sample_judge.judge("mlp", make(labels), make(labels), cache)
    told = capsys.readouterr()
    assert "training the mlp classifier" in told.out
    assert ("is not kept" in told.err) == (damage == "a file")
    assert judge.accuracy == 1
    assert damage == "a file" or judge.sha256 == whole.sha256


def test_samples_that_are_judged_are_all_drawn_anew_and_of_the_classes_that_are_asked_for(monkeypatch):
    monkeypatch.setattr(task, "_AT_ONCE", 4)

    def draw(params, key, n, labels=None):
        found = params + jax.random.uniform(key, (n, 1, 1, 1))
        return found if labels is None else found + labels[:, None, None, None]

    assert len(np.unique(task.drawn(Sampler(draw), 0.0, 10, 0, None))) == 10
    labels = np.array([0, 7, 7, 1, 2, 2, 0, 5, 9, 3])
    np.testing.assert_array_equal(np.floor(task.drawn(Sampler(draw), 0.0, 10, 0, labels)).ravel(), labels)
    assert not np.array_equal(task.drawn(Sampler(draw), 0.0, 10, 0, None), task.drawn(Sampler(draw), 0.0, 10, 1, None))


def test_a_conditional_model_is_judged_with_the_classes_of_the_dataset(monkeypatch):
    """Nine images in ten are of class 0: so are the labels that its samples are drawn with."""
    rng = np.random.default_rng(0)
    splits = {name: data.from_arrays(rng.integers(0, 256, (200, 4, 4)).astype(np.uint8), (np.arange(200) % 10 == 0).astype(int))
              for name in ("train", "test")}
    seen = []

    def draw(params, key, n, labels=None):
        seen.append(labels)
        return jax.random.uniform(key, (n, 4, 4, 1))

    monkeypatch.setattr(task.jax, "jit", lambda f, **how: f)
    monkeypatch.setattr(sample_judge, "judge", lambda name, train, test: nearest(train))
    train = type("Train", (), {"seed": 0})
    evaluation = task._evaluation(None, train, splits, object(), {Sampler: Sampler(draw, num_classes=2)})
    found = evaluation.more(None, evaluation.options, splits["test"])
    assert np.bincount(np.concatenate(seen)).tolist() == [180, 20]
    assert "fid_floor" in found
    assert "fid_floor" not in evaluation.more(None, evaluation.options, splits["test"]._replace(name="another"))
