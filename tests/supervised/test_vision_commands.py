"""Learners of pictures with what is in them, by commands: trained, resumed, evaluated on each split; what is refused."""

import jax
import numpy as np
import pytest
import toy_scenes
from tools import refused, run, same_bits

from jaxdl import data
from jaxdl.core.config import from_dict
from jaxdl.core.errors import UserError
from jaxdl.core.types import ArraySpec, DataSpec
from jaxdl.experiments import cli, tasks
from jaxdl.runtime.dataset_task import TrainConfig, for_validation
from jaxdl.supervised import captioner, localizer, segmenter, vqa

SMALL = ["--channels", "4", "4", "--batch-size", "8", "--total-steps", "3", "--quick-compile"]
LEARNERS = {
    "segmenter": (["--dataset", "toy_scenes:LAID_OUT"], "mean_iou", "masks.png", ()),
    "localizer": (["--dataset", "toy_scenes:LAID_OUT", "--hidden-size", "8", "--target", "joints"], "pck", "joints.png", ()),
    "captioner": (["--dataset", "toy_scenes:LAID_OUT", "--hidden-size", "8", "--look", "hard", "--baseline", "constant",
                   "--self-critical", "0.5"], "cider", "captions.png", ("--decode", "beam", "--beam-width", "2")),
    "vqa": (["--dataset", "toy_scenes:LAID_OUT", "--hidden-size", "8", "--features", "4", "--blocks", "1"], "accuracy",
            "answers.png", ()),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in ("segmenter", "vqa") else ())
                                  for name in LEARNERS])
def test_commands_train_resume_and_evaluate(name, capsys, tmp_path):
    flags, score, picture, more = LEARNERS[name]
    whole, half = tmp_path / "whole", tmp_path / "half"
    assert cli.main(["train", name, *flags, *SMALL, "--out", str(whole)]) == 0
    assert cli.main(["train", name, *flags, *SMALL, "--stop-step", "1", "--out", str(half)]) == 0
    assert cli.main(["resume", str(half), "--total-steps", "3"]) == 0
    capsys.readouterr()
    same_bits(*(tasks.load_run(path).params for path in (whole, half)))
    found = run(capsys, "evaluate", whole, *more)
    hard = run(capsys, "evaluate", half, "--split", "hard", *more)
    assert score in found
    assert found["num"] == hard["num"] == 24
    assert found != hard or name == "vqa"  # which has no answer right yet
    assert run(capsys, "evaluate", whole, "--split", "hard", *more) == hard
    drawn = (whole / picture).read_bytes()
    assert drawn[:4] == b"\x89PNG"
    run(capsys, "evaluate", whole, "--out", tmp_path / "again")
    assert (tmp_path / "again" / picture).read_bytes() == drawn
    for split in ("train", "other"):
        assert f"split must be a held-out one of toy_scenes:LAID_OUT, test or hard, got '{split}'" in refused(
            capsys, "evaluate", whole, "--split", split)
    if name == "captioner":
        assert "beam_width must be between 1 and 100, got 0" in refused(capsys, "evaluate", whole, "--beam-width", 0)


