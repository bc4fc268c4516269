"""Captions of scenes, and questions with their answers, out of a small grammar and always true; made on the device.

    caption   "there are two circles"          how many are of a kind, or of a colour
              "a big red circle"               one object
              "a red circle left of a blue 7"
              "a red circle and a blue 7"
    question  what          "what is the red object", "what is the leftmost object"         "circle"
              how many      "how many circles are there"                                    "two"
              which colour  "which colour is the circle"                                    "red"
              where         "where is the red circle"                                       "top left"
              is there      "is there a red circle"                                         "yes"
              comparison    "is the red circle bigger than the blue star",
                            "are there more circles than stars"                             "no"

A word is a token; token 0 ends a text, and fills what is left of its row. `scene_grammar` reads captions back.

Shapes: `K` objects of a scene, `L` tokens of a text.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jaxdl.core.types import Array
from jaxdl.data.scene_drawing import SHAPES

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOUNS = (*map(str, range(10)), *SHAPES, "person")  # of the classes 1, 2, ...
COLOURS = ("red", "green", "blue", "yellow", "purple", "white")
RELATIONS = ("left", "right", "above", "below")
ENDS = ("leftmost", "rightmost", "topmost", "lowest")
KINDS = ("what", "how many", "which colour", "where", "is there", "comparison")
SEVERAL = (*(f"{x}s" for x in NOUNS[:10]), *(f"{x}es" if x == "cross" else f"{x}s" for x in SHAPES), "people")
VOCABULARY = ("", "a", "the", "there", "is", "are", "and", "of", "than", "more", "bigger", "what", "how", "many", "which",
              "colour", "where", "small", "big", *COLOURS, *DIGITS, *NOUNS, *SEVERAL, "object", "objects", *RELATIONS, *ENDS,
              "top", "bottom", "yes", "no")
_AT = {word: i for i, word in enumerate(VOCABULARY)}
NUMBERS = 11  # uniform numbers of the texts, for each object
CAPTION, QUESTION, ANSWER = 11, 10, 3  # tokens at most, with the one that ends the text


class Attributes(NamedTuple):
    """What can be said of the objects of a scene."""

    labels: Array  # [K] int32, 0 where there is none
    colours: Array  # [K] int32
    big: Array  # [K] bool
    boxes: Array  # [K, 4]


class Words(NamedTuple):
    """Texts of a scene, and what decides whether a caption is true of it."""

    captions: Array  # [4, CAPTION] uint8
    questions: Array  # [6, QUESTION] uint8, one of each of `KINDS`
    answers: Array  # [6, ANSWER] uint8
    colours: Array  # [K] uint8
    big: Array  # [K] bool


def words(of: Attributes, size: int, u: Array) -> Words:
    """Captions and questions of one scene whose side is `size`; of uniform numbers [NUMBERS, K]."""
    questions, answers = zip(*_questions(of, size, u[3:]), strict=True)
    return Words(_rows(_captions(of, u[:3]), CAPTION), _rows(questions, QUESTION), _rows(answers, ANSWER),
                 of.colours.astype(jnp.uint8), of.big)


def text(tokens: Array) -> str:
    """Tokens [L] as words with blanks between, without what ends them."""
    return " ".join(VOCABULARY[int(t)] for t in tokens if t)


def _captions(of: Attributes, u: Array) -> list[list[Array]]:
    there = of.labels > 0
    first = _pick(there, u[0])
    second = _pick(there & (jnp.arange(len(there)) != first), u[1])
    alone = there.sum() < 2
    by_colour, sized = u[2, 0] < 0.5, u[2, 1] < 0.5
    num = (there & jnp.where(by_colour, of.colours == of.colours[first], of.labels == of.labels[first])).sum()
    counted = [_w("there"), jnp.where(num == 1, _w("is"), _w("are")), _number(num),
               jnp.where(by_colour, _colour(of.colours[first]), 0),
               jnp.where(by_colour, jnp.where(num == 1, _w("object"), _w("objects")), _noun(of.labels[first], num != 1))]
    one = _described(of, first, _w("a"), sized)
    pair = [*_described(of, first, _w("a"), False), *_described(of, second, _w("a"), False)]
    relation = _relation(of, first, second)
    beside = [*pair[:4], _w("left") + relation, jnp.where(relation < 2, _w("of"), 0), *pair[4:]]
    both = [*pair[:4], _w("and"), *pair[4:]]

    def or_one(tokens: list[Array]) -> list[Array]:
        return [jnp.where(alone, x, y) for x, y in zip(one + [0] * (len(tokens) - 4), tokens, strict=True)]

    return [counted, one, or_one(beside), or_one(both)]


def _questions(of: Attributes, size: int, u: Array) -> list[tuple[list[Array], list[Array]]]:
    """Questions and answers, one of each of `KINDS`."""
    there = of.labels > 0
    same_colour, same_noun = of.colours[:, None] == of.colours, of.labels[:, None] == of.labels
    x, y = (of.boxes[:, i] + of.boxes[:, i + 2] for i in (0, 1))
    end = jnp.minimum((u[0, 0] * 4).astype(jnp.int32), 3)
    at_end = jnp.argmin(jnp.where(there, jnp.stack([x, -x, y, -y])[end], jnp.inf))
    the_end = [_w("the"), 0, _w("leftmost") + end, _w("object")]

    def only(same: Array) -> Array:
        return there & ((same & there).sum(1) == 1)

    what = _pick(only(same_colour), u[1])
    by_colour = only(same_colour).any() & (u[0, 1] < 0.6)
    what_is = [_w("what"), _w("is"), *_either(by_colour, [_w("the"), 0, _colour(of.colours[what]), _w("object")], the_end)]

    some, said = _pick(there, u[2]), u[0, 2] < 0.5
    strange = u[0, 3] < 0.3
    colour = jnp.where(strange, _below(u[3, 0], len(COLOURS)), of.colours[some])
    label = jnp.where(strange, 1 + _below(u[3, 0], len(NOUNS)), of.labels[some])
    found = (there & jnp.where(said, of.colours == colour, of.labels == label)).sum()
    how_many = [_w("how"), _w("many"), jnp.where(said, _colour(colour), 0), jnp.where(said, _w("objects"), _noun(label, True)),
                _w("are"), _w("there")]

    of_noun = _pick(only(same_noun), u[4])
    by_noun = only(same_noun).any()
    which = [_w("which"), _w("colour"), _w("is"), *_either(by_noun, [_w("the"), 0, 0, _noun(of.labels[of_noun])], the_end)]

    placed = _pick(only(same_colour & same_noun), u[5])
    by_both = only(same_colour & same_noun).any()
    where = [_w("where"), _w("is"), *_either(by_both, _described(of, placed, _w("the"), False), the_end)]
    at = jnp.where(by_both, placed, at_end)
    place = [jnp.where(y[at] < size, _w("top"), _w("bottom")), jnp.where(x[at] < size, _w("left"), _w("right"))]

    asked, yes = _pick(there, u[6]), u[0, 4] < 0.5
    other = (1 + _below(u[3, 1], len(COLOURS) - 1) - of.labels[asked]) % len(COLOURS)  # never what training never shows
    said_colour = jnp.where(yes, of.colours[asked], other)
    is_there = [_w("is"), _w("there"), _w("a"), _colour(said_colour), _noun(of.labels[asked])]
    holds = (there & (of.labels == of.labels[asked]) & (of.colours == said_colour)).any()

    return [(what_is, [_noun(of.labels[jnp.where(by_colour, what, at_end)])]), (how_many, [_number(found)]),
            (which, [_colour(of.colours[jnp.where(by_noun, of_noun, at_end)])]), (where, place), (is_there, [_yes(holds)]),
            _comparison(of, only(same_colour & same_noun), u[7], u[3])]


def _comparison(of: Attributes, single: Array, u: Array, v: Array) -> tuple[list[Array], list[Array]]:
    """Of the sizes of two objects that have their descriptions to themselves, or of how many there are of two kinds."""
    there = of.labels > 0
    a = _pick(single, u)
    b = _pick(single & (jnp.arange(len(u)) != a), v)
    area = (of.boxes[:, 2] - of.boxes[:, 0]) * (of.boxes[:, 3] - of.boxes[:, 1])
    bigger = [_w("is"), *_described(of, a, _w("the"), False, sparse=True), _w("bigger"), _w("than"),
              *_described(of, b, _w("the"), False, sparse=True)]
    some = _pick(there, v)
    others = there & (of.labels != of.labels[some])
    strange = 1 + (of.labels[some] + _below(u[1], len(NOUNS) - 1)) % len(NOUNS)
    other = jnp.where((u[0] < 0.5) | ~others.any(), strange, of.labels[_pick(others, u)])
    kinds = jnp.where(v[2] < 0.5, jnp.stack([of.labels[some], other]), jnp.stack([other, of.labels[some]]))
    found = (there & (of.labels == kinds[:, None])).sum(1)
    more = [_w("are"), _w("there"), _w("more"), _noun(kinds[0], True), _w("than"), _noun(kinds[1], True), 0, 0, 0]
    sizes = (single.sum() > 1) & (v[3] < 0.5)
    return _either(sizes, bigger, more), [_yes(jnp.where(sizes, area[a] > area[b], found[0] > found[1]))]


def _described(of: Attributes, k: Array, article: Array, sized: Array | bool, sparse: bool = False) -> list[Array]:
    """An object in words: article, maybe its size, colour and noun; `sparse`: without the size's place."""
    size = [] if sparse else [jnp.where(sized, jnp.where(of.big[k], _w("big"), _w("small")), 0)]
    return [article, *size, _colour(of.colours[k]), _noun(of.labels[k])]


