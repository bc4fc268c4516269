"""Scenes: the same wherever an index is asked for, and all that is said of them is true of their pixels."""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close, jit, same_bits
from toy_scenes import read

from jaxdl import data
from jaxdl.core.errors import DataError
from jaxdl.data import dataset, idx, minibatches, scene_drawing, scene_grammar, scene_words, scenes
from jaxdl.data.made import Made
from jaxdl.data.scene_drawing import GLYPH, JOINTS, LIMBS
from jaxdl.data.scene_words import COLOURS, DIGITS, ENDS, NOUNS, SEVERAL, VOCABULARY
from jaxdl.data.scenes import FIRST, OBJECTS, PERSON, Maker
from jaxdl.runtime import mesh
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import segmenter
from jaxdl.supervised.caption_report import facts_of, texts

CONTENTS = ("scenes", "scenes_single", "scenes_figures")
SPLITS = ("train", "test", "hard")


@functools.cache
def some(content="scenes", split="test", num=250, size=48):
    """The first scenes of a split."""
    index = np.arange(FIRST[split], FIRST[split] + num, dtype=np.int32)
    whole = scenes.from_made(Made(index, scenes.recipe(None, split), Maker(content, size, split == "hard")), content)
    return whole.complete().arrays


def objects_of(of, i):
    """(colour, noun, box) of each object that is there."""
    return [(COLOURS[c], NOUNS[k - 1], box) for k, c, box in zip(of.labels[i], of.words.colours[i], of.boxes[i], strict=True)
            if k]


def same_scenes(a, b):
    """Of two programs, whose joints may be rounded differently."""
    same_bits(a._replace(joints=None), b._replace(joints=None))
    assert_close(a.joints, b.joints, 1e-5, 1e-4)


def test_an_index_gives_one_scene_whatever_is_made_with_it():
    whole = read("scenes", "train")
    every = whole.complete().arrays
    same_scenes(whole.rows(np.array([7])), jax.tree.map(lambda x: x[[7]], every))
    order = np.random.default_rng(0).permutation(64)
    part = whole.part(order)
    same_scenes(part.complete().arrays, jax.tree.map(lambda x: x[order], every))
    same_scenes(part.rows(slice(2, 3)), jax.tree.map(lambda x: x[order[2:3]], every))
    assert whole.part(order[:5]).spec.num_examples == 5
    assert whole.fingerprint() != part.fingerprint()
    source = minibatches.dataset(64, 8)
    state = source.init(jax.random.key(0))._replace(batch=jnp.int32(3))
    (_, batch), (_, expected) = (jit(lambda data: source.sample(state, jax.random.key(1), 0, data))(x)
                                 for x in (part.on_device(), jax.tree.map(lambda x: jnp.asarray(x[order]), every)))
    same_scenes(batch, expected)
    assert len(np.unique(every.images.reshape(64, -1), axis=0)) == 64


@pytest.mark.parametrize("content", CONTENTS)
def test_masks_boxes_and_classes_are_of_the_visible_pixels(content):
    of = some(content)
    for i in range(100):
        labels = np.concatenate([[0], of.labels[i]])
        np.testing.assert_array_equal(of.semantic[i], labels[of.instances[i]])
        for k in range(OBJECTS):
            y, x = np.nonzero(of.instances[i] == k + 1)
            there = len(y) > 0
            assert there == (of.labels[i, k] > 0)
            box = [x.min(), y.min(), x.max() + 1, y.max() + 1] if there else [0, 0, 0, 0]
            np.testing.assert_array_equal(of.boxes[i, k], box)
            if there and content == "scenes_single":  # with nothing over it, it has its colour
                shade = np.median(of.images[i][y, x], 0)
                assert np.abs(scenes._RGB - shade).sum(1).argmin() == of.words.colours[i, k]
    num = (of.labels > 0).sum(1)
    figures = (of.labels == PERSON).any(1)
    assert not (of.labels[:, 1:] == PERSON).any()
    if content == "scenes_single":
        assert (num == 1).all()
        assert 0.15 < figures.mean() < 0.35
    else:
        assert (num.min(), num.max()) == (1, {"scenes": 5, "scenes_figures": 3}[content])
        assert figures.all() if content == "scenes_figures" else 0.3 < figures.mean() < 0.5
    assert set(np.unique(of.labels)) >= set(range(1, PERSON)) - {0} or content == "scenes_figures"


