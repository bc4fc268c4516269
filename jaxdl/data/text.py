"""Text as a stream of characters: one token for each of the characters that occur in it, in the order of Unicode.

The first 90 % are to train, the rest to test, the split of char-rnn (Karpathy, "The unreasonable effectiveness of recurrent
neural networks", 2015), whose tiny Shakespeare is fetched where no folder is given.
"""

import codecs
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl.core.errors import DataError
from jaxdl.core.types import Array
from jaxdl.data import fetch
from jaxdl.data.dataset import Dataset, from_tree
from jaxdl.data.gzip_file import MAX_UNPACKED, check_room, opened
from jaxdl.data.registry import Reader

TRAIN = 0.9
_PIECE = 1 << 22  # bytes
MIRRORS = ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/",)
SHA256 = {"input.txt": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"}


class Tokens(NamedTuple):
    """A stream of tokens: the tree of a dataset of text."""

    tokens: Array  # [N] unsigned integers, indices of the vocabulary


def read_split(path: Path, split: str) -> Dataset:
    """The characters of `split` ("train" or "test") of a file in UTF-8, or of the only .txt or .txt.gz in a folder.

    Raises:
        DataError: there is no such file, it is damaged, not UTF-8, or too short for both splits.
    """
    path = _find(path)
    content = _content(path)
    length, occurs = 0, np.zeros(sys.maxunicode + 1, bool)
    for codes in _characters(path, content):
        length += len(codes)
        occurs[codes] = True
    if length < 10:
        raise DataError(f"{path} must have 10 characters or more to be split, got {length}")
    known = np.flatnonzero(occurs)
    token = np.zeros(len(occurs), np.min_scalar_type(len(known) - 1))  # of each character
    token[known] = np.arange(len(known))
    tokens = np.concatenate([token[codes] for codes in _characters(path, content)])
    cut = int(TRAIN * length)
    return from_tree(Tokens(tokens[:cut] if split == "train" else tokens[cut:]), "text", vocabulary=[chr(c) for c in known])


def encode(text: str, vocabulary: Sequence[str]) -> np.ndarray:
    """The tokens of a text, int32 [N].

    Raises:
        DataError: a character is not in the vocabulary.
    """
    index = {c: i for i, c in enumerate(vocabulary)}
    unknown = next((c for c in text if c not in index), None)
    if unknown is not None:
        raise DataError(f"the character {unknown!r} is not among the {len(index)} of the vocabulary")
    return np.array([index[c] for c in text], np.int32)


def decode(tokens: np.ndarray, vocabulary: Sequence[str]) -> str:
    """The text of tokens [N]."""
    return "".join(vocabulary[i] for i in np.asarray(tokens))


def _find(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(p for p in path.iterdir() if p.name.endswith((".txt", ".txt.gz")) and p.is_file())
    if len(found) != 1:
        raise DataError(f"{path} must have one .txt or .txt.gz file, got {', '.join(p.name for p in found) or 'none'}; pass "
                        "the file itself")
    return found[0]


def _content(path: Path) -> bytes:
    with opened(path) as (file, size, packed):
        most = MAX_UNPACKED if packed else min(size, MAX_UNPACKED)
        check_room(path, 0 if packed else most)
        content = file.read(most + 1)  # as much memory is taken at once
    if len(content) > MAX_UNPACKED:
        raise DataError(f"{path} has more than {MAX_UNPACKED} bytes")
    return content


def _characters(path: Path, content: bytes) -> Iterator[np.ndarray]:
    """The characters of a text in UTF-8 as numbers, a piece at a time: all at once take ten times the memory of the file."""
    decoder, begin = codecs.getincrementaldecoder("utf-8")(), 0
    while begin < len(content):
        piece, waiting = content[begin : begin + _PIECE], len(decoder.getstate()[0])
        begin += len(piece)
        try:
            text = decoder.decode(piece, final=begin == len(content))
        except UnicodeDecodeError as e:
            at = begin - len(piece) - waiting + e.start
            raise DataError(f"{path} is not UTF-8: byte {at} is {content[at]:#04x}; convert it first") from None
        yield np.frombuffer(text.encode("utf-32-le"), "<u4")


def _read_tiny_shakespeare(folder: Path | None, split: str) -> Dataset:
    return read_split(folder or fetch.fetch("tiny_shakespeare", MIRRORS, SHA256), split)


READER = Reader(
    "your own text, character by character: a .txt file, or a folder of one, in --data-dir; the last tenth is to test",
    read_split, "needed", "a .txt file in UTF-8, or the folder where it lies")
TINY_SHAKESPEARE = Reader(
    "passages of Shakespeare's plays, 1,115,394 characters, 65 of them different; the last tenth is to test",
    _read_tiny_shakespeare, "fetched", sha256=SHA256)
