"""How like real images generated ones are, from features of both. No network is in here: features come from outside.

All of it is NumPy in float64: N x N matrices are made in blocks, F x F ones are small.

Shapes: `N M` samples, `F` features, `Y` classes.
"""

from typing import NamedTuple

import numpy as np

from jaxdl.errors import UserError

_BLOCK = 1000  # rows of an N x M matrix at a time
_PRESENT = 0.1  # share of a class's share of the reference from which on it counts as present


class Neighbours(NamedTuple):
    """What manifolds of nearest neighbours say; see `precision_recall_density_coverage`."""

    precision: float
    recall: float
    density: float
    coverage: float


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance between Gaussians with the means and covariances of two sets: [N, F], [M, F].

        |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    Dowson & Landau (1982); as a score of generators, Heusel et al., "GANs trained by a two time-scale update rule" (2017). The
    trace of the root is that of (S_a^(1/2) S_b S_a^(1/2))^(1/2), which is symmetric: it has real eigenvalues, where a root of
    the product would become complex by rounding. The distance falls with the number of samples: compare equal N.

    Raises:
        UserError: not two sets of two or more finite samples with one number of features.
    """
    a, b = _checked(a, b, 2)
    mean_a, mean_b = a.mean(0), b.mean(0)
    cov_a, cov_b = (np.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    return float(np.square(mean_a - mean_b).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy with the kernel (x . y / F + 1)^3, without bias: [N, F], [M, F].

        mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j)

    Binkowski et al., "Demystifying MMD GANs" (2018), eq. 4. Its mean is zero where both come from one distribution, whatever
    N, so it may be negative. They average it over subsets, to have a standard error; all pairs at once have less variance.

    Raises:
        UserError: not two sets of two or more finite samples with one number of features.
    """
    a, b = _checked(a, b, 2)

    def total(x: np.ndarray, y: np.ndarray) -> float:
        return sum(float(((x[i : i + _BLOCK] @ y.T / x.shape[1] + 1) ** 3).sum()) for i in range(0, len(x), _BLOCK))

    def others(x: np.ndarray) -> float:
        own = float(((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum())
        return (total(x, x) - own) / (len(x) * (len(x) - 1))

    return others(a) + others(b) - 2 * total(a, b) / (len(a) * len(b))


def precision_recall_density_coverage(real: np.ndarray, fake: np.ndarray, k: int = 5) -> Neighbours:
    """Shares of samples within reach of the other set: real [N, F], fake [M, F].

    A sample's ball reaches to its k-th nearest neighbour in its own set, and has its border.

        precision   share of fakes that lie in a ball of some real one              Kynkaanniemi et al. (2019), eq. 2
        recall      share of reals that lie in a ball of some fake
        density     balls of reals around a fake, over k, on average; may pass 1    Naeem et al. (2020), eq. 4
        coverage    share of reals whose ball has some fake in it                   Naeem et al. (2020), eq. 5

    Raises:
        UserError: not two sets of more than k finite samples with one number of features, or k below 1.
    """
    if k < 1:
        raise UserError(f"k must be 1 or above, got {k}")
    real, fake = _checked(real, fake, k + 1)
    centre = real.mean(0)  # distances stay, and what is squared becomes small
    real, fake = real - centre, fake - centre
    reach_real, reach_fake = _reach(real, k), _reach(fake, k)
    in_real, covered, in_fake = np.zeros(len(fake)), np.zeros(len(real), bool), np.zeros(len(real), bool)
    for i in range(0, len(real), _BLOCK):
        part = slice(i, i + _BLOCK)
        distance = _squared_distances(real[part], fake)
        within = distance <= reach_real[part, None]
        in_real += within.sum(0)
        covered[part] = within.any(1)
        in_fake[part] = (distance <= reach_fake).any(1)
    return Neighbours(float((in_real > 0).mean()), float(in_fake.mean()), float(in_real.mean() / k), float(covered.mean()))


def histogram_kl(labels: np.ndarray, reference: np.ndarray, num_classes: int) -> float:
    """KL(share of each class among `labels` || its share in `reference`) in nats: integers [N], [M].

    Nothing is smoothed: a class that is missing costs nothing of its own, one that the reference does not have costs infinity.
    """
    p, q = _shares(labels, num_classes), _shares(reference, num_classes)
    here = p > 0
    if (q[here] == 0).any():
        return float("inf")
    return float((p[here] * np.log(p[here] / q[here])).sum())


def mode_count(labels: np.ndarray, reference: np.ndarray, num_classes: int) -> int:
    """Classes that are present: with at least a tenth of the share that they have in `reference`: integers [N], [M]."""
    p, q = _shares(labels, num_classes), _shares(reference, num_classes)
    return int(((p >= _PRESENT * q) & (p > 0)).sum())


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each sample to its k-th nearest neighbour in the set [N]; the zero to itself comes first."""
    reach = np.empty(len(x))
    for i in range(0, len(x), _BLOCK):
        distance = _squared_distances(x[i : i + _BLOCK], x)
        distance[np.arange(len(distance)), i + np.arange(len(distance))] = -1  # itself, whatever was rounded
        reach[i : i + _BLOCK] = np.partition(distance, k, axis=1)[:, k]
    return reach


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N, F], [M, F] -> [N, M], none below zero."""
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T, 0)


def _shares(labels: np.ndarray, num_classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels must be one or more integers [N], got {labels.dtype} of shape {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(f"labels must lie between 0 and {num_classes - 1}, got {labels.min()} to {labels.max()}")
    return np.bincount(labels, minlength=num_classes) / len(labels)


def _checked(a: np.ndarray, b: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    for x in (a, b):
        if x.ndim != 2 or x.shape[1] == 0:
            raise UserError(f"features must be [N, F], got {list(x.shape)}")
        if len(x) < least:
            raise UserError(f"{least} or more samples are needed, got {len(x)}")
        if not np.isfinite(x).all():
            raise UserError("features must be finite, and some are not")
    if a.shape[1] != b.shape[1]:
        raise UserError(f"both sets must have one number of features, got {a.shape[1]} and {b.shape[1]}")
    return a, b
