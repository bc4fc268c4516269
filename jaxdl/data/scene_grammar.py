"""Captions of scenes read back: what a text says, and whether it is true of a scene. On the host.

    caption  = count | object | object relation object | object "and" object
    count    = "there" ("is" | "are") NUMBER (COLOUR ("object" | "objects") | NOUN)
    object   = "a" ["small" | "big"] COLOUR NOUN
    relation = "left of" | "right of" | "above" | "below"

A count is of all objects of the colour or noun. A relation holds between the centres of boxes, and two objects are needed where
two are spoken of.

Shapes: `K` objects of a scene.
"""

from typing import NamedTuple

import numpy as np

from jaxdl.data.scene_words import COLOURS, DIGITS, NOUNS, RELATIONS, SEVERAL


class Thing(NamedTuple):
    """An object that a caption speaks of."""

    size: str | None  # "small", "big"
    colour: str
    noun: str


class Count(NamedTuple):
    """So many objects of a colour, or of a noun."""

    number: int
    colour: str | None
    noun: str | None


class Saying(NamedTuple):
    """What a caption says: a count, or one object or two."""

    count: Count | None = None
    first: Thing | None = None
    second: Thing | None = None
    relation: str | None = None  # of first to second; None: there are both


def parse(text: str) -> Saying | None:
    """What a caption says, None where it is none of the grammar."""
    words = text.split()
    if words[:1] == ["there"]:
        count = _count(words[1:])
        return None if count is None else Saying(count)
    first, rest = _thing(words)
    if first is None or not rest:
        return None if first is None else Saying(first=first)
    relation, rest = rest[0], rest[1:]
    if relation in RELATIONS[:2] and rest[:1] == ["of"]:
        rest = rest[1:]
    elif relation not in (*RELATIONS[2:], "and"):
        return None
    second, rest = _thing(rest)
    if second is None or rest:
        return None
    return Saying(first=first, second=second, relation=None if relation == "and" else relation)


def _thing(words: list[str]) -> tuple[Thing | None, list[str]]:
    """The object that words begin with, and the rest of them."""
    if words[:1] != ["a"]:
        return None, words
    size = words[1] if words[1:2] and words[1] in ("small", "big") else None
    rest = words[1 if size is None else 2:]
    if len(rest) < 2 or rest[0] not in COLOURS or rest[1] not in NOUNS:
        return None, words
    return Thing(size, rest[0], rest[1]), rest[2:]


def _count(words: list[str]) -> Count | None:
    if len(words) < 3 or words[0] not in ("is", "are") or words[1] not in DIGITS:
        return None
    number, one = DIGITS.index(words[1]), words[0] == "is"
    if one != (number == 1):
        return None
    if len(words) == 4 and words[2] in COLOURS and words[3] == ("object" if one else "objects"):
        return Count(number, words[2], None)
    if len(words) == 3 and words[2] in (NOUNS if one else SEVERAL):
        return Count(number, None, NOUNS[(NOUNS if one else SEVERAL).index(words[2])])
    return None


class Facts(NamedTuple):
    """What there is in a scene."""

    labels: np.ndarray  # [K], 0 where there is none
    colours: np.ndarray  # [K]
    big: np.ndarray  # [K] bool
    boxes: np.ndarray  # [K, 4]


def is_true(saying: Saying, of: Facts) -> bool:
    """Whether it is true of a scene."""
    if saying.count is not None:
        count = saying.count
        same = (of.colours == COLOURS.index(count.colour) if count.noun is None else
                of.labels == 1 + NOUNS.index(count.noun))
        return int(((of.labels > 0) & same).sum()) == count.number
    first = _found(saying.first, of)
    if saying.second is None:
        return bool(len(first))
    second = _found(saying.second, of)
    return any(a != b and _holds(saying.relation, of.boxes[a], of.boxes[b]) for a in first for b in second)


def caption_is_true(text: str, of: Facts) -> bool:
    """Whether a caption is one of the grammar, and true of a scene."""
    saying = parse(text)
    return saying is not None and is_true(saying, of)


def _found(thing: Thing, of: Facts) -> np.ndarray:
    """Which objects answer to a description."""
    same = (of.labels == 1 + NOUNS.index(thing.noun)) & (of.colours == COLOURS.index(thing.colour))
    if thing.size is not None:
        same = same & (of.big == (thing.size == "big"))
    return np.flatnonzero(same)


def _holds(relation: str | None, a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a box stands in a relation to another."""
    (xa, ya), (xb, yb) = a[:2] + a[2:], b[:2] + b[2:]
    return {None: True, "left": xa < xb, "right": xa > xb, "above": ya < yb, "below": ya > yb}[relation]