def test_a_joint_is_hidden_where_another_object_lies_over_it():
    of = some("scenes_figures")
    there = of.labels[:, 0] == PERSON
    assert not of.joints[:, 1:].any()
    assert there.all()
    x, y, v = np.moveaxis(of.joints[:, 0], -1, 0)
    over = of.instances[np.arange(len(x))[:, None], y.astype(int), x.astype(int)]
    np.testing.assert_array_equal(v, np.where(over > 1, 1, 2))
    assert 0 < (v == 1).mean() < 0.05
    alone = (of.labels > 0).sum(1) == 1
    assert (v[alone] == 2).all()
    inner = [JOINTS.index(name) for name in ("right hip", "left shoulder", "right knee", "left elbow")]
    assert (over[alone][:, inner] == 1).all()  # and they are in the figure
    mixed = some("scenes")
    assert (mixed.joints[:, 0, :, 2].any(1) == (mixed.labels[:, 0] == PERSON)).all()


def changed(text, rng):
    """A caption with another colour, number or relation, that cannot be true where the caption is the only such."""
    words = text.split()
    places = [i for i, word in enumerate(words) if word in (*COLOURS, *DIGITS, "left", "right", "above", "below")]
    i = rng.choice([i for i in places if words[0] != "there" or words[i] in DIGITS])
    others = {"left": "right", "right": "left", "above": "below", "below": "above"}
    words[i] = others.get(words[i]) or rng.choice(
        [w for w in (COLOURS if words[i] in COLOURS else DIGITS) if w != words[i]])
    return words[i], " ".join(words)


@pytest.mark.parametrize(("content", "split"), [("scenes", "test"), ("scenes", "hard"), ("scenes_single", "test")])
def test_every_caption_is_true_and_a_changed_one_is_not(content, split):
    of, rng, false = some(content, split), np.random.default_rng(0), 0
    for i in range(250):
        facts, objects = facts_of(of, i), objects_of(of, i)
        for text in texts(of.words.captions[i], VOCABULARY):
            assert scene_grammar.caption_is_true(text, facts), text
            said = scene_grammar.parse(text)
            new, other = changed(text, rng)
            alone = len({o[1] for o in objects}) == len(objects)  # else another object may have that colour, or place
            if alone or said.count is not None:
                assert not scene_grammar.caption_is_true(other, facts), (text, other)
                false += 1
            assert said.count is None or new in DIGITS
    assert false > 300


def test_the_grammar_says_what_is_true_of_a_scene_made_by_hand():
    """A big red circle at the left, a small red 7 at the right and below."""
    facts = scene_grammar.Facts(np.array([0, 11, 8]), np.array([0, 0, 0]), np.array([False, True, False]),
                                np.float32([[0, 0, 0, 0], [0, 0, 30, 30], [40, 20, 50, 44]]))
    true = ("there are two red objects", "there is one circle", "there are zero blue objects", "there are zero people",
            "a red 7", "a big red circle", "a small red 7", "a red circle left of a red 7", "a red 7 right of a red circle",
            "a red circle above a red 7", "a red 7 below a red circle", "a red circle and a red 7",
            "a red 7 and a red circle")
    false = ("there is one red object", "there are two circles", "a small red circle", "a big red 7", "a blue 7",
             "a red 7 left of a red circle", "a red circle below a red 7", "a red 7 and a red 7", "a red 7 and a blue circle")
    nonsense = ("", "a", "a red", "red 7", "there are one circle", "there is two circle", "there are two circle", "a red 7 a",
                "there is one circles", "a red 7 left a red 7 of", "a red 7 above of a red circle", "the red 7",
                "a big big red 7", "a red circle left of", "there are two red objects objects", "a 7 red")
    assert all(scene_grammar.caption_is_true(text, facts) for text in true)
    assert all(not scene_grammar.caption_is_true(text, facts) and scene_grammar.parse(text) for text in false)
    assert all(scene_grammar.parse(text) is None for text in nonsense)


