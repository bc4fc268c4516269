"""Localization: what the one object of a picture is and where, or where the joints of a figure are.

    box      loss = -log softmax(z)[class] + box_weight * mean |b - b'|, b the four edges in sides of the picture (Sermanet et
             al., "OverFeat", 2014)
    joints   loss = mean over joints of |j - j'| (Toshev and Szegedy, "DeepPose", 2014)

Places are outputs of dense layers (dense), or means of places under a softmax over the map of features, one a number (Sun et
al., "Integral human pose regression", 2018: soft_argmax). Of several objects the one whose box is largest counts.

A box is judged by accuracy, by the mean IoU, and by the share that has the right class and an IoU of a half or more (ILSVRC's
localization, Russakovsky et al. 2015), and not by the loss, whose parts can be traded for each other; joints by PCK@0.1: the
share of the joints that are seen whose error is below a tenth of the longer side of the figure's box (Yang and Ramanan 2013).

Shapes: `B` batch, `N` pictures, `H W C` a picture, `K` objects, `J` joints, `Y` classes.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxdl import nn
from jaxdl.core.config import config as settings
from jaxdl.core.config import require_positive
from jaxdl.core.task import Curve, Localizer, Score
from jaxdl.core.types import Array, DataSpec, Key, Learner, Mean, PyTree
from jaxdl.data.annotated import Annotated
from jaxdl.data.dataset import Dataset
from jaxdl.data.minibatches import run_maker, total_steps
from jaxdl.metrics import classification, detection
from jaxdl.nn import unet
from jaxdl.ops import losses
from jaxdl.runtime import dataset_task
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm
from jaxdl.supervised import vision, vision_report
from jaxdl.supervised.networks import Variables

_BLOCK = 200  # pictures that are predicted at once
NEAR = 0.1  # of the box's longer side: a joint's error is below it
OVERLAP = 0.5  # IoU of a box that is found


@settings
class Config(vision.ConvConfig):
    """Settings of the localizer."""

    applies: ClassVar = {"box_weight": ("target", "box")}

    dataset: str = "scenes_single"
    """Name of the dataset (`jaxdl list`), or package.module:NAME of one of your own."""
    target: Literal["box", "joints"] = "box"
    """What is found: class and box of an object, or joints."""
    box_weight: float = 10.0
    """Weight of the box's loss beside that of the class (box)."""
    coordinates: Literal["dense", "soft_argmax"] = "soft_argmax"
    """How places come out of the features."""
    hidden_size: int = 256
    """Width of the dense layer above the features."""


class Found(NamedTuple):
    """What a network says of pictures."""

    logits: Array | None  # [B, Y] of classes, where a box is found
    places: Array  # [B, P, 2] x and y, in sides of the picture: two corners of a box, or joints


class Model(NamedTuple):
    """A learner and its function."""

    learner: Learner
    find: Callable[[Variables, Array], Found]  # (variables, pictures [N, H, W, C] uint8), places in pixels


class Network(linen.Module):
    """[B, H, W, C] -> logits of classes and places."""

    num_classes: int | None  # None: no class is asked for
    num_places: int
    coordinates: Literal["dense", "soft_argmax"] = "soft_argmax"
    channels: tuple[int, ...] = (32, 64, 128)
    hidden_size: int = 256
    norm: Literal["batch", "layer", "group"] | None = "batch"
    activation: str = "relu"
    axis_name: str | None = None
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array, train: bool = False) -> Found:
        maps = unet.Backbone(self.channels, self.norm, self.activation, axis_name=self.axis_name, dtype=self.dtype)(x, train)
        act = nn.activation(self.activation)
        flat = act(nn.Dense(self.hidden_size, kernel_init=nn.he_uniform, dtype=self.dtype)(maps.reshape(len(maps), -1)))
        logits = None
        if self.num_classes is not None:  # what it is does not hang on where it is
            what = act(nn.Dense(self.hidden_size, kernel_init=nn.he_uniform, dtype=self.dtype)(nn.max_over_places(maps)))
            logits = nn.Dense(self.num_classes, name="classes")(what)
        if self.coordinates == "dense":
            return Found(logits, 0.5 + nn.Dense(2 * self.num_places, name="places")(flat).reshape(-1, self.num_places, 2))
        heat = nn.Conv(2 * self.num_places, (1, 1), use_bias=False, name="places")(maps)  # softmaxes forget a bias
        b, h, w, _ = heat.shape
        share = jax.nn.softmax(heat.reshape(b, h * w, self.num_places, 2), 1)
        y, x = jnp.meshgrid((jnp.arange(h) + 0.5) / h, (jnp.arange(w) + 0.5) / w, indexing="ij")
        grid = jnp.stack([x.ravel(), y.ravel()], -1)  # each number has a softmax of its own, over wider than the picture
        return Found(logits, jnp.einsum("bnpc,nc->bpc", share, 0.5 + 1.2 * (grid - 0.5)))


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    vision.validate_conv(config)
    require_positive(config, "box_weight", "hidden_size")
    if config.target == "joints":
        vision.refuse_moves(config, "target=joints moves no joints along with pictures")


def largest(boxes: Array, labels: Array) -> Array:
    """Which object of each picture has the largest box, int32 [B]."""
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    return jnp.argmax(jnp.where(labels > 0, area, -1), -1)


def with_joints(joints: Array) -> Array:
    """The first object of each picture that has joints, int32 [B]."""
    return jnp.argmax((joints[..., 2] > 0).any(-1), -1)


