"""The twins of the other classic environments against Gymnasium's own, transition by transition from the same states."""

import functools
import types
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control import continuous_mountain_car
from scipy import optimize, stats

from jaxdl.rl.envs.acrobot import Acrobot
from jaxdl.rl.envs.functional import adapt
from jaxdl.rl.envs.mountain_car import MountainCar, MountainCarContinuous
from jaxdl.rl.envs.pendulum import Pendulum
from jaxdl.rl.types import EnvSpec


class Case(NamedTuple):
    twin: gymnasium.experimental.functional.FuncEnv
    angles: int  # so many coordinates, the first ones, are angles
    wild: list  # states to |wild| are drawn, where random policies do not come
    start: list  # the bounds of each coordinate at the start
    rounding: float  # of a float32 step from a state of an episode
    wild_rounding: float  # from a wild state: at Acrobot's highest speeds a step magnifies an error some 1e4 times
    steps: int  # the time limit
    idle: object  # the action that does nothing


CASES = {
    "Acrobot-v1": Case(Acrobot(), 2, [9, 9, 13, 29], [(-0.1, 0.1)] * 4, 1e-6, 2e-3, 500, 1),
    "MountainCar-v0": Case(MountainCar(), 0, [1.3, 0.08], [(-0.6, -0.4), (0, 0)], 2e-7, 2e-7, 200, 1),
    "MountainCarContinuous-v0": Case(MountainCarContinuous(), 0, [1.3, 0.08], [(-0.6, -0.4), (0, 0)], 2e-7, 2e-7, 999, [0.0]),
    "Pendulum-v1": Case(Pendulum(), 1, [9, 9], [(-np.pi, np.pi), (-1, 1)], 1e-6, 2e-6, 200, [0.0]),
}
CARS = {"MountainCar-v0": 0.5, "MountainCarContinuous-v0": 0.45}  # and their goals
every_twin = pytest.mark.parametrize("env_id", CASES)
WILD = 800  # transitions from wild states, after those of episodes
PADDED = 2048  # transitions of a program, so that each twin is compiled once a dtype


@functools.partial(jax.jit, static_argnums=0)
def padded_transitions(env_id, state, action):
    def one(s, a):
        twin = CASES[env_id].twin
        successor = twin.transition(s, a, None)
        return successor, twin.reward(s, a, successor, None), twin.terminal(successor, None), twin.observation(successor, None)

    return jax.vmap(one)(state, action)


def transitions(env_id, state, action):
    """Successors, rewards, terminal flags and observations [B, ...] of the twin."""
    n = len(state)
    padded = [np.concatenate([x, np.zeros((PADDED - n, *x.shape[1:]), x.dtype)]) for x in (state, action)]
    return [np.asarray(x)[:n] for x in padded_transitions(env_id, *padded)]


def gymnasium_transitions(env_id, state, action):
    """The same from Gymnasium's environment, put into each state."""
    env = unwrapped(env_id)
    found = []
    for s, a in zip(np.asarray(state, np.float64), action, strict=True):
        env.reset()
        env.state = s
        obs, reward, terminated, _, _ = env.step(a if a.ndim else int(a))
        found.append((env.state, reward, terminated, obs))
    return [np.array(x) for x in zip(*found, strict=True)]


def unwrapped(env_id):
    return gymnasium.make(env_id, disable_env_checker=True).unwrapped


def difference(env_id, successor, wanted):
    """Of states, that of angles modulo 2 pi."""
    difference = successor.astype(np.float64) - wanted
    angles = CASES[env_id].angles
    difference[:, :angles] -= 2 * np.pi * np.round(difference[:, :angles] / (2 * np.pi))
    return np.abs(difference)


def margin(env_id, successor):
    """Distance of each state to the nearest threshold of an end or of the wall."""
    if env_id == "Acrobot-v1":
        return np.abs(height(successor) - 1)
    if env_id in CARS:
        return np.abs(successor[:, :1] - [CARS[env_id], -1.2]).min(1)
    return np.full(len(successor), np.inf)


