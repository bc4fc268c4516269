"""The twin of CartPole-v1 against Gymnasium's own, transition by transition from the same states."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl.rl import envs, evaluate
from jaxdl.rl.envs import cartpole
from jaxdl.rl.types import Actor

TWIN = cartpole.CartPole()
ENV = envs.make_device("CartPole-v1")
LIMITS = {0: 2.4, 2: 12 * 2 * np.pi / 360}


@jax.jit
def step(state, action, key):
    return ENV.step(state, action, ENV.sample_noise(jax.random.split(key, (ENV.keys, len(action)))))


@jax.jit
def transitions(state, action):
    """Successors [B, 4], rewards [B] and terminal flags [B] of the twin."""

    def one(s, a):
        successor = TWIN.transition(s, a, None)
        return successor, TWIN.reward(s, a, successor, None), TWIN.terminal(successor, None)

    return jax.vmap(one)(state, action)


def gymnasium_transitions(state, action):
    """The same from Gymnasium's environment, put into each state."""
    env = gymnasium.make("CartPole-v1", disable_env_checker=True).unwrapped
    found = []
    for s, a in zip(np.asarray(state, np.float64), action, strict=True):
        env.reset()
        env.state = s
        _, reward, terminated, _, _ = env.step(int(a))
        found.append((env.state, reward, terminated))
    return [np.array(x) for x in zip(*found, strict=True)]


@pytest.fixture(scope="module")
def visited():
    """States [B, 4] float64 and actions [B] of episodes under random policies, the step of the fall included."""
    rng, env, states, actions = np.random.default_rng(0), gymnasium.make("CartPole-v1").unwrapped, [], []
    for seed in range(40):
        env.reset(seed=seed)
        right, terminated = rng.uniform(), False
        while not terminated:
            states.append(env.state)
            actions.append(int(rng.random() < right))
            terminated = env.step(actions[-1])[2]
    wild = rng.uniform(-1, 1, (300, 4)) * [2.6, 4, 0.25, 4]  # where random policies do not come
    return np.concatenate([states, wild]), np.concatenate([actions, rng.integers(0, 2, 300)])


def test_a_float32_step_is_gymnasiums_to_its_rounding(visited):
    state, action = visited[0].astype(np.float32), visited[1]
    successor, _, terminal = transitions(state, action)
    wanted, _, terminated = gymnasium_transitions(state, action)
    assert successor.dtype == jnp.float32
    np.testing.assert_allclose(successor, wanted, rtol=0, atol=2e-6)
    near = np.min([np.abs(np.abs(wanted[:, i]) - limit) for i, limit in LIMITS.items()], axis=0) < 1e-5
    assert near.mean() < 0.01
    np.testing.assert_array_equal(np.asarray(terminal)[~near], terminated[~near])
    assert 40 <= terminated.sum() < len(terminated) - 100


def test_a_float64_step_is_gymnasiums(visited):
    state, action = visited
    with jax.enable_x64(True):
        successor, _, terminal = transitions(state, action)
        assert successor.dtype == jnp.float64
    wanted, _, terminated = gymnasium_transitions(state, action)
    np.testing.assert_allclose(successor, wanted, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(terminal, terminated)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_the_dtype_of_the_state_is_that_of_its_successor(dtype):
    with jax.enable_x64(True):
        successor = jax.eval_shape(lambda s: TWIN.transition(s, jnp.int64(1), None), jax.ShapeDtypeStruct((4,), dtype))
        assert successor.dtype == dtype


def beside_the_limits(margins):
    """States whose next position or angle is a margin inside or outside each limit, and which of them are outside."""
    states, outside = [], []
    for coordinate, limit in LIMITS.items():
        for sign in (-1, 1):
            for velocity in (-1.5, 0, 1.5):
                for margin in margins:
                    for out in (False, True):
                        state = np.zeros(4)
                        state[coordinate] = sign * (limit + (margin if out else -margin)) - 0.02 * velocity
                        state[coordinate + 1] = velocity
                        states.append(state)
                        outside.append(out)
    return np.array(states), np.array(outside)


@pytest.mark.parametrize("action", [0, 1])
def test_an_episode_ends_on_the_same_side_of_each_limit(action):
    for margins, dtype, x64 in (((1e-2, 1e-3, 1.5e-5), np.float32, False), ((1e-3, 1e-9), np.float64, True)):
        state, outside = beside_the_limits(margins)
        state, actions = state.astype(dtype), np.full(len(state), action)
        _, reward, terminated = gymnasium_transitions(state, actions)
        np.testing.assert_array_equal(terminated, outside)
        with jax.enable_x64(x64):
            _, twin_reward, terminal = transitions(state, actions)
        np.testing.assert_array_equal(terminal, outside)
        np.testing.assert_array_equal(twin_reward, reward)
        np.testing.assert_array_equal(reward, 1)


def test_the_limits_themselves_are_inside():
    for dtype in (np.float32, np.float64):
        for coordinate, limit in LIMITS.items():
            for sign in (-1, 1):
                at = np.zeros(4, dtype)
                at[coordinate] = sign * dtype(limit)
                beyond = at.copy()
                beyond[coordinate] = np.nextafter(at[coordinate], dtype(sign * np.inf))
                with jax.enable_x64(dtype == np.float64):
                    assert not TWIN.terminal(jnp.asarray(at), None)
                    assert TWIN.terminal(jnp.asarray(beyond), None)


def test_episodes_start_uniformly_around_the_upright_rest():
    start = np.asarray(jax.jit(jax.vmap(TWIN.initial))(jax.random.split(jax.random.key(0), 20_000)))
    assert start.shape == (20_000, 4)
    assert start.dtype == np.float32
    assert start.min() >= np.float32(-0.05)
    assert start.max() < np.float32(0.05)
    for coordinate in start.T:
        assert stats.kstest(coordinate, stats.uniform(-0.05, 0.1).cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(start.T) - np.eye(4)).max() < 4 / np.sqrt(20_000)


def test_the_spaces_are_gymnasiums():
    env = gymnasium.make("CartPole-v1")
    for ours, theirs in ((ENV.spec.observation_space, env.observation_space), (ENV.spec.action_space, env.action_space)):
        assert ours == theirs
        assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ENV.spec.observation_space.high, env.observation_space.high)
    np.testing.assert_array_equal(ENV.spec.observation_space.low, env.observation_space.low)
    assert TWIN.observation_space == env.observation_space
    assert ENV.spec.max_episode_steps == env.spec.max_episode_steps == 500