def answered(question, objects, size):
    """The answer to a question about (colour, noun, box), by looking at each of them."""
    centre = lambda box: ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)  # noqa: E731
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731

    def the(words):
        """The one object that is described."""
        if words[-1] == "object" and words[0] in ENDS:
            of = {"leftmost": lambda o: centre(o[2])[0], "rightmost": lambda o: -centre(o[2])[0],
                  "topmost": lambda o: centre(o[2])[1], "lowest": lambda o: -centre(o[2])[1]}[words[0]]
            return min(objects, key=of)
        found = [o for o in objects if all(w in (*o[:2], "object") for w in words)]
        assert len(found) == 1, question
        return found[0]

    def num(words):
        if words[-1] == "objects":
            return sum(o[0] == words[0] for o in objects)
        return sum(o[1] == NOUNS[SEVERAL.index(words[0])] for o in objects)

    if match := re.fullmatch(r"what is the (.+)", question):
        return the(match[1].split())[1]
    if match := re.fullmatch(r"how many (.+) are there", question):
        return DIGITS[num(match[1].split())]
    if match := re.fullmatch(r"which colour is the (.+)", question):
        return the(match[1].split())[0]
    if match := re.fullmatch(r"where is the (.+)", question):
        x, y = centre(the(match[1].split())[2])
        return f"{'top' if y < size / 2 else 'bottom'} {'left' if x < size / 2 else 'right'}"
    if match := re.fullmatch(r"is there a (\w+) (\w+)", question):
        return "yes" if any(o[:2] == match.groups() for o in objects) else "no"
    if match := re.fullmatch(r"is the (.+) bigger than the (.+)", question):
        a, b = (the(words.split()) for words in match.groups())
        assert a[:2] != b[:2]
        return "yes" if area(a[2]) > area(b[2]) else "no"
    match = re.fullmatch(r"are there more (\w+) than (\w+)", question)
    assert match[1] != match[2]
    return "yes" if num([match[1]]) > num([match[2]]) else "no"


@pytest.mark.parametrize(("content", "split"), [("scenes", "test"), ("scenes", "hard"), ("scenes_figures", "test"),
                                                ("scenes_single", "test")])
def test_every_answer_is_right(content, split):
    of, told = some(content, split), {}
    for i in range(250):
        objects = objects_of(of, i)
        for kind, question, answer in zip(scene_words.KINDS, *(texts(x[i], VOCABULARY) for x in (
                of.words.questions, of.words.answers)), strict=True):
            assert answered(question, objects, 48) == answer, (i, question, objects)
            told.setdefault(kind, []).append(answer)
    assert {"yes", "no"} == set(told["is there"]) == set(told["comparison"])
    assert 0.3 < np.mean([x == "yes" for x in told["is there"]]) < 0.7
    assert len(set(told["where"])) == 4
    if content == "scenes":
        assert {"zero", "one", "two"} < set(told["how many"])


@pytest.mark.parametrize("split", SPLITS)
def test_the_colours_of_the_split_hard_are_of_no_other(split):
    of = read("scenes", "train").complete().arrays if split == "train" else some("scenes", split)
    there = of.labels > 0
    kept = (of.words.colours + of.labels) % len(COLOURS) == 0  # one colour of each class
    assert (kept[there] == (split == "hard")).all()
    questions = [q for row in of.words.questions for q in texts(row, VOCABULARY) if q.startswith("is there")]
    pairs = [(COLOURS.index(c), 1 + NOUNS.index(n)) for c, n in (q.split()[3:] for q in questions)]
    asked = np.mean([(c + n) % len(COLOURS) == 0 for c, n in pairs])  # of a scene of "hard" half are of its colours
    assert asked == 0 if split != "hard" else 0.3 < asked < 0.7


