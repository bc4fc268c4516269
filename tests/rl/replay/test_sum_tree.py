"""The tree of sums: its sums are those of its leaves, and its draws have their frequencies, whatever lies beside them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.rl.replay import sum_tree

P_VALUE = 1e-4  # seeds are fixed: the statistical tests hold or not, once and for all
jit = functools.partial(jax.jit, compiler_options=TRAIN_OPTIONS)  # compiles in less time
MANY = 2**20


def leaves(levels, capacity):
    return np.asarray(levels[0]).reshape(-1)[:capacity]


@functools.cache
def made(capacity):
    """The tree, its functions compiled once."""
    tree = sum_tree.make(capacity)
    return tree._replace(set=jit(tree.set), sample=jit(tree.sample, static_argnums=2))


def filled(tree, priorities):
    """A tree with the priorities of its first leaves."""
    return tree.set(tree.init(), np.arange(len(priorities), dtype=np.int32), np.asarray(priorities, np.float32))


def assert_sums_are_those_of_the_children(levels):
    for below, level in itertools.pairwise(levels):
        sums = np.asarray(below, np.float64).sum(1)
        parents = np.asarray(level).reshape(-1)
        np.testing.assert_allclose(parents[: len(sums)], sums, rtol=1e-6)
        assert not parents[len(sums):].any()
    assert len(levels[-1]) == 1


def draws(tree, levels, n, seed=0):
    return map(np.asarray, tree.sample(levels, jax.random.key(seed), n))


def test_after_a_million_updates_the_total_is_still_the_sum_of_the_leaves():
    tree, size, rounds = sum_tree.make(MANY), 256, 3907

    def body(i, carry):
        levels, plain, key = carry
        key, k_first, k_priority = jax.random.split(key, 3)
        first, stride = jax.random.randint(k_first, (2,), 0, MANY)
        index = (first + jnp.arange(size) * (2 * stride + 1)) % MANY  # each once, anywhere
        priority = jnp.exp(4 * jax.random.normal(k_priority, (size,))) * (index % 5 > 0)
        return tree.set(levels, index, priority), plain.at[index].set(priority), key

    levels, plain, _ = jit(lambda: jax.lax.fori_loop(0, rounds, body, (tree.init(), jnp.zeros(MANY), jax.random.key(0))))()
    assert size * rounds > 10**6
    np.testing.assert_array_equal(leaves(levels, MANY), plain)
    assert (plain > 0).mean() > 0.4
    np.testing.assert_allclose(tree.total(levels), np.asarray(plain, np.float64).sum(), rtol=1e-5)
    assert_sums_are_those_of_the_children(levels)


@pytest.mark.parametrize("capacity", [1, 16, 17, 255, 256, 257, 4097])
def test_a_write_to_the_index_that_no_leaf_has_changes_nothing(capacity):
    tree = made(capacity)
    assert tree.dropped >= capacity
    before = filled(tree, 1 + np.arange(capacity) % 7)
    assert_sums_are_those_of_the_children(before)
    np.testing.assert_allclose(tree.total(before), (1 + np.arange(capacity) % 7).sum(), rtol=1e-6)
    nothing = tree.set(before, np.full(3, tree.dropped, np.int32), np.float32([5, 7, 9]))
    jax.tree.map(np.testing.assert_array_equal, nothing, before)
    last = tree.set(before, np.int32([tree.dropped, capacity - 1, tree.dropped]), np.float32([1e9, 50, 1e9]))
    expected = 1.0 + np.arange(capacity) % 7
    expected[-1] = 50
    np.testing.assert_array_equal(leaves(last, capacity), expected)
    assert_sums_are_those_of_the_children(last)


def test_an_index_given_twice_counts_once():
    tree = made(40)
    levels = tree.set(filled(tree, np.ones(40)), np.int32([3, 39, 3, 3]), np.float32([5, 2, 5, 5]))
    np.testing.assert_allclose(tree.total(levels), 38 + 5 + 2)
    assert_sums_are_those_of_the_children(levels)


@pytest.mark.parametrize("capacity", [16, 300, 5000])
def test_draws_have_the_frequencies_of_the_priorities_and_their_exact_probabilities(capacity):
    rng = np.random.default_rng(capacity)
    priorities = rng.exponential(size=capacity).astype(np.float32) * (rng.random(capacity) < 0.8)
    tree = made(capacity)
    levels = filled(tree, priorities)
    n = max(100_000, 200 * capacity)
    index, probability = draws(tree, levels, n)
    exact = np.float64(priorities) / np.float64(priorities).sum()
    np.testing.assert_allclose(probability, exact[index], rtol=1e-6)
    counts = np.bincount(index, minlength=capacity)
    assert len(counts) == capacity
    assert not counts[priorities == 0].any()
    likely = n * exact >= 5
    observed, expected = (np.append(x[likely], x[~likely].sum()) for x in (counts, n * exact))
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > P_VALUE


def test_every_one_of_a_few_hundred_leaves_is_drawn():
    tree = made(300)
    index, probability = draws(tree, filled(tree, np.ones(300)), 20_000)
    assert set(index) == set(range(300))
    np.testing.assert_allclose(probability, 1 / 300, rtol=1e-6)


def test_a_leaf_without_priority_is_never_drawn_not_even_beside_huge_ones():
    capacity = 1000
    rng = np.random.default_rng(0)
    priorities = np.zeros(capacity, np.float32)
    priorities[rng.choice(capacity, 20, replace=False)] = 10.0 ** rng.uniform(-6, 8, 20)
    priorities[[0, 15, 16, -1]] = 0  # both ends of a node, and of the tree
    priorities[[1, 14, 17, -2]] = 1e7
    tree = made(capacity)
    index, probability = draws(tree, filled(tree, priorities), 500_000)
    assert (priorities[index] > 0).all()
    assert (probability > 0).all()


def test_a_leaf_that_alone_has_a_priority_is_always_drawn():
    tree = made(300)
    for alone in (0, 1, 14, 15, 16, 254, 255, 256, 299):
        levels = filled(tree, 1e-3 * (np.arange(300) == alone))
        index, probability = draws(tree, levels, 1000)
        assert set(index) == {alone}
        np.testing.assert_allclose(probability, 1)


def test_the_smallest_and_the_largest_number_fall_on_the_first_and_the_last_leaf_that_has_a_priority():
    children = jnp.array([[0.0, 2.0, 0.0, 3.0, *[0.0] * 12], [1e-6] * 16, [*[0.0] * 15, 1e8]])
    for u, expected in ((0.0, [1, 0, 15]), (1 - 2.0**-23, [3, 15, 15])):
        child, priority = sum_tree._choose(children, jnp.full(3, u, jnp.float32))
        assert child.tolist() == expected
        np.testing.assert_array_equal(priority, children[jnp.arange(3), child])


@functools.cache
def drawn_from_a_million(first):
    """How often each of 2**20 leaves is among 2**22 draws; all have the priority 1, but leaf 0."""
    tree = sum_tree.make(MANY)

    @jit
    def count(key):
        levels = tree.set(tree.init(), jnp.arange(MANY), jnp.ones(MANY).at[0].set(first))

        def body(i, counts):
            return counts.at[tree.sample(levels, jax.random.fold_in(key, i), 2**18)[0]].add(1)

        return jax.lax.fori_loop(0, 16, body, jnp.zeros(MANY, jnp.int32))

    return np.asarray(count(jax.random.key(0)))


def assert_as_many_missing_as_chance_has_it(counts, rate):
    """Of leaves that are drawn `rate` times on average; the variance is that of the classical occupancy problem."""
    n, empty = len(counts), np.exp(-rate)
    assert abs((counts == 0).sum() - n * empty) < 5 * np.sqrt(n * empty * (1 - (1 + rate) * empty))


def test_every_one_of_a_million_leaves_is_as_likely():
    counts = drawn_from_a_million(1.0)
    assert_as_many_missing_as_chance_has_it(counts, 4.0)
    for parity in (0, 1):
        assert_as_many_missing_as_chance_has_it(counts[parity::2], 4.0)
    assert abs(counts[1::2].sum() - 2**21) < 5 * 2**10
    assert stats.chisquare(counts.reshape(-1, 256).sum(1)).pvalue > P_VALUE


def test_leaves_that_a_single_number_of_float32_could_not_tell_apart_are_drawn_each():
    """Beside a leaf of 2**24, a step of 2**-23 of the total is longer than two leaves of 1: every other would be missed."""
    counts = drawn_from_a_million(2.0**24)
    rate = 2**22 / (2**24 + MANY)
    assert abs(counts[0] / 2**22 - 16 / 17) < 5 * np.sqrt(16 / 17 / 17 / 2**22)
    assert_as_many_missing_as_chance_has_it(counts[16:], rate)
    reached = (counts[16:] > 0).sum()
    assert reached > 1.05 * MANY / 2 * (1 - np.exp(-2 * rate))  # what draws from every other leaf would reach


def test_trees_under_vmap_are_trees_of_their_own():
    tree, capacity = sum_tree.make(300), 300
    priorities = np.random.default_rng(0).exponential(size=(4, capacity)).astype(np.float32)
    index = np.tile(np.arange(capacity, dtype=np.int32), (4, 1))
    index[:, 5] = tree.dropped
    keys = jax.random.split(jax.random.key(1), 4)

    def one(index, priority, key):
        levels = tree.set(tree.init(), index, priority)
        return levels, tree.total(levels), *tree.sample(levels, key, 64)

    together, single = jit(jax.vmap(one))(index, priorities, keys), jit(one)
    for i in range(4):
        alone = single(index[i], priorities[i], keys[i])
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-6)
    assert not (leaves(jax.tree.map(lambda x: x[0], together[0]), capacity)[5]).any()