def height(state):
    return -np.cos(state[..., 0]) - np.cos(state[..., 0] + state[..., 1])


@pytest.fixture(scope="module")
def visited():
    """States [B, S] float64 and actions [B, ...] of episodes that repeat random actions, then of wild states, by id."""
    return {env_id: _visited(env_id) for env_id in CASES}


def _visited(env_id):
    rng, env, states, actions = np.random.default_rng(0), unwrapped(env_id), [], []
    for seed in range(4):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        for _ in range(200):
            if not actions or rng.random() < 0.1:
                action = env.action_space.sample()
            states.append(np.array(env.state, np.float64))
            actions.append(action)
            if env.step(action)[2]:
                break
    wild = rng.uniform(-1, 1, (WILD, len(states[0]))) * CASES[env_id].wild
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return np.concatenate([states, wild]), np.concatenate([actions, rng.integers(0, 3, WILD)])
    beyond = rng.uniform(-1, 1, (WILD, 1)) * 2 * env.action_space.high
    return np.concatenate([states, wild]), np.concatenate([np.array(actions, np.float64), beyond])


def as_float32(state, action):
    return state.astype(np.float32), action.astype(np.int32 if action.ndim == 1 else np.float32)


@pytest.fixture
def unrounded(monkeypatch):
    """Gymnasium's continuous car without the rounding of its state to float32."""
    monkeypatch.setattr(continuous_mountain_car, "np", types.SimpleNamespace(array=np.array, float32=np.float64))


