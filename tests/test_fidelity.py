"""Figures of fidelity: closed forms of Gaussians, pairs counted one by one, sets laid out by hand."""

import numpy as np
import pytest
from scipy import linalg
from sklearn.neighbors import NearestNeighbors

from jaxdl import fidelity
from jaxdl.errors import UserError

RNG = np.random.default_rng(0)


def with_moments(mean, cov, n=50):
    """Samples [n, F] whose mean and covariance are exactly these."""
    x = RNG.normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    values, vectors = np.linalg.eigh(cov)
    return mean + x @ (vectors * np.sqrt(np.maximum(values, 0))).T


def rotation(size):
    return np.linalg.qr(RNG.normal(size=(size, size)))[0]


def test_the_distance_of_gaussians_with_the_same_axes_is_that_of_means_and_deviations():
    q = rotation(4)
    a, b = np.array([1.0, 4.0, 9.0, 0.0]), np.array([4.0, 1.0, 0.25, 1.0])
    difference = np.array([3.0, 0.0, -1.0, 2.0])
    found = fidelity.frechet_distance(with_moments(q @ difference, q @ np.diag(a) @ q.T),
                                      with_moments(np.zeros(4), q @ np.diag(b) @ q.T))
    assert found == pytest.approx(14 + np.square(np.sqrt(a) - np.sqrt(b)).sum(), rel=1e-6)


def test_the_distance_agrees_with_the_root_of_a_matrix():
    a, b = RNG.normal(size=(60, 7)) @ RNG.normal(size=(7, 7)), RNG.normal(size=(40, 7)) @ RNG.normal(size=(7, 7)) + 1
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(linalg.sqrtm(cov_a @ cov_b)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root
    assert fidelity.frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert fidelity.frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("samples", [5, 200])
def test_a_set_is_at_no_distance_from_itself_whatever_its_rank(samples):
    x = RNG.normal(size=(samples, 3)) @ RNG.normal(size=(3, 20))
    assert fidelity.frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-5)
    assert fidelity.frechet_distance(x, x + 2) == pytest.approx(4 * 20, rel=1e-6)


def test_one_feature_is_enough():
    assert fidelity.frechet_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [7.0]])) == pytest.approx(9 + (3 - 1) ** 2 * 2)


def test_the_kernel_distance_counts_every_pair_but_those_of_a_sample_with_itself(monkeypatch):
    monkeypatch.setattr(fidelity, "_BLOCK", 2)
    a, b = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3)) + 1

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    expected = (np.mean([kernel(a[i], a[j]) for i in range(5) for j in range(5) if i != j])
                + np.mean([kernel(b[i], b[j]) for i in range(4) for j in range(4) if i != j])
                - 2 * np.mean([kernel(x, y) for x in a for y in b]))
    assert fidelity.kernel_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_the_kernel_distance_has_no_bias():
    found = np.array([fidelity.kernel_distance(*RNG.normal(size=(2, 10, 4))) for _ in range(1500)])
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))
    assert (found < 0).any()
    assert fidelity.kernel_distance(RNG.normal(size=(200, 4)), RNG.normal(size=(200, 4)) + 1) > 1


REAL = np.array([[0.0], [1.0], [2.0], [10.0]])  # balls of the nearest: reach 1, 1, 1, 8


def test_neighbours_by_hand_on_a_line():
    fake = np.array([[0.5], [2.0], [2.5], [30.0]])  # reach 1.5, 0.5, 0.5, 27.5
    found = fidelity.precision_recall_density_coverage(REAL, fake, k=1)
    assert found.precision == 3 / 4  # all but 30
    # 0.5 is in the balls of 0 and 1; 2 in those of 1, 2 and 10 (its border); 2.5 in those of 2 and 10
    assert found.density == (2 + 3 + 2) / 4
    assert found.coverage == 1.0
    assert found.recall == 1.0  # 0 and 1 by 0.5, 2 by itself, 10 by 30
    assert fidelity.precision_recall_density_coverage(REAL, fake[1:], k=1).coverage == 3 / 4  # nothing near 0
    assert fidelity.precision_recall_density_coverage(REAL, fake[:3], k=1).recall == 3 / 4  # nothing reaches 10


