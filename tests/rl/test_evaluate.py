"""Returns of a policy, held to plain loops over Gymnasium with the same policy."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.core import streams
from jaxdl.core.errors import EnvError
from jaxdl.core.run import compose
from jaxdl.core.types import Learner
from jaxdl.rl import envs, evaluate, rollout
from jaxdl.rl.task import with_spread
from jaxdl.rl.types import Actor

pytestmark = [pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # forks of a process with threads
              pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")]


def stateless(choose):
    """An actor without memory: `choose(params, obs [N, ...])` gives the actions."""
    return Actor(lambda n: None, lambda params, carry, obs, key, t: (None, choose(params, obs), None))


class Clock(gymnasium.Env):
    """Every episode lasts as many steps as the seed says and pays its action; odd ones are truncated, even ones end."""

    observation_space = gymnasium.spaces.Box(0, 1000, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(100)
    made, closed, last_step = 0, 0, 0

    def __init__(self):
        type(self).made += 1

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.period = 1 + seed % 10
        self.t = 0
        return np.array([self.t, self.period], np.float32), {}

    def step(self, action):
        self.t += 1
        done = self.t == self.period
        even = self.period % 2 == 0
        return np.array([self.t, self.period], np.float32), float(action), done and even, done and not even, {}

    def close(self):
        type(self).closed += 1


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(streams, "host_seed", lambda seed, purpose, *index: seed)
    gymnasium.register("Clock-v0", Clock)
    Clock.made = Clock.closed = 0
    yield "Clock-v0"
    del gymnasium.registry["Clock-v0"]


ONES = stateless(lambda params, obs: jnp.ones(obs.shape[0], jnp.int32))


def played(result):
    """The episodes as sorted pairs of length and return."""
    return sorted(zip(result.lengths.tolist(), result.returns.tolist(), strict=True))


def single_episodes(env_id, policy, seeds_and_counts):
    """The same from one environment after the other."""
    found = []
    for seed, count in seeds_and_counts:
        env = gymnasium.make(env_id)
        for episode in range(count):
            obs, _ = env.reset(seed=seed if episode == 0 else None)
            total, length, over = 0.0, 0, False
            while not over:
                obs, reward, terminated, truncated, _ = env.step(policy(obs))
                total, length, over = total + float(np.float32(reward)), length + 1, terminated or truncated
            found.append((length, total))
    return sorted(found)


def test_returns_are_those_of_a_plain_loop_over_single_environments():
    actor = stateless(lambda params, obs: params * jnp.sign(obs[:, 1:] + 1e-9))  # swings the car up the hill
    result = evaluate.evaluate(actor, jnp.float32(0.5), "MountainCarContinuous-v0", episodes=12, seed=3)
    wanted = single_episodes("MountainCarContinuous-v0", lambda obs: np.float32(0.5) * np.sign(obs[1:] + np.float32(1e-9)),
                             [(seed_of(3) + lane, 2 if lane < 2 else 1) for lane in range(10)])
    assert len({length for length, _ in wanted}) > 3
    assert max(length for length, _ in wanted) < 999
    np.testing.assert_array_equal([length for length, _ in played(result)], [length for length, _ in wanted])
    np.testing.assert_allclose([x for _, x in played(result)], [x for _, x in wanted], rtol=1e-6)


def seed_of(seed):
    """The seed that the environments of an evaluation begin with."""
    return streams.host_seed(seed, streams.Purpose.EVALUATION)


def falls(states, gains):
    """Lengths of CartPole's episodes from given states under a linear policy."""
    env, found = gymnasium.make("CartPole-v1"), []
    for state in states:
        env.reset()
        env.unwrapped.state = state
        obs, length, over = state.astype(np.float32), 0, False
        while not over:
            obs, _, terminated, truncated, _ = env.step(int(obs @ gains > 0))
            length, over = length + 1, terminated or truncated
        found.append(length)
    return found


@pytest.mark.parametrize(("gains", "limited"), [([0.0, 0.0, 1.0, 0.0], False), ([0.0, 0.0, 1.0, 0.2], True)])
def test_returns_in_cartpole_are_those_of_a_plain_loop_from_the_same_starts(gains, limited):
    gains = np.array(gains, np.float32)
    actor = stateless(lambda params, obs: (obs @ params > 0).astype(jnp.int32))
    result = evaluate.evaluate(actor, gains, "CartPole-v1", episodes=9, seed=4)
    starts = gymnasium.utils.seeding.np_random(seed_of(4))[0].uniform(-0.05, 0.05, (4, 9)).T  # as its vector form does
    wanted = falls(starts, gains)
    assert (set(wanted) == {500}) == limited
    assert sorted(result.lengths) == sorted(wanted)
    np.testing.assert_array_equal(result.returns, result.lengths)


