"""Boxes: how they overlap, which of them stay, what anchors learn, and what lies within.

A box is x0 y0 x1 y1 in pixels, by the edges of pixels: one of the pixels 3 to 5 is 3, 6. All shapes are fixed: what is not
there is said by a mask. Functions of one picture are mapped over pictures by `jax.vmap`.

    anchor (x, y, w, h), box (x', y', w', h') -> ((x' - x) / w, (y' - y) / h, log w' / w, log h' / h)

Ren et al., "Faster R-CNN" (2015): deltas, anchors, matching. He et al., "Mask R-CNN" (2017): RoIAlign. Formulas are
torchvision's, but for anchors, which lie around the centres of cells.

Shapes: `N`, `M` boxes, `K` objects of a picture, `R` regions, `P` bins along a side of a region, `H W C` a picture or features.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.types import Array

MOST_GROWTH = math.log(1000 / 16)  # of a side, as a logarithm: a delta beyond it would make a box of any size
_LEAST = 1e-3  # pixels: of a side in a ratio
BACKGROUND, BETWEEN = -1, -2  # in the place of an object: of what matches none, and of what is neither


class Kept(NamedTuple):
    """What stays of boxes, the best first."""

    index: Array  # int32 [num]: of the boxes
    valid: Array  # bool [num]: the index means something


def box_area(boxes: Array) -> Array:
    """Square pixels, [..., 4] -> [...]; an inverted box has none."""
    return jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)


def box_iou(a: Array, b: Array) -> Array:
    """Area of the intersection over that of the union, [..., N, 4], [..., M, 4] -> [..., N, M]; 0 of boxes without area."""
    def side(first: int) -> Array:
        """Lengths along an axis; edge by edge, since an array of the two of them is slow on a CPU."""
        low = jnp.maximum(a[..., :, None, first], b[..., None, :, first])
        return jnp.maximum(jnp.minimum(a[..., :, None, first + 2], b[..., None, :, first + 2]) - low, 0)

    both = side(0) * side(1)
    either = box_area(a)[..., :, None] + box_area(b)[..., None, :] - both
    return both / jnp.where(either > 0, either, 1)


def clip_boxes(boxes: Array, height: int, width: int) -> Array:
    """The part of each box that lies in the picture, [..., 4] -> [..., 4]."""
    return jnp.clip(boxes, 0, jnp.asarray([width, height, width, height], boxes.dtype))


def nms(boxes: Array, scores: Array, threshold: float | Array, *, valid: Array | None = None, classes: Array | None = None,
        num: int | None = None) -> Kept:
    """Non-maximum suppression: a box goes if one with a higher score that stays overlaps it by more than the threshold.

    Whether a box stays follows from those before it. All are decided together, again and again until nothing changes: after n
    rounds those are right that depend on at most n others one after the other, of which there are few.

    Args:
        boxes: [N, 4].
        scores: [N]; of equal ones the first comes first.
        threshold: of the intersection over the union.
        valid: bool [N], boxes that are there; all if not given.
        classes: [N]; given, boxes of different classes leave each other alone.
        num: how many to give back, N if not given.
    """
    valid = jnp.ones(len(boxes), bool) if valid is None else valid
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf), stable=True)
    boxes, valid = boxes[order], valid[order]
    over = jnp.triu(box_iou(boxes, boxes) > threshold, 1) & valid[:, None]  # [i, j]: i would suppress j
    if classes is not None:
        over &= classes[order][:, None] == classes[order][None]

    def decided(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        stays, _ = carry
        new = valid & ~(over & stays[:, None]).any(0)
        return new, (new != stays).any()

    stays, _ = jax.lax.while_loop(lambda carry: carry[1], decided, (valid, jnp.asarray(True)))
    first = jnp.argsort(~stays, stable=True)[:num]
    return Kept(order[first].astype(jnp.int32), stays[first])


def encode(boxes: Array, anchors: Array, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Array:
    """Boxes [..., 4] as deltas [..., 4] from anchors [..., 4], times weights; sides are at least a thousandth of a pixel."""
    (centre, size), (at, of) = _centred(boxes), _centred(anchors)
    deltas = jnp.concatenate([(centre - at) / of, jnp.log(size / of)], -1)
    return deltas * jnp.asarray(weights, deltas.dtype)


def decode(deltas: Array, anchors: Array, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> Array:
    """Boxes [..., 4] of deltas [..., 4] from anchors [..., 4]: the inverse of `encode`, sides 62.5 times as long at most."""
    at, of = _centred(anchors)
    deltas = deltas / jnp.asarray(weights, deltas.dtype)
    centre, size = at + deltas[..., :2] * of, jnp.exp(jnp.minimum(deltas[..., 2:], MOST_GROWTH)) * of
    return jnp.concatenate([centre - size / 2, centre + size / 2], -1)


def _centred(boxes: Array) -> tuple[Array, Array]:
    """Centres and sides, [..., 2] each."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, jnp.maximum(boxes[..., 2:] - boxes[..., :2], _LEAST)


