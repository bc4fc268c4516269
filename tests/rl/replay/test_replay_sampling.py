"""Prioritized draws: frequencies, weights and what becomes of errors, against the formulas and flashbax."""

import functools

import flashbax
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tools import jit

from jaxdl.rl.replay import sampling
from jaxdl.rl.replay.frame_storage import deduplicated_frames
from jaxdl.rl.replay.storage import full_transitions
from jaxdl.rl.types import EnvSpec, Stack, TimeStep, Transition

P_VALUE = 1e-4  # seeds are fixed: the statistical tests hold or not, once and for all
E, B, CAPACITY, ALPHA = 2, 8, 24, 0.7
LENGTH = CAPACITY // E
SPEC = EnvSpec("numbers", gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32), gymnasium.spaces.Discrete(9), None)
STORE = full_transitions(SPEC, num_envs=E, buffer_size=CAPACITY, n_steps=1, gamma=0.9)


def beta(t):
    return 0.4 + 0.001 * t


def compiled(memory):
    def many(state, key, t):
        """4000 batches in one: only the draws differ."""
        return jax.vmap(lambda k: memory.sample(state, k, t)[1])(jax.random.split(key, 4000))

    return memory._replace(init=jit(memory.init), add=jit(memory.add), restart=jit(memory.restart), sample=jit(memory.sample),
                           feedback=jit(memory.feedback)), jit(many)


@functools.cache
def made(alpha=ALPHA, updates=1):
    return compiled(sampling.prioritized(STORE, B, alpha=alpha, beta=beta, updates=updates))


def items(memory, t, k=1):
    """Some steps of both environments, whose rewards say when they were: 100 * environment + t."""
    reward = np.float32(t + np.arange(k)[:, None] + 100 * np.arange(E))
    no = np.zeros((k, E), bool)
    obs = reward[..., None]
    return jax.vmap(memory.item)(obs, np.zeros((k, E), np.int32), TimeStep(obs, reward, no, no, obs))


def begun(memory, steps):
    state = memory.init(np.zeros((E, 1), np.float32))
    for t in range(steps):
        state = memory.add(state, items(memory, t))
    return state


def told(memory, state, index, error):
    """Feedback of B rows and their errors."""
    nothing = np.zeros(B, np.float32)
    batch = Transition(nothing[:, None], nothing, nothing, nothing, nothing[:, None], nothing, np.asarray(index, np.int32))
    return memory.feedback(state, batch, np.asarray(error, np.float32))


def priorities(state):
    return np.asarray(state.tree[0]).reshape(-1)[:CAPACITY]


def priority(error, alpha=ALPHA):
    return (np.abs(np.float64(error)) + 1e-6) ** alpha


ROWS = np.arange(B) * 3  # rows 0, 3 ... 21
ERRORS = np.array([0.0, 0.001, -0.1, 0.5, 1.0, -2.0, 3.0, 10.0])


def assert_frequencies(index, expected):
    counts = np.bincount(np.ravel(index), minlength=len(expected))
    assert not counts[expected == 0].any()
    likely = expected * counts.sum() >= 5
    observed, wanted = (np.append(x[likely], x[~likely].sum()) for x in (counts, expected * counts.sum()))
    observed, wanted = observed[wanted > 1], wanted[wanted > 1]
    assert stats.chisquare(observed, wanted, sum_check=False).pvalue > P_VALUE


@functools.cache
def after_feedback():
    """A memory, full, after the errors of eight of its rows and one step more: its state and what each row's priority is."""
    memory, many = made()
    state = told(memory, begun(memory, LENGTH), ROWS, ERRORS)
    state = memory.add(state, items(memory, LENGTH))  # overwrites the rows 0 and 12
    expected = np.ones(CAPACITY)
    expected[ROWS] = priority(ERRORS)
    expected[[0, 12]] = priority(10)
    return state, expected, many