@pytest.mark.parametrize(("episodes", "allotted"), [
    (1, [1]), (7, 7 * [1]), (10, 10 * [1]), (13, 3 * [2] + 7 * [1]), (25, 5 * [3] + 5 * [2])])
def test_every_lane_plays_what_it_is_allotted_however_long_its_episodes_are(clock, episodes, allotted):
    result = evaluate.evaluate(ONES, None, clock, episodes=episodes, seed=0)
    wanted = sorted((1 + lane, float(1 + lane)) for lane, count in enumerate(allotted) for _ in range(count))
    assert played(result) == wanted
    assert result.episodes == episodes
    assert Clock.closed == Clock.made


def test_the_first_episodes_that_end_would_have_been_the_short_ones(clock):
    result = evaluate.evaluate(ONES, None, clock, episodes=20, seed=0)
    assert result.return_mean == 5.5
    assert result.return_std == pytest.approx(np.sqrt(99 / 12))
    assert sorted(result.lengths)[:11] == sorted([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6])


def test_the_step_that_only_resets_is_not_counted(clock):
    seven = stateless(lambda params, obs: jnp.full(obs.shape[0], 7))
    one_step = evaluate.evaluate(seven, None, clock, episodes=1, seed=20)
    assert played(one_step) == [(1, 7.0)]
    many = evaluate.evaluate(seven, None, clock, episodes=30, seed=0)
    assert played(many) == sorted(3 * [(1 + lane, 7.0 * (1 + lane)) for lane in range(10)])


def test_more_than_a_hundred_episodes_of_a_native_environment():
    right = stateless(lambda params, obs: jnp.ones(obs.shape[0], jnp.int32))
    result = evaluate.evaluate(right, None, "CartPole-v1", episodes=230, seed=0)
    assert result.episodes == len(result.lengths) == 230
    np.testing.assert_array_equal(result.returns, result.lengths)
    assert set(result.lengths) <= {8, 9, 10, 11}  # a pole pushed one way falls at once


def test_a_recurrent_carry_begins_anew_with_each_episode(clock):
    def init(n):
        return {"count": jnp.full(n, 5), "deep": jnp.zeros((n, 2, 3))}

    def act(params, carry, obs, key, t):
        action = carry["count"] + carry["deep"].sum((1, 2)).astype(jnp.int32)
        return {"count": carry["count"] + 1, "deep": carry["deep"] + 1}, action, None

    result = evaluate.evaluate(Actor(init, act), None, clock, episodes=30, seed=0)
    assert played(result) == sorted(3 * [(n, float(sum(5 + 7 * i for i in range(n)))) for n in range(1, 11)])


def test_the_policy_draws_anew_at_every_step_and_again_the_same_from_the_same_seed(clock):
    def act(params, carry, obs, key, t):
        return None, jax.random.randint(key, obs.shape[:1], 0, 100), None

    dice = Actor(lambda n: None, act)
    a, b, c = (evaluate.evaluate(dice, None, clock, episodes=20, seed=seed) for seed in (0, 0, 10))  # periods mod 10
    np.testing.assert_array_equal(a.returns, b.returns)
    np.testing.assert_array_equal(a.lengths, b.lengths)
    assert sorted(a.lengths) == sorted(c.lengths)
    assert not np.array_equal(a.returns, c.returns)
    longest = [x for n, x in played(a) if n == 10]
    assert len(set(longest)) == 2
    assert any(x % 10 for x in longest)  # ten equal draws would sum to a multiple of ten


def test_the_policy_is_told_the_number_of_steps_so_far(clock):
    schedule = Actor(lambda n: None, lambda params, carry, obs, key, t: (None, jnp.full(obs.shape[0], t), None))
    result = evaluate.evaluate(schedule, None, clock, episodes=2, seed=3)
    assert played(result) == [(4, 0 + 1 + 2 + 3.0), (5, 0 + 1 + 2 + 3 + 4.0)]