@pytest.mark.parametrize("how", [("--num-seeds", "2"), ("--sweep", "box_weight=1,10")])
def test_a_population_is_members_of_its_own(how, capsys, tmp_path):
    flags = ["--dataset", "toy_scenes:LAID_OUT", "--hidden-size", "8", *SMALL]
    assert cli.main(["train", "localizer", *flags, *how, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    params = tasks.load_run(tmp_path / "run").params
    kernel = next(x for x in jax.tree.leaves(params) if x.ndim > 2)
    assert len(kernel) == 2
    assert (kernel[0] != kernel[1]).any()
    assert len(run(capsys, "evaluate", tmp_path / "run")) > 0


def test_of_examples_that_are_made_few_choose(monkeypatch):
    """A tenth of a million would all have to be made before training begins."""
    small = toy_scenes.read("scenes", "train")
    learned, held = for_validation(small, TrainConfig(eval_every=10))
    assert (learned.spec.num_examples, held.spec.num_examples) == (58, 6)
    np.testing.assert_array_equal(held.images, small.complete().images[-6:])
    seen = []
    monkeypatch.setattr(data, "split_off", lambda train, num, purpose: seen.append(num) or (train, train))
    for validation in (None, 5000):
        for_validation(data.load("scenes_single"), TrainConfig(eval_every=10, validation=validation))
    assert seen == [1000, 5000]


@pytest.mark.parametrize(("name", "flags", "sentence"), [
    ("segmenter", ["--dataset", "digits"], "a segmenter needs semantic of each picture, and the dataset digits has none"),
    ("localizer", ["--dataset", "digits"], "a localizer needs boxes of each picture"),
    ("localizer", ["--dataset", "digits", "--target", "joints"], "joints"),
    ("captioner", ["--dataset", "digits"], "a captioner needs words.captions of each picture"),
    ("vqa", ["--dataset", "digits"], "vqa needs words.questions and words.answers of each picture"),
    ("vqa", ["--dataset", "diabetes"], "vqa learns from pictures"),
    ("segmenter", ["--dataset", "toy_scenes:SCENES", "--channels", "2", "2", "2", "2", "2", "2", "2"],
     "channels=2 2 2 2 2 2 2 halve sides 6 times, and pictures of toy_scenes:SCENES are 32x32"),
    ("captioner", ["--flip"], "captions speak of places"), ("captioner", ["--max-shift", "2"], "captions speak of places"),
    ("vqa", ["--rotate", "10"], "questions speak of places"),
    ("localizer", ["--target", "joints", "--crop", "0.5"], "target=joints moves no joints"),
    ("segmenter", ["--mixup", "0.2"], "mixup=0.2 mixes pictures"),
    ("captioner", ["--look", "hard", "--draws", "1", "--batch-size", "1"], "baseline=leave_one_out compares"),
    ("captioner", ["--look", "hard", "--draws", "0"], "draws must be above 0"),
    ("captioner", ["--draws", "3"], "draws=3 is of look=hard"),
    ("captioner", ["--look", "hard", "--vf-coef", "1"], "vf_coef=1.0 is of baseline=value"),
    ("captioner", ["--self-critical", "1"], "self_critical must be at least 0 and below 1"),
    ("segmenter", ["--class-balance", "2"], "class_balance must be between 0 and 1, got 2"),
    ("segmenter", ["--loss", "dice", "--class-balance", "1"], "class_balance=1.0 is of loss="),
    ("segmenter", ["--channels", "0"], "channels must be one or more widths above 0"),
    ("segmenter", ["--activation", "maxout"], "activation=maxout"), ("segmenter", ["--ema-decay", "1"], "ema_decay must be"),
    ("localizer", ["--target", "joints", "--box-weight", "2"], "box_weight=2.0 is of target=box"),
    ("localizer", ["--box-weight", "0"], "box_weight must be above 0"), ("vqa", ["--blocks", "0"], "blocks must be above 0"),
    ("vqa", ["--fusion", "concat", "--blocks", "3"], "blocks=3 is of fusion=film"),
    ("gan", ["--dataset", "toy_scenes:SCENES"], "the dataset toy_scenes:SCENES has no labels"),
    ("language_model", ["--dataset", "toy_scenes:SCENES"], "examples of shape [32, 32, 3]"),
    ("classifier", ["--dataset", "toy_scenes:SCENES"], "a classifier needs labels"),
])
def test_what_makes_no_sense_is_one_sentence(name, flags, sentence, capsys, tmp_path):
    own = [] if "--dataset" in flags else ["--dataset", "toy_scenes:SCENES"]
    assert sentence in refused(capsys, "train", name, *own, *flags, "--total-steps", 1, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("module", "missing"), [(segmenter, "semantic"), (localizer, "boxes and labels"),
                                                 (captioner, "words.captions"), (vqa, "words.questions and words.answers")])
def test_a_dataset_without_what_is_to_be_learned_is_refused(module, missing):
    spec = DataSpec("bare", 10, (8, 8, 3), arrays=(ArraySpec("images", (8, 8, 3), "uint8"),), input="images")
    with pytest.raises(UserError, match=f"needs {missing} of each picture, and the dataset bare has none"):
        module.make(from_dict(module.Config, {}), spec)
