"""Figures of fidelity: closed forms of Gaussians, pairs counted one by one, sets laid out by hand."""

import numpy as np
import pytest
from scipy import linalg
from sklearn.neighbors import NearestNeighbors

from jaxdl.core.errors import UserError
from jaxdl.metrics import sample_quality as quality


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def with_moments(rng, mean, cov, n=50):
    """Samples [n, F] whose mean and covariance are exactly these."""
    x = rng.normal(size=(n, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    values, vectors = np.linalg.eigh(cov)
    return mean + x @ (vectors * np.sqrt(np.maximum(values, 0))).T


def rotation(rng, size):
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def test_the_distance_of_gaussians_with_the_same_axes_is_that_of_means_and_deviations(rng):
    q = rotation(rng, 4)
    a, b = np.array([1.0, 4.0, 9.0, 0.0]), np.array([4.0, 1.0, 0.25, 1.0])
    difference = np.array([3.0, 0.0, -1.0, 2.0])
    found = quality.frechet_distance(with_moments(rng, q @ difference, q @ np.diag(a) @ q.T),
                                      with_moments(rng, np.zeros(4), q @ np.diag(b) @ q.T))
    assert found == pytest.approx(14 + np.square(np.sqrt(a) - np.sqrt(b)).sum(), rel=1e-6)


def test_the_distance_agrees_with_the_root_of_a_matrix(rng):
    a, b = rng.normal(size=(60, 7)) @ rng.normal(size=(7, 7)), rng.normal(size=(40, 7)) @ rng.normal(size=(7, 7)) + 1
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.trace(linalg.sqrtm(cov_a @ cov_b)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root
    assert quality.frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert quality.frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("samples", [5, 200])
def test_a_set_is_at_no_distance_from_itself_whatever_its_rank(rng, samples):
    x = rng.normal(size=(samples, 3)) @ rng.normal(size=(3, 20))
    assert 0 <= quality.frechet_distance(x, x[::-1]) < 1e-10
    assert quality.frechet_distance(x, x + 2) == pytest.approx(4 * 20, rel=1e-12)
    assert quality.frechet_distance(np.ones((samples, 20)), x - x.mean(0)) == pytest.approx(20 + np.cov(x.T).trace())


def test_fewer_samples_than_features_lose_no_digits(rng):
    a, b = np.maximum(rng.normal(size=(30, 100)), 0) * 10, rng.normal(size=(20, 100))
    # The trace of the root is the sum of singular values of the samples' inner products, which needs no root of zeros.
    x, y = (x - x.mean(0) for x in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum() / np.sqrt(29 * 19)
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.square(x).sum() / 29 + np.square(y).sum() / 19 - 2 * cross
    assert quality.frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert quality.frechet_distance(b, a) == pytest.approx(expected, rel=1e-12)


def test_sets_with_no_direction_in_common_are_as_far_apart_as_they_vary(rng):
    turn = rotation(rng, 12)
    a, b = (rng.normal(size=(50, 6)) @ turn[part] for part in (slice(6), slice(6, 12)))
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.cov(a.T).trace() + np.cov(b.T).trace()
    assert quality.frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_a_loud_feature_does_not_drown_the_others(rng):
    x = rng.normal(size=(200, 16)) * ([1e4] + [1] * 15) @ rotation(rng, 16)
    assert quality.frechet_distance(x, x[::-1]) < 1e-5
    assert quality.frechet_distance(x, np.ones((2, 16)) + x.mean(0)) == pytest.approx(16 + np.cov(x.T).trace(), rel=1e-12)


def test_one_feature_is_enough():
    assert quality.frechet_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [7.0]])) == pytest.approx(9 + (3 - 1) ** 2 * 2)


def test_the_kernel_distance_counts_every_pair_but_those_of_a_sample_with_itself(rng, monkeypatch):
    monkeypatch.setattr(quality, "_BLOCK", 2)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 1

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    expected = (np.mean([kernel(a[i], a[j]) for i in range(5) for j in range(5) if i != j])
                + np.mean([kernel(b[i], b[j]) for i in range(4) for j in range(4) if i != j])
                - 2 * np.mean([kernel(x, y) for x in a for y in b]))
    assert quality.kernel_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_the_kernel_distance_has_no_bias(rng):
    found = np.array([quality.kernel_distance(*rng.normal(size=(2, 10, 4))) for _ in range(1500)])
    assert abs(found.mean()) < 4 * found.std() / np.sqrt(len(found))
    assert (found < 0).any()
    assert quality.kernel_distance(rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 1) > 1


REAL = np.array([[0.0], [1.0], [2.0], [10.0]])  # balls of the nearest: reach 1, 1, 1, 8


def test_neighbours_by_hand_on_a_line():
    fake = np.array([[0.5], [2.0], [2.5], [30.0]])  # reach 1.5, 0.5, 0.5, 27.5
    found = quality.precision_recall_density_coverage(REAL, fake, k=1)
    assert found.precision == 3 / 4  # all but 30
    # 0.5 is in the balls of 0 and 1; 2 in those of 1, 2 and 10 (its border); 2.5 in those of 2 and 10
    assert found.density == (2 + 3 + 2) / 4
    assert found.coverage == 1.0
    assert found.recall == 1.0  # 0 and 1 by 0.5, 2 by itself, 10 by 30
    assert quality.precision_recall_density_coverage(REAL, fake[1:], k=1).coverage == 3 / 4  # nothing near 0
    assert quality.precision_recall_density_coverage(REAL, fake[:3], k=1).recall == 3 / 4  # nothing reaches 10


def test_neighbours_agree_with_sklearn(rng, monkeypatch):
    monkeypatch.setattr(quality, "_BLOCK", 37)
    real, fake, k = rng.normal(size=(150, 5)) + 1e6, 0.9 * rng.normal(size=(130, 5)) + 1e6 + 0.3, 5
    reach = [NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k] for x in (real, fake)]
    distance = np.sqrt(np.square(real[:, None] - fake).sum(-1))
    found = quality.precision_recall_density_coverage(real, fake, k)
    within = distance <= reach[0][:, None]
    np.testing.assert_allclose(found, [within.any(0).mean(), (distance <= reach[1]).any(1).mean(), within.sum(0).mean() / k,
                                       within.any(1).mean()])