def test_the_observation_of_a_new_episode_is_what_the_policy_sees_first(clock):
    tells = stateless(lambda params, obs: (10 * obs[:, 0]).astype(jnp.int32))
    result = evaluate.evaluate(tells, None, clock, episodes=20, seed=0)
    assert played(result) == sorted(2 * [(n, 10.0 * n * (n - 1) / 2) for n in range(1, 11)])


def test_all_evaluations_of_an_actor_share_one_program():
    assert evaluate.program(ONES) is evaluate.program(ONES)
    assert evaluate.program(ONES) is not evaluate.program(stateless(lambda params, obs: obs))


def test_an_evaluation_has_the_shapes_and_dtypes_that_it_says(clock):
    result = evaluate.evaluate(ONES, None, clock, episodes=3, seed=0)
    assert (result.returns.shape, result.returns.dtype) == ((3,), np.float64)
    assert (result.lengths.shape, result.lengths.dtype) == ((3,), np.int64)


def test_an_environment_that_fails_is_named_and_closed(clock, monkeypatch):
    def step(self, action):
        raise RuntimeError("the spring broke")

    monkeypatch.setattr(Clock, "step", step)
    with pytest.raises(EnvError, match="Clock-v0 failed in step: RuntimeError: the spring broke"):
        evaluate.evaluate(ONES, None, clock, episodes=3, seed=0)
    assert Clock.closed == Clock.made


def test_an_evaluation_steps_its_environments_as_the_run_does(clock, monkeypatch):
    made, make = [], envs.make_host

    def watched(env_id, num_envs, how, settings):
        made.append((num_envs, how))
        return make(env_id, num_envs, how, settings)

    monkeypatch.setattr(envs, "make_host", watched)
    for how in ("auto", "sync", "async"):
        assert evaluate.evaluate(ONES, None, clock, episodes=3, seed=0, vectorization=how).episodes == 3
    assert evaluate.evaluate(ONES, None, "CartPole-v1", episodes=12, seed=0, vectorization="sync").episodes == 12
    assert evaluate.evaluate(ONES, None, "CartPole-v1", episodes=12, seed=0, vectorization="auto").episodes == 12
    assert made == [(3, "auto"), (3, "sync"), (3, "async"), (10, "sync"), (12, "native")]


def test_an_environment_of_which_there_is_one_is_played_alone(clock):
    result = evaluate.evaluate(ONES, None, clock, episodes=4, seed=2, alone=True)
    assert result.lengths.tolist() == 4 * [3]
    assert (Clock.made, Clock.closed) == (1, 1)


def test_an_unknown_environment_is_refused():
    with pytest.raises(EnvError, match="there is no environment 'Clack-v0'"):
        evaluate.evaluate(ONES, None, "Clack-v0", episodes=1, seed=0)


def test_the_settings_of_the_environment_are_those_of_the_evaluation(clock):
    shown = stateless(lambda params, obs: obs.shape[1] + obs[:, 0, 0].astype(jnp.int32))
    settings = envs.Config(frame_stack=3, time_limit=4)
    result = evaluate.evaluate(shown, None, clock, episodes=10, seed=0, settings=settings)
    lengths = [min(n, 4) for n in range(1, 11)]
    assert played(result) == sorted((n, 3.0 * n + max(n - 3, 0)) for n in lengths)  # the oldest of three frames


# On the device


WALK = """
import gymnasium
import jax
import jax.numpy as jnp
from gymnasium.experimental.functional import FuncEnv


class Walk(FuncEnv):
    \"\"\"Born at a place between 1 and 20: so many steps to the end, each of which pays its action.\"\"\"

    observation_space, action_space = gymnasium.spaces.Box(0, 20, (2,), "int32"), gymnasium.spaces.Discrete(100)

    def initial(self, rng, params=None):
        return jnp.tile(jax.random.randint(rng, (), 1, 21), 2)

    def transition(self, state, action, rng, params=None):
        return state.at[0].add(-1)

    def observation(self, state, rng, params=None):
        return state

    def reward(self, state, action, next_state, rng, params=None):
        return action

    def terminal(self, state, rng, params=None):
        return state[0] == 0
"""


@pytest.fixture
def walk(tmp_path, monkeypatch):
    (tmp_path / "walking.py").write_text(WALK)
    monkeypatch.syspath_prepend(tmp_path)
    return "walking:Walk"


