"""What detectors are to learn of a picture, and the losses of it. Each function is of one picture, and is mapped over a batch.

Two-stage detectors learn from a sample of anchors, and then of regions, half and a quarter of it objects at most. Here every
candidate counts by the probability that it would be in the sample, which has the same mean and no noise: a network with few
anchors computes them all anyway.

    region proposals   binary cross-entropy of objects against background, and smooth L1 of deltas (Ren et al. 2015)
    regions            cross-entropy of the class or ground, and smooth L1 of deltas (Girshick, "Fast R-CNN", 2015)
    one stage          focal loss of every class of every anchor, and L1 of deltas (Lin et al., "Focal loss for dense object
                       detection", 2017)
    masks, joints      binary cross-entropy of the mask of the region's class; cross-entropy of the cell of a region in which a
                       joint is (He et al., "Mask R-CNN", 2017); of one region an object, where the paper has several

Shapes: `N` anchors, `R` regions, `K` objects, `Y` classes, `M` cells along a side of a mask, `J` joints.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array
from jaxdl.ops import boxes as ops
from jaxdl.ops import losses

BETA = 1 / 9  # where smooth L1 turns from square to straight
DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the deltas of regions (torchvision)
_ANCHORS = 256  # in the sample of a picture


class Truth(NamedTuple):
    """What is in a picture."""

    boxes: Array  # [K, 4]
    labels: Array  # int32 [K], 0 where there is no object
    instances: Array  # [H, W] 1 to K, 0 none
    joints: Array  # [K, J, 3]

    @property
    def there(self) -> Array:
        """Bool [K]."""
        return self.labels > 0


def sampled(positive: Array, negative: Array, num: int, share: float) -> Array:
    """The probability of each candidate to be among `num` that are drawn, `share` of them positive at most: [N]."""
    positives = jnp.minimum(positive.sum(), num * share)
    negatives = jnp.minimum(negative.sum(), num - positives)
    return positive * positives / jnp.maximum(positive.sum(), 1) + negative * negatives / jnp.maximum(negative.sum(), 1)


def smooth_l1(error: Array) -> Array:
    """The Huber loss with the slope 1 beyond `BETA`: [..., 4] -> [...], summed over deltas."""
    return losses.huber(error, BETA).sum(-1) / BETA


def proposals_loss(logits: Array, deltas: Array, anchors: Array, truth: Truth) -> dict[str, Array]:
    """Of objectness [N] and deltas [N, 4]."""
    found = ops.match(anchors, truth.boxes, truth.there, 0.3, 0.7, low_quality=True)
    positive = found >= 0
    weight = sampled(positive, found == ops.BACKGROUND, _ANCHORS, 0.5)
    total = jnp.maximum(weight.sum(), 1)
    targets = ops.encode(truth.boxes[jnp.maximum(found, 0)], anchors)
    return {"objects": (weight * losses.binary_cross_entropy(logits, positive.astype(jnp.float32))).sum() / total,
            "proposals": (weight * positive * smooth_l1(deltas - targets)).sum() / total}


def regions_loss(logits: Array, deltas: Array, regions: Array, valid: Array, truth: Truth, num: int) -> dict[str, Array]:
    """Of logits [R, 1 + Y] and deltas [R, 4] of regions [R, 4], of which `num` are in a sample."""
    found = ops.match(regions, truth.boxes, truth.there, 0.5, 0.5)
    positive = (found >= 0) & valid
    weight = sampled(positive, (found == ops.BACKGROUND) & valid, num, 0.25)
    total = jnp.maximum(weight.sum(), 1)
    at = jnp.maximum(found, 0)
    targets = ops.encode(truth.boxes[at], regions, DELTA_WEIGHTS)
    return {"classes": (weight * losses.cross_entropy(logits, jnp.where(positive, truth.labels[at], 0))).sum() / total,
            "boxes": (weight * positive * smooth_l1(deltas - targets)).sum() / total}


def focal(logits: Array, targets: Array, alpha: float | Array, gamma: float | Array) -> Array:
    """`-a (1 - p)^gamma log p`, p the probability of the target (0 or 1) and a alpha where it is 1, else 1 - alpha: [...]."""
    wrong = jax.nn.sigmoid(jnp.where(targets > 0, -logits, logits))
    return jnp.where(targets > 0, alpha, 1 - alpha) * wrong**gamma * losses.binary_cross_entropy(logits, targets)


def dense_loss(logits: Array, deltas: Array, anchors: Array, truth: Truth, alpha: float | Array, gamma: float | Array
               ) -> dict[str, Array]:
    """Of logits [N, Y] and deltas [N, 4]."""
    found = ops.match(anchors, truth.boxes, truth.there, 0.4, 0.5, low_quality=True)
    positive, at = found >= 0, jnp.maximum(found, 0)
    num = jnp.maximum(positive.sum(), 1)
    targets = jax.nn.one_hot(jnp.where(positive, truth.labels[at] - 1, -1), logits.shape[-1])
    of_classes = focal(logits, targets, alpha, gamma).sum(-1) * (found != ops.BETWEEN)
    of_boxes = jnp.abs(deltas - ops.encode(truth.boxes[at], anchors)).sum(-1) * positive
    return {"classes": of_classes.sum() / num, "boxes": of_boxes.sum() / num}


def regions_of_objects(regions: Array, valid: Array, truth: Truth) -> Array:
    """The region of each object from which its mask is learned, [K, 4]: that of most overlap, if by half, else its box."""
    overlap = jnp.where(valid, ops.box_iou(truth.boxes, regions), 0.0)
    best = regions[overlap.argmax(1)]
    return jnp.where(overlap.max(1, keepdims=True) >= 0.5, best, truth.boxes)


def masks_loss(masks: Array, regions: Array, truth: Truth) -> dict[str, Array]:
    """Of logits [K, M, M, Y] of the regions of the objects [K, 4]."""
    def target(k: Array, region: Array) -> Array:
        mask = (truth.instances == k + 1).astype(jnp.float32)
        return ops.roi_align(mask[..., None], region[None], masks.shape[1])[0, ..., 0] >= 0.5

    targets = jax.vmap(target)(jnp.arange(len(regions)), regions).astype(jnp.float32)
    own = jnp.take_along_axis(masks, jnp.maximum(truth.labels - 1, 0)[:, None, None, None], -1)[..., 0]
    of = losses.binary_cross_entropy(own, targets).mean((1, 2))
    return {"masks": (of * truth.there).sum() / jnp.maximum(truth.there.sum(), 1)}


def joints_loss(joints: Array, regions: Array, truth: Truth) -> dict[str, Array]:
    """Of logits [K, M, M, J] of the regions of the objects [K, 4]: joints that there are, and that lie in the region."""
    size = joints.shape[1]
    low, side = regions[:, None, :2], jnp.maximum(regions[:, 2:] - regions[:, :2], 1e-3)[:, None]
    x, y = jnp.moveaxis(jnp.floor((truth.joints[..., :2] - low) / side * size), -1, 0)
    counts = (truth.joints[..., 2] > 0) & truth.there[:, None] & (jnp.minimum(x, y) >= 0) & (jnp.maximum(x, y) < size)
    cell = jnp.where(counts, y * size + x, 0).astype(jnp.int32)
    of = losses.cross_entropy(joints.reshape(len(joints), size * size, -1).swapaxes(1, 2), cell)
    return {"joints": (of * counts).sum() / jnp.maximum(counts.sum(), 1)}