@every_twin
def test_a_float32_step_is_gymnasiums_to_its_rounding(env_id, visited):
    state, action = as_float32(*visited[env_id])
    successor, reward, terminal, obs = transitions(env_id, state, action)
    wanted, wanted_reward, terminated, wanted_obs = gymnasium_transitions(env_id, state, action)
    assert successor.dtype == obs.dtype == np.float32
    clear = margin(env_id, wanted) > 1e-5
    clear |= (wanted[:, 0] == -1.2) & (wanted[:, 1] == 0) & (env_id in CARS)  # at the wall, most of them from far beyond
    assert clear.mean() > 0.99
    tolerance = np.repeat([CASES[env_id].rounding, CASES[env_id].wild_rounding], [len(state) - WILD, WILD])[:, None]
    assert (difference(env_id, successor, wanted) < tolerance)[clear].all()
    assert (np.abs(obs - wanted_obs) < tolerance)[clear].all()
    np.testing.assert_allclose(reward[clear], wanted_reward[clear], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(terminal[clear], terminated[clear])
    assert terminated.any() == (env_id != "Pendulum-v1")
    assert (np.abs(successor[:, : CASES[env_id].angles]) < np.pi + 1e-6).all()


@every_twin
def test_a_float64_step_is_gymnasiums(env_id, visited, unrounded):
    state, action = visited[env_id]
    with jax.enable_x64(True):
        successor, reward, terminal, obs = transitions(env_id, state, action)
    wanted, wanted_reward, terminated, wanted_obs = gymnasium_transitions(env_id, state, action)
    assert successor.dtype == wanted.dtype == np.float64
    off = difference(env_id, successor, wanted)
    assert off[:-WILD].max() < 1e-12
    assert off[-WILD:].max() < (1e-11 if env_id == "Acrobot-v1" else 1e-12)
    np.testing.assert_allclose(reward, wanted_reward, rtol=0, atol=1e-12)
    np.testing.assert_allclose(obs, wanted_obs, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(terminal, terminated)


@every_twin
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_the_dtype_of_the_state_is_that_of_its_successor_and_observation(env_id, dtype):
    twin = CASES[env_id].twin
    with jax.enable_x64(True):
        state = jax.ShapeDtypeStruct((len(CASES[env_id].start),), dtype)
        action = jnp.asarray(CASES[env_id].idle)  # of 64 bits
        assert jax.eval_shape(lambda s: twin.transition(s, action, None), state).dtype == dtype
        assert jax.eval_shape(lambda s: twin.observation(s, None), state).dtype == dtype


@pytest.mark.parametrize("env_id", ["Acrobot-v1", "MountainCar-v0"])
def test_an_unsigned_action_pushes_left_as_a_signed_one_does(env_id):
    step = jax.jit(lambda a: CASES[env_id].twin.transition(jnp.zeros(len(CASES[env_id].start)), a, None))
    np.testing.assert_array_equal(step(jnp.uint8(0)), step(jnp.int32(0)))


def before_the_threshold_of_acrobot(margins):
    """States and actions whose step brings the free end to 1 + margin."""
    env, states, actions = unwrapped("Acrobot-v1"), [], []
    env.reset()

    def over(theta1, rest, action, margin):
        env.state = np.array([theta1, *rest])
        env.step(action)
        return height(env.state) - 1 - margin

    for rest in ((0.3, 0.5, -1.0), (-0.4, 1.0, 1.0), (0.1, -0.5, 0.0)):
        for action in range(3):
            for m in margins:
                states.append([optimize.brentq(over, 1.0, np.pi, (rest, action, m), xtol=1e-14), *rest])
                actions.append(action)
    return np.array(states), np.array(actions)


def before_successors_of_a_car(env_id, successors):
    """States and actions whose step leads to each successor, if no wall and no bound is in its way."""
    states, actions = [], []
    for x, x_dot in successors:
        for push in (-1, 0, 1):
            before = x - x_dot
            force = (0.001 if env_id == "MountainCar-v0" else 0.0015) * push
            states.append([before, x_dot - force + 0.0025 * np.cos(3 * before)])
            actions.append(push + 1 if env_id == "MountainCar-v0" else [push])
    return np.array(states), np.array(actions, int if env_id == "MountainCar-v0" else float)


def both_sides(env_id, state, action, x64):
    if not x64:
        state, action = as_float32(state, action)
    with jax.enable_x64(x64):
        ours = transitions(env_id, state, action)
    return ours, gymnasium_transitions(env_id, state, action)


@pytest.mark.parametrize(("x64", "margins"), [(False, (1e-2, 1e-3, 1e-4)), (True, (1e-3, 1e-9))])
def test_acrobot_arrives_on_the_same_side_of_the_height(x64, margins):
    signed = [s * m for m in margins for s in (-1, 1)]
    (_, reward, terminal, _), theirs = both_sides("Acrobot-v1", *before_the_threshold_of_acrobot(signed), x64)
    np.testing.assert_array_equal(theirs[2], np.tile(np.array(signed) > 0, 9))
    np.testing.assert_array_equal(terminal, theirs[2])
    np.testing.assert_array_equal(reward, theirs[1])
    np.testing.assert_array_equal(reward, np.where(terminal, 0, -1))


@pytest.mark.parametrize("env_id", CARS)
@pytest.mark.parametrize(("x64", "margins"), [(False, (1e-2, 1e-3, 1e-6)), (True, (1e-3, 1e-9))])
def test_a_car_arrives_on_the_same_side_of_the_goal_and_of_rest(env_id, x64, margins, unrounded):
    goal, successors, arrived = CARS[env_id], [], []
    for m in margins:
        for outside in (False, True):
            sign = -1 if outside else 1
            successors += [(goal + sign * m, 0.03), (goal + 0.02, sign * m), (goal + sign * m, -0.03)]
            arrived += [not outside, not outside, False]
    (_, reward, terminal, _), theirs = both_sides(env_id, *before_successors_of_a_car(env_id, successors), x64)
    np.testing.assert_array_equal(theirs[2], np.repeat(arrived, 3))
    np.testing.assert_array_equal(terminal, theirs[2])
    np.testing.assert_allclose(reward, theirs[1], rtol=1e-6)


@pytest.mark.parametrize("env_id", CARS)
@pytest.mark.parametrize(("x64", "margins"), [(False, (1e-2, 1e-3, 1e-6)), (True, (1e-3, 1e-9))])
def test_the_left_wall_stops_a_car_and_the_right_one_does_not(env_id, x64, margins, unrounded):
    left = [(-1.2 + s * m, -0.03) for m in margins for s in (-1, 1)]
    right = [(0.6 + s * m, 0.03) for m in margins for s in (-1, 1)]
    (successor, *_), theirs = both_sides(env_id, *before_successors_of_a_car(env_id, left + right), x64)
    stopped = np.repeat([x < -1.2 for x, _ in left + right], 3)
    np.testing.assert_array_equal(theirs[0][:, 1] == 0, stopped)
    np.testing.assert_array_equal(successor[:, 1] == 0, stopped)
    np.testing.assert_allclose(successor, theirs[0], rtol=0, atol=1e-12 if x64 else 2e-7)
    np.testing.assert_allclose(successor[len(left) * 3 :, 1], 0.03, atol=1e-6)


@pytest.mark.parametrize("env_id", CARS)
def test_the_goal_itself_at_rest_is_an_arrival(env_id):
    goal = np.float32(CARS[env_id])
    terminal = CASES[env_id].twin.terminal
    assert terminal(jnp.array([goal, 0]), None)
    assert not terminal(jnp.array([np.nextafter(goal, np.float32(0)), 0]), None)
    assert not terminal(jnp.array([goal, -1e-30]), None)


@every_twin
def test_episodes_start_as_gymnasiums_do(env_id):
    case, env = CASES[env_id], unwrapped(env_id)
    ours = np.asarray(jax.jit(jax.vmap(case.twin.initial))(jax.random.split(jax.random.key(0), 20_000)))
    assert ours.dtype == np.float32
    env.reset(seed=0)
    theirs = np.array([(env.reset(), env.state)[1] for _ in range(2000)])
    for starts in (ours, theirs):
        assert starts.shape[1] == len(case.start)
        for coordinate, (low, high) in zip(starts.T, case.start, strict=True):
            assert coordinate.min() >= np.float32(low)
            assert coordinate.max() <= np.float32(high)
            assert low == high or stats.kstest(coordinate, stats.uniform(low, high - low).cdf).pvalue > 1e-3
        varied = starts[:, [low != high for low, high in case.start]]
        assert np.abs(np.corrcoef(varied.T) - np.eye(varied.shape[1])).max() < 4 / np.sqrt(len(starts))


@every_twin
def test_an_idle_episode_is_truncated_when_gymnasiums_time_limit_does(env_id):
    case, limit = CASES[env_id], gymnasium.spec(env_id).max_episode_steps
    assert limit == case.steps
    env = adapt(case.twin, EnvSpec(env_id, case.twin.observation_space, case.twin.action_space, limit))

    @jax.jit
    def play(key):
        def body(state, k):
            return env.step(state, jnp.array([case.idle, case.idle]), env.sample_noise(jax.random.split(k, (env.keys, 2))))

        return jax.lax.scan(body, env.reset(key, 2)[0], jax.random.split(key, limit + 1))[1]

    out = jax.tree.map(np.asarray, play(jax.random.key(0)))
    assert not out.terminated.any()
    np.testing.assert_array_equal(out.truncated, np.tile(np.arange(limit + 1)[:, None] == limit - 1, (1, 2)))
    host = gymnasium.make(env_id)
    host.reset(seed=0)
    idle = np.array(case.idle, np.float32) if isinstance(case.idle, list) else case.idle
    assert [host.step(idle)[2:4] for _ in range(limit)] == (limit - 1) * [(False, False)] + [(False, True)]
    assert all(case.twin.observation_space.contains(obs) for obs in out.obs[:, 0])


@every_twin
def test_the_spaces_are_gymnasiums(env_id):
    twin, env = CASES[env_id].twin, gymnasium.make(env_id)
    for ours, theirs in ((twin.observation_space, env.observation_space), (twin.action_space, env.action_space)):
        assert ours == theirs
        assert ours.dtype == theirs.dtype
        if isinstance(ours, gymnasium.spaces.Box):
            np.testing.assert_array_equal([ours.low, ours.high], [theirs.low, theirs.high])
