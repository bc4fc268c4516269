"""What a memory gives back is what happened, against a plain history of stacks; frames are stored once."""

from collections import deque
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.core.errors import UserError
from jaxdl.rl.replay import ring_buffer, sampling, storage
from jaxdl.rl.replay.frame_storage import deduplicated_frames
from jaxdl.rl.types import EnvSpec, Stack, TimeStep

E, S, SHAPE, LENGTH, GAMMA = 3, 4, (3, 5), 13, 0.5  # 15 bytes a frame: words are padded


def spec_of(padding="zero", shape=SHAPE, frames=S):
    box = gymnasium.spaces.Box(0, 255, (frames, *shape), np.uint8)
    return EnvSpec("frames", box, gymnasium.spaces.Discrete(1000), None, Stack(frames, padding))


class Row(NamedTuple):
    """A step of one environment."""

    obs: np.ndarray
    action: int
    reward: float
    next_obs: np.ndarray
    terminated: bool
    truncated: bool
    reset: bool


class Game:
    """One environment of random frames, rewards and ends, which keeps all that it ever showed.

    It ends by a termination, a truncation or both, and is reset in a step of its own; now and then it loses a life: a
    termination after which it goes on.
    """

    def __init__(self, seed, padding):
        self.rng, self.padding, self.rows, self.over = np.random.default_rng(seed), padding, [], False
        self.begin()

    def frame(self):
        return self.rng.integers(1, 256, SHAPE).astype(np.uint8)

    def begin(self):
        first = self.frame()
        before = first if self.padding == "repeat" else np.zeros_like(first)
        self.stack = deque([before] * (S - 1) + [first], maxlen=S)
        return self.obs

    @property
    def obs(self):
        return np.stack(self.stack)

    def step(self):
        obs, action = self.obs, int(self.rng.integers(1000))
        if self.over:
            self.over = False
            self.rows.append(Row(obs, action, 0.0, self.begin(), False, False, True))
        else:
            self.stack.append(self.frame())
            kind = self.rng.random()  # lives are lost, and episodes end in three ways
            terminated, truncated = kind < 0.25, 0.18 < kind < 0.32
            self.over = 0.1 < kind < 0.32
            self.rows.append(Row(obs, action, float(self.rng.integers(-9, 10)), self.obs, terminated, truncated, False))
        return self.rows[-1]

    def restart(self):
        """All begins anew: what was under way is cut."""
        last = self.rows[-1]
        self.rows[-1] = last._replace(truncated=not last.terminated and not last.reset)
        self.over = False
        self.rows.append(Row(self.obs, 0, 0.0, self.begin(), False, False, True))

    def transition(self, i, n):
        """The transition of n steps from row i on."""
        reward, discount = 0.0, 1.0
        for row in self.rows[i : i + n]:
            reward, discount, last = reward + discount * row.reward, discount * GAMMA, row
            if row.terminated or row.truncated:
                break
        return self.rows[i].obs, self.rows[i].action, reward, 0.0 if last.terminated else discount, last.next_obs


def games(padding):
    """The environments; each has the row of its first reset, which the memory stores when it is made."""
    made = [Game(seed, padding) for seed in range(E)]
    for game in made:
        game.rows.append(Row(None, 0, 0.0, game.obs, False, False, True))
    return made


def steps_of(rows):
    """The arrays [E, ...] of one step: observations, actions, and what the environments answered."""
    column = lambda name, dtype: np.array([getattr(r, name) for r in rows], dtype)  # noqa: E731
    ts = TimeStep(column("next_obs", np.uint8), column("reward", np.float32), column("terminated", bool),
                  column("truncated", bool), column("next_obs", np.uint8), column("reset", bool))
    return column("obs", np.uint8), column("action", np.int32), ts


class Watched(NamedTuple):
    """A storage, compiled, and which of its rows may be drawn."""

    store: storage.Storage
    add: object
    restart: object
    read: object
    drawable: set


def watched(store):
    @jit
    def add(state, obs, action, ts):
        return store.add(state, jax.vmap(store.item)(obs, action, ts))

    return Watched(store, add, jit(store.restart), jit(store.read), set())


def stacked(steps):
    return jax.tree.map(lambda *x: np.stack(x), *steps)


def restart_all(t, fleet, state):
    for g in fleet:
        g.restart()
    state, written = t.restart(state, np.stack([g.obs for g in fleet]))
    note(t, written)
    return state


