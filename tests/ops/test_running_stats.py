"""Running moments: those of numpy over all that was added, in whatever pieces, also far from zero."""


import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.ops.running_stats import Moments

SHAPE = (2, 3)


@jit
def add(moments, x):
    return moments.add(x)


def added(batches):
    moments = Moments.init(batches[0].shape[1:])
    for x in batches:
        moments = add(moments, x)
    return moments


def batches_of(sizes, mean=0.0, std=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [(mean + std * rng.normal(size=(n, *SHAPE)) * np.arange(1, 7).reshape(SHAPE)).astype(np.float32) for n in sizes]


def assert_moments(moments, x, rtol=1e-5, atol=1e-6):
    x = np.float64(x)
    assert float(moments.count) == len(x)
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=rtol, atol=atol)
    np.testing.assert_allclose(moments.deviations / moments.count, x.var(0), rtol=rtol, atol=atol)


@pytest.mark.parametrize("sizes", [[1], [7], [1, 1, 1], [5, 1, 200, 3, 50], [64] * 20])
def test_they_are_those_of_all_that_was_added(sizes):
    batches = batches_of(sizes, mean=3.0)
    batches[-1] = batches[-1] + 2  # what comes in changes over time
    assert_moments(added(batches), np.concatenate(batches))


def test_they_count_by_hand():
    moments = added([np.float32([[1.0], [3.0]]), np.float32([[8.0]])])
    assert jax.tree.map(lambda x: np.asarray(x).tolist(), moments) == Moments(3.0, [4.0], [26.0])


def test_the_order_and_the_pieces_do_not_matter():
    x = np.concatenate(batches_of([96]))
    whole = added([x])
    for pieces in (np.split(x, 2), np.split(x, 32), np.split(x[::-1], [1, 90])):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), added(pieces), whole)


def test_nothing_cancels_far_from_zero():
    """At 1e4 float32 has steps of 1e-3: the data themselves are rounded to a tenth of their deviation, and no more is lost.

    E[x^2] - E[x]^2 would be off by 1e8 * 2**-24, six, where the variance is 1e-4 to 4e-3.
    """
    batches = batches_of([128] * 40, mean=1e4, std=1e-2)
    moments, x = added(batches), np.float64(np.concatenate(batches))
    np.testing.assert_allclose(moments.mean, x.mean(0), atol=1.5e-3)
    np.testing.assert_allclose(moments.deviations / moments.count, x.var(0), rtol=0.05)


def test_integers_are_added_as_numbers():
    x = np.random.default_rng(0).integers(0, 256, (50, *SHAPE)).astype(np.uint8)
    assert_moments(added([x]), x)


@pytest.mark.parametrize("shards", [1, 4])
def test_shards_have_the_moments_of_the_whole(shards):
    first, second = batches_of([8, 40], mean=5.0)
    start = added([first])
    over = jit(jax.vmap(lambda x: start.add(x, "shards"), axis_name="shards"))(second.reshape(shards, -1, *SHAPE))
    for i in range(shards):
        assert_moments(jax.tree.map(lambda x: x[i], over), np.concatenate([first, second]))  # noqa: B023


def test_what_is_normalized_has_mean_zero_and_deviation_one():
    x = np.concatenate(batches_of([500], mean=7.0, std=0.1))
    y = np.float64(added([x]).normalize(x))
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(y, (x - np.float64(x).mean(0)) / np.float64(x).std(0), atol=1e-3)


def test_what_is_far_out_is_clipped():
    moments = added([np.float32([[0.0], [2.0]])])  # mean 1, deviation 1
    x = np.float32([[-50.0], [0.5], [6.0], [50.0]])
    np.testing.assert_allclose(moments.normalize(x), [[-10], [-0.5], [5], [10]], rtol=1e-6)
    np.testing.assert_allclose(moments.normalize(x, 3.0), [[-3], [-0.5], [3], [3]], rtol=1e-6)


def test_what_never_changes_is_normalized_to_zero():
    moments = added([np.full((9, 1), 0.3, np.float32)])
    np.testing.assert_allclose(moments.normalize(np.full((1, 1), 0.3, np.float32)), 0, atol=1e-2)
    assert np.isfinite(moments.normalize(np.float32([[5.0]]))).all()


@pytest.mark.parametrize("count", [0, 1])
def test_before_there_were_two_examples_nothing_is_changed(count):
    moments = Moments.init((2,))
    if count:
        moments = moments.add(jnp.array([[5.0, -3.0]]))
    x = np.float32([[0.5, -9.0], [5.0, -3.0]])
    np.testing.assert_array_equal(moments.normalize(x), x)


@pytest.mark.parametrize(("size", "count"), [(8, 2.0**24), (8, 2.0**31), (1, 2.0**20), (1024, 2.0**33)])
def test_long_runs_have_the_moments_of_short_ones(size, count):
    """Statistics of `count` examples of variance 4 stay as they are under more of them, and follow others in the end."""
    x = np.random.default_rng(0).choice(np.float32([-1, 3]), (32768 // size, size, 1))  # mean 1, variance 4

    def after(moments, batches, times):
        def one(_, moments):
            return jax.lax.scan(lambda m, x: (m.add(x), None), moments, batches)[0]

        return jit(lambda m: jax.lax.fori_loop(0, times, one, m))(moments)

    begun = Moments(jnp.float32(count), jnp.float32([1]), jnp.float32([4 * count]))
    later = after(begun, x, 40)
    np.testing.assert_allclose(later.mean, 1, atol=0.02)
    np.testing.assert_allclose(later.deviations / later.count, 4, rtol=0.02)
    np.testing.assert_allclose(later.inverse_deviation(), 0.5, rtol=0.01)
    assert float(later.count) == min(2**24, 2**18 * size)
    if size == 8:
        other = after(later, 10 + x, 200)  # 6.5 million of others
        share = 1 - np.exp(-200 * 4096 * 8 / float(later.count))
        np.testing.assert_allclose(other.mean, 1 + 10 * share, rtol=0.02)


def test_up_to_the_limit_they_are_plain_sums():
    def plain(self, x):
        count, mean = jnp.float32(len(x)), x.mean(0)
        both, apart = self.count + count, mean - self.mean
        return Moments(both, self.mean + apart * (count / both), self.deviations + jnp.square(x - mean).sum(0)
                       + jnp.square(apart) * (self.count * (count / both)))

    for x in batches_of([64, 3, 500], mean=3.0):
        begun = Moments(jnp.float32(2**19 + 5), jnp.ones(SHAPE), jnp.full(SHAPE, 2e6))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-7), add(begun, x), jit(plain)(begun, x))