def test_every_tie_lies_on_a_border_however_it_is_rounded(rng):
    real, fake = rng.integers(0, 8, (2, 60, 3))
    own, distance = (np.square(real[:, None] - x).sum(-1) for x in (real, fake))  # of whole numbers, exact
    within = distance <= np.sort(own, 1)[:, 2, None]
    assert (distance == np.sort(own, 1)[:, 2, None]).any()
    for _ in range(3):
        turn, shift = rotation(rng, 3), rng.normal(size=3) * 100
        found = quality.precision_recall_density_coverage(real @ turn + shift, fake @ turn + shift, k=2)
        assert (found.precision, found.density, found.coverage) == pytest.approx(
            (within.any(0).mean(), within.sum(0).mean() / 2, within.any(1).mean()))


def test_a_set_and_its_own_copy_have_a_density_above_one(rng):
    x = rng.normal(size=(101, 30)) + 50
    assert quality.precision_recall_density_coverage(x, x[::-1], k=4) == pytest.approx((1, 1, 5 / 4, 1))


def test_copies_are_their_own_neighbours(rng):
    x = np.repeat(rng.normal(size=(5, 3)), 4, 0) + 1000
    found = quality.precision_recall_density_coverage(x, x, k=3)
    assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
    assert quality.precision_recall_density_coverage(np.zeros((6, 2)), np.zeros((6, 2)), k=2) == (1, 1, 3, 1)