def test_what_was_fed_back_is_the_priority():
    state, expected, _ = after_feedback()
    np.testing.assert_allclose(priorities(state), expected, rtol=1e-5)


def test_draws_are_as_frequent_as_priorities_say():
    state, expected, many = after_feedback()
    batch = many(state, jax.random.key(0), 0)
    assert_frequencies(batch.index, expected / expected.sum())
    by_row = np.concatenate([np.arange(LENGTH) + 100.0 * e for e in range(E)])
    by_row[[0, 12]] = LENGTH, 100 + LENGTH
    np.testing.assert_array_equal(batch.reward, by_row[batch.index])  # what was drawn is what the index says


@pytest.mark.parametrize("t", [0, 300])
def test_weights_undo_the_draws_as_far_as_beta_says(t):
    state, expected, many = after_feedback()
    batch = many(state, jax.random.key(1), t)
    p = (expected / expected.sum())[np.asarray(batch.index)]
    np.testing.assert_allclose(batch.weight, (CAPACITY * p) ** -beta(t), rtol=1e-5)


def test_weights_count_the_rows_in_use():
    memory, many = made()
    batch = many(begun(memory, 3), jax.random.key(1), 0)
    np.testing.assert_allclose(batch.weight, 1, rtol=1e-6)  # six rows, each with probability 1 / 6
    assert set(np.ravel(batch.index)) == {0, 1, 2, 12, 13, 14}


def test_the_priorities_are_those_of_flashbax():
    """Its prioritized buffer has one environment here; its priorities are given without the 1e-6."""
    store = full_transitions(SPEC, num_envs=1, buffer_size=16, n_steps=1, gamma=0.9)
    memory = sampling.prioritized(store, 16, alpha=0.6, beta=beta)
    errors = np.random.default_rng(0).exponential(size=16).astype(np.float32)
    other = flashbax.make_prioritised_trajectory_buffer(
        add_batch_size=1, sample_batch_size=512, sample_sequence_length=1, period=1, min_length_time_axis=1, max_size=16,
        priority_exponent=0.6, device="cpu")
    theirs = other.init({"id": jnp.zeros((), jnp.int32)})
    theirs = other.add(theirs, {"id": jnp.arange(16)[None]})
    theirs = jit(other.set_priorities)(theirs, jnp.arange(16), jnp.asarray(errors + 1e-6))
    drawn = jit(other.sample)(theirs, jax.random.key(0))
    of_theirs = dict(zip(np.ravel(drawn.experience["id"]).tolist(), np.ravel(drawn.probabilities).tolist(), strict=True))

    @jit
    def ours(errors, key):
        state = memory.init(jnp.zeros((1, 1)))
        zeros, no = jnp.zeros((16, 1)), jnp.zeros((16, 1), bool)
        item = memory.item(zeros[..., None], jnp.zeros((16, 1), jnp.int32),
                           TimeStep(zeros[..., None], zeros, no, no, zeros[..., None]))
        state = memory.add(state, item)
        nothing = Transition(*[jnp.zeros(16)] * 6, jnp.arange(16))
        state = memory.restart(memory.feedback(state, nothing, errors), jnp.zeros((1, 1)))  # writes what waits, and no rows
        return jax.vmap(lambda k: memory.sample(state, k, 0)[1])(jax.random.split(key, 40))

    batch = ours(errors, jax.random.key(1))
    of_ours = dict(zip(np.ravel(batch.index).tolist(), np.ravel(batch.weight ** (-1 / beta(0)) / 16).tolist(), strict=True))
    both = sorted(of_ours.keys() & of_theirs.keys())
    assert len(both) > 12
    np.testing.assert_allclose([of_ours[i] for i in both], [of_theirs[i] for i in both], rtol=1e-4)