def note(t, written):
    """Keep what may be drawn as `sampling.prioritized` does."""
    index, drawable = np.asarray(written.index), np.asarray(written.is_transition)
    kept = index < t.store.capacity
    index, drawable = index[kept].tolist(), drawable[kept].tolist()
    assert all(drawable[index.index(i)] == d for i, d in zip(index, drawable, strict=True)), "a row is written two ways at once"
    for i, d in zip(index, drawable, strict=True):
        (t.drawable.add if d else t.drawable.discard)(i)


def assert_read(t, state, expected):
    """Each of the rows gives the transition that is expected of it, to the bit."""
    rows = sorted(expected)
    padded = np.resize(np.array(rows, np.int32), t.store.capacity)
    batch = jax.device_get(t.read(state, padded))
    for i, row in enumerate(rows):
        for got, wanted in zip(batch[:5], expected[row], strict=True):
            np.testing.assert_array_equal(got[i], wanted)


@pytest.mark.parametrize(("padding", "n", "k"), [
    ("zero", 1, 1), ("repeat", 3, 1), ("repeat", 1, 3), ("zero", 3, 3), ("zero", 1, 7), ("repeat", 3, 9)])
def test_stacks_put_together_from_frames_are_those_that_were_seen(padding, n, k):
    t = watched(deduplicated_frames(spec_of(padding), num_envs=E, buffer_size=E * LENGTH, n_steps=n, gamma=GAMMA))
    fleet, kinds = games(padding), set()
    state = jax.jit(t.store.init)(np.stack([g.obs for g in fleet]))
    for i in range(max(70 // k, 12)):
        steps = [steps_of([g.step() for g in fleet]) for _ in range(k)]
        state, written = t.add(state, *stacked(steps))
        note(t, written)
        assert written.count == k
        if i % 9 == 8:  # all environments begin anew
            state = restart_all(t, fleet, state)
        expected = {}
        for e, g in enumerate(fleet):
            count = len(g.rows)
            for at in range(max(0, count - LENGTH + S), count):  # those whose S frames before them are still there
                if not g.rows[at].reset:
                    expected[e * LENGTH + at % LENGTH] = g.transition(at, n)
                    row = g.rows[at]
                    kinds.add((row.terminated, row.truncated, at + 1 < count and g.rows[at + 1].reset))
        assert t.drawable == set(expected)
        assert int(t.store.size(state)) == sum(min(len(g.rows), LENGTH) for g in fleet)
        assert_read(t, state, expected)
    assert min(len(g.rows) for g in fleet) > 5 * LENGTH
    assert {(False, False, False), (True, False, False), (True, False, True), (False, True, True), (True, True, True)} <= kinds


def test_as_many_steps_at_once_as_the_memory_holds_leave_no_row_drawable_whose_frames_are_gone():
    t = watched(deduplicated_frames(spec_of(), num_envs=E, buffer_size=E * LENGTH, n_steps=1, gamma=GAMMA))
    fleet = games("zero")
    state = jax.jit(t.store.init)(np.stack([g.obs for g in fleet]))
    for _ in range(2):
        state, written = t.add(state, *stacked([steps_of([g.step() for g in fleet]) for _ in range(LENGTH)]))
        note(t, written)
        expected = {e * LENGTH + at % LENGTH: g.transition(at, 1) for e, g in enumerate(fleet)
                    for at in range(len(g.rows) - LENGTH + S, len(g.rows)) if not g.rows[at].reset}
        assert t.drawable == set(expected)
        assert_read(t, state, expected)


@pytest.mark.parametrize("make", [deduplicated_frames, storage.full_transitions])
def test_a_row_is_still_valid_where_the_last_steps_did_not_cost_it_or_its_frames(make):
    t = watched(make(spec_of(), num_envs=E, buffer_size=E * LENGTH, n_steps=1, gamma=GAMMA))
    fleet = games("zero")
    state, still_valid = jax.jit(t.store.init)(np.stack([g.obs for g in fleet])), jit(t.store.still_valid)
    for _ in range(25):
        steps = stacked([steps_of([g.step() for g in fleet]) for _ in range(2)])
        before = set(t.drawable)
        state, written = t.add(state, *steps)
        new = set(np.asarray(written.index)[np.asarray(written.is_transition)].tolist())
        index, drawable = np.asarray(written.index), np.asarray(written.is_transition)
        overwritten = set(index[: 2 * E].tolist())
        note(t, written)
        alive = np.asarray(still_valid(state, np.arange(t.store.capacity, dtype=np.int32), written.count))
        for row in before:  # only those are asked
            assert alive[row] == (row not in overwritten and row in t.drawable)
        assert not alive[sorted(new)].any()
        assert drawable.shape == index.shape


def test_a_first_frame_is_no_transition_and_neither_is_an_empty_memory():
    t = watched(deduplicated_frames(spec_of(), num_envs=E, buffer_size=E * LENGTH, n_steps=1, gamma=GAMMA))
    fleet = games("zero")
    state = jax.jit(t.store.init)(np.stack([g.obs for g in fleet]))
    _, written = t.restart(state, np.stack([g.obs for g in fleet]))
    assert not np.asarray(written.is_transition).any()


@pytest.mark.parametrize("num_envs", [1, 8, 64])
def test_a_transition_of_atari_takes_about_one_frame(num_envs):
    spec, capacity = spec_of(shape=(84, 84)), 64 * 15_625
    store = deduplicated_frames(spec, num_envs=num_envs, buffer_size=capacity, n_steps=3, gamma=GAMMA)
    memory = sampling.prioritized(store, 32, alpha=0.5, beta=lambda t: 0.4)
    state = jax.eval_shape(memory.init, jax.ShapeDtypeStruct((num_envs, 4, 84, 84), jnp.uint8))
    taken = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    assert 84 * 84 <= taken / capacity <= 7_500


@pytest.mark.parametrize("n", [1, 3])
def test_an_environments_share_must_hold_stacks_and_returns(n):
    too_few = 2 * S + n - 1
    with pytest.raises(UserError, match=rf"buffer_size={E * too_few} leaves an environment {too_few} steps, too few for "
                                        rf"stacks of 4 .* {n} steps; raise it to {E * (too_few + 1)}"):
        deduplicated_frames(spec_of(), num_envs=E, buffer_size=E * too_few, n_steps=n, gamma=GAMMA)
    deduplicated_frames(spec_of(), num_envs=E, buffer_size=E * (too_few + 1), n_steps=n, gamma=GAMMA)


# --- Whole steps.


@pytest.mark.parametrize(("n", "k"), [(1, 3), (3, 3), (3, 1)])
def test_full_transitions_leave_resets_out(n, k):
    t = watched(storage.full_transitions(spec_of(), num_envs=E, buffer_size=E * LENGTH, n_steps=n, gamma=GAMMA))
    fleet = games("zero")
    state = jax.jit(t.store.init)(np.stack([g.obs for g in fleet]))
    draw = jit(lambda s, key: t.store.sample_indices(s, key, 1000))
    for i in range(60 // k):
        before = [sum(not r.reset for r in g.rows) for g in fleet]
        state, written = t.add(state, *stacked([steps_of([g.step() for g in fleet]) for _ in range(k)]))
        note(t, written)
        kept = [[r for r in g.rows if not r.reset] for g in fleet]
        assert written.count.tolist() == [len(r) - b for r, b in zip(kept, before, strict=True)]
        if i == 12:
            state = restart_all(t, fleet, state)
        expected = {}
        for e, g in enumerate(fleet):
            kept = [j for j, row in enumerate(g.rows) if not row.reset]
            for at in range(max(0, len(kept) - LENGTH), len(kept)):
                expected[e * LENGTH + at % LENGTH] = g.transition(kept[at], n)
        assert t.drawable == set(expected) == set(np.asarray(draw(state, jax.random.key(i))).tolist())
        assert_read(t, state, expected)
    assert min(sum(not r.reset for r in g.rows) for g in fleet) > 2 * LENGTH


def test_write_indices_are_the_rows_that_add_writes():
    memory = ring_buffer.make({"id": jax.ShapeDtypeStruct((), jnp.int32)}, 12, 3)
    state, rng, t = memory.init(), np.random.default_rng(0), 0
    add, write_indices = jit(memory.add), jit(memory.write_indices, static_argnums=1)
    for _ in range(10):
        valid = rng.random((3, 3)) < 0.6
        items = {"id": np.int32(1 + t + np.arange(9).reshape(3, 3))}
        where = np.asarray(write_indices(state, 3, valid))
        after = add(state, items, valid)
        assert len(set(where.ravel())) == 9  # each a row of its own, also beyond the end
        np.testing.assert_array_equal(where < 12, valid)
        np.testing.assert_array_equal(np.asarray(after.rows)[where[valid], 0], items["id"][valid])
        assert (np.asarray(after.rows) != np.asarray(state.rows)).sum() == valid.sum()
        np.testing.assert_array_equal(memory.age(after, where[valid]) < 3, True)
        state, t = after, t + 9
