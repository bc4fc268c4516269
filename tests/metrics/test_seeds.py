import numpy as np
import pytest
import scipy.stats

from jaxdl.metrics.seeds import bootstrap_interval, iqm


def test_iqm_by_hand():
    assert iqm(np.array([7.0])) == 7
    assert iqm(np.array([100.0, 1, 2, -50])) == 1.5  # the middle two of four
    # of five, 1.25 go at each end: 3/4 of the second and the fourth stay, and all of the third
    np.testing.assert_allclose(iqm(np.array([0.0, 1, 2, 5, 1000])), (0.75 * 1 + 2 + 0.75 * 5) / 2.5, rtol=1e-14)


@pytest.mark.parametrize("n", range(1, 14))
def test_iqm_is_the_trimmed_mean_of_four_copies(n):
    x = np.random.default_rng(n).normal(size=(n, 3))
    oracle = scipy.stats.trim_mean(np.repeat(x, 4, axis=0), 0.25, axis=0)  # four copies: the cut goes through none
    np.testing.assert_allclose(iqm(x), oracle, rtol=1e-12, atol=1e-14)
    if n % 4 == 0:
        np.testing.assert_allclose(iqm(x), scipy.stats.trim_mean(x, 0.25, axis=0), rtol=1e-12, atol=1e-14)


def test_iqm_takes_any_axis_and_ignores_outliers_and_order():
    x = np.random.default_rng(0).normal(size=(3, 10, 2))
    expected = np.array([[iqm(x[i, :, j]) for j in range(2)] for i in range(3)])
    np.testing.assert_allclose(iqm(x, axis=1), expected)
    np.testing.assert_allclose(iqm(np.moveaxis(x, 1, -1), axis=-1), expected)
    wild = np.sort(x, axis=1)
    wild[:, :2], wild[:, -2:] = -1e9, 1e9
    np.testing.assert_allclose(iqm(wild[:, ::-1], axis=1), expected)


def test_a_nan_is_not_hidden_and_no_values_are_refused():
    assert np.isnan(iqm(np.array([1.0, 2, 3, 4, np.nan])))
    with pytest.raises(ValueError, match="no values"):
        iqm(np.zeros((0, 3)))
    for bad in ({"values": np.zeros((0, 3))}, {"confidence": 1.0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="needs at least"):
            bootstrap_interval(**{"values": np.zeros((3, 3))} | bad)


@pytest.mark.parametrize("statistic", [np.mean, iqm])
def test_interval_is_scipys_percentile_bootstrap(statistic):
    x = np.random.default_rng(1).gamma(2.0, size=12)
    oracle = scipy.stats.bootstrap((x,), statistic, n_resamples=2000, confidence_level=0.9, method="percentile",
                                   rng=np.random.default_rng(5)).confidence_interval
    np.testing.assert_allclose(bootstrap_interval(x, statistic, 0.9, seed=5), oracle, rtol=1e-12)  # the same draws


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    x = np.random.default_rng(2).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(x, np.mean, resamples=20_000)
    half = 1.959964 * x.std() / 20  # the bootstrap's own variance is x.var() / n
    np.testing.assert_allclose([low, high], [x.mean() - half, x.mean() + half], atol=0.03 * half)


def test_interval_covers_the_truth_as_often_as_it_says():
    x = np.random.default_rng(3).normal(size=(20, 2000))  # 2000 experiments of 20 runs
    low, high = bootstrap_interval(x, np.mean, resamples=400)
    # about P(|t_19| < 1.96 sqrt(19 / 20)) = 0.928: a normal quantile, and a variance with 1/n
    assert 0.90 < np.mean((low < 0) & (high > 0)) < 0.945
    low, high = bootstrap_interval(x, iqm, confidence=0.5, resamples=400)
    assert 0.42 < np.mean((low < 0) & (high > 0)) < 0.54


def test_all_points_share_their_draws_whatever_the_blocks(monkeypatch):
    x = np.random.default_rng(4).normal(size=(7, 5, 3))
    low, high = bootstrap_interval(x, seed=1, resamples=500)
    assert low.shape == high.shape == (5, 3)
    assert np.all(low < high)
    one = bootstrap_interval(x[:, 2, 1], seed=1, resamples=500)
    np.testing.assert_allclose(one, (low[2, 1], high[2, 1]), rtol=1e-12)
    monkeypatch.setattr("jaxdl.metrics.seeds._BLOCK", 1000)  # a few resamples at a time
    np.testing.assert_allclose(bootstrap_interval(x, seed=1, resamples=500), (low, high), rtol=1e-12)


def test_one_run_has_no_spread():
    low, high = bootstrap_interval(np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal((low, high), [[1, 2], [1, 2]])
