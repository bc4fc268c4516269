"""Detectors: the boxes of objects in pictures, and what they are; with mask_rcnn their masks and joints too.

Six methods share backbones, anchors, heads and losses: `detection` says how they differ. Of a trained one is measured average
precision on held-out pictures (`metrics.detection`): of boxes, and of masks where it has them. Joints are judged as the
localizer's, PCK@0.1: the share of those that are seen whose error is below a tenth of the longer side of the object's box, each
as the surest detection of the object has it.

Shapes: `B` batch, `N` pictures, `H W C` a picture, `R` regions, `D` detections, `K` objects of a picture.
"""

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data
from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive, require_unit
from jaxdl.core.errors import UserError
from jaxdl.core.task import Curve, Detections, Detector, Score
from jaxdl.core.types import Array, DataSpec, Key, Learner, Mean, PyTree
from jaxdl.data import Dataset, proposals
from jaxdl.data.minibatches import run_maker, total_steps
from jaxdl.metrics import detection as metrics
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime import dataset_task
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm
from jaxdl.supervised import detection, detection_networks, detection_report, networks, report, vision
from jaxdl.supervised.detection import Setting, float32
from jaxdl.supervised.detection_losses import Truth
from jaxdl.supervised.localizer import NEAR, OVERLAP
from jaxdl.supervised.networks import Variables

BLOCK = 50  # pictures in which objects are found at once
PROPOSALS = 100  # of a picture, of segments
_NEEDED = ("boxes", "labels", "instances", "joints")
_TWO_STAGES = ("faster_rcnn", "mask_rcnn")
_PROPOSED = ("fast_rcnn", "rcnn")  # by segments, on the host
_REGIONS = (*_TWO_STAGES, *_PROPOSED, "sliding_windows")


@settings
class Config(vision.Config):
    """Settings of what detects objects."""

    applies: ClassVar = {
        "focal_alpha": ("method", "one_stage"), "focal_gamma": ("method", "one_stage"), "hidden_size": ("method", *_REGIONS),
        "regions": ("method", *_REGIONS), "region_size": ("method", *_TWO_STAGES, "fast_rcnn"),
        "channels": ("method", "one_stage", *_TWO_STAGES, "fast_rcnn")}

    method: Literal["one_stage", "faster_rcnn", "mask_rcnn", "fast_rcnn", "rcnn", "sliding_windows"] = "faster_rcnn"
    """How objects are found (`jaxdl.supervised.detection`)."""
    channels: tuple[int, ...] = (32, 64, 128, 128)
    """Channels of the backbone at the strides 2, 4, 8 and so on."""
    features: int = 64
    """Channels of the map that heads read."""
    anchor_sizes: tuple[int, ...] = (12, 18, 26, 40)
    """Sizes of anchors and windows in pixels, the roots of their areas: as objects have them."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Heights of anchors and windows over their widths."""
    regions: int = 32
    """Regions of a picture that are told apart while it learns; of faster_rcnn and mask_rcnn also when they detect."""
    region_size: int = 7
    """Cells along a side of a region."""
    hidden_size: int = 256
    """Size of the two layers that tell regions apart."""
    focal_alpha: float = 0.25
    """Weight of what is there in the focal loss; the rest is that of what is not (Lin et al. 2017)."""
    focal_gamma: float = 2.0
    """Power of the focal loss with which what is certain counts less (Lin et al. 2017)."""
    score_threshold: float = 0.05
    """Detections of lower scores are left out."""
    nms_threshold: float = 0.5
    """Of two detections of a class that overlap by more the surer stays."""
    detections: int = 30
    """Detections of a picture, at most."""
    optim: OptimConfig = OptimConfig(learning_rate=2e-3, schedule="cosine", max_grad_norm=10.0)
    """The optimizer."""