def _of(values: Array, which: Array) -> Array:
    """Of values [B, K, ...] the one that is chosen for each picture, [B, ...]."""
    return jnp.take_along_axis(values, which.reshape(-1, *[1] * (values.ndim - 1)), 1)[:, 0]


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its function for a dataset of annotated pictures.

    Raises:
        UserError: the dataset has no boxes, or no joints.
    """
    box = config.target == "box"
    vision.require_arrays(spec, "a localizer", *(("boxes", "labels") if box else ("boxes", "joints")))
    num_joints = next(x.shape[1] for x in spec.arrays if x.name == "joints") if not box else 0
    network = Network(vision.num_classes(spec) if box else None, 2 if box else num_joints, config.coordinates, config.channels,
                      config.hidden_size, vision.norm_of(config), config.activation, axis_name,
                      config.optim.compute_dtype)
    sides = jnp.array([spec.shape[1], spec.shape[0]], jnp.float32)

    def loss(params: PyTree, stats: PyTree, batch: Annotated, key: Key) -> tuple[Array, tuple[dict[str, Mean], PyTree]]:
        moved = vision.changed(config.augment, key, batch.images, boxes=batch.boxes)
        found, stats = vision.learn(network, params, stats, moved.images, True)
        if not box:
            joints = _of(batch.joints, with_joints(batch.joints))
            there = joints[..., 2] > 0
            error = jnp.abs(found.places - joints[..., :2] / sides).mean(-1)
            of = jnp.where(there, error, 0).sum(-1) / jnp.maximum(there.sum(-1), 1)
            return of.mean(), ({"loss": Mean.of(of)}, stats)
        which = largest(moved.boxes, batch.labels)
        label, truth = _of(batch.labels.astype(jnp.int32), which), _of(moved.boxes, which)
        of_class = losses.cross_entropy(found.logits, label)
        of_box = jnp.abs(found.places - truth.reshape(-1, 2, 2) / sides).mean((1, 2))
        of = of_class + config.box_weight * of_box
        metrics = {"loss": Mean.of(of), "class_loss": Mean.of(of_class), "box_loss": Mean.of(of_box),
                   "accuracy": Mean.of(found.logits.argmax(-1) == label)}
        return of.mean(), (metrics, stats)

    def find(variables: Variables, images: Array) -> Found:
        found = vision.apply(network, variables, images)
        return found._replace(places=found.places * sides)

    init = vision.init_of(network, config, jnp.zeros((1, *spec.shape)))
    return Model(vision.make_learner(config, spec, init, loss, axis_name), find)


make_run = run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    return {Localizer: Localizer(model.find, spec.class_names if config.target == "box" else None)}


def figures(config: Config, logits: np.ndarray | None, places: np.ndarray, held: Annotated) -> dict[str, float]:
    """How good places [N, P, 2] in pixels are."""
    if config.target == "joints":
        which = np.asarray(with_joints(held.joints))
        rows = np.arange(len(which))
        joints, boxes = held.joints[rows, which], held.boxes[rows, which]
        side = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        error = np.linalg.norm(places - joints[..., :2], axis=-1)
        seen = joints[..., 2] == 2
        return {"pck": float((error < NEAR * side[:, None])[seen].mean()), "pixels": float(error[seen].mean())}
    which = np.asarray(largest(held.boxes, held.labels))
    rows = np.arange(len(which))
    truth, labels = held.boxes[rows, which], held.labels[rows, which].astype(np.int64)
    overlap = detection.box_overlaps(places.reshape(-1, 1, 4), truth[:, None])[:, 0, 0]
    right = logits.argmax(-1) == labels
    return {"localized": float((right & (overlap >= OVERLAP)).mean()), "accuracy": classification.accuracy(logits, labels),
            "iou": float(overlap.mean())}


def _evaluation(config: Config, train: Any, splits: Mapping[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    del can
    program = jax.jit(model.find)

    def found(variables: Variables, images: np.ndarray) -> Found:
        parts = [program(variables, images[i : i + _BLOCK]) for i in range(0, len(images), _BLOCK)]
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    def more(variables: Variables, options: dataset_task.Options, held: Dataset) -> dict[str, Any]:
        del options
        return figures(config, *found(variables, held.arrays.images), held.arrays)

    def in_words(numbers: dict[str, Any]) -> str:
        of = f"held-out pictures of {config.dataset}"
        if config.target == "joints":
            return f"{of}: {numbers['pck']:.2%} of the joints are right (PCK@{NEAR}), mean error {numbers['pixels']:.2f} pixels"
        return f"{of}: accuracy {numbers['accuracy']:.2%}, mean IoU {numbers['iou']:.4f}, {numbers['localized']:.2%} localized"

    name = "boxes.png" if config.target == "box" else "joints.png"
    return Evaluation(dataset_task.Options(train.seed), more, {name: vision_report.places_picture(splits, found)}, in_words)


def _score(config: Config) -> Score:
    if config.target == "joints":
        return Score("pck", True, f"PCK@{NEAR} on held-out pictures")
    return Score("localized", True, "share of held-out pictures that are localized")


ALGORITHM = dataset_algorithm(
    "localizer", "class and box of the one object of a picture, or the joints of a figure", Config, validate, make, make_run,
    total_steps, _score,
    (Curve("eval/localized", True, "share of held-out pictures that are localized", None, 0.0, "localized"),
     Curve("eval/pck", True, f"PCK@{NEAR} on held-out pictures", None, 0.0, "PCK"),
     Curve("accuracy", True, "accuracy", "eval/accuracy", 0.05, "accuracy", panel=True),
     Curve("loss", False, "loss", None, 0.05, "loss", panel=True)), abilities, "pictures", _evaluation)
