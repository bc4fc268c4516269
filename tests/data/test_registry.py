"""Datasets by name: ours lazily, anyone's own by `module:NAME`; the number of classes is one fact of all splits."""

import subprocess
import sys

import numpy as np
import pytest

from jaxdl import data
from jaxdl.core.errors import DataError, UserError
from jaxdl.core.types import Examples
from jaxdl.data import idx

MODULE = '''
import numpy as np
from jaxdl import data
from jaxdl.core.types import Examples

N = {"train": 8, "test": 3}


def pictures(split):
    return np.zeros((N[split], 4, 4), np.uint8)


def labelled(split):  # class 5 is in the test split alone
    return {"images": pictures(split), "labels": np.arange(N[split]) % 3 + (3 if split == "test" else 0)}


def examples(split):
    return Examples(*labelled(split).values())


def made(split):
    return data.from_arrays(**labelled(split))


def tokens(split):
    return {"ids": np.arange(N[split]), "mask": np.ones(N[split], bool)}


def other_sizes(split):
    return np.zeros((5, 4 if split == "train" else 3, 4), np.uint8)


def broken(split):
    raise KeyError(split)


def files(folder, split):
    return pictures(split) + np.uint8(len(list(folder.iterdir())))


KNOWN = data.Reader("known", lambda folder, split: examples(split), num_classes=9)
FILES = data.Reader("from files", files, "needed", "the folder of pictures")
number = 3
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "our_data.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("our_data", None)


@pytest.mark.parametrize("name", ["labelled", "examples", "made"])
def test_a_function_of_the_split_is_a_dataset_whose_classes_are_those_of_all_splits(here, name):
    train, test = data.load_splits(f"our_data:{name}")
    assert isinstance(train.arrays, Examples)
    assert (len(train.images), len(test.images)) == (8, 3)
    assert train.spec.num_classes == test.spec.num_classes == 6
    for split in ("train", "test"):
        assert data.load(f"our_data:{name}", split=split).spec.num_classes == 6


def test_images_may_come_alone_and_any_tree_may_come(here):
    assert data.load("our_data:pictures").spec[:4] == ("our_data:pictures", 8, (4, 4, 1), None)
    tokens = data.load("our_data:tokens")
    assert (tokens.spec.input, tokens.spec.shape, [a.name for a in tokens.spec.arrays]) == ("ids", (), ["ids", "mask"])


def test_a_reader_of_ones_own_knows_its_classes_and_reads_a_folder(here):
    assert data.load("our_data:KNOWN").spec.num_classes == 9
    (here / "things").mkdir()
    (here / "things" / "one").write_text("1")
    assert data.load("our_data:FILES", "things").images.max() == 1
    with pytest.raises(DataError, match=r"'our_data:FILES' is read from a folder: pass --data-dir .*the folder of pictures"):
        data.load("our_data:FILES")


@pytest.mark.parametrize(("name", "message"), [
    ("our_data:absent", "there is no dataset 'our_data:absent': the module our_data has no 'absent'"),
    ("no_data:x", "there is no dataset 'no_data:x': no module 'no_data' here"),
    ("our_data:number", r"'our_data:number' must be a jaxdl.data.Reader or a function \(split\) -> arrays, got int"),
    ("our_data:broken", "'our_data:broken' cannot be read: KeyError: 'train'"),
    ("our_data:other_sizes", r"other_sizes must hold.* same.*images uint8\[4, 4, 1\] to train and .*\[3, 4, 1\] to test"),
])
def test_what_is_no_dataset_is_refused_by_name(here, name, message):
    with pytest.raises(DataError, match=message):
        data.load_splits(name)


def test_a_model_of_images_refuses_other_trees(here):
    with pytest.raises(UserError, match=r"vae learns from images .*our_data:tokens holds ids int32\[\], mask bool\[\]"):
        data.require_images(data.load("our_data:tokens").spec, "vae")
    data.require_images(data.load("digits").spec, "vae")


@pytest.mark.parametrize(("train", "test", "classes"), [
    ([0, 2, 1], [4, 0], 5), ([26, 1, 1], [1, 2], 27), ([0, 0, 0], [0, 0], 1)])
def test_idx_takes_any_labels_and_counts_the_classes_of_both_splits(tmp_path, train, test, classes):
    for split, labels in (("train", train), ("test", test)):
        idx.write_split(tmp_path, split, np.zeros((len(labels), 2, 2), np.uint8), np.array(labels))
        assert data.load("idx", tmp_path, split).spec.num_classes == max(labels if split == "train" else train + test) + 1
    assert data.load("idx", tmp_path).spec.num_classes == classes


def test_idx_needs_no_labels_and_takes_colours(tmp_path):
    images = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    for split in ("train", "test"):
        idx.write_split(tmp_path, split, images, None)
    found = data.load_splits("idx", tmp_path)[0]
    np.testing.assert_array_equal(found.images, images)
    assert (found.labels, found.spec.num_classes) == (None, None)
    (tmp_path / "train-images-idx4-ubyte").rename(tmp_path / "train-images-idx3-ubyte")
    np.testing.assert_array_equal(data.load("idx", tmp_path).images, images)


def test_the_classes_of_a_known_set_do_not_depend_on_the_labels_that_are_there(tmp_path):
    idx.write_split(tmp_path, "train", np.zeros((3, 2, 2), np.uint8), np.array([0, 1, 1]))
    assert data.load("mnist", tmp_path).spec.num_classes == 10


def test_importing_the_table_imports_no_reader():
    program = ("import sys, jaxdl.data; loaded = set(sys.modules); "
               "assert not {'jaxdl.data.digits', 'jaxdl.data.mnist', 'sklearn', 'pooch', 'PIL'} & loaded")
    subprocess.run([sys.executable, "-c", program], check=True)