def test_splits_share_no_index_and_no_digit():
    ranges = sorted((FIRST[split], FIRST[split] + scenes.NUM[split]) for split in SPLITS)
    assert all(after <= first for (_, after), (first, _) in itertools.pairwise(ranges))
    assert ranges[-1][1] < 2**31
    train, test, hard = (scenes.recipe(None, split) for split in SPLITS)
    same_bits(test, hard)
    assert not {x.tobytes() for x in train.digits} & {x.tobytes() for x in test.digits}


def test_what_is_read_is_its_spec():
    train = data.load("scenes_single")
    assert train.is_made
    assert (train.spec.num_examples, train.spec.shape, train.spec.num_classes) == (2**20, (64, 64, 3), None)
    assert train.spec.class_names == ("ground", *NOUNS)
    assert len(NOUNS) == PERSON == 17
    assert train.spec.vocabulary == VOCABULARY
    found = {x.name: (x.shape, x.dtype) for x in train.spec.arrays}
    rows = train.rows(slice(2))
    assert found == {name: (dataset.pick(rows, name).shape[1:], str(dataset.pick(rows, name).dtype)) for name in found}
    assert found["words.captions"] == ((4, 11), "uint8")
    assert len(rows.images) == 2


def test_every_word_is_a_token_and_every_text_ends():
    assert len(set(VOCABULARY)) == len(VOCABULARY) < 256
    assert VOCABULARY[0] == ""
    for split in ("test", "hard"):
        for rows in some("scenes", split).words[:3]:
            assert rows.max() < len(VOCABULARY)
            assert (rows[..., 0] > 0).all()
            assert (rows[..., -1] == 0).all()
            assert ((rows[..., 1:] == 0) | (rows[..., :-1] > 0)).all()  # nothing after the end
    one = some("scenes").words.captions[0, 0]
    assert scene_words.text(one) == texts(one[None], VOCABULARY)[0]


def test_a_glyph_is_a_picture_stretched_into_its_square():
    small = np.uint8(np.random.default_rng(0).integers(0, 256, (GLYPH, GLYPH)))
    size, (x0, y0, x1, y1) = 24, (3.3, -4.2, 17.9, 15.0)
    cells = np.arange(GLYPH)
    expected = np.zeros((size, size))
    for row, column in np.ndindex(size, size):
        x, y = column + 0.5, row + 0.5
        if x0 <= x < x1 and y0 <= y < y1:
            across = [np.interp((x - x0) / (x1 - x0) * GLYPH - 0.5, cells, line / 255.0) for line in small]
            share = np.interp((y - y0) / (y1 - y0) * GLYPH - 0.5, cells, across)
            expected[row, column] = np.clip(2 * share - 0.5, 0, 1)
    drawn = scene_drawing.glyph(jnp.asarray(small), jnp.array([x0, y0, x1, y1]), size)
    np.testing.assert_allclose(drawn, expected, atol=1e-4)
    assert expected.max() == 1


def test_a_figure_is_what_is_near_its_limbs_or_in_its_head():
    size, height = 40, 30.0
    body = np.asarray(20 + height * scene_drawing.pose(jnp.linspace(0, 1, scene_drawing.POSE)))
    np.testing.assert_allclose((body.max(0) - body.min(0)).max(), height, rtol=1e-5)
    along = np.linspace(0, 1, 500)[:, None]
    points = np.concatenate([body[a] + along * (body[b] - body[a]) for a, b in LIMBS])
    middle, radius = body[-2:].mean(0), np.linalg.norm(body[-1] - body[-2]) / 2
    expected = np.zeros((size, size))
    for y, x in np.ndindex(size, size):
        at = np.array([x + 0.5, y + 0.5])
        limb = scene_drawing._THICK * height + 0.5 - np.linalg.norm(points - at, axis=1).min()
        expected[y, x] = np.clip(max(limb, radius + 0.5 - np.linalg.norm(middle - at)), 0, 1)
    np.testing.assert_allclose(scene_drawing.figure(jnp.asarray(body), jnp.float32(height), size), expected, atol=5e-3)