def make_anchors(height: int, width: int, stride: int, sizes: Sequence[float], ratios: Sequence[float]) -> Array:
    """Boxes around the centre of every cell of a map of features, float32 [height * width * A, 4].

    The A anchors of a cell lie side by side: for each ratio (height over width) one of each size (the root of its area).
    """
    ratios, sizes = (jnp.asarray(x, jnp.float32).ravel() for x in np.meshgrid(ratios, sizes, indexing="ij"))
    half = jnp.stack([sizes / jnp.sqrt(ratios), sizes * jnp.sqrt(ratios)], -1) / 2  # [A, 2]
    y, x = jnp.meshgrid((jnp.arange(height) + 0.5) * stride, (jnp.arange(width) + 0.5) * stride, indexing="ij")
    centre = jnp.stack([x, y], -1)[:, :, None]
    return jnp.concatenate([centre - half, centre + half], -1).reshape(-1, 4)


def match(anchors: Array, objects: Array, valid: Array, low: float, high: float, low_quality: bool = False) -> Array:
    """The object that each anchor is to find, int32 [N]: its index, `BACKGROUND` or `BETWEEN`.

    That which it overlaps most if by `high` or more; none if by less than `low`.

    Args:
        anchors: [N, 4].
        objects: [K, 4].
        valid: bool [K], objects that are there.
        low: below it an anchor is background.
        high: from it on an anchor is its object's.
        low_quality: those that overlap an object most of all anchors find what they overlap most, however little it is.
    """
    overlap = jnp.where(valid[:, None], box_iou(objects, anchors), -1.0)  # [K, N]
    best, most = overlap.argmax(0).astype(jnp.int32), overlap.max(0)
    found = jnp.where(most >= high, best, jnp.where(most < low, BACKGROUND, BETWEEN))
    if not low_quality:
        return found
    highest = overlap.max(1, keepdims=True)
    return jnp.where(((overlap == highest) & (highest > 0)).any(0), best, found)


def roi_align(features: Array, boxes: Array, size: int, scale: float = 1.0, samples: int = 2) -> Array:
    """Features of regions, [H, W, C], [R, 4] -> [R, P, P, C]: the mean of `samples` x `samples` points of each of P x P bins.

    A point is interpolated between the four centres of cells around it: weights are a product of a function of x and one of y,
    so the means are two products of matrices, over rows and over columns. As torchvision's with `aligned=True`: half a cell
    beyond the outer centres the outer cell counts, and nothing beyond a whole one.

    Args:
        features: a map of cells, each 1 / `scale` pixels wide.
        boxes: regions in pixels.
        size: P.
        scale: cells a pixel.
        samples: points along each side of a bin.
    """
    rows = _weights(boxes[:, 1] * scale, boxes[:, 3] * scale, size, samples, features.shape[0])
    columns = _weights(boxes[:, 0] * scale, boxes[:, 2] * scale, size, samples, features.shape[1])
    part = jnp.einsum("rph,hwc->rpwc", rows, features)
    columns = jnp.broadcast_to(columns[:, None], (*part.shape[:2], *columns.shape[1:]))  # else XLA turns the larger one: slow
    return columns @ part


def _weights(low: Array, high: Array, bins: int, samples: int, cells: int) -> Array:
    """How much each cell counts in each bin along a side from `low` to `high` [R], in cells: [R, bins, cells]."""
    at = (jnp.arange(bins * samples) + 0.5) / samples
    at = (low - 0.5)[:, None] + at * ((high - low) / bins)[:, None]  # [R, points], centres of cells at whole numbers
    inside = (at >= -1) & (at <= cells)
    distance = jnp.abs(jnp.clip(at, 0, cells - 1)[..., None] - jnp.arange(cells))
    weight = jnp.maximum(1 - distance, 0) * inside[..., None]
    return weight.reshape(len(low), bins, samples, cells).mean(2)


def paste(masks: Array, boxes: Array, height: int, width: int) -> Array:
    """Masks of regions put into the picture, [R, P, P], [R, 4] -> [R, H, W]: interpolated, and 0 outside of the box."""
    def weights(low: Array, high: Array, pixels: int, bins: int) -> Array:
        centre = jnp.arange(pixels) + 0.5
        at = (centre - low[:, None]) / jnp.maximum(high - low, _LEAST)[:, None] * bins - 0.5  # [R, pixels], in bins
        inside = (centre >= low[:, None]) & (centre <= high[:, None])
        distance = jnp.abs(jnp.clip(at, 0, bins - 1)[..., None] - jnp.arange(bins))
        return jnp.maximum(1 - distance, 0) * inside[..., None]

    rows = weights(boxes[:, 1], boxes[:, 3], height, masks.shape[1])
    columns = weights(boxes[:, 0], boxes[:, 2], width, masks.shape[2])
    return jnp.einsum("rhp,rpq,rwq->rhw", rows, masks, columns)
