"""The shuffled order is a permutation that looks random; the source walks it epoch by epoch, from its state alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.core.errors import UserError
from jaxdl.data.minibatches import dataset, steps_per_epoch
from jaxdl.data.shuffle import shuffled_index

MANY = 20000  # keys of the statistical tests: with seeds fixed they hold or not, once and for all
P_VALUE = 1e-4  # of the least of some dozens of chi-square tests


def orders(n, count, seed=0):
    """[count, n]: the whole order of `n` for each of `count` keys."""
    keys = jax.random.split(jax.random.key(seed), count)
    return np.asarray(jax.jit(jax.vmap(lambda k: shuffled_index(k, None, jnp.arange(n), n)))(keys))


def run(source, state, data, steps):
    """The state after `steps` batches, and the batches [steps, B, ...]."""
    return jax.lax.scan(lambda s, _: source.sample(s, None, 0, data), state, length=steps)


# --- The permutation.


@pytest.mark.parametrize("n", [*range(1, 20), 64, 97, 1000, 1437, 4095, 4096, 4097, 60000])
def test_it_is_a_bijection(n):
    order = shuffled_index(jax.random.key(n), 3, jnp.arange(n), n)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@pytest.mark.parametrize("n", [2**31 - 1, 2**31 - 2**16, 46341**2 - 46340])
def test_the_largest_sets_do_not_overflow(n):
    positions = jnp.concatenate([jnp.arange(5000), n - 1 - jnp.arange(5000)])
    order = np.asarray(shuffled_index(jax.random.key(0), 0, positions, n))
    assert order.min() >= 0
    assert order.max() < n
    assert len(np.unique(order)) == 10000
    assert stats.kstest(order / n, "uniform").pvalue > P_VALUE


@pytest.mark.parametrize("n", [2, 3, 4, 7, 10, 11, 16, 30])
def test_every_example_is_as_likely_at_every_place(n):
    order = orders(n, MANY)
    places = [np.bincount(order[:, i], minlength=n) for i in range(n)]
    assert min(stats.chisquare(p).pvalue for p in places) > P_VALUE


@pytest.mark.parametrize("n", [3, 4, 7, 11, 16])
def test_every_pair_is_as_likely_at_every_two_places(n):
    order = orders(n, MANY, seed=1)
    two = [(i, j) for i in range(n) for j in range(i)]
    pairs = [np.bincount(order[:, i] * n + order[:, j], minlength=n * n) for i, j in two]
    different = ~np.eye(n, dtype=bool).ravel()  # no example is at two places
    assert min(stats.chisquare(p[different]).pvalue for p in pairs) > P_VALUE


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_orders_of_a_few_are_as_likely(n):
    _, counts = np.unique(orders(n, MANY, seed=2), axis=0, return_counts=True)
    assert len(counts) == math.factorial(n)
    assert stats.chisquare(counts).pvalue > P_VALUE


def test_neighbours_are_strangers():
    n = 1000
    order = orders(n, 1000, seed=3)
    steps = np.bincount((np.diff(order) % n).ravel(), minlength=n)[1:]
    assert stats.chisquare(steps).pvalue > P_VALUE
    fixed = (order == np.arange(n)).sum(1)  # of a random permutation: Poisson, mean and variance 1
    assert fixed.mean() == pytest.approx(1, abs=0.15)
    assert fixed.var() == pytest.approx(1, abs=0.25)


def test_epochs_and_keys_have_orders_of_their_own():
    n = 1000
    def order(seed, epoch):
        return np.asarray(shuffled_index(jax.random.key(seed), epoch, jnp.arange(n), n))

    first = order(0, 0)
    np.testing.assert_array_equal(first, order(0, 0))
    for other in (order(0, 1), order(1, 0), order(0, None)):
        assert (first == other).sum() < 10  # about 1 by chance
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.15


def test_a_batch_costs_the_same_from_any_number_of_examples():
    def flops(n):
        run = jax.jit(lambda key, p: shuffled_index(key, 0, p, n)).lower(jax.random.key(0), jnp.arange(128)).compile()
        return run.memory_analysis().temp_size_in_bytes, run.cost_analysis()["flops"]

    assert flops(60000) == flops(40000)  # 250 x 240 and 200 x 200: nothing walks


# --- The source.


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (12, 4), (7, 7), (5, 1), (1, 1), (97, 10)])
def test_an_epoch_visits_each_example_at_most_once(n, batch_size):
    source, steps = dataset(n, batch_size), steps_per_epoch(n, batch_size)
    assert steps == n // batch_size
    data = {"x": jnp.arange(n) * 10, "y": jnp.arange(n)}
    state, batches = run(source, source.init(jax.random.key(0)), data, 4 * steps)
    epochs = np.asarray(batches["y"]).reshape(4, -1)
    np.testing.assert_array_equal(batches["x"], batches["y"] * 10)  # the leaves stay together
    assert [len(np.unique(e)) for e in epochs] == [steps * batch_size] * 4
    assert (int(state.epoch), int(state.batch)) == (4, 0)
    if n > 6:
        assert len(np.unique(epochs, axis=0)) == 4
    if n == 97:  # the 7 left out of an epoch are not always the same
        assert len({tuple(sorted(e)) for e in epochs.tolist()}) == 4


def test_keys_have_orders_of_their_own():
    source, data = dataset(64, 64), jnp.arange(64)
    one, two = (source.sample(source.init(jax.random.key(seed)), None, 0, data)[1] for seed in (0, 1))
    assert (np.asarray(one) == np.asarray(two)).sum() < 10


def test_continues_mid_epoch_from_its_state_alone():
    data = jnp.arange(50)
    source = dataset(50, 8)
    _, straight = run(source, source.init(jax.random.key(3)), data, 20)
    state, _ = run(source, source.init(jax.random.key(3)), data, 9)  # 3 into the second epoch
    assert (int(state.epoch), int(state.batch)) == (1, 3)
    raw = jax.random.key_data(state.key), np.asarray(state.epoch), np.asarray(state.batch)  # through the disk
    again = type(state)(jax.random.wrap_key_data(raw[0]), jnp.asarray(raw[1]), jnp.asarray(raw[2]))
    _, rest = run(dataset(50, 8), again, data, 11)
    np.testing.assert_array_equal(rest, straight[9:])


def test_jit_scan_and_single_steps_agree():
    source, data = dataset(30, 4), jnp.arange(30)
    start = source.init(jax.random.key(5))
    _, scanned = jax.jit(lambda s: run(source, s, data, 15))(start)
    state = start
    for expected in scanned:
        state, batch = source.sample(state, jax.random.key(99), 0, data)  # the key of a step changes nothing
        np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("n", [64, 97])
def test_seeds_under_vmap_are_what_they_are_alone(n):
    source, data = dataset(n, 8), jnp.arange(n)
    keys = jax.random.split(jax.random.key(7), 3)
    states = jax.vmap(source.init)(keys)
    _, together = jax.jit(jax.vmap(lambda s, d: run(source, s, d, 20), in_axes=(0, None)))(states, data)
    for key, batches in zip(keys, together, strict=True):
        np.testing.assert_array_equal(batches, run(source, source.init(key), data, 20)[1])


def test_members_of_a_population_share_the_data():
    source = dataset(20000, 8)
    data = jax.ShapeDtypeStruct((20000, 100), jnp.uint8)
    states = jax.eval_shape(jax.vmap(source.init), jax.random.split(jax.random.key(0), 4))
    step = jax.jit(jax.vmap(lambda s, d: source.sample(s, None, 0, d), in_axes=(0, None)))
    used = step.lower(states, data).compile().memory_analysis()
    assert used.temp_size_in_bytes + used.output_size_in_bytes < 20000 * 100 / 10


def test_the_parts_that_a_dataset_does_not_need_do_nothing():
    source, data = dataset(6, 2), jnp.arange(6)
    state = source.init(jax.random.key(0))
    assert source.warmup(state, None, jax.random.key(1), 0, data) is state
    assert source.collect(state, None, jax.random.key(1), 0, data) == (state, {})
    assert source.feedback(state, None, None) is state


@pytest.mark.parametrize(("n", "batch_size", "message"), [
    (10, 11, "batch_size=11 is above the 10 examples"),
    (10, 0, "batch_size must be at least 1, got 0"),
    (0, 1, "num_examples must lie between 1 and 2147483647, got 0"),
    (2**31, 1, "num_examples must lie between 1"),
])
def test_sizes_that_do_not_fit_are_refused_when_it_is_made(n, batch_size, message):
    with pytest.raises(UserError, match=message):
        dataset(n, batch_size)


@pytest.mark.parametrize("data", [None, jnp.arange(9), (jnp.zeros((10, 2)), jnp.zeros(11)), jnp.zeros(())])
def test_data_of_another_size_is_refused(data):
    source = dataset(10, 2)
    with pytest.raises(UserError, match="every array of the data must have 10 examples"):
        source.sample(source.init(jax.random.key(0)), None, 0, data)
