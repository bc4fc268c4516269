"""Rollouts of environments whose every step is known: rows, ends, carries, rewards and metrics against a plain simulation."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.core.errors import UserError
from jaxdl.core.run import advance, compose
from jaxdl.core.types import Learner, Mean, UpdateResult
from jaxdl.rl import rollout
from jaxdl.rl.host_run import compose_host
from jaxdl.rl.types import Actor, Env, EnvSpec, TimeStep, Trajectory

E, T, GAMMA, BEGIN = 3, 5, 0.5, 7
SPEC = EnvSpec("counting", gymnasium.spaces.Box(0, 1000, (3,), np.int32), gymnasium.spaces.Discrete(10**6), None)


def rule(env, episode, step):
    """Reward, termination and truncation of a step (the `step`-th observation's) of an episode of an environment.

    Episodes are 1 to 4 steps long; they terminate, are truncated, or both.
    """
    last = step == (3 * env + 5 * episode) % 4
    kind = (env + episode) % 3
    return (1 - 2 * ((step + episode) % 2)) * (0.25 + 0.5 * env + 0.125 * episode), last & (kind != 1), last & (kind != 0)


def counting_env(offset=0, resets=False):
    """The environment, numbered from `offset` on; with `resets` an episode is reset in a step of its own (NEXT_STEP)."""

    def reset(key, n):
        zeros = jnp.zeros(n, jnp.int32)
        obs = jnp.stack([jnp.arange(n, dtype=jnp.int32) + offset, zeros, zeros], 1)
        return (obs, zeros > 0), obs

    def step(state, action, keys):
        obs, over = state
        env, episode, step = obs.T
        reward, terminated, truncated = rule(env, episode, step)
        next_obs = jnp.stack([env, episode, step + 1], 1)
        fresh = jnp.stack([env, episode + 1, jnp.zeros_like(step)], 1)
        if resets:
            obs = jnp.where(over[:, None], fresh, next_obs)
            reward, terminated, truncated = (jnp.where(over, 0, x) for x in (reward, terminated > 0, truncated > 0))
            terminated, truncated = terminated > 0, truncated > 0
            return (obs, terminated | truncated), TimeStep(obs, reward.astype(jnp.float32), terminated, truncated, obs, over)
        done = terminated | truncated
        obs = jnp.where(done[:, None], fresh, next_obs)
        return (obs, over), TimeStep(obs, reward.astype(jnp.float32), terminated, truncated, next_obs)

    return Env(SPEC._replace(lives="emulator" if resets else "jax"), reset, step, keys=0)


def act(params, carry, obs, chance, t):
    """The carry counts the steps of an episode, from `BEGIN` on; the action tells environment, carry and time."""
    action = obs[:, 0] + 10 * carry + params * t
    return carry + 1, action, {"action": action, "chance": chance}


ACTOR = Actor(lambda n: jnp.full(n, BEGIN), act, lambda key, n: jax.random.bits(key, (n,)))
BY_TIME = jnp.int32(1000)
LEARNER = Learner(lambda key: jnp.int32(1000), lambda state, batch, key: (state, UpdateResult({})), lambda state: state)


def settings(**changed):
    return rollout.Settings(**{"num_envs": E, "steps": T, "gamma": GAMMA} | changed)


# --- The same by plain loops.


def simulated(env, steps, resets=False, num_envs=E):
    """The first rows of an environment, in order, and what its episodes were: (row, return, length) at the end of each."""
    episode, step, over, first, carry, total = 0, 0, False, True, BEGIN, 0.0
    rows, reported = [], []
    for i in range(steps):
        carry = BEGIN if first else carry
        obs = env, episode, step
        if over:  # only with `resets`
            reward, terminated, truncated = 0.0, False, False
            reported.append((i, total, step))
            episode, step, total = episode + 1, 0, 0.0
        else:
            reward, terminated, truncated = rule(env, episode, step)
            step, total = step + 1, total + reward
        action = env + 10 * carry + 1000 * num_envs * i
        rows.append((obs, action, reward, (env, episode, step), terminated, truncated, first, not over, carry))
        first, over, carry = over, terminated or truncated, carry + 1
        if over and not resets:
            reported.append((i, total, step))
            episode, step, total, first, over = episode + 1, 0, 0.0, True, False
    return rows, reported


@functools.cache
def expected(steps, resets=False, envs=E):
    """Arrays [steps, E, ...]: obs, action, reward, next_obs, terminated, truncated, first, valid, carry before the step."""
    columns = [zip(*simulated(e, steps, resets)[0], strict=True) for e in range(envs)]
    return [np.stack(x, 1) for x in zip(*([np.array(c) for c in column] for column in columns), strict=True)]


def assert_rows(batch, begin, resets=False):
    """A rollout is the rows from the `begin`-th on."""
    assert isinstance(batch, Trajectory)
    whole = expected(begin + T, resets)
    obs, action, reward, next_obs, terminated, truncated, first, valid, _ = (x[begin:] for x in whole)
    got = (batch.obs, batch.choice["action"], batch.reward, batch.next_obs, batch.terminated, batch.truncated, batch.first,
           batch.valid)
    for x, y in zip(got, (obs, action, reward, next_obs, terminated, truncated, first, valid), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(batch.carry, whole[-1][begin - 1] + 1 if begin else np.full(E, BEGIN))
    assert [x.dtype for x in batch[2:8]] == [np.float32, np.int32, bool, bool, bool, bool]


def assert_reported(metrics, begin, end, resets=False):
    """Episodes that end in the rows from `begin` to `end` are reported."""
    wanted = [x for e in range(E) for i, *x in simulated(e, end, resets)[1] if i >= begin]
    assert metrics["episode_return"] == Mean(sum(r for r, _ in wanted), len(wanted))
    assert metrics["episode_length"] == Mean(sum(n for _, n in wanted), len(wanted))
    return len(wanted)


# --- Environments on the device.


def source_of(env=None, actor=ACTOR, **changed):
    """The source, and a compiled collect and sample: (state, key, t) -> (state, batch, metrics)."""
    source = rollout.rollout(env or counting_env(), actor, settings(**changed))

    @jit
    def played(state, key, t):
        state, metrics = source.collect(state, BY_TIME, jax.random.split(key, source.keys), t)
        return *source.sample(state, key, t), metrics

    return source, played


@pytest.mark.parametrize("resets", [False, True])
def test_rollouts_are_the_rows_of_a_plain_simulation_and_go_on_where_the_last_ended(resets):
    source, played = source_of(counting_env(resets=resets))
    state, ends, count = source.init(jax.random.key(0)), set(), 0
    for i in range(5):
        state, batch, metrics = played(state, jax.random.key(i), E * T * i)
        assert_rows(batch, T * i, resets)
        assert_reported(metrics, T * i, T * (i + 1), resets)
        count += float(metrics["episode_return"].count)
        ends |= set(zip(np.ravel(batch.terminated).tolist(), np.ravel(batch.truncated).tolist(), strict=True))
    assert ends == {(False, False), (True, False), (False, True), (True, True)}
    assert count > 15
    assert batch.valid.all() != resets


def test_fresh_rollouts_begin_with_new_episodes():
    source, played = source_of(fresh=True)
    state = source.init(jax.random.key(0))
    for i in range(2):
        state, batch, metrics = played(state, jax.random.key(i), 0)
        assert_rows(batch, 0)
        assert_reported(metrics, 0, T)  # and those that were under way are forgotten
    assert not simulated(2, T)[0][-1][4]
    assert not simulated(2, T)[0][-1][5]


def test_each_step_of_each_environment_draws_noise_of_its_own():
    def step(state, action, chance):
        no = jnp.zeros(E, bool)
        return state, TimeStep(state, chance, no, no, state)

    noisy = Env(SPEC, lambda key, n: (jnp.zeros((n, 3), jnp.int32),) * 2, step, keys=1,
                sample_noise=lambda keys: jax.vmap(jax.random.uniform)(keys[0]))
    source, played = source_of(noisy)
    state, drawn = source.init(jax.random.key(0)), []
    for i in range(2):
        state, batch, _ = played(state, jax.random.key(i), 0)
        drawn.append((batch.reward, batch.choice["chance"]))
    for numbers in zip(*drawn, strict=True):
        assert len(np.unique(numbers)) == 2 * T * E


def test_rewards_that_are_learned_from_may_be_clipped_and_returns_are_reported_as_they_are():
    source, played = source_of(clip_reward=True)
    _, batch, metrics = played(source.init(jax.random.key(0)), jax.random.key(0), 0)
    reward = expected(T)[2]
    assert np.abs(reward).max() > 1 > np.abs(reward).min()
    np.testing.assert_array_equal(batch.reward, np.clip(reward, -1, 1))
    assert_reported(metrics, 0, T)


def scaled(reward, ends, counted, gamma, rollouts):
    """Rewards [T, E] divided rollout by rollout by the deviation of all discounted sums so far."""
    total, sums, out = np.zeros(reward.shape[1]), [], []
    for i in range(rollouts):
        rows = slice(T * i, T * (i + 1))
        for r, end, counts in zip(reward[rows], ends[rows], counted[rows], strict=True):
            total = gamma * total + r
            sums.extend(total[counts])
            total = np.where(end, 0, total)
        out.append(np.clip(reward[rows] / np.std(sums), -10, 10))
    return np.concatenate(out)


@pytest.mark.parametrize("clip", [False, True])
def test_rewards_are_divided_by_the_deviation_of_their_discounted_sums(clip):
    source, played = source_of(normalize_reward=True, clip_reward=clip)
    state, got = source.init(jax.random.key(0)), []
    for i in range(3):
        state, batch, metrics = played(state, jax.random.key(i), E * T * i)
        got.append(batch.reward)
        assert_reported(metrics, T * i, T * (i + 1))
    _, _, reward, _, terminated, truncated, *_ = expected(3 * T)
    wanted = scaled(np.clip(reward, -1, 1) if clip else reward, terminated | truncated, np.ones((3 * T, E), bool), GAMMA, 3)
    np.testing.assert_allclose(np.concatenate(got), wanted, rtol=1e-5)


def test_scaled_rewards_lie_within_ten():
    """One of -100 among 400 rewards: their deviation is 5, and what would be -20 is cut."""

    def step(t, action, keys):
        no = jnp.zeros(1, bool)
        obs = jnp.zeros((1, 3), jnp.int32)
        return t + 1, TimeStep(obs, jnp.where(t == 200, -100.0, 0.0), no, no, obs)

    rare = Env(SPEC, lambda key, n: (jnp.zeros(n, jnp.int32), jnp.zeros((n, 3), jnp.int32)), step, keys=0)
    source, played = source_of(rare, num_envs=1, steps=400, gamma=0.0, normalize_reward=True)
    assert played(source.init(jax.random.key(0)), jax.random.key(0), 0)[1].reward.min() == -10


def test_shards_share_the_statistics_of_rewards():
    def play(offset, axis_name, num_envs):
        source = rollout.rollout(counting_env(offset), ACTOR, settings(
            num_envs=num_envs, normalize_reward=True, axis_name=axis_name))
        state, got = source.init(jax.random.key(0)), []
        for i in range(2):
            state, _ = source.collect(state, BY_TIME, jax.random.split(jax.random.key(i), source.keys), jnp.int32(0))
            state, batch = source.sample(state, jax.random.key(0), jnp.int32(0))
            got.append(batch.reward)
        return jnp.concatenate(got), state.scale

    parts, scale = jit(jax.vmap(lambda offset: play(offset, "shards", 2), axis_name="shards"))(jnp.array([0, 2]))
    whole, whole_scale = jit(lambda: play(0, None, 4))()
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-5)
    for x, y in zip(scale.moments, whole_scale.moments, strict=True):
        assert x[0] == x[1]
        np.testing.assert_allclose(x[0], y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scale.total.ravel(), whole_scale.total, rtol=1e-5)


def test_discounted_sums_of_fresh_rollouts_do_not_go_on_from_episodes_that_were_left():
    source, played = source_of(fresh=True, normalize_reward=True)
    state, _, _ = played(source.init(jax.random.key(0)), jax.random.key(0), 0)
    state, batch, _ = played(state, jax.random.key(1), 0)
    _, _, reward, _, terminated, truncated, *_ = expected(T)
    ends = (terminated | truncated) | (np.arange(T) == T - 1)[:, None]  # the rollout's end among them
    wanted = scaled(*(np.concatenate([x, x]) for x in (reward, ends, np.ones((T, E), bool))), GAMMA, 2)
    np.testing.assert_allclose(batch.reward, wanted[T:], rtol=1e-5)


# --- Runs.


def remembering(state, batch, key):
    """A learner of one number, that acts by it."""
    return (state * 31 + batch.choice["action"].sum() + batch.obs.sum()) % 1009, UpdateResult({"seen": Mean.of(batch.reward)})


def test_a_run_cut_anywhere_has_the_same_bits():
    source = rollout.rollout(counting_env(), ACTOR, settings(normalize_reward=True))
    run = compose(LEARNER._replace(update=remembering), source, stride=E * T)
    go = jit(lambda state, n: advance(run, state, None, n))
    start = run.init(jax.random.key(0))
    at_once, report = go(start, 4)
    cut = start
    for n in (1, 2, 0, 1):
        cut, _ = go(cut, n)

    def bits(state):
        return jax.tree.leaves(state._replace(key=jax.random.key_data(state.key)))

    for x, y in zip(bits(at_once), bits(cut), strict=True):
        np.testing.assert_array_equal(x, y)
    assert int(at_once.t) == 4 * E * T
    assert at_once.learner != start.learner
    assert float(report.metrics["seen"].count) == 4 * E * T


def test_between_two_steps_of_a_run_no_trajectory_is_kept():
    steps = 13
    source = rollout.rollout(counting_env(), ACTOR, settings(steps=steps, normalize_reward=True))
    run = compose(LEARNER, source, stride=E * steps)
    start = jax.eval_shape(run.init, jax.random.key(0))
    state, _ = jax.eval_shape(run.step, start)
    collected, _ = jax.eval_shape(source.collect, start.source, BY_TIME, jax.random.split(jax.random.key(0), source.keys), 0)
    assert state.source.trajectory is None
    assert jax.tree.map(lambda x: (x.shape, x.dtype), start) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert not any(steps in x.shape for x in jax.tree.leaves(state))
    assert any(steps in x.shape for x in jax.tree.leaves(collected))


# --- Environments on the host.


def answer(i):
    """The i-th answer of all environments, as Gymnasium gives it in its autoreset mode NEXT_STEP."""
    _, _, reward, next_obs, terminated, truncated, _, valid, _ = (x[i] for x in expected(i + 1, resets=True))
    return TimeStep(next_obs.astype(np.int32), reward.astype(np.float32), terminated, truncated, reset=~valid)


FIRST_OBS = np.array([(e, 0, 0) for e in range(E)], np.int32)


@functools.cache
def host_source_of(**changed):
    source = rollout.host_rollout(SPEC, LEARNER, ACTOR, settings(**changed))
    return source._replace(act=jit(source.act), observe=jit(source.observe), sample=jit(source.sample),
                           prepare=jit(source.prepare))


def played_on_the_host(source, rollouts, state=None):
    """Trajectories, and the metrics of each step."""
    state, i = source.init(FIRST_OBS) if state is None else state, 0
    for k in range(rollouts):
        state, metrics = source.prepare(state, jax.random.key(k)), []
        for _ in range(T):
            state, action, extras = source.act(state, BY_TIME, None, jnp.int32(E * i))
            assert extras == {}
            np.testing.assert_array_equal(action, expected(i + 1, resets=True)[1][i])
            state, reported = source.observe(state, answer(i))
            metrics.append(reported)
            i += 1
        state, batch = source.sample(state, jax.random.key(0), jnp.int32(0))
        yield state, batch, metrics


def test_rollouts_on_the_host_are_the_rows_of_a_plain_simulation():
    seen = []
    for k, (_, batch, metrics) in enumerate(played_on_the_host(host_source_of(), 4)):
        assert_rows(batch, k * T, resets=True)
        seen.append((batch.valid, batch.first, batch.terminated, batch.truncated))
        for i, reported in enumerate(metrics, start=k * T):
            assert_reported(reported, i, i + 1, resets=True)
    valid, first, terminated, truncated = map(np.concatenate, zip(*seen, strict=True))
    assert not valid.all()
    for e in range(E):  # an end, the row that only resets, the first of the next
        ends = np.flatnonzero((terminated | truncated)[:-2, e])
        assert not valid[ends + 1, e].any()
        assert first[ends + 2, e].all()


def test_rollouts_on_the_host_and_on_the_device_have_the_same_transitions():
    source, played = source_of()
    state, device = source.init(jax.random.key(0)), []
    for i in range(3):
        state, batch, _ = played(state, jax.random.key(i), 0)
        device.append(batch)
    host = [batch for _, batch, _ in played_on_the_host(host_source_of(), 3)]

    def transitions(batches, e):
        rows = [np.concatenate([np.asarray(b[i])[:, e] for b in batches]) for i in (0, 2, 3, 4, 5, 6)]
        valid = np.concatenate([np.asarray(b.valid)[:, e] for b in batches])
        return [x[valid] for x in rows]

    for e in range(E):
        here, there = transitions(host, e), transitions(device, e)
        for x, y in zip(here, there, strict=True):
            np.testing.assert_array_equal(x, y[: len(x)])
        assert len(here[0]) > 6


def test_after_a_restart_environments_on_the_host_are_reset():
    source = host_source_of()
    *_, (state, _, _) = played_on_the_host(source, 1)
    assert not state.first.all()
    for k, (_, batch, _) in enumerate(played_on_the_host(source, 2, source.restart(state, FIRST_OBS))):
        assert_rows(batch, k * T, resets=True)


def test_after_a_restart_discounted_sums_begin_anew_and_their_statistics_stay():
    source = host_source_of(normalize_reward=True)
    *_, (state, _, _) = played_on_the_host(source, 1)
    assert np.any(state.scale.total)
    again = source.restart(state, FIRST_OBS)
    assert not np.any(again.scale.total)
    assert float(again.scale.moments.count) == float(state.scale.moments.count) > 0


def test_rewards_on_the_host_may_be_clipped():
    batches = [batch for _, batch, _ in played_on_the_host(host_source_of(clip_reward=True), 2)]
    np.testing.assert_array_equal(np.concatenate([b.reward for b in batches]), np.clip(expected(2 * T, True)[2], -1, 1))


def test_steps_that_only_reset_are_not_in_the_statistics_of_rewards():
    batches = [batch for _, batch, _ in played_on_the_host(host_source_of(normalize_reward=True), 3)]
    _, _, reward, _, terminated, truncated, _, valid, _ = expected(3 * T, resets=True)
    wanted = scaled(reward, terminated | truncated, valid, GAMMA, 3)
    np.testing.assert_allclose(np.concatenate([b.reward for b in batches]), wanted, rtol=1e-5)


def test_a_run_on_the_host_draws_the_noise_of_each_rollout_ahead():
    source = host_source_of()
    run = compose_host(LEARNER, source, num_envs=E, stride=E * T, rows=T, updates=1, first_step=0)
    assert run.ahead
    state, drawn = run.init(jax.random.key(0), FIRST_OBS), []
    state, k_act, k_learn = run.keys(state)
    for i in range(2 * T):
        state, _, _ = run.act(state, k_act if i % T == 0 else None)
        state, _ = run.observe(state, answer(i))
        if i % T == T - 1:
            state, k_act, k_learn = run.keys(state)
            drawn.append(source.sample(state.source, None, state.t)[1].choice["chance"])
            state, _ = run.learn(state, k_learn[0][None])
    assert len(np.unique(drawn)) == 2 * T * E
    resets = sum(answer(i).reset.sum() for i in range(2 * T))
    assert resets > 0
    assert int(state.t) == 2 * T * E - resets


# --- What is refused.


def test_a_rollout_that_the_run_does_not_reach_is_refused():
    with pytest.raises(UserError, match="num_envs=8 environments and 16 steps of each is longer than total_steps=127; lower"):
        rollout.check_sizes(127, 8, 16)
    rollout.check_sizes(128, 8, 16)
    assert settings().stride == E * T
