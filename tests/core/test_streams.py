"""Streams of random numbers: each use of a seed has one, and no two meet."""

import jax
import numpy as np
import pytest

from jaxdl.core import streams
from jaxdl.core.streams import Purpose

PURPOSES = list(Purpose)


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_key_of_a_purpose_is_none_that_training_splits_off_its_own(purpose):
    root = jax.random.key(7)
    taken = {bits(root)} | {bits(k) for n in (2, 4, 1000) for k in jax.random.split(root, n)}
    taken |= {bits(jax.random.fold_in(root, i)) for i in range(20)}
    mine = streams.key(7, purpose)
    assert bits(mine) not in taken
    assert bits(mine) != bits(streams.key(8, purpose))
    assert not taken & {bits(k) for k in jax.random.split(mine, 1000)}


def test_purposes_seeds_and_indices_have_seeds_of_their_own_far_apart():
    found = [streams.host_seed(seed, purpose, *index) for seed in (*range(40), 2**32, -1)
             for purpose in PURPOSES for index in ((), (0, 0), (0, 1), (800, 0))]
    assert len(set(found)) == len(found)
    assert np.diff(sorted(found)).min() > 10
    assert all(0 <= seed < 2**31 for seed in found)
    assert len({bits(streams.key(3, p)) for p in PURPOSES}) == len(PURPOSES)


def test_ten_runs_share_no_environment():
    seeds = [streams.host_seed(seed, Purpose.ENVIRONMENTS, 0, 0) + i for seed in range(10) for i in range(64)]
    assert len(set(seeds)) == 640


def test_what_a_seed_means_stays():
    """A new version would otherwise evaluate on other episodes than an older one, without a word."""
    assert streams.host_seed(0, Purpose.ENVIRONMENTS, 0, 0) == 238126281
    assert streams.host_seed(5, Purpose.EVALUATION) == 1605005345