def test_what_is_missing_lowers_recall_and_coverage_and_what_is_wrong_precision(rng):
    modes, again = (rng.normal(size=(300, 4)) * 0.1 + np.repeat(np.eye(4)[:3] * 10, 100, 0) for _ in range(2))
    whole, part = (quality.precision_recall_density_coverage(modes, x) for x in (again, again[:200]))
    noisy = quality.precision_recall_density_coverage(modes, np.concatenate([again[:200], rng.uniform(-20, 20, (100, 4))]))
    assert min(whole.precision, whole.recall, whole.coverage) > 0.9
    assert part.precision == pytest.approx(whole.precision, abs=0.05)
    assert 0.6 < part.recall <= 2 / 3
    assert 0.6 < part.coverage <= 2 / 3
    assert 0.6 < noisy.precision <= 2 / 3
    assert noisy.coverage == part.coverage  # noise covers nothing, but its wide balls reach far


def test_fakes_that_crowd_around_one_sample_are_dense_and_cover_little(rng):
    real = rng.normal(size=(100, 4))
    found = quality.precision_recall_density_coverage(real, real.mean(0) + rng.normal(size=(50, 4)) * 1e-3)
    assert found.precision == 1
    assert found.density > 1.5
    assert found.coverage < 0.3


def test_histograms_by_hand():
    reference = np.repeat([0, 1, 2], [50, 25, 25])
    assert quality.histogram_kl(reference[::-1], reference, 3) == 0
    assert quality.histogram_kl(np.array([0, 1]), reference, 4) == pytest.approx(0.5 * np.log(2))
    assert quality.histogram_kl(np.array([3]), reference, 4) == np.inf
    labels = np.repeat([0, 1, 2], [196, 2, 2])  # a hundredth is less than a tenth of a quarter
    assert quality.mode_count(labels, reference, 4) == 1
    assert quality.mode_count(np.array([0, 3]), reference, 4) == 1  # 3 is none of the reference's
    assert quality.mode_count(np.repeat([0, 1], [9, 1]), np.repeat([0, 1], 5), 2) == 2
    assert quality.mode_count(np.repeat([0, 1], [39, 1]), reference, 4) == 2  # exactly a tenth of a quarter
    assert quality.mode_count(np.repeat([0, 1], [40, 1]), reference, 4) == 1  # just below


X = np.zeros((8, 3))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: quality.frechet_distance(X, X[:, :2]), "one number of features, got 3 and 2"),
    (lambda: quality.frechet_distance(X[:1], X), "2 or more samples are needed, got 1 in the first set"),
    (lambda: quality.frechet_distance(X, X[:0]), "2 or more samples are needed, got 0 in the second set"),
    (lambda: quality.frechet_distance(X, [[1], [1, 2]]), "second set's features must be real numbers"),
    (lambda: quality.frechet_distance(X, X * 1j), "second set's features must be real numbers"),
    (lambda: quality.frechet_distance(X[:, :0], X), r"must be \[N, F\], got \[8, 0\]"),
    (lambda: quality.kernel_distance(X, X + np.nan), "must be finite"),
    (lambda: quality.kernel_distance(X, X - np.inf), "must be finite"),
    (lambda: quality.kernel_distance(X, X + 1e200), "must be finite and below 1e"),
    (lambda: quality.kernel_distance(X[0], X), r"must be \[N, F\], got \[3\]"),
    (lambda: quality.precision_recall_density_coverage(X, X[:5]), "6 or more samples are needed, got 5 in the second set"),
    (lambda: quality.precision_recall_density_coverage(X, X, k=0), "k must be 1 or above, got 0"),
    (lambda: quality.mode_count(np.array([0, 3]), np.array([0]), 3), "between 0 and 2, got 0 to 3"),
    (lambda: quality.mode_count(np.array([0]), np.array([-1]), 3), "between 0 and 2, got -1 to -1"),
    (lambda: quality.mode_count(np.zeros(0, int), np.array([0]), 3), "one or more integers"),
    (lambda: quality.histogram_kl(np.array([]), np.array([0]), 3), "one or more integers"),
    (lambda: quality.histogram_kl(np.array([0]), np.array([0.5]), 3), "one or more integers .* got float64"),
])
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