def test_a_whole_episode_is_gymnasiums_until_the_pole_falls():
    state, obs = ENV.reset(jax.random.key(3), 8)
    action, env = np.arange(8) % 2, gymnasium.make("CartPole-v1").unwrapped
    wanted = []
    for o, a in zip(np.asarray(obs), action, strict=True):
        env.reset()
        env.state, steps = o.astype(np.float64), []
        while not steps or not steps[-1][2]:
            steps.append(env.step(int(a)))
        wanted.append(steps)
    falls = {len(steps) for steps in wanted}
    assert len(falls) > 1
    for t in range(min(falls)):
        state, out = step(state, action, jax.random.key(t))
        theirs = [steps[t] for steps in wanted]
        np.testing.assert_allclose(out.next_obs, [s[0] for s in theirs], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(out.reward, [s[1] for s in theirs])
        np.testing.assert_array_equal(out.terminated, [s[2] for s in theirs])
        assert not out.truncated.any()
    assert out.terminated.any()


def test_a_pole_that_is_kept_upright_is_truncated_after_500_steps_as_in_gymnasium():
    gains = np.array([0.1, 0.3, 3.0, 1.0], np.float32)

    @jax.jit
    def play(key):
        def body(carry, k):
            state, out = step(carry[0], (carry[1] @ gains > 0).astype(jnp.int32), k)
            return (state, out.obs), out

        return jax.lax.scan(body, ENV.reset(key, 3), jax.random.split(key, 501))[1]

    out = jax.tree.map(np.asarray, play(jax.random.key(0)))
    assert not out.terminated.any()
    np.testing.assert_array_equal(out.truncated, np.tile(np.arange(501)[:, None] == 499, (1, 3)))
    np.testing.assert_array_equal(out.reward, 1)
    assert np.abs(out.obs[499]).max() < 0.05
    np.testing.assert_allclose(out.next_obs[499, :, 0], out.obs[498, :, 0] + 0.02 * out.obs[498, :, 1], atol=1e-6)
    np.testing.assert_allclose(out.next_obs[500, :, 0], out.obs[499, :, 0] + 0.02 * out.obs[499, :, 1], atol=1e-6)

    env = gymnasium.make("CartPole-v1")
    obs, _ = env.reset(seed=0)
    ends = []
    for _ in range(500):
        obs, _, terminated, truncated, _ = env.step(int(obs @ gains > 0))
        ends.append((terminated, truncated))
    assert ends == 499 * [(False, False)] + [(False, True)]


POSITIONS = "jaxdl.rl.envs.cartpole:CartPolePositions"


def test_cartpole_of_positions_is_cartpole_without_its_velocities():
    env, key = envs.make_device(POSITIONS), jax.random.key(0)
    assert env.spec == envs.spec(POSITIONS)
    assert (env.spec.max_episode_steps, env.spec.action_space) == (500, ENV.spec.action_space)
    np.testing.assert_array_equal(env.spec.observation_space.high, ENV.spec.observation_space.high[[0, 2]])
    (state, obs), (full, seen) = env.reset(key, 3), ENV.reset(key, 3)
    np.testing.assert_array_equal(obs, seen[:, [0, 2]])
    blind = jax.jit(lambda s, a, k: env.step(s, a, env.sample_noise(jax.random.split(k, (env.keys, 3)))))
    for t in range(12):  # two copies fall
        action = np.int32([0, 1, t % 2])
        state, out = blind(state, action, jax.random.fold_in(key, t))
        full, whole = step(full, action, jax.random.fold_in(key, t))
        for a, b in ((out.obs, whole.obs), (out.next_obs, whole.next_obs)):
            np.testing.assert_allclose(a, b[:, [0, 2]], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(out.terminated, whole.terminated)
        np.testing.assert_array_equal(out.reward, 1)


def test_a_policy_that_pushes_to_one_side_is_evaluated_in_cartpole_of_positions():
    push = Actor(lambda n: None, lambda p, c, obs, key, t: (None, jnp.int32(obs[:, 0] < 9), None))
    found = evaluate.evaluate(push, None, POSITIONS, episodes=20, seed=0)
    assert ((found.returns >= 8) & (found.returns <= 11)).all()
    np.testing.assert_array_equal(found.returns, found.lengths)
