"""Pairs of sequences: the one is given, the other is to be written. Sums, reversals, sorted digits, and your own.

A sequence is tokens, token 0 ends it, and fills what is left of its row. Of the made ones a row is a character string:

    addition   "47+812" -> "859"      reversal   "gcaaf" -> "faacg"      sorting   "83183" -> "13388"

All inputs of a dataset differ, so that what is held out was never seen. They are drawn by a fixed seed, as many of each kind
(digits of the summands, or length) as there are, up to a limit; a tenth of each kind is to test.

Shapes: `N` pairs, `S` tokens of an input and its end, `L` of a target and its end.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl.core.errors import DataError
from jaxdl.core.types import Array
from jaxdl.data.dataset import Dataset, from_tree, held_out
from jaxdl.data.registry import Reader

TRAIN = 0.9  # of each kind
_SEED = 0
_LETTERS = np.array(list("abcdefghij"))
_DIGITS = np.array(list("0123456789"))


class Pairs(NamedTuple):
    """The tree of a dataset of pairs, on the host or the device, or a batch of one."""

    inputs: Array  # [N, S] unsigned integers, indices of the vocabulary; 0 ends a sequence
    targets: Array  # [N, L] the same


def from_texts(inputs: Sequence[str], targets: Sequence[str], name: str = "pairs", characters: str | None = None) -> Dataset:
    """A dataset of texts and of what is to be written of each, character by character.

    Args:
        inputs: N texts.
        targets: N texts.
        name: what to call it.
        characters: all that occur in any split; those of these texts if not given.

    Raises:
        DataError: there are not as many of both, one is empty, or a character is not among `characters`.
    """
    if len(inputs) != len(targets):
        raise DataError(f"{name} must have a target for each input, got {len(inputs)} inputs and {len(targets)} targets")
    codes = [_codes(texts, name) for texts in (inputs, targets)]
    occur = np.unique(np.concatenate([np.unique(x) for x in codes]))[1:]  # all but 0, which fills
    known = occur if characters is None else np.unique([ord(c) for c in characters])
    strange = np.setdiff1d(occur, known)
    if len(strange):
        raise DataError(f"{name} has {chr(strange[0])!r}, which is not among its characters")
    tokens = [np.where(x == 0, 0, np.searchsorted(known, x) + 1).astype(np.min_scalar_type(len(known))) for x in codes]
    return from_tree(Pairs(*tokens), name, target="targets", vocabulary=("", *map(chr, known)))


def _codes(texts: Sequence[str], name: str) -> np.ndarray:
    """Characters as numbers, uint32 [N, longest + 1], filled with zeros."""
    array = np.asarray(texts, np.str_)
    if not len(array) or not all(array):
        raise DataError(f"{name} must have one text or more, none of them empty")
    found = np.ascontiguousarray(array).view(np.uint32).reshape(len(array), -1)
    return np.pad(found, ((0, 0), (0, 1)))


def addition(digits: int = 3, most: int = 50_000) -> Reader:
    """Sums of two numbers of up to so many digits; `most` of each pair of lengths."""

    def drawn(kind: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        low, num = zip(*((0 if d == 1 else 10 ** (d - 1), 10**d - (0 if d == 1 else 10 ** (d - 1))) for d in kind), strict=True)
        code = distinct(num[0] * num[1], most, rng)
        a, b = low[0] + code // num[1], low[1] + code % num[1]
        return np.strings.add(np.strings.add(a.astype(np.str_), "+"), b.astype(np.str_)), (a + b).astype(np.str_)

    return _reader("addition", f"sums of two numbers of up to {digits} digits, as characters; a tenth is to test",
                   list(itertools.product(range(1, digits + 1), repeat=2)), drawn, "+0123456789")


def reversal(length: int = 10, most: int = 10_000) -> Reader:
    """Words of 2 and up to so many of ten letters, and the same backwards; `most` of each length."""
    return _of_symbols("reversal", f"words of 2 to {length} letters, to be written backwards; a tenth is to test", length,
                       most, _LETTERS, lambda x: x[:, ::-1])


def sorting(length: int = 10, most: int = 10_000) -> Reader:
    """Rows of 2 and up to so many digits, and the same in order; `most` of each length."""
    return _of_symbols("sorting", f"2 to {length} digits, to be written in order; a tenth is to test", length, most, _DIGITS,
                       lambda x: np.sort(x, 1))


def _of_symbols(name: str, summary: str, length: int, most: int, symbols: np.ndarray,
                answer: Callable[[np.ndarray], np.ndarray]) -> Reader:
    def drawn(kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        code = distinct(len(symbols) ** kind, most, rng)
        places = code[:, None] // len(symbols) ** np.arange(kind) % len(symbols)
        return tuple(_joined(symbols[x]) for x in (places, answer(places)))

    return _reader(name, summary, list(range(2, length + 1)), drawn, "".join(symbols))


def _joined(characters: np.ndarray) -> np.ndarray:
    """Characters [n, l] -> strings [n]."""
    return np.ascontiguousarray(characters).view(f"<U{characters.shape[1]}")[:, 0]


def distinct(total: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """`most` different numbers below `total` in random order, or all of them where there are no more."""
    if total <= 2 * most:
        return rng.permutation(total)[:most]
    found = np.unique(rng.integers(total, size=2 * most))  # repeats leave more than `most` of them, almost surely
    return rng.permutation(found)[:most]


def _reader(name: str, summary: str, kinds: list, drawn: Callable[..., tuple[np.ndarray, np.ndarray]], characters: str
            ) -> Reader:
    @functools.cache
    def whole() -> list[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(_SEED)
        return [drawn(kind, rng) for kind in kinds]

    def read(folder: Path | None, split: str) -> Dataset:
        del folder
        parts = [[x[: round(TRAIN * len(x))] if split == "train" else x[round(TRAIN * len(x)):] for x in pair]
                 for pair in whole()]
        inputs, targets = (np.concatenate(side) for side in zip(*parts, strict=True))
        longest = [max(np.strings.str_len(x).max() for x in side) for side in zip(*whole(), strict=True)]
        return from_texts(inputs.astype(f"<U{longest[0]}"), targets.astype(f"<U{longest[1]}"), name, characters)

    return Reader(summary, read)


def read_file(path: Path | None, split: str) -> Dataset:
    """Pairs of a file in UTF-8, a line each: input, a tab, target. Every fifth of the different inputs is to test.

    Raises:
        DataError: a line is no pair, an input has two targets, or the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path} must be a file of text in UTF-8: {e}") from None
    found: dict[str, str] = {}
    for i, line in enumerate(lines):
        source, tab, target = line.partition("\t")
        if not (source and tab and target) or "\t" in target or "\0" in line:
            raise DataError(f"line {i + 1} of {path} must be an input, a tab and a target, got {line[:60]!r}")
        if found.setdefault(source, target) != target:
            raise DataError(f"line {i + 1} of {path} has another target for the input {source[:60]!r}; leave one of them out")
    index = held_out(len(found), split)
    width = [max(map(len, side)) for side in (found, found.values())]
    inputs, targets = (np.array(list(side), f"<U{n}")[index] for side, n in zip((found, found.values()), width, strict=True))
    return from_texts(inputs, targets, "pairs", "".join(sorted({c for pair in found.items() for c in "".join(pair)})))


ADDITION, REVERSAL, SORTING = addition(), reversal(), sorting()
READER = Reader("your own pairs of texts: a file with an input, a tab and a target in each line; every fifth is to test",
                read_file, "needed", "a file of lines with an input, a tab and a target")