def test_an_environment_without_a_host_is_played_on_the_device(walk):
    told = stateless(lambda params, obs: params + obs[:, 1])  # where its episode began
    result = evaluate.evaluate(told, jnp.int32(2), walk, episodes=230, seed=0)
    assert (result.episodes, result.returns.dtype, result.lengths.dtype) == (230, np.float64, np.int64)
    assert set(result.lengths) == set(range(1, 21))
    np.testing.assert_array_equal(result.returns, result.lengths * (2 + result.lengths))
    assert abs(result.lengths.mean() - 10.5) < 4 * np.sqrt(399 / 12 / 230)  # short ones no more often
    again = evaluate.evaluate(told, jnp.int32(2), walk, episodes=230, seed=0)
    np.testing.assert_array_equal(result.lengths, again.lengths)
    assert not np.array_equal(result.lengths, evaluate.evaluate(told, jnp.int32(2), walk, episodes=230, seed=1).lengths)


def test_an_evaluation_on_the_device_does_not_begin_where_training_did(walk):
    seen = stateless(lambda params, obs: obs[:, 1])
    source = rollout.rollout(envs.make_device(walk), seen, rollout.Settings(40, 1, 0.9))
    begun = compose(Learner(lambda key: 0, None, lambda state: None), source, stride=40).init(jax.random.key(3))
    result = evaluate.evaluate(seen, None, walk, episodes=40, seed=3)
    assert played(result) != sorted((n, float(n) ** 2) for n in begun.source.obs[:, 1].tolist())
    assert played(result) == sorted((n, float(n) ** 2) for n in result.lengths)


def test_episodes_on_the_device_may_be_longer_than_a_chunk_and_are_cut_by_the_time_limit(walk, monkeypatch):
    monkeypatch.setattr(evaluate, "_CHUNK", 3)
    result = evaluate.evaluate(stateless(lambda params, obs: obs[:, 1]), None, walk, episodes=40, seed=0,
                               settings=envs.Config(time_limit=7, frame_stack=1))
    assert result.lengths.max() == 7
    long, born = result.lengths == 7, result.returns / result.lengths
    assert (born[long] >= 7).all()
    np.testing.assert_array_equal(born[~long], result.lengths[~long])


def test_carry_key_and_time_are_on_the_device_what_they_are_on_the_host(walk, monkeypatch):
    monkeypatch.setattr(evaluate, "_NUM_VECTORIZED", 10)  # three episodes each
    counts = Actor(lambda n: jnp.full(n, 5), lambda params, carry, obs, key, t: (carry + 1, carry, None))
    result = evaluate.evaluate(counts, None, walk, episodes=30, seed=3)
    np.testing.assert_array_equal(result.returns, [5 * n + n * (n - 1) / 2 for n in result.lengths])
    clocks = Actor(lambda n: None, lambda params, carry, obs, key, t: (None, jnp.full(obs.shape[0], t), None))
    result = evaluate.evaluate(clocks, None, walk, episodes=3, seed=3)
    np.testing.assert_array_equal(result.returns, [n * (n - 1) / 2 for n in result.lengths])
    dice = Actor(lambda n: None, lambda params, carry, obs, key, t: (None, jax.random.randint(key, obs.shape[:1], 0, 99), None))
    a, b = (evaluate.evaluate(dice, None, walk, episodes=40, seed=seed) for seed in (0, 0))
    np.testing.assert_array_equal(a.returns, b.returns)
    assert abs((a.returns / a.lengths).mean() - 49) < 15
    assert len(set(a.returns[a.lengths > 1] / a.lengths[a.lengths > 1])) > 10


@pytest.mark.parametrize(("mean", "spread", "words"), [
    (475.16, 30.12, "475.2 +- 30.1"), (500.0, 0.0, "500.0 +- 0.0"), (0.95, 0.2179, "0.95 +- 0.22"), (0.95, 0.0, "0.95 +- 0.00"),
    (0.0123, 0.0047, "0.0123 +- 0.0047"), (-0.004, 0.0, "-0.0040 +- 0.0000"), (0.0, 0.0, "0.0 +- 0.0"),
    (123456.7, 98765.4, "123456.7 +- 98765.4"), (float("nan"), float("nan"), "nan +- nan")])
def test_a_return_is_written_with_as_many_digits_as_tell_something(mean, spread, words):
    assert with_spread(mean, spread) == words