def test_what_is_new_has_the_highest_priority_so_far():
    memory, _ = made()
    state = begun(memory, 3)
    np.testing.assert_array_equal(priorities(state)[[0, 1, 2, 12, 13, 14]], 1)
    rows = [0, 1, 2, 12, 13, 14, 0, 1]
    low = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.1, 0.2]
    state = memory.add(told(memory, state, rows, low), items(memory, 3))
    np.testing.assert_array_equal(priorities(state)[[3, 15]], 1)  # none was above the first one's
    state = told(memory, state, rows, [5.0, *low[1:6], 5.0, 0.2])
    state = memory.add(state, items(memory, 4))
    np.testing.assert_allclose(priorities(state)[[4, 16]], priority(5), rtol=1e-5)
    state = memory.add(told(memory, state, rows, low), items(memory, 5))  # it is not forgotten when that row learns
    np.testing.assert_allclose(priorities(state)[[5, 17]], priority(5), rtol=1e-5)
    np.testing.assert_allclose(priorities(state)[rows], priority(low), rtol=1e-5)


@pytest.mark.parametrize("k", [1, 3])
def test_what_is_said_of_a_row_that_the_next_steps_overwrite_is_dropped(k):
    memory, _ = made()
    state = begun(memory, LENGTH + 4)  # the rows 4 and 16 are the oldest
    state = told(memory, state, [3, 4, 5, 6, 7, 15, 16, 18], [0.5] * B)
    state = memory.add(state, items(memory, 99, k))
    lost = {4 + LENGTH * e + i for e in range(E) for i in range(k)}
    expected = np.ones(CAPACITY)
    expected[sorted({3, 4, 5, 6, 7, 15, 16, 18} - lost)] = priority(0.5)
    np.testing.assert_allclose(priorities(state), expected, rtol=1e-5)
    again = memory.add(state, items(memory, 100))  # and it is written once
    assert (priorities(again) != priorities(state)).sum() == len({4 + k, 16 + k} & {5, 6, 7, 18})


def test_environments_that_begin_anew_write_what_waits():
    memory, _ = made()
    state = told(memory, begun(memory, LENGTH), ROWS, ERRORS)
    state = memory.restart(state, np.zeros((E, 1), np.float32))
    np.testing.assert_allclose(priorities(state)[ROWS], priority(ERRORS), rtol=1e-5)


def test_the_exponent_zero_draws_uniformly():
    memory, many = made(alpha=0.0)
    state = memory.add(told(memory, begun(memory, LENGTH), ROWS, ERRORS), items(memory, 0))
    batch = many(state, jax.random.key(0), 0)
    assert_frequencies(batch.index, np.full(CAPACITY, 1 / CAPACITY))
    np.testing.assert_allclose(batch.weight, 1, rtol=1e-6)


def test_several_updates_a_step_draw_with_the_priorities_just_given():
    memory, many = made(updates=2)
    state = told(memory, begun(memory, LENGTH), ROWS, ERRORS)
    expected = np.ones(CAPACITY)
    expected[ROWS] = priority(ERRORS)
    assert_frequencies(many(state, jax.random.key(0), 0).index, expected / expected.sum())
    state, batch = memory.sample(state, jax.random.key(1), 0)
    np.testing.assert_allclose(priorities(state), expected, rtol=1e-5)
    p = (expected / expected.sum())[np.asarray(batch.index)]
    np.testing.assert_allclose(batch.weight, (CAPACITY * p) ** -beta(0), rtol=1e-5)
    state = memory.add(told(memory, state, ROWS, ERRORS + 1), items(memory, LENGTH))  # the last one's wait as ever
    expected[ROWS] = priority(ERRORS + 1)
    expected[[0, 12]] = priority(11)
    np.testing.assert_allclose(priorities(state), expected, rtol=1e-5)


def test_members_of_a_population_have_priorities_of_their_own():
    memory = sampling.prioritized(STORE, B, alpha=ALPHA, beta=beta)

    def run(key, scale):
        state = memory.init(jnp.zeros((E, 1)))
        for t in range(4):
            state = memory.add(state, items(memory, t))
            state, batch = memory.sample(state, jax.random.fold_in(key, t), t)
            state = memory.feedback(state, batch, scale * (batch.reward + 1))
        return state, batch

    keys, scales = jax.random.split(jax.random.key(0), 3), jnp.array([0.1, 1.0, 10.0])
    together, single = jit(jax.vmap(run))(keys, scales), jit(run)
    for i in range(3):
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(single(keys[i], scales[i])), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5)
    assert len(np.unique(together[0].highest)) == 3


