"""How good a classifier is: accuracy, top-k, confusion, calibration, a row a class; precision of several labels at once; R2.

All are of NumPy arrays on the host.

Shapes: `N` examples, `Y` classes.
"""

from typing import NamedTuple

import numpy as np


def accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """Share of the examples whose label is among the k highest scores, of equal ones the first: [N, Y], [N]."""
    better = (scores > scores[np.arange(len(labels)), labels][:, None]).sum(-1)
    tied = (scores == scores[np.arange(len(labels)), labels][:, None]) & (np.arange(scores.shape[1]) < labels[:, None])
    return float((better + tied.sum(-1) < k).mean())


def confusion(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Examples by class (rows) and prediction (columns), int64 [Y, Y]."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou(confused: np.ndarray) -> np.ndarray:
    """Intersection over union of each class from `confusion` [Y, Y], NaN of a class that there is not, and is not said: [Y]."""
    both = np.diag(confused)
    either = confused.sum(0) + confused.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


class ClassRow(NamedTuple):
    """One class: NaN where a ratio has nothing below it."""

    precision: float  # of what was said to be of the class, what is
    recall: float  # of what is of the class, what was said to be
    f1: float  # 2 / (1 / precision + 1 / recall)
    num: int  # examples of the class


def per_class(confused: np.ndarray) -> list[ClassRow]:
    """A row a class from `confusion` [Y, Y]."""
    right, said, there = np.diag(confused), confused.sum(0), confused.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return [ClassRow(float(p), float(r), float(f), int(n))
                for p, r, f, n in zip(right / said, right / there, 2 * right / (said + there), there, strict=True)]


class Calibration(NamedTuple):
    """Predictions by their confidence, in bins of equal width; NaN where a bin is empty."""

    confidence: np.ndarray  # [bins] mean of the largest probabilities
    accuracy: np.ndarray  # [bins]
    num: np.ndarray  # [bins]
    error: float  # expected calibration error


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Calibration:
    """How far confidence and accuracy are apart: [N, Y], [N].

        ECE = sum over bins of (examples in it / N) |accuracy - mean confidence|

    Guo et al., "On calibration of modern neural networks" (2017), eq. 3, with their 15 bins.
    """
    top, right = probabilities.max(-1), probabilities.argmax(-1) == labels
    place = np.minimum((top * bins).astype(int), bins - 1)
    num = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence, hit = (np.bincount(place, x, bins) / num for x in (top, right))
    error = float(np.nansum(num / len(labels) * np.abs(hit - confidence)))
    return Calibration(confidence, hit, num, error)


def mean_average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    """Mean over classes of the average precision, of several labels an example: scores [N, Y], bool [N, Y].

    The average precision of a class is the mean of the precision at each of its examples, in the order of falling scores
    (Everingham et al., "The Pascal visual object classes challenge" (2010), without interpolation). Classes without examples
    do not count.
    """
    found = []
    for score, there in zip(scores.T, present.T, strict=True):
        if there.any():
            order = np.argsort(-score, kind="stable")
            hits = there[order]
            found.append((np.cumsum(hits)[hits] / (np.flatnonzero(hits) + 1)).mean())
    return float(np.mean(found))


def r2(predicted: np.ndarray, targets: np.ndarray) -> float:
    """Share of the targets' variance that is predicted: 1 - mean squared error / variance, of [N] or, averaged, of [N, K]."""
    error, spread = ((predicted - targets) ** 2).mean(0), targets.var(0)
    return float(np.mean(1 - error / spread))