def _relation(of: Attributes, a: Array, b: Array) -> Array:
    """Which of `RELATIONS` holds of two objects, by the longer way between their centres."""
    x, y = (of.boxes[a, i] + of.boxes[a, i + 2] - of.boxes[b, i] - of.boxes[b, i + 2] for i in (0, 1))
    return jnp.where(jnp.abs(x) > jnp.abs(y), jnp.where(x < 0, 0, 1), jnp.where(y < 0, 2, 3))


def _pick(allowed: Array, u: Array) -> Array:
    """One that is allowed, by uniform numbers; anyone where none is."""
    return jnp.argmax(jnp.where(allowed, u, -1))


def _below(u: Array, num: int) -> Array:
    return jnp.minimum((u * num).astype(jnp.int32), num - 1)


def _either(condition: Array, a: list[Array], b: list[Array]) -> list[Array]:
    return [jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)]


def _w(word: str) -> int:
    return _AT[word]


def _colour(colour: Array) -> Array:
    return _AT[COLOURS[0]] + colour


def _number(num: Array) -> Array:
    return _AT[DIGITS[0]] + num


def _noun(label: Array, several: Array | bool = False) -> Array:
    return jnp.where(several, _AT[SEVERAL[0]], _AT[NOUNS[0]]) + jnp.maximum(label, 1) - 1


def _yes(holds: Array) -> Array:
    return jnp.where(holds, _w("yes"), _w("no"))


def _rows(texts: list[list[Array]], length: int) -> Array:
    """Texts without the gaps in them, uint8 [num, length]."""
    most = max(map(len, texts))
    padded = jnp.stack([jnp.asarray(t, jnp.int32) for tokens in texts for t in [*tokens, *[0] * (most - len(tokens))]])
    padded = padded.reshape(len(texts), most)
    place = jnp.where(padded > 0, jnp.cumsum(padded > 0, 1) - 1, length)
    is_at = place[:, None] == jnp.arange(length)[:, None]  # [num, length, most]
    return jnp.where(is_at, padded[:, None], 0).sum(-1).astype(jnp.uint8)
