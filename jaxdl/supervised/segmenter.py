"""Segmentation: the class of each pixel, by a fully convolutional network or a U-Net (`nn.unet`).

    cross_entropy   -log softmax(z)[y] of each pixel, classes weighted by (their pixels in the batch)^-class_balance
    dice            1 - Dice coefficient, mean over the classes of a picture (`ops.segmentation`)
    both            their sum

Judged by the mean over classes of intersection over union, of all held-out pixels together (PASCAL VOC, Everingham et al.
2010).

Shapes: `B` batch, `N` pictures, `H W C` a picture, `Y` classes, ground among them.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.config import config as settings
from jaxdl.core.config import require
from jaxdl.core.errors import UserError
from jaxdl.core.task import Curve, Score, Segmenter
from jaxdl.core.types import Array, DataSpec, Key, Learner, Mean, PyTree
from jaxdl.data.annotated import Annotated
from jaxdl.data.dataset import Dataset
from jaxdl.data.minibatches import run_maker, total_steps
from jaxdl.metrics import classification
from jaxdl.nn import unet
from jaxdl.nn.upsampling import Kind as Upsampling
from jaxdl.ops import losses, segmentation
from jaxdl.runtime import dataset_task
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm, in_blocks
from jaxdl.supervised import vision, vision_report
from jaxdl.supervised.networks import Variables

_BLOCK = 100  # pictures that are predicted at once


@settings
class Config(vision.ConvConfig):
    """Settings of the segmenter."""

    applies: ClassVar = {"class_balance": ("loss", "cross_entropy", "both")}

    network: Literal["fcn", "unet"] = "unet"
    """Scores of each level added up, or features laid beside those of the way down."""
    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of each level; from one to the next sides are halved."""
    upsampling: Upsampling = "transposed_2"
    """How sides are doubled."""
    loss: Literal["cross_entropy", "dice", "both"] = "cross_entropy"
    """What is minimized."""
    class_balance: float = 0.25
    """0 weighs all pixels alike, 1 all classes; the power of a class's number of pixels by which its own are divided."""


class Model(NamedTuple):
    """A learner and its function."""

    learner: Learner
    scores: Callable[[Variables, Array], Array]  # (variables, pictures [N, H, W, C] uint8) -> [N, H, W, Y]


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    vision.validate_conv(config)
    require(config, "class_balance", 0 <= config.class_balance <= 1, "between 0 and 1")


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its function for a dataset of annotated pictures.

    Raises:
        UserError: the dataset has no maps of classes, or sides that cannot be halved so often.
    """
    vision.require_arrays(spec, "a segmenter", "semantic")
    halved = 2 ** (len(config.channels) - 1)
    if any(side % halved for side in spec.shape[:2]):
        raise UserError(f"channels={' '.join(map(str, config.channels))} halve sides {len(config.channels) - 1} times, and "
                        f"pictures of {spec.name} are {spec.shape[0]}x{spec.shape[1]}; give fewer, or pictures whose sides are "
                        f"multiples of {halved}")
    num = vision.num_classes(spec)
    network = unet.PixelNetwork(config.network, num, config.channels, config.upsampling,
                                vision.norm_of(config), config.activation, axis_name,
                                config.optim.compute_dtype)

    def loss(params: PyTree, stats: PyTree, batch: Annotated, key: Key) -> tuple[Array, tuple[dict[str, Mean], PyTree]]:
        moved = vision.changed(config.augment, key, batch.images, batch.semantic)
        truth = moved.semantic.astype(jnp.int32)
        scores, stats = vision.learn(network, params, stats, moved.images, True)
        of = jnp.zeros(len(truth))
        if config.loss != "dice":
            weights = segmentation.class_weights(truth, num, config.class_balance, axis_name)
            of += (weights[truth] * losses.cross_entropy(scores, truth)).mean((1, 2))
        if config.loss != "cross_entropy":
            of += segmentation.dice_loss(scores, truth)
        metrics = {"loss": Mean.of(of), "pixel_accuracy": Mean.of((scores.argmax(-1) == truth).mean((1, 2)))}
        return of.mean(), (metrics, stats)

    def scores(variables: Variables, images: Array) -> Array:
        return vision.apply(network, variables, images)

    init = vision.init_of(network, config, jnp.zeros((1, *spec.shape)))
    return Model(vision.make_learner(config, spec, init, loss, axis_name), scores)


make_run = run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    del config
    return {Segmenter: Segmenter(model.scores, spec.class_names)}


def figures(confused: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """How good a segmentation is, of the pixels by class (rows) and prediction (columns) [Y, Y].

    mean_iou is the mean over classes that there are, or that were said to be; iou_NAME is that of one.
    """
    overlap = classification.iou(confused)
    there = ~np.isnan(overlap)
    return {"mean_iou": float(overlap[there].mean()), "pixel_accuracy": float(np.diag(confused).sum() / confused.sum()),
            **{f"iou_{name}": float(overlap[c]) for c, name in enumerate(names) if there[c]}}


def _evaluation(config: Config, train: Any, splits: Mapping[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    del can
    program = jax.jit(lambda variables, images: model.scores(variables, images).argmax(-1).astype(jnp.uint8))

    def predicted(variables: Variables, images: np.ndarray) -> np.ndarray:
        return in_blocks(lambda part: program(variables, part), _BLOCK, images)

    def more(variables: Variables, options: dataset_task.Options, held: Dataset) -> dict[str, Any]:
        del options
        names, truth = held.spec.class_names, held.arrays.semantic
        said = predicted(variables, held.arrays.images)
        said, truth = (x.astype(np.int64).ravel() for x in (said, truth))
        return figures(classification.confusion(said, truth, len(names)), names)

    def in_words(found: dict[str, Any]) -> str:
        by_class = sorted((value, name.removeprefix("iou_")) for name, value in found.items() if name.startswith("iou_"))
        worst = ", ".join(f"{name} {value:.3f}" for value, name in by_class[:3])
        return (f"held-out pictures of {config.dataset}: mean IoU {found['mean_iou']:.4f}, {found['pixel_accuracy']:.2%} of "
                f"the pixels; the lowest of {len(by_class)} classes {worst}")

    pictures = {"masks.png": vision_report.masks_picture(splits, predicted)}
    return Evaluation(dataset_task.Options(train.seed), more, pictures, in_words)


ALGORITHM = dataset_algorithm(
    "segmenter", "the class of each pixel: fully convolutional networks and U-Net, seven ways of doubling sides", Config,
    validate, make, make_run, total_steps, Score("mean_iou", True, "mean IoU on held-out pictures"),
    (Curve("eval/mean_iou", True, "mean IoU on held-out pictures", None, 0.0, "mIoU"),
     Curve("pixel_accuracy", True, "share of pixels", "eval/pixel_accuracy", 0.05, "pixels", panel=True),
     Curve("loss", False, "loss", None, 0.05, "loss", panel=True)), abilities, "pictures", _evaluation)
