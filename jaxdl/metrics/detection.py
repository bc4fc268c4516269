"""How good detections are: average precision, as COCO has it, of boxes and of masks.

    AP of a class and a threshold   the mean over the recalls 0, 0.01, ..., 1 of the highest precision at that recall or beyond
    ap50                            its mean over classes, a detection being right if it overlaps an object by 0.5 or more
    ap                              the mean of that over the thresholds 0.50, 0.55, ..., 0.95

Detections of a picture find objects in the order of their scores: each the one of its class that it overlaps most, of those
that no earlier one has found. One that finds none is wrong, also if the object was found before. Everingham et al., "The PASCAL
visual object classes challenge" (2010); Lin et al., "Microsoft COCO" (2014), whose evaluation this is but for crowds and ranges
of areas.

Shapes: `N` pictures, `D` detections and `K` objects of a picture at most, `T` thresholds, `Y` classes. A class 0 means that
there is nothing.
"""

from typing import NamedTuple

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # detections of a class in a picture that count


class Precision(NamedTuple):
    """Average precision; NaN where there is no object at all."""

    ap: float
    ap50: float
    by_class: np.ndarray  # [Y] at 0.5, of the classes 1 to Y; NaN of a class without objects


def box_overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area of the intersection over that of the union of boxes, [..., D, 4], [..., K, 4] -> [..., D, K]."""
    a, b = np.asarray(a, np.float64)[..., :, None, :], np.asarray(b, np.float64)[..., None, :, :]
    both = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(-1)
    either = (a[..., 2:] - a[..., :2]).clip(0).prod(-1) + (b[..., 2:] - b[..., :2]).clip(0).prod(-1) - both
    return both / np.where(either > 0, either, 1)


def mask_overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The same of masks of pixels, bool [..., D, H, W], [..., K, H, W] -> [..., D, K]."""
    a, b = (x.reshape(*x.shape[:-2], -1).astype(np.float32) for x in (a, b))
    both = (a @ b.swapaxes(-1, -2)).astype(np.float64)  # whole numbers, whose ratio may be a threshold
    either = a.sum(-1)[..., :, None] + b.sum(-1)[..., None, :] - both
    return both / np.where(either > 0, either, 1)


def average_precision(overlaps: np.ndarray, scores: np.ndarray, classes: np.ndarray, labels: np.ndarray, num_classes: int,
                      most: int = MOST) -> Precision:
    """The average precision of detections.

    Args:
        overlaps: of detections and objects, [N, D, K].
        scores: of detections, [N, D].
        classes: of detections, [N, D].
        labels: of objects, [N, K].
        num_classes: Y.
        most: detections of a class in a picture that count, those of the highest scores.
    """
    order = np.argsort(-np.where(classes > 0, scores, -np.inf), axis=1, kind="stable")
    overlaps, scores, classes = (np.take_along_axis(x, order[..., None] if x.ndim == 3 else order, 1)
                                 for x in (overlaps, scores, classes))
    right = found(overlaps, classes, labels)
    of_class = np.full((num_classes, len(THRESHOLDS)), np.nan)
    for c in range(1, num_classes + 1):
        if num := int((labels == c).sum()):
            counts = classes == c
            counts &= counts.cumsum(1) <= most
            of_class[c - 1] = _precision(right[counts], scores[counts], num)
    there = ~np.isnan(of_class[:, 0])
    means = of_class[there].mean(0) if there.any() else np.full(len(THRESHOLDS), np.nan)
    return Precision(float(means.mean()), float(means[0]), of_class[:, 0])


def found(overlaps: np.ndarray, classes: np.ndarray, labels: np.ndarray, thresholds: np.ndarray = THRESHOLDS) -> np.ndarray:
    """Which detections, the best of a picture first, find an object, bool [N, D, T]."""
    (num, detections, objects), rows = overlaps.shape, np.arange(len(overlaps))[:, None]
    free = np.repeat((labels > 0)[:, :, None], len(thresholds), 2)  # [N, K, T]
    right = np.zeros((num, detections, len(thresholds)), bool)
    if objects == 0:
        return right
    for d in range(detections):
        can = free & ((labels == classes[:, d, None]) & (classes[:, d, None] > 0))[:, :, None]
        can &= overlaps[:, d, :, None] >= thresholds
        by = np.where(can, overlaps[:, d, :, None], -1.0)[:, ::-1]
        best = objects - 1 - by.argmax(1)  # [N, T]; of equal ones the last, as COCO's loop has it
        right[:, d] = np.take_along_axis(can, best[:, None], 1)[:, 0]
        free[rows, best, np.arange(len(thresholds))] &= ~right[:, d]
    return right


def _precision(right: np.ndarray, scores: np.ndarray, num: int) -> np.ndarray:
    """AP [T] of a class of `num` objects, from its detections [M, T], whose scores are [M]."""
    right = right[np.argsort(-scores, kind="stable")]
    if not len(right):
        return np.zeros(right.shape[1])
    true = right.cumsum(0, dtype=np.float64)
    recall, precision = true / num, true / np.arange(1, len(right) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    precision = np.concatenate([precision, np.zeros((1, precision.shape[1]))])
    at = [np.searchsorted(r, RECALLS, side="left") for r in recall.T]
    return np.array([precision[i, t].mean() for t, i in enumerate(at)])
