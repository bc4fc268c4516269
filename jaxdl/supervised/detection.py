"""Methods of detection, each as two functions: the losses of a batch, and what is found in pictures.

    one_stage         every anchor says of every class whether it is there, and how its box differs (Lin et al. 2017)
    faster_rcnn       anchors propose regions; a head says what is in them, by features that all regions share (Ren et al. 2015)
    mask_rcnn         the same, and a mask and joints of each object (He et al. 2017)
    fast_rcnn         the second stage of faster_rcnn alone, of regions that come from elsewhere (Girshick 2015)
    rcnn              each of these regions is cut out, scaled to one size, and goes through a network by itself (Girshick et
                      al. 2014)
    sliding_windows   the same of windows at all places, of a few sizes (Sermanet et al., "OverFeat", 2014)

The last three learn from regions that are drawn: half are boxes of objects, moved and scaled at random, and half are windows.
Regions that come from elsewhere are `proposals.selective_search`, when they detect. The deltas of a region are the same for all
classes. All shapes are fixed: what is proposed and found is a fixed number, and a mask says of what there is.

Shapes: `B` pictures, `H W C` a picture, `N` anchors, `R` regions, `K` objects, `D` detections, `Y` classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.task import Detections
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.ops import boxes as ops
from jaxdl.ops.pixels import to_unit
from jaxdl.supervised import detection_losses as losses
from jaxdl.supervised.detection_losses import DELTA_WEIGHTS, Truth
from jaxdl.supervised.detection_networks import CROP, STRIDE, Network

CANDIDATES = 256  # of a picture that suppression chooses among
_PROPOSED_OVERLAP = 0.7  # of two proposals that both stay, at most (Ren et al. 2015)
_MOVED, _GROWN = 0.15, 0.25  # deviations of a drawn region from its object: of its centre in sides, of the logarithms of sides


class Method(NamedTuple):
    """A method of detection."""

    loss: Callable[[PyTree, Array, Truth, Key], dict[str, Array]]  # (params, images [B, H, W, C] uint8, truth, key) -> [B] each
    detect: Callable[..., Detections]  # (params, images, regions [B, R, 4], valid [B, R]) -> of each picture


class Setting(NamedTuple):
    """What a method is made of."""

    config: Any  # detector.Config
    network: Network
    shape: tuple[int, int]  # H, W
    num_classes: int

    def part(self, params: PyTree, name: str, *inputs: Array, learns: bool = False) -> Any:
        """What a part of the network makes of its inputs; it computes in float32 but while it learns."""
        network = self.network if learns else float32(self.network)
        return network.apply(params, *inputs, method=lambda module, *x: getattr(module, name)(*x))

    @property
    def anchors(self) -> Array:
        """[N, 4]."""
        cells = (-(-side // STRIDE) for side in self.shape)
        return ops.make_anchors(*cells, STRIDE, self.config.anchor_sizes, self.config.anchor_ratios)

    @property
    def windows(self) -> Array:
        """[R, 4], a third of their size apart."""
        every = []
        for size in self.config.anchor_sizes:
            step = max(size // 3, STRIDE)
            cells = (-(-side // step) for side in self.shape)
            every.append(ops.make_anchors(*cells, step, (size,), self.config.anchor_ratios))
        return ops.clip_boxes(jnp.concatenate(every), *self.shape)


def float32(network: Network) -> Network:
    """The same network, which computes in float32."""
    parts = {name: getattr(network, name) for name in ("backbone", "dense", "crops", "regions", "masks")}
    return network.clone(**{name: part.clone(dtype="float32") for name, part in parts.items() if part is not None})


def make(setting: Setting) -> Method:
    """The method that the config names."""
    makers = {"one_stage": one_stage, "faster_rcnn": two_stage, "mask_rcnn": two_stage}
    return makers.get(setting.config.method, of_regions)(setting)


def one_stage(setting: Setting) -> Method:
    """A dense head."""
    config, anchors = setting.config, setting.anchors

    def loss(params: PyTree, images: Array, truth: Truth, key: Key) -> dict[str, Array]:
        del key
        shared = setting.part(params, "backbone", to_unit(images), learns=True)
        logits, deltas = setting.part(params, "dense", shared, learns=True)
        of_one = lambda z, d, t: losses.dense_loss(z, d, anchors, t, config.focal_alpha, config.focal_gamma)  # noqa: E731
        return jax.vmap(of_one)(logits, deltas, truth)

    def detect(params: PyTree, images: Array) -> Detections:
        logits, deltas = setting.part(params, "dense", setting.part(params, "backbone", to_unit(images)))
        return jax.vmap(lambda z, d: chosen(setting, jax.nn.sigmoid(z), ops.decode(d, anchors)))(logits, deltas)

    return Method(loss, detect)


def two_stage(setting: Setting) -> Method:
    """Proposals of anchors, and heads of regions."""
    config, anchors = setting.config, setting.anchors

    def proposed(logits: Array, deltas: Array) -> tuple[Array, Array]:
        """Regions [R, 4] of one picture, and which there are."""
        _, first = jax.lax.top_k(logits, min(CANDIDATES, len(logits)))
        boxes = ops.clip_boxes(ops.decode(deltas[first], anchors[first]), *setting.shape)
        large = (boxes[:, 2:] - boxes[:, :2]).min(-1) >= 1
        kept = ops.nms(boxes, logits[first], _PROPOSED_OVERLAP, valid=large, num=config.regions)
        return boxes[kept.index], kept.valid

    def heads(params: PyTree, shared: Array, regions: Array, name: str, learns: bool = False) -> tuple[Array, Array]:
        """What a head makes of regions [B, R, 4], [B, R, ...] each."""
        pooled = jax.vmap(lambda f, r: ops.roi_align(f, r, config.region_size, 1 / STRIDE))(shared, regions)
        found = setting.part(params, name, pooled.reshape(-1, *pooled.shape[2:]), learns=learns)
        return tuple(x.reshape(*pooled.shape[:2], *x.shape[1:]) for x in found)

    def loss(params: PyTree, images: Array, truth: Truth, key: Key) -> dict[str, Array]:
        del key
        shared = setting.part(params, "backbone", to_unit(images), learns=True)
        logits, deltas = setting.part(params, "dense", shared, learns=True)
        logits = logits[..., 0]
        found = jax.vmap(lambda z, d, t: losses.proposals_loss(z, d, anchors, t))(logits, deltas, truth)
        proposals, valid = jax.lax.stop_gradient(jax.vmap(proposed)(logits, deltas))
        regions = jnp.concatenate([proposals, truth.boxes], 1)
        there = jnp.concatenate([valid, jax.vmap(lambda t: t.there)(truth)], 1)
        outputs = heads(params, shared, regions, "regions", learns=True)
        found |= jax.vmap(lambda *x: losses.regions_loss(*x, config.regions))(*outputs, regions, there, truth)
        if setting.network.masks is not None:
            own = jax.vmap(losses.regions_of_objects)(proposals, valid, truth)
            masks, joints = heads(params, shared, own, "masks", learns=True)
            found |= jax.vmap(losses.masks_loss)(masks, own, truth)
            if joints.shape[-1]:
                found |= jax.vmap(losses.joints_loss)(joints, own, truth)
        return found

    def detect(params: PyTree, images: Array) -> Detections:
        shared = setting.part(params, "backbone", to_unit(images))
        logits, deltas = setting.part(params, "dense", shared)
        regions, valid = jax.vmap(proposed)(logits[..., 0], deltas)
        found = jax.vmap(lambda *x: of_outputs(setting, *x))(*heads(params, shared, regions, "regions"), regions, valid)
        if setting.network.masks is None:
            return found
        masks, joints = heads(params, shared, found.boxes, "masks")
        return jax.vmap(lambda *x: with_masks(setting, *x))(found, masks, joints)

    return Method(loss, detect)


def of_regions(setting: Setting) -> Method:
    """A head of regions that come from elsewhere."""
    config, windows = setting.config, setting.windows

    def outputs(params: PyTree, images: Array, regions: Array, learns: bool = False) -> tuple[Array, Array]:
        """Logits [B, R, 1 + Y] and deltas [B, R, 4]."""
        images = to_unit(images)
        if config.method == "fast_rcnn":
            shared = setting.part(params, "backbone", images, learns=learns)
            features = jax.vmap(lambda f, r: ops.roi_align(f, r, config.region_size, 1 / STRIDE))(shared, regions)
        else:
            cut = jax.vmap(lambda f, r: ops.roi_align(f, r, CROP))(images, regions)
            features = setting.part(params, "crops", cut.reshape(-1, *cut.shape[2:]), learns=learns)
            features = features.reshape(*cut.shape[:2], *features.shape[1:])
        return setting.part(params, "regions", features, learns=learns)

    def loss(params: PyTree, images: Array, truth: Truth, key: Key) -> dict[str, Array]:
        regions, valid = drawn(truth, windows, config.regions, setting.shape, key)
        of = outputs(params, images, regions, learns=True)
        return jax.vmap(lambda *x: losses.regions_loss(*x, config.regions))(*of, regions, valid, truth)

    def detect(params: PyTree, images: Array, regions: Array | None = None, valid: Array | None = None) -> Detections:
        if regions is None:
            regions = jnp.broadcast_to(windows, (len(images), *windows.shape))
            valid = jnp.ones(regions.shape[:2], bool)
        found = outputs(params, images, regions)
        return jax.vmap(lambda *x: of_outputs(setting, *x))(*found, regions, valid)

    return Method(loss, detect)


def drawn(truth: Truth, windows: Array, num: int, shape: tuple[int, int], key: Key) -> tuple[Array, Array]:
    """Regions to learn from, [B, num, 4] and which there are: half around the objects, if there are any, half windows."""
    batch, objects = truth.labels.shape
    k_move, k_window = jax.random.split(key)
    near = num // 2
    noise = jax.random.normal(k_move, (batch, near, 4))
    of = jnp.arange(near) % objects  # each in turn
    moved = ops.decode(noise * jnp.array([_MOVED, _MOVED, _GROWN, _GROWN]), truth.boxes[:, of])
    at = (jax.random.uniform(k_window, (batch, num - near)) * len(windows)).astype(jnp.int32)
    regions = jnp.concatenate([ops.clip_boxes(moved, *shape), windows[jnp.minimum(at, len(windows) - 1)]], 1)
    there = jnp.concatenate([truth.labels[:, of] > 0, jnp.ones((batch, num - near), bool)], 1)
    return regions, there & ((regions[..., 2:] - regions[..., :2]).min(-1) >= 1)


def of_outputs(setting: Setting, logits: Array, deltas: Array, regions: Array, valid: Array) -> Detections:
    """What is found in a picture, from logits [R, 1 + Y] and deltas [R, 4] of regions [R, 4]."""
    scores = jax.nn.softmax(logits)[:, 1:] * valid[:, None]
    return chosen(setting, scores, ops.decode(deltas, regions, DELTA_WEIGHTS))


def chosen(setting: Setting, scores: Array, boxes: Array) -> Detections:
    """The detections of a picture, from scores [N, Y] and boxes [N, 4]: the surest, without those that find the same."""
    config = setting.config
    best, at = jax.lax.top_k(scores.ravel(), min(CANDIDATES, scores.size))
    of, classes = jnp.divmod(at, scores.shape[1])
    boxes = ops.clip_boxes(boxes[of], *setting.shape)
    sure = best >= config.score_threshold
    kept = ops.nms(boxes, best, config.nms_threshold, valid=sure, classes=classes, num=config.detections)
    found = (boxes[kept.index], classes[kept.index] + 1, best[kept.index])
    return Detections(*(jnp.where(kept.valid[:, None] if x.ndim > 1 else kept.valid, x, 0) for x in found))


def with_masks(setting: Setting, found: Detections, masks: Array, joints: Array) -> Detections:
    """Detections of a picture with masks and joints, from logits [D, M, M, Y] and [D, M, M, J] of their boxes."""
    own = jnp.take_along_axis(masks, jnp.maximum(found.labels - 1, 0)[:, None, None, None], -1)[..., 0]
    whole = ops.paste(jax.nn.sigmoid(own), found.boxes, *setting.shape) >= 0.5
    found = found._replace(masks=whole & (found.labels > 0)[:, None, None])
    if not joints.shape[-1]:
        return found
    num, size = joints.shape[:2]
    share = jax.nn.softmax(joints.reshape(num, size * size, -1), axis=1)
    y, x = jnp.divmod(share.argmax(1), size)  # [D, J]
    side = (found.boxes[:, 2:] - found.boxes[:, :2])[:, None] / size
    points = found.boxes[:, None, :2] + (jnp.stack([x, y], -1) + 0.5) * side
    return found._replace(joints=jnp.concatenate([points, share.max(1)[..., None]], -1))