# --- Frames.


FRAMES = EnvSpec("frames", gymnasium.spaces.Box(0, 255, (4, 1, 4), np.uint8), gymnasium.spaces.Discrete(9), None,
                 Stack(4, "zero"))


def test_without_priorities_frames_are_drawn_uniformly_where_they_are_transitions():
    store = deduplicated_frames(FRAMES, num_envs=E, buffer_size=CAPACITY, n_steps=1, gamma=0.9)
    memory, many = compiled(sampling.uniform(store, B))
    state = memory.init(np.zeros((E, 4, 1, 4), np.uint8))
    for t in range(LENGTH + 5):
        obs = np.full((E, 4, 1, 4), t + 1, np.uint8)
        reset = np.array([t % 5 == 4, t % 3 == 2])
        ts = TimeStep(obs, np.float32([t, 100 + t]), ~reset, np.zeros(E, bool), obs, reset)
        state = memory.add(state, jax.tree.map(lambda x: x[None], memory.item(obs, np.zeros(E, np.int32), ts)))
    batch = many(state, jax.random.key(0), 0)
    assert batch.weight is None
    assert batch.index is None
    last, first = LENGTH + 5, 5 + 4  # the newest LENGTH - 4 rows have all their frames
    expected = [100 * e + t for e, every in enumerate((5, 3)) for t in range(first, last) if t % every != every - 1]
    values, counts = np.unique(batch.reward, return_counts=True)
    assert values.tolist() == expected
    assert stats.chisquare(counts).pvalue > P_VALUE
    same = memory.feedback(state, batch, np.ones(B, np.float32))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, same, state))


def test_a_priority_does_not_come_back_to_a_row_whose_frames_are_gone():
    store = deduplicated_frames(FRAMES, num_envs=E, buffer_size=CAPACITY, n_steps=1, gamma=0.9)
    memory, _ = compiled(sampling.prioritized(store, B, alpha=ALPHA, beta=beta))
    state = memory.init(np.zeros((E, 4, 1, 4), np.uint8))
    obs, no = np.ones((E, 4, 1, 4), np.uint8), np.zeros(E, bool)
    item = jax.tree.map(lambda x: x[None], memory.item(obs, np.zeros(E, np.int32), TimeStep(obs, np.ones(E, np.float32),
                                                                                           no, no, obs, no)))
    for _ in range(LENGTH + 3):  # and a row of the first frame: the cursor is at 4, the rows 4 to 7 are no transitions
        state = memory.add(state, item)
    oldest = {4 + i + LENGTH * e for e in range(E) for i in range(4)}
    assert set(np.flatnonzero(priorities(state) == 0)) == oldest
    state = memory.add(told(memory, state, [8, 9, 10, 11, 20, 21, 0, 3], [0.5] * B), item)  # the row 8 is lost now, and 20
    expected = np.ones(CAPACITY)
    expected[[5, 6, 7, 8, 17, 18, 19, 20]] = 0
    expected[[9, 10, 11, 21, 0, 3]] = priority(0.5)
    np.testing.assert_allclose(priorities(state), expected, rtol=1e-5)


def test_uniform_draws_have_no_weights():
    memory, many = compiled(sampling.uniform(STORE, B))
    state = begun(memory, LENGTH + 2)
    batch = many(state, jax.random.key(0), 0)
    assert batch.weight is None
    values, counts = np.unique(batch.reward, return_counts=True)
    assert values.tolist() == [100 * e + t for e in range(E) for t in range(2, LENGTH + 2)]
    assert stats.chisquare(counts).pvalue > P_VALUE
