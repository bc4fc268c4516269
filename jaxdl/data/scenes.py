"""Scenes: pictures of digits, coloured shapes and stick figures, made on the device from an index, with all that is in them.

    scenes          one to four glyphs, of digits and shapes, and a figure in four of ten; some overlap
    scenes_single   one object
    scenes_figures  a figure among up to two glyphs

With each come the class and the object of every pixel, boxes, joints, captions and questions (`Annotated`, `scene_words`). No
two indices give the same scene. Of the `2^20` that an epoch has all are to train; those to test have indices of their own, and
so have those of the split "hard", whose objects all have the one colour of six that training never shows of their class.

Digits are those of MNIST where its folder is given, else those of scikit-learn: to train from the training split, and for the
others from the test split.

Shapes: `N` scenes, `S` side of a scene in pixels, `K` objects, `G` digits.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.errors import DataError
from jaxdl.core.types import Array, ArraySpec, DataSpec
from jaxdl.data import digits, idx, scene_drawing, scene_words
from jaxdl.data.annotated import Annotated
from jaxdl.data.dataset import Dataset
from jaxdl.data.made import Made
from jaxdl.data.registry import Reader
from jaxdl.data.scene_drawing import GLYPH, SHAPES
from jaxdl.data.scene_words import COLOURS, NOUNS, Attributes
from jaxdl.ops import hashing

SIZE = 64
NUM = {"train": 2**20, "test": 1000, "hard": 1000}
FIRST = {"train": 0, "test": 2**24, "hard": 2**25}  # index of each split
OBJECTS = 5  # at most, the figure is the first
PERSON = len(NOUNS)  # the class of figures, the last
BIG = 0.36  # an object whose square has this side or more, in sides of the scene, is big
_PLACES = 8  # that are tried for an object
_OVERLAP = 0.25  # of the smaller of two squares, at most
_SIDES = {"digit": (0.28, 0.46), "shape": (0.2, 0.46), "figure": (0.45, 0.8)}  # of squares, in sides of the scene
_RGB = np.array([[220, 40, 40], [40, 190, 60], [60, 90, 240], [235, 215, 50], [190, 60, 220], [240, 240, 240]], np.float32)

Content = Literal["scenes", "scenes_single", "scenes_figures"]


class Recipe(NamedTuple):
    """What scenes are made of."""

    digits: Array  # [G, GLYPH, GLYPH] uint8
    labels: Array  # [G] int32


@dataclass(frozen=True)
class Maker:
    """Scenes from indices."""

    content: Content = "scenes"
    size: int = SIZE
    hard: bool = False

    def __call__(self, recipe: Recipe, index: Array) -> Annotated:
        """The scenes of indices [N]."""
        return jax.vmap(functools.partial(scene, self, recipe))(index)


class _Plan(NamedTuple):
    """What is to be painted."""

    glyphs: Array  # [K, GLYPH, GLYPH] uint8
    labels: Array  # [K] int32, 0 where there is none
    colours: Array  # [K] int32
    sides: Array  # [K] of squares, in pixels
    centres: Array  # [K, 2] x and y


def scene(maker: Maker, recipe: Recipe, index: Array) -> Annotated:
    """One scene, without a leading axis."""
    u = _numbers(index, plan=(OBJECTS, 5 + 2 * _PLACES), pose=(scene_drawing.POSE,), ground=(scene_drawing.GROUND,),
                 shades=(OBJECTS, 3), words=(scene_words.NUMBERS, OBJECTS), grain=(maker.size, maker.size))
    plan = _planned(maker, recipe, u["plan"])
    half = plan.sides[:, None] / 2
    squares = jnp.concatenate([plan.centres - half, plan.centres + half], -1)
    shades = jnp.asarray(_RGB)[plan.colours] + 44 * u["shades"] - 22
    body = plan.centres[0] + plan.sides[0] * scene_drawing.pose(u["pose"])
    glyphs = jax.vmap(functools.partial(scene_drawing.glyph, size=maker.size))(plan.glyphs[1:], squares[1:])
    figure = scene_drawing.figure(body, plan.sides[0], maker.size)
    shares = jnp.concatenate([figure[None], glyphs]) * (plan.labels > 0)[:, None, None]
    ground = scene_drawing.ground(u["ground"], u["grain"])
    painted = scene_drawing.paint(ground, shares, shades, plan.labels)
    boxes = scene_drawing.boxes_of(painted.instances, OBJECTS)
    labels = jnp.where(boxes[:, 2] > 0, plan.labels, 0)
    joints = jnp.zeros((OBJECTS, len(scene_drawing.JOINTS), 3)).at[0].set(
        jnp.where(labels[0] > 0, _seen(body, painted.instances), 0))
    words = scene_words.words(Attributes(labels, plan.colours, plan.sides >= BIG * maker.size, boxes), maker.size, u["words"])
    image = jnp.clip(jnp.rint(painted.image), 0, 255).astype(jnp.uint8)
    return Annotated(image, painted.semantic, painted.instances, boxes, labels.astype(jnp.uint8), joints, words)


def _numbers(index: Array, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Uniform numbers of the scene with this index, an array for each use."""
    keys = hashing.mix(index.astype(jnp.uint32), jnp.arange(1, 3, dtype=jnp.uint32))
    sizes = [math.prod(shape) for shape in shapes.values()]
    parts = jnp.split(hashing.uniform_of(keys, (sum(sizes),)), np.cumsum(sizes)[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _planned(maker: Maker, recipe: Recipe, u: Array) -> _Plan:
    digit, shape, other = (jnp.minimum((u[:, i] * num).astype(jnp.int32), num - 1)
                           for i, num in enumerate((len(recipe.digits), len(SHAPES), len(COLOURS) - 1)))
    is_digit, is_figure = u[:, 3] < 0.5, jnp.arange(OBJECTS) == 0
    glyphs = jnp.where(is_digit[:, None, None], recipe.digits[digit], jnp.asarray(scene_drawing.shapes())[shape])
    labels = jnp.where(is_figure, PERSON, jnp.where(is_digit, 1 + recipe.labels[digit], 11 + shape))
    labels = jnp.where(_there(maker.content, u[0, 0], u[0, 1]), labels, 0)
    colours = (0 if maker.hard else 1 + other) - labels  # one colour of a class is for the split "hard" alone
    low, high = (jnp.where(is_figure, _SIDES["figure"][i], jnp.where(is_digit, _SIDES["digit"][i], _SIDES["shape"][i]))
                 for i in (0, 1))
    sides = maker.size * (low + u[:, 4] * (high - low))
    tried = 2 * u[:, 5:].reshape(OBJECTS, _PLACES, 2) - 1
    centres = maker.size / 2 + tried * (maker.size - sides[:, None, None]) / 2
    return _placed(_Plan(glyphs, labels, colours % len(COLOURS), sides, centres))


def _there(content: Content, first: Array, second: Array) -> Array:
    """Which objects there are, bool [K]; first and second are uniform."""
    k = jnp.arange(OBJECTS)
    if content == "scenes_single":
        return jnp.where(first < 0.25, k == 0, k == 1)
    if content == "scenes_figures":
        return k <= (first * 3).astype(jnp.int32)
    return jnp.where(k == 0, first < 0.4, k <= 1 + (second * 4).astype(jnp.int32))


def _placed(plan: _Plan) -> _Plan:
    """Each object at the first of its places (`centres`, [K, P, 2]) where it hides little of earlier ones, or nowhere."""
    small = jnp.minimum(plan.sides[:, None], plan.sides)

    def body(k: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        labels, at = found
        apart = jnp.abs(plan.centres[k][:, None] - at)  # [P, K, 2]
        meets = jnp.clip((plan.sides[k] + plan.sides)[:, None] / 2 - apart, 0, small[k][:, None]).prod(-1)
        free = ((jnp.arange(OBJECTS) >= k) | (labels == 0) | (meets <= _OVERLAP * small[k] ** 2)).all(1)
        label = jnp.where(free.any(), plan.labels[k], 0)
        return labels.at[k].set(label), at.at[k].set(plan.centres[k, jnp.argmax(free)])

    labels, at = jax.lax.fori_loop(0, OBJECTS, body, (plan.labels, plan.centres[:, 0]))
    return plan._replace(labels=labels, centres=at)


def _seen(body: Array, instances: Array) -> Array:
    """Joints x, y and v [J, 3]: hidden where another object lies over them; neck and head are at the edge of what is drawn."""
    x, y = jnp.clip(body.astype(jnp.int32), 0, instances.shape[0] - 1).T
    return jnp.concatenate([body, jnp.where(instances[y, x] <= 1, 2.0, 1.0)[:, None]], -1)


def recipe(folder: Path | None, split: str) -> Recipe:
    """The digits of a split: of MNIST in its folder, else of scikit-learn.

    Raises:
        DataError: what lies in the folder are no such digits.
    """
    of = "train" if split == "train" else "test"
    if folder is not None:
        images, labels = idx.read_split(folder, of, 10)
        if images.shape[1:] != (GLYPH, GLYPH, 1):
            raise DataError(f"scenes are made of grey digits of {GLYPH}x{GLYPH}, as MNIST has them, and the images in {folder} "
                            f"have the shape {list(images.shape[1:])}; leave the folder out for scikit-learn's digits")
        return Recipe(np.ascontiguousarray(images[..., 0]), labels)
    images, labels = digits.read(of)
    return Recipe(_enlarged(images[..., 0]), labels)


def _enlarged(small: np.ndarray) -> np.ndarray:
    """Digits of 8x8 in the middle of glyphs."""
    from scipy.ndimage import zoom  # slow to import

    margin = 2
    large = zoom(small.astype(np.float32), (1, (GLYPH - 2 * margin) / 8, (GLYPH - 2 * margin) / 8), order=1, grid_mode=True,
                 mode="nearest")
    return np.pad(np.rint(large).astype(np.uint8), ((0, 0), (margin, margin), (margin, margin)))


def read(content: Content, folder: Path | None, split: str, size: int = SIZE) -> Dataset:
    """A split of scenes: those to train are made when they are asked for, the others at once."""
    made = Made(np.arange(FIRST[split], FIRST[split] + NUM[split], dtype=np.int32), recipe(folder, split),
                Maker(content, size, split == "hard"))
    whole = from_made(made, content)
    return whole if split == "train" else whole.part(np.arange(NUM[split])).complete()


def from_made(made: Made, name: str) -> Dataset:
    """A dataset of scenes."""
    shapes = jax.eval_shape(made.make, made.recipe, made.index)
    arrays = tuple(ArraySpec(jax.tree_util.keystr(path, simple=True, separator="."), x.shape[1:], str(x.dtype))
                   for path, x in jax.tree_util.tree_leaves_with_path(shapes))
    spec = DataSpec(name, len(made.index), shapes.images.shape[1:], None, ("ground", *NOUNS), scene_words.VOCABULARY, arrays,
                    "images", binary=False)
    return Dataset(name, made, spec)


def reader(content: Content = "scenes", size: int = SIZE) -> Reader:
    """A reader of scenes of another size."""
    what = {"scenes": "up to five objects", "scenes_single": "one object", "scenes_figures": "a figure and up to two objects"}
    return Reader(f"scenes of {size}x{size} made on the device: {what[content]}; digits of MNIST where its folder is given",
                  lambda folder, split: read(content, folder, split, size), "optional", splits=("train", "test", "hard"),
                  sized=functools.partial(reader, content))


SCENES, SINGLE, FIGURES = reader("scenes"), reader("scenes_single"), reader("scenes_figures")
