"""Hashed numbers are uniform, and those of neighbours, of other keys and of other shapes have nothing to do with each other."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxdl.ops import hashing


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_uniform_and_neighbours_are_independent(seed):
    x = np.asarray(hashing.uniform(jax.random.key(seed), (400, 500)))
    assert stats.kstest(x.ravel(), "uniform").pvalue > 1e-3
    for a, b in ((x[1:], x[:-1]), (x[:, 1:], x[:, :-1]), (x[::2], x[1::2])):
        counts = np.histogram2d(a.ravel(), b.ravel(), 16)[0]
        assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    assert stats.chisquare(np.bincount((x.ravel() * 2**24).astype(int) & 255, minlength=256)).pvalue > 1e-3


def test_keys_have_numbers_of_their_own():
    keys = jax.random.split(jax.random.key(0), 300)
    x = np.asarray(jax.vmap(lambda key: hashing.uniform(key, (200,)))(keys))
    assert stats.kstest(x[:, 7], "uniform").pvalue > 1e-3
    correlation = np.corrcoef(x)[~np.eye(300, dtype=bool)]
    assert correlation.std() == pytest.approx(200**-0.5, rel=0.05)
