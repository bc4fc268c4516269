"""Pairs of sequences: answers are right, nothing that is held out is learned from, and what is no pair is refused."""

import numpy as np
import pytest

from jaxdl import data
from jaxdl.core.errors import DataError
from jaxdl.data import pairs

READERS = {"addition": pairs.addition(2, 300), "reversal": pairs.reversal(4, 200), "sorting": pairs.sorting(4, 200)}
ANSWERS = {"addition": lambda x: str(sum(map(int, x.split("+")))), "reversal": lambda x: x[::-1],
           "sorting": lambda x: "".join(sorted(x))}


def texts(dataset):
    return [["".join(dataset.spec.vocabulary[i] for i in row) for row in x] for x in dataset.arrays]


@pytest.mark.parametrize("name", READERS)
def test_answers_are_right_and_no_input_is_in_both_splits(name):
    train, test = (READERS[name].read(None, split) for split in data.SPLITS)
    assert train.spec[2:] == test.spec[2:]  # but for the number of examples
    inputs = [texts(d)[0] for d in (train, test)]
    for dataset in (train, test):
        given, targets = texts(dataset)
        assert targets == list(map(ANSWERS[name], given))
        assert len(set(given)) == len(given)
        for x in dataset.arrays:
            assert (np.diff((x != 0).astype(int), axis=1) <= 0).all()  # filled behind the end
            assert (x[:, -1] == 0).all()
    assert not set(inputs[0]) & set(inputs[1])
    lengths = [np.bincount([len(x) for x in side]) for side in inputs]
    np.testing.assert_allclose(lengths[0], 9 * lengths[1])  # a tenth of each
    assert set(map(len, inputs[1])) == ({3, 4, 5} if name == "addition" else {2, 3, 4})


def test_numbers_are_of_all_lengths_and_made_anew_they_are_the_same():
    given, _ = texts(pairs.addition(2, 300).read(None, "train"))
    summands = [x.split("+") for x in given]
    assert {tuple(map(len, x)) for x in summands} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert not any(len(n) > 1 and n[0] == "0" for x in summands for n in x)
    assert given == texts(READERS["addition"].read(None, "train"))[0]


def test_distinct_numbers_are_all_of_them_where_there_are_few():
    rng = np.random.default_rng(0)
    assert sorted(pairs.distinct(7, 10, rng)) == list(range(7))
    for total in (25, 10**15):
        found = pairs.distinct(total, 10, rng)
        assert len(set(found.tolist())) == 10
        assert 0 <= found.min() <= found.max() < total


def test_the_named_ones_are_there():
    train, test = data.load_splits("sorting")
    assert (train.spec.num_examples, test.spec.num_examples) == (63_990, 7_110)
    assert train.spec.vocabulary == ("", *"0123456789")
    assert [x.shape for x in train.spec.arrays] == [(11,), (11,)]


def test_pairs_of_a_file(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("".join(f"wörd {i}\t{i}ß\n" for i in range(10)) + "wörd 3\t3ß\n", "utf-8")
    train, test = data.load_splits("pairs", path)
    assert texts(test) == [["wörd 4", "wörd 9"], ["4ß", "9ß"]]
    assert train.spec.num_examples == 8
    assert train.spec.vocabulary == test.spec.vocabulary == ("", *sorted("wörd 0123456789ß"))


@pytest.mark.parametrize(("content", "message"), [
    ("a\tb\nc\n", "line 2 of .* must be an input, a tab and a target, got 'c'"), ("a\tb\tc\n", "line 1"),
    ("a\tb\na\tc\n", "line 2 of .* has another target for the input 'a'"), ("a\tb\n", "1 examples are too few")])
def test_files_of_no_pairs_are_refused(tmp_path, content, message):
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(DataError, match=message):
        data.load("pairs", tmp_path / "a.tsv")
    with pytest.raises(DataError, match="must be a file of text"):
        data.load("pairs", tmp_path)


def test_texts_that_are_no_pairs_are_refused():
    for given, message in (((["a"], ["b", "c"]), "got 1 inputs and 2 targets"), ((["a", ""], ["b", "c"]), "none of them empty"),
                           ((["a"], ["z"], "mine", "ab"), "mine has 'z', which is not among its characters")):
        with pytest.raises(DataError, match=message):
            pairs.from_texts(*given)