def test_later_objects_are_painted_over_earlier_ones():
    ground = jnp.full((4, 4, 3), 10.0)
    shares = jnp.zeros((2, 4, 4)).at[:, 0].set(jnp.array([[1.0, 1.0, 0.4, 0.0], [0.0, 0.5, 0.0, 0.0]]))
    painted = scene_drawing.paint(ground, shares, jnp.array([[110.0] * 3, [210.0] * 3]), jnp.array([3, 9]))
    np.testing.assert_allclose(painted.image[0, :, 0], [110, 160, 50, 10])
    np.testing.assert_array_equal(painted.instances[0], [1, 2, 0, 0])
    np.testing.assert_array_equal(painted.semantic[0], [3, 9, 0, 0])
    assert not painted.instances[1:].any()
    np.testing.assert_array_equal(scene_drawing.boxes_of(painted.instances, 3), [[0, 0, 1, 1], [1, 0, 2, 1], [0, 0, 0, 0]])


def test_shapes_are_of_the_places_that_they_cover():
    covered = scene_drawing.shapes().mean((1, 2)) / 255
    names = scene_drawing.SHAPES
    share = dict(zip(names, covered, strict=True))
    assert share["circle"] == pytest.approx(np.pi * 0.9**2 / 4, abs=0.015)
    assert share["square"] == pytest.approx(0.8**2, abs=0.015)
    assert share["ring"] == pytest.approx(np.pi * (0.9**2 - 0.5**2) / 4, abs=0.015)
    assert share["triangle"] == pytest.approx(1.7 * 1.7 / 1.9 / 4, abs=0.015)
    assert share["cross"] == pytest.approx((2 * 1.7 * 0.56 - 0.56**2) / 4, abs=0.015)
    assert 0.2 < share["star"] < 0.5


def test_digits_of_mnist_where_its_folder_is_given(mnist_dir):
    train = scenes.recipe(mnist_dir, "train")
    assert train.digits.shape == (60_000, GLYPH, GLYPH)
    assert train.labels.shape == (60_000,)
    assert len(scenes.recipe(mnist_dir, "hard").digits) == 10_000


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="split must be 'train' or 'test' or 'hard', got 'val'"):
        data.load("scenes", None, "val")
    with pytest.raises(DataError, match=f"data folder {tmp_path / 'none'} does not exist"):
        data.load("scenes", tmp_path / "none")
    with pytest.raises(DataError, match=str(tmp_path)):
        data.load("scenes", tmp_path)  # a folder without MNIST's files
    for split in data.SPLITS:
        idx.write_split(tmp_path, split, np.zeros((10, 8, 8, 1), np.uint8), np.arange(10))
    with pytest.raises(DataError, match=r"digits of 28x28.*the shape \[8, 8, 1\]"):
        data.load("scenes", tmp_path)


def test_devices_share_scenes_and_each_makes_its_own():
    whole = read("scenes", "train")
    layout = mesh.MeshLayout(mesh.make_mesh(2), shared=True)
    placed = layout.place_data(whole.on_device())
    assert {x.data.shape for x in placed.index.addressable_shards} == {(32,)}
    digits = placed.recipe.digits
    assert {len(x.data) for x in digits.addressable_shards} == {len(whole.arrays.recipe.digits) // 2}


def test_two_devices_learn_from_scenes_that_each_makes():
    whole = read("scenes", "train")
    config = segmenter.Config(channels=(4, 4), batch_size=8, total_steps=2)
    driver = make_device_driver(lambda c, **axis: segmenter.make_run(c, whole.spec, **axis), [config], whole.on_device(), [0],
                                quick=True, devices=2)
    state, _ = driver.chunk(driver.start(), 2)
    assert np.isfinite(jax.tree.leaves(driver.params(state))[0]).all()
