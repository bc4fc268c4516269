"""`jaxdl data`: what it writes is read back, by this library and by COCO's own, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from tools import refused, run

from jaxdl import data
from jaxdl.data import scene_grammar
from jaxdl.supervised.caption_report import facts_of

NUM, READER = 7, "toy_scenes:SCENES"


@pytest.fixture
def written(capsys, tmp_path):
    found = run(capsys, "data", READER, "--num", NUM, "--split", "test", "--out", tmp_path / "out")
    assert (found["pictures"], found["dataset"]) == (NUM, READER)
    return tmp_path / "out", found


def pictures_of(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def test_pictures_masks_and_words_are_those_of_the_dataset(written):
    folder, found = written
    of = data.load(READER, split="test").rows(slice(NUM))
    for name in ("images", "semantic", "instances"):
        np.testing.assert_array_equal(pictures_of(folder / name), getattr(of, name))
    assert found["objects"] == (of.labels > 0).sum()
    words = json.loads((folder / "words.json").read_text())["pictures"]
    assert [x["image_id"] for x in words] == list(range(NUM))
    for i, said in enumerate(words):
        assert len(said["captions"]) == 4
        assert all(scene_grammar.caption_is_true(caption, facts_of(of, i)) for caption in said["captions"])
        assert len(said["questions"]) == 6
        assert all(asked["question"] and asked["answer"] for asked in said["questions"])


def test_others_read_it_and_so_do_we(written):
    folder, found = written
    theirs = COCO(str(folder / "annotations.json"))
    assert len(theirs.imgs) == NUM
    assert len(theirs.anns) == found["objects"]
    instances = pictures_of(folder / "instances")
    for annotation in theirs.anns.values():
        x, y, width, height = map(int, annotation["bbox"])
        mask = theirs.annToMask(annotation).astype(bool)
        rows, columns = np.nonzero(mask)
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x, y, x + width, y + height)
        assert len(np.unique(instances[annotation["image_id"]][mask])) == 1
    ours = data.load("coco", folder, "train")
    assert ours.spec.num_examples == NUM - NUM // 5


def test_pictures_are_scaled_into_a_size(capsys, written, tmp_path):
    folder, _ = written
    run(capsys, "data", "coco", "--data-dir", folder, "--size", "16", "--out", tmp_path / "small")
    assert pictures_of(tmp_path / "small" / "images").shape[1:] == (16, 16, 3)
    assert not (tmp_path / "small" / "words.json").exists()


def test_what_makes_no_sense_is_refused_and_writes_nothing(capsys, written, tmp_path):
    folder, _ = written
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    assert "is there already" in refused(capsys, "data", READER, "--out", folder)
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before
    out = tmp_path / "none"
    wrong = ((["digits"], "holds no annotated pictures"), (["scene"], "did you mean 'scenes'"),
             ([READER, "--num", "0"], "num must be between 1"), ([READER, "--size", "5"], "size must be between 16"),
             ([READER, "--split", "dev"], "split must be"), ([READER, "--size", "32"], "one size alone"))
    for words, sentence in wrong:
        assert sentence in refused(capsys, "data", *words, "--out", out)
        assert not out.exists()
