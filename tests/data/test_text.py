"""Text as tokens: the vocabulary is that of both splits, and what is no text is refused."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from jaxdl import data
from jaxdl.core.errors import DataError, UserError
from jaxdl.data import text

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "tinyshakespeare"


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_characters_become_tokens_and_characters_again(tmp_path, pack):
    written = "Zwölf Böxkämpfer\r\njagen 🦊\n" * 4
    name = "mine.txt.gz" if pack is gzip.compress else "mine.txt"
    (tmp_path / name).write_bytes(pack(written.encode()))
    for path in (tmp_path, tmp_path / name):
        train, test = data.load_splits("text", path)
        assert train.spec.vocabulary == test.spec.vocabulary == tuple(sorted(set(written)))
        both = [text.decode(d.arrays.tokens, d.spec.vocabulary) for d in (train, test)]
        assert "".join(both) == written
        assert len(both[0]) == int(0.9 * len(written)) == train.spec.num_examples
    assert (train.arrays.tokens.dtype, train.spec.shape, train.spec.input) == (np.uint8, (), "tokens")
    np.testing.assert_array_equal(text.encode(both[1], test.spec.vocabulary), test.arrays.tokens)


def test_many_characters_take_more_bytes(tmp_path):
    (tmp_path / "a.txt").write_text("".join(map(chr, range(1000, 2000))))
    tokens = data.load("text", tmp_path).arrays.tokens
    assert (tokens.dtype, tokens.tolist()) == (np.uint16, list(range(900)))


@pytest.mark.parametrize(("content", "message"), [
    (b"abc\xff" * 9, "a.txt is not UTF-8: byte 3 is 0xff"), (b"short", "10 characters or more to be split, got 5"),
    (gzip.compress(b"x" * 99, mtime=0)[:-9], "a.txt is truncated")])
def test_what_is_no_text_is_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load("text", tmp_path)


def test_folders_of_none_or_several_texts_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"must have one .txt or .txt.gz file, got none"):
        data.load("text", tmp_path)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("x" * 20)
    with pytest.raises(DataError, match=r"got a.txt, b.txt; pass the file"):
        data.load("text", tmp_path)


def test_a_character_that_the_vocabulary_has_not_is_refused():
    with pytest.raises(DataError, match="the character 'é' is not among the 3 of the vocabulary"):
        text.encode("aé", "abc")


def test_a_model_of_images_refuses_text(tmp_path):
    (tmp_path / "a.txt").write_text("abc" * 20)
    with pytest.raises(UserError, match=r"gan learns from images .*the dataset text holds tokens uint8\[\]"):
        data.require_images(data.load("text", tmp_path).spec, "gan")


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no tiny Shakespeare here")
def test_tiny_shakespeare():
    train, test = data.load_splits("tiny_shakespeare", FOLDER)
    assert (train.spec.num_examples, test.spec.num_examples, len(train.spec.vocabulary)) == (1_003_854, 111_540, 65)
    assert text.decode(train.arrays.tokens[:14], train.spec.vocabulary) == "First Citizen:"
    assert train.spec.vocabulary[:3] == ("\n", " ", "!")


def test_a_small_file_asks_for_little_memory(tmp_path):
    (tmp_path / "a.txt").write_text("ab" * 50)
    data.load("text", tmp_path)
    tracemalloc.start()
    try:
        data.load("text", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_characters_that_lie_across_pieces_are_read_whole(tmp_path, monkeypatch):
    words = "Wörter 木 🙂 "
    (tmp_path / "a.txt").write_text(words * 9, encoding="utf-8")
    whole = data.load("text", tmp_path)
    for piece in range(1, 8):
        monkeypatch.setattr(text, "_PIECE", piece)
        found = data.load("text", tmp_path)
        assert found.spec == whole.spec
        np.testing.assert_array_equal(found.arrays.tokens, whole.arrays.tokens)
    (tmp_path / "a.txt").write_bytes(words.encode() * 9 + b"\xf0\x9f")
    with pytest.raises(DataError, match=f"is not UTF-8: byte {9 * len(words.encode())} is 0xf0"):
        data.load("text", tmp_path)