class Model(NamedTuple):
    """A learner and its function."""

    learner: Learner
    detect: Callable[[Variables, Array], Detections]  # (variables, pictures [N, H, W, C] uint8), on the host


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    vision.validate(config)
    require_positive(config, "features", "regions", "region_size", "hidden_size", "detections", "focal_gamma")
    require_unit(config, "focal_alpha", "score_threshold", "nms_threshold")
    for field, least in (("channels", 2), ("anchor_sizes", 1), ("anchor_ratios", 1)):
        values = getattr(config, field)
        require(config, field, len(values) >= least and all(0 < x < 10_000 for x in values),
                f"{least} or more numbers above 0 and below 10,000")
    require(config, "regions", 2 <= config.regions <= detection.CANDIDATES, f"between 2 and {detection.CANDIDATES}")
    require(config, "detections", config.detections <= metrics.MOST, f"at most {metrics.MOST}")
    if config.method == "mask_rcnn":
        vision.refuse_moves(config, "method=mask_rcnn moves no joints along with pictures")


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its function for annotated pictures.

    Raises:
        UserError: the dataset has none, or its classes have no names.
    """
    vision.require_arrays(spec, "a detector", *_NEEDED)
    if not spec.class_names or len(spec.class_names) < 2:
        raise UserError(f"the dataset {spec.name} must name its classes (class_names), the ground first, got "
                        f"{spec.class_names}")
    num_classes, num_joints = len(spec.class_names) - 1, next(x.shape[1] for x in spec.arrays if x.name == "joints")
    setting = Setting(config, _network(config, num_classes, num_joints), spec.shape[:2], num_classes)
    method = detection.make(setting)

    init = functools.partial(networks.begin, float32(setting.network), config.init, (jnp.zeros((1, *spec.shape)),))

    def loss(params: PyTree, stats: PyTree, batch: PyTree, key: Key) -> tuple[Array, tuple[dict[str, Mean], PyTree]]:
        k_change, k_draw = jax.random.split(key)
        images, truth = changed(config, data.pick(batch, "images"), truth_of(batch), k_change)
        found = method.loss(params, images, truth, k_draw)
        total = sum(found.values())
        return total.mean(), ({"loss": Mean.of(total)} | {f"loss_{name}": Mean.of(x) for name, x in found.items()}, stats)

    return Model(vision.make_learner(config, spec, init, loss, axis_name), _on_host(config, method))


def _network(config: Config, num_classes: int, num_joints: int) -> detection_networks.Network:
    dtype, cut = config.optim.compute_dtype, config.method in ("rcnn", "sliding_windows")
    anchors, dense = len(config.anchor_sizes) * len(config.anchor_ratios), None
    if config.method == "one_stage":
        dense = detection_networks.DenseHead(anchors, num_classes, 2, True, dtype)
    elif config.method in _TWO_STAGES:
        dense = detection_networks.DenseHead(anchors, 1, 1, False, dtype)
    return detection_networks.Network(
        None if cut else detection_networks.Backbone(config.channels, config.features, dtype), dense,
        detection_networks.CropNetwork(config.features, dtype) if cut else None,
        None if config.method == "one_stage" else detection_networks.RegionHead(num_classes, config.hidden_size, dtype),
        detection_networks.MaskHead(num_classes, num_joints, dtype=dtype) if config.method == "mask_rcnn" else None,
        config.region_size)


def truth_of(batch: PyTree) -> Truth:
    """What is in the pictures of a batch."""
    boxes, labels, instances, joints = (data.pick(batch, name) for name in _NEEDED)
    return Truth(boxes, labels.astype(jnp.int32), instances, joints)


def changed(config: Config, images: Array, truth: Truth, key: Key) -> tuple[Array, Truth]:
    """Pictures that are changed, and what is in them with them; an object that has left its picture is no more there."""
    new = vision.changed(config.augment, key, images, truth.instances, truth.boxes)
    there = (new.boxes[..., 2:] - new.boxes[..., :2]).min(-1) >= 1
    return new.images, truth._replace(boxes=new.boxes, instances=new.semantic, labels=jnp.where(there, truth.labels, 0))


def _on_host(config: Config, method: detection.Method) -> Callable[[Variables, Array], Detections]:
    program = jax.jit(method.detect)

    def detect(variables: Variables, images: Array) -> Detections:
        parts = []
        for i in range(0, len(images), BLOCK):
            block = np.asarray(images[i : i + BLOCK])
            regions = proposals.of_pictures(block, PROPOSALS) if config.method in _PROPOSED else ()
            parts.append(jax.tree.map(np.asarray, program(variables.params, block, *regions)))
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)

    return detect


make_run = run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    del config
    return {Detector: Detector(model.detect, spec.class_names)}


def _evaluation(config: Config, train: Any, splits: Mapping[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    del can

    def more(variables: Variables, options: dataset_task.Options, held: Dataset) -> dict[str, Any]:
        del options
        images = data.pick(held.arrays, "images")
        for first in {BLOCK, len(images) % BLOCK} - {0}:
            model.detect(variables, images[:first])  # compiles
        begin = time.perf_counter()
        found = model.detect(variables, images)
        return figures(found, held) | {"seconds_an_image": (time.perf_counter() - begin) / len(images)}

    def picture(variables: Variables, seed: int, path: Path) -> None:
        test = splits["test"]
        at = report.some(test, detection_report.PICTURES, seed)
        images, labels, joints = (data.pick(test.arrays, name) for name in ("images", "labels", "joints"))
        jointed = np.unique(labels[(joints[..., 2] > 0).any(-1)])
        detection_report.write(path, images[at], model.detect(variables, images[at]), test.spec.class_names, jointed)

    def check() -> None:
        if config.method in _PROPOSED:
            proposals.require()

    in_words = functools.partial(_in_words, config.dataset)
    return Evaluation(dataset_task.Options(train.seed), more, {"detections.png": picture}, in_words, check)


def figures(found: Detections, held: Dataset) -> dict[str, float]:
    """How good it is what is found in held-out pictures."""
    boxes, labels, instances, joints = (data.pick(held.arrays, name) for name in _NEEDED)
    num_classes = len(held.spec.class_names) - 1
    judge = functools.partial(metrics.average_precision, scores=found.scores, classes=found.labels, labels=labels,
                              num_classes=num_classes)
    overlaps = metrics.box_overlaps(found.boxes, boxes)
    of = judge(overlaps)
    numbers = {"ap50": of.ap50, "ap": of.ap}
    if found.masks is not None:
        masks = np.arange(1, labels.shape[1] + 1)[:, None, None]
        pictures = zip(found.masks, instances, strict=True)  # one after the other: all masks at once are gigabytes
        of = judge(np.stack([metrics.mask_overlaps(mine, true == masks) for mine, true in pictures]))
        numbers |= {"mask_ap50": of.ap50, "mask_ap": of.ap}
    if found.joints is not None and (joints[..., 2] == 2).any():
        finds = (overlaps >= OVERLAP) & (found.labels[:, :, None] == labels[:, None]) & (labels > 0)[:, None]
        numbers["pck"] = _share_near(found.joints, finds, joints, boxes)
    return numbers


def _share_near(found: np.ndarray, finds: np.ndarray, joints: np.ndarray, boxes: np.ndarray) -> float:
    """PCK of the joints of detections [N, D, J, 3], of which it is known what they find, bool [N, D, K]."""
    own = np.take_along_axis(found, finds.argmax(1)[..., None, None], 1)  # the surest come first
    error = np.linalg.norm(own[..., :2] - joints[..., :2], axis=-1)  # [N, K, J]
    side = (boxes[..., 2:] - boxes[..., :2]).max(-1)
    right = (error < NEAR * side[..., None]) & finds.any(1)[..., None]
    return float(right[joints[..., 2] == 2].mean())


def _in_words(dataset: str, found: dict[str, Any]) -> str:
    masks = f", of masks {found['mask_ap50']:.4f} and {found['mask_ap']:.4f}" if "mask_ap50" in found else ""
    masks += f"; {found['pck']:.2%} of the joints are right (PCK@{NEAR})" if "pck" in found else ""
    return (f"held-out pictures of {dataset}: average precision {found['ap50']:.4f} at an overlap of 0.5, {found['ap']:.4f} "
            f"over 0.5 to 0.95{masks}; {1000 * found['seconds_an_image']:.3g} ms a picture")


ALGORITHM = dataset_algorithm(
    "detector", "boxes of objects: sliding windows, R-CNN, Fast, Faster and Mask R-CNN, one stage with the focal loss", Config,
    validate, make, make_run, total_steps, Score("ap50", True, "average precision at an overlap of 0.5"),
    (Curve("loss", False, "loss", None, 0.05, "loss", panel=True),
     Curve("eval/ap50", True, "average precision at an overlap of 0.5", None, 0.0, "ap50")), abilities, "pictures", _evaluation)