def test_neighbours_agree_with_sklearn(monkeypatch):
    monkeypatch.setattr(fidelity, "_BLOCK", 37)
    real, fake, k = RNG.normal(size=(150, 5)) + 100, 0.9 * RNG.normal(size=(130, 5)) + 100.3, 5
    reach = [NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k] for x in (real, fake)]
    distance = np.sqrt(np.square(real[:, None] - fake).sum(-1))
    found = fidelity.precision_recall_density_coverage(real, fake, k)
    within = distance <= reach[0][:, None]
    np.testing.assert_allclose(found, [within.any(0).mean(), (distance <= reach[1]).any(1).mean(), within.sum(0).mean() / k,
                                       within.any(1).mean()])


def test_copies_are_their_own_neighbours():
    x = np.repeat(RNG.normal(size=(5, 3)), 4, 0) + 1000
    found = fidelity.precision_recall_density_coverage(x, x, k=3)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)


def test_what_is_missing_lowers_recall_and_what_is_wrong_precision():
    modes = RNG.normal(size=(300, 4)) * 0.1 + np.repeat(np.eye(4)[:3] * 10, 100, 0)
    again = RNG.normal(size=(300, 4)) * 0.1 + np.repeat(np.eye(4)[:3] * 10, 100, 0)
    whole, part = (fidelity.precision_recall_density_coverage(modes, x) for x in (again, again[:200]))
    noisy = fidelity.precision_recall_density_coverage(modes, np.concatenate([again[:200], RNG.uniform(-20, 20, (100, 4))]))
    assert part.precision == pytest.approx(whole.precision, abs=0.05)
    assert (part.recall, part.coverage) < (0.68, 0.68)
    assert min(whole.recall, whole.coverage, whole.precision) > 0.9
    assert noisy.precision < 0.7
    centre = np.repeat(modes[:1], 10, 0) + RNG.normal(size=(10, 4)) * 1e-3
    assert fidelity.precision_recall_density_coverage(modes - [10, 0, 0, 0], 0 * centre).density > 1


def test_histograms_by_hand():
    reference = np.repeat([0, 1, 2], [50, 25, 25])
    assert fidelity.histogram_kl(reference[::-1], reference, 3) == 0
    assert fidelity.histogram_kl(np.array([0, 1]), reference, 4) == pytest.approx(0.5 * np.log(2))
    assert fidelity.histogram_kl(np.array([3]), reference, 4) == np.inf
    labels = np.repeat([0, 1, 2], [196, 2, 2])  # a hundredth is less than a tenth of a quarter
    assert fidelity.mode_count(labels, reference, 4) == 1
    assert fidelity.mode_count(np.repeat([0, 1], [39, 1]), reference, 4) == 2  # exactly a tenth of a quarter


X = np.zeros((8, 3))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: fidelity.frechet_distance(X, X[:, :2]), "one number of features, got 3 and 2"),
    (lambda: fidelity.frechet_distance(X[:1], X), "2 or more samples are needed, got 1"),
    (lambda: fidelity.kernel_distance(X, X + np.nan), "must be finite"),
    (lambda: fidelity.kernel_distance(X[0], X), r"must be \[N, F\], got \[3\]"),
    (lambda: fidelity.precision_recall_density_coverage(X, X[:5]), "6 or more samples are needed, got 5"),
    (lambda: fidelity.precision_recall_density_coverage(X, X, k=0), "k must be 1 or above, got 0"),
    (lambda: fidelity.mode_count(np.array([0, 3]), np.array([0]), 3), "between 0 and 2, got 0 to 3"),
    (lambda: fidelity.histogram_kl(np.array([]), np.array([0]), 3), "one or more integers"),
])
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
