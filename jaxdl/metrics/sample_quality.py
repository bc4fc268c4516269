"""Distances between real and generated images, computed from features of both, which a network elsewhere has made.

All of it is NumPy in float64: N x N matrices are made in blocks, F x F ones are small.

Shapes: `N M` samples, `F` features, `Y` classes.
"""

from typing import NamedTuple

import numpy as np

from jaxdl.core.errors import UserError

_BLOCK = 1000  # rows of an N x M matrix at a time
_TENTH = 10  # a class is present if its share is at least this part of its share of the reference
_LARGEST = 1e40  # the sixth power of it, which the kernel takes, is still a number
_EPS = float(np.finfo(np.float64).eps)


class Neighbours(NamedTuple):
    """Scores from balls of nearest neighbours; see `precision_recall_density_coverage`."""

    precision: float
    recall: float
    density: float
    coverage: float


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance between Gaussians with the means and covariances of two sets: [N, F], [M, F].

        |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    Dowson & Landau (1982); as a score of generators, Heusel et al., "GANs trained by a two time-scale update rule" (2017). With
    S_a = A A' and S_b = B B' the trace of the root is that of (A' S_b A)^(1/2), the sum of the singular values of A' B: real,
    where a root of S_a S_b would become complex by rounding, and to twice the digits that eigenvalues of A' S_b A have. The
    distance falls with the number of samples: compare equal N.

    Returns:
        The squared distance, in squared units of the features; not below zero.

    Raises:
        UserError: not two sets of two or more finite samples with one number of features.
    """
    a, b = _checked(a, b, 2)
    cov_a, cov_b = (np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    cross = np.linalg.svd(_root(cov_a).T @ _root(cov_b), compute_uv=False).sum()
    return max(float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross), 0.0)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy with the kernel k(x, y) = (x . y / F + 1)^3, without bias: [N, F], [M, F].

        mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

    Binkowski et al., "Demystifying MMD GANs" (2018), eq. 4. Its mean is zero where both come from one distribution, whatever
    N, so it may be negative. The usual score averages it over random subsets, because all pairs of 50,000 samples are many and
    subsets come with a spread. A subset of n leaves out all pairs but n^2, and none of its pairs is better than those left
    out: the mean is the same, the variance larger, and it depends on a seed. Here all pairs are counted once, in blocks.

    Raises:
        UserError: not two sets of two or more finite samples with one number of features.
    """
    a, b = _checked(a, b, 2)

    def cubed(x: np.ndarray) -> float:
        x = x / a.shape[1] + 1
        return float((x * x * x).sum())  # many times faster than a power

    def total(x: np.ndarray, y: np.ndarray) -> float:
        return sum(cubed(x[i : i + _BLOCK] @ y.T) for i in range(0, len(x), _BLOCK))

    def others(x: np.ndarray) -> float:
        return (total(x, x) - cubed(np.square(x).sum(1))) / (len(x) * (len(x) - 1))

    return others(a) + others(b) - 2 * total(a, b) / (len(a) * len(b))


def precision_recall_density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> Neighbours:
    """Shares of samples within reach of the other set: real x_i [N, F], fake y_j [M, F].

    The ball B(x_i) reaches to the k-th nearest neighbour of x_i among the other reals, B(y_j) to that of y_j among the other
    fakes. Balls include their borders, up to rounding, so a copy lies in the ball of its original, even if that has k
    copies and so a radius of zero.

        precision = 1/M sum_j 1[y_j in some B(x_i)]           Kynkaanniemi et al., "Improved precision and recall metric for
        recall    = 1/N sum_i 1[x_i in some B(y_j)]           assessing generative models" (2019)
        density   = 1/(k M) sum_j sum_i 1[y_j in B(x_i)]      Naeem et al., "Reliable fidelity and diversity metrics for
        coverage  = 1/N sum_i 1[some y_j in B(x_i)]           generative models" (2020)

    Density passes 1 where fakes crowd among reals: of a set and itself it is (k + 1) / k. All of them depend on N, M and k:
    compare equal ones.

    Raises:
        UserError: not two sets of more than k finite samples with one number of features, or k below 1.
    """
    if k < 1:
        raise UserError(f"k must be 1 or above, got {k}")
    real, fake = _checked(real, fake, k + 1)
    centre = real.mean(0)  # distances stay the same, and their squares lose fewer digits
    real, fake = real - centre, fake - centre
    reach_real, reach_fake = _reach(real, k), _reach(fake, k)
    around, covered, in_fake = np.zeros(len(fake)), np.zeros(len(real), bool), np.zeros(len(real), bool)
    for i in range(0, len(real), _BLOCK):
        part = slice(i, i + _BLOCK)
        distance = _squared_distances(real[part], fake, less=8 * real.shape[1] * _EPS)
        within = distance <= reach_real[part, None]
        around += within.sum(0)
        covered[part] = within.any(1)
        in_fake[part] = (distance <= reach_fake).any(1)
    return Neighbours(float((around > 0).mean()), float(in_fake.mean()), float(around.mean() / k), float(covered.mean()))


def histogram_kl(labels: np.ndarray, reference: np.ndarray, num_classes: int) -> float:
    """KL(share p of each class among `labels` || its share q in `reference`), in nats: integers [N], [M].

        sum_y p_y log(p_y / q_y),   0 log 0 = 0

    Nothing is smoothed: a class that is missing costs nothing of its own, one that the reference does not have costs infinity.

    Raises:
        UserError: no labels, or some that are no integers from 0 to `num_classes` - 1.
    """
    p, q = (count / count.sum() for count in (_counts(labels, num_classes), _counts(reference, num_classes)))
    here = p > 0
    if (q[here] == 0).any():
        return float("inf")
    return max(float((p[here] * np.log(p[here] / q[here])).sum()), 0.0)


def mode_count(labels: np.ndarray, reference: np.ndarray, num_classes: int) -> int:
    """Classes of `reference` that are present, with at least a tenth of their share of it, among `labels`: integers [N], [M].

    A class that the reference does not have is none to be found, and is not counted.

    Raises:
        UserError: no labels, or some that are no integers from 0 to `num_classes` - 1.
    """
    found, wanted = _counts(labels, num_classes), _counts(reference, num_classes)
    enough = _TENTH * found * wanted.sum() >= wanted * found.sum()  # of integers, so a tenth is a tenth
    return int((enough & (wanted > 0)).sum())


def _root(cov: np.ndarray) -> np.ndarray:
    """A [F, rank] with A A' = cov. Eigenvalues that are rounding are left out: the root of 1e-16 is 1e-8."""
    values, vectors = np.linalg.eigh(cov)
    there = values > values[-1] * len(values) * _EPS
    return vectors[:, there] * np.sqrt(values[there])


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each sample to its k-th nearest neighbour in the set [N]; itself, at none, comes before the first."""
    reach = np.empty(len(x))
    for i in range(0, len(x), _BLOCK):
        reach[i : i + _BLOCK] = np.partition(_squared_distances(x[i : i + _BLOCK], x), k, axis=1)[:, k]
    return reach


def _squared_distances(a: np.ndarray, b: np.ndarray, less: float = 0.0) -> np.ndarray:
    """|a_i - b_j|^2 - less (|a_i|^2 + |b_j|^2), [N, F], [M, F] -> [N, M]; rounding may take some below zero."""
    return np.square(a).sum(1)[:, None] * (1 - less) + np.square(b).sum(1) * (1 - less) - 2 * a @ b.T


def _counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels must be one or more integers [N], got {labels.dtype} of shape {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"labels must lie between 0 and {num_classes - 1}, got {labels.min()} to {labels.max()}")
    return np.bincount(labels.astype(np.int64), minlength=num_classes)


def _checked(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = _features(a, "first", least), _features(b, "second", least)
    if first.shape[1] != second.shape[1]:
        raise UserError(f"both sets must have one number of features, got {first.shape[1]} and {second.shape[1]}")
    return first, second


def _features(x: np.ndarray, which: str, least: int) -> np.ndarray:
    try:
        x = np.asarray(x).astype(np.float64, casting="same_kind" if np.iscomplexobj(x) else "unsafe")
    except (ValueError, TypeError) as e:
        raise UserError(f"the {which} set's features must be real numbers: {e}") from None
    if x.ndim != 2 or x.shape[1] == 0:
        raise UserError(f"the {which} set's features must be [N, F], got {list(x.shape)}")
    if len(x) < least:
        raise UserError(f"{least} or more samples are needed, got {len(x)} in the {which} set")
    if not (np.abs(x) < _LARGEST).all():
        raise UserError(f"the {which} set's features must be finite and below {_LARGEST:.0e}, and some are not")
    return x
