"""Small environments whose every answer is known, stepped as N copies that reset themselves."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.experimental.functional import FuncEnv

from jaxdl.rl.envs.functional import adapt, stacked
from jaxdl.rl.types import EnvSpec, Stack


def spec(max_episode_steps):
    return EnvSpec("Small-v0", gymnasium.spaces.Box(0, 9, (3,)), gymnasium.spaces.Discrete(3), max_episode_steps)


class Ladder(FuncEnv):
    """An action climbs so many rungs, the third is the last; what an episode is born with tells it from all others."""

    def initial(self, rng, params=None):
        return {"rung": jnp.int32(0), "born": {"at": jax.random.uniform(rng, (2,)), "key": rng}}

    def transition(self, state, action, rng, params=None):
        return state | {"rung": state["rung"] + action}

    def observation(self, state, rng, params=None):
        return jnp.concatenate([state["rung"][None].astype(jnp.float32), state["born"]["at"]])

    def reward(self, state, action, next_state, rng, params=None):
        return 100 * state["rung"] + 10 * action + next_state["rung"]

    def terminal(self, state, rng, params=None):
        return (state["rung"] >= 3).astype(jnp.int32)


def step(env, state, action, key):
    return env.step(state, action, env.sample_noise(jax.random.split(key, (env.keys, len(action)))))


def play(env, actions, key):
    """Steps [T, N] of an environment under actions [T, N], with the state after each."""
    first, rest = jax.random.split(key)
    state, obs = env.reset(first, actions.shape[1])

    def body(state, now):
        state, out = step(env, state, *now)
        return state, (state, out)

    return (state, obs), jax.lax.scan(body, state, (actions, jax.random.split(rest, len(actions))))[1]


ACTIONS = np.tile(np.array([1, 0, 2], np.int32), (7, 1))  # one copy climbs, one waits, one runs
LADDER = adapt(Ladder(), spec(5))


@jax.jit
def climb(key, limit):
    """One program for all time limits: a limit may be traced."""
    return play(adapt(Ladder(), spec(limit)), ACTIONS, key)


@pytest.fixture(scope="module")
def played():
    (state, obs), (states, out) = climb(jax.random.key(0), 5)
    return (state, np.asarray(obs)), (states, jax.tree.map(np.asarray, out))


def test_an_episode_that_ends_is_reset_in_the_same_step_and_keeps_its_true_successor(played):
    (_, first), (_, out) = played
    climbs, waits, runs = [1, 2, 3, 1, 2, 3, 1], 7 * [0], [2, 4, 2, 4, 2, 4, 2]
    np.testing.assert_array_equal(first[:, 0], 0)
    np.testing.assert_array_equal(out.next_obs[..., 0].T, [climbs, waits, runs])
    np.testing.assert_array_equal(out.obs[..., 0].T, [[1, 2, 0, 1, 2, 0, 1], waits, [2, 0, 2, 0, 2, 0, 2]])
    np.testing.assert_array_equal(out.terminated.T, [[c == 3 for c in climbs], 7 * [False], [r == 4 for r in runs]])
    np.testing.assert_array_equal(out.truncated.T, [7 * [False], [t == 4 for t in range(7)], 7 * [False]])
    born, before = out.obs[..., 1:], np.concatenate([first[None], out.obs[:-1]])[..., 1:]
    np.testing.assert_array_equal(out.next_obs[..., 1:], before)
    new = (born != before).all(axis=-1)
    np.testing.assert_array_equal(new, out.terminated | out.truncated)
    np.testing.assert_array_equal((born != before).any(axis=-1), new)


def test_the_reward_is_of_the_step_before_the_reset(played):
    _, (_, out) = played
    climbs, runs = [11, 112, 213], [22, 224]
    np.testing.assert_array_equal(out.reward.T, [(3 * climbs)[:7], 7 * [0], (4 * runs)[:7]])


def test_the_steps_of_each_copy_are_counted_from_its_own_reset(played):
    (first, _), (states, _) = played
    np.testing.assert_array_equal(first.steps, [0, 0, 0])
    np.testing.assert_array_equal(states.steps.T, [[1, 2, 0, 1, 2, 0, 1], [1, 2, 3, 4, 0, 1, 2], [1, 0, 1, 0, 1, 0, 1]])


def test_every_leaf_of_a_state_is_reset_with_its_copy(played):
    (first, _), (states, out) = played
    born = states.inner["born"]
    assert jax.tree.structure(states) == jax.tree.structure(first)
    np.testing.assert_array_equal(states.inner["rung"], out.obs[..., 0])
    np.testing.assert_array_equal(born["at"], out.obs[..., 1:])
    again = jax.vmap(jax.vmap(lambda k: jax.random.uniform(k, (2,))))(born["key"])
    np.testing.assert_array_equal(born["at"], again)


def test_the_answers_have_the_dtypes_that_sources_expect(played):
    _, (states, out) = played
    assert out.reset is None
    out = out[:-1]
    assert [x.dtype for x in out] == [np.float32, np.float32, np.bool_, np.bool_, np.float32]
    assert states.steps.dtype == jnp.int32
    assert [x.shape for x in out] == [(7, 3, 3), (7, 3), (7, 3), (7, 3), (7, 3, 3)]


def test_an_episode_may_terminate_at_its_time_limit_and_says_both():
    _, (states, out) = climb(jax.random.key(0), 3)
    thirds = [t % 3 == 2 for t in range(7)]
    np.testing.assert_array_equal(out.terminated.T, [thirds, 7 * [False], [t % 2 == 1 for t in range(7)]])
    np.testing.assert_array_equal(out.truncated.T, [thirds, thirds, 7 * [False]])
    np.testing.assert_array_equal(states.steps[:, 0], [1, 2, 0, 1, 2, 0, 1])


def test_a_time_limit_of_one_step_truncates_every_step():
    _, (states, out) = climb(jax.random.key(0), 1)
    assert out.truncated.all()
    assert not out.terminated.any()
    np.testing.assert_array_equal(out.next_obs[..., 0], ACTIONS)
    np.testing.assert_array_equal(out.obs[..., 0], 0)
    np.testing.assert_array_equal(states.steps, 0)


def test_without_a_time_limit_no_episode_is_truncated():
    actions = np.zeros((2000, 2), np.int32)
    (_, first), (states, out) = jax.jit(lambda key: play(adapt(Ladder(), spec(None)), actions, key))(jax.random.key(0))
    assert out.truncated.dtype == jnp.bool_
    assert not out.truncated.any()
    assert not out.terminated.any()
    np.testing.assert_array_equal(states.steps[-1], 2000)
    np.testing.assert_array_equal(out.obs[-1], first)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(*(jax.random.key_data(z) if jnp.issubdtype(z.dtype, jax.dtypes.prng_key) else z
                                        for z in (x, y)))


def test_a_program_says_what_its_steps_say_one_by_one(played):
    first, rest = jax.random.split(jax.random.key(0))
    state, obs = LADDER.reset(first, 3)
    assert_same((state, obs), played[0])
    for t, key in enumerate(jax.random.split(rest, 7)[:2]):
        state, one = step(LADDER, state, ACTIONS[t], key)
        assert_same((state, one), jax.tree.map(lambda x, t=t: x[t], played[1]))


def test_runs_under_vmap_are_the_single_runs_of_their_keys(played):
    keys = jnp.stack([jax.random.key(7), jax.random.key(0)])
    together = jax.jit(jax.vmap(lambda key: play(LADDER, ACTIONS, key)))(keys)
    assert_same(jax.tree.map(lambda x: x[1], together), played)
    assert not np.array_equal(together[1][1].obs[0], together[1][1].obs[1])


class Noise(FuncEnv):
    """Everything that may be random is: a number of its own from every key."""

    def initial(self, rng, params=None):
        return jnp.stack([jax.random.uniform(rng), 0.5])

    def transition(self, state, action, rng, params=None):
        return jnp.stack([state[0], jax.random.uniform(rng)])

    def observation(self, state, rng, params=None):
        return jnp.append(state, jax.random.uniform(rng))

    def reward(self, state, action, next_state, rng, params=None):
        return jax.random.uniform(rng)

    def terminal(self, state, rng, params=None):
        return jax.random.uniform(rng) < 0.5


def test_every_random_number_of_every_copy_is_its_own():
    n = 4000
    env = adapt(Noise(), spec(None))

    @jax.jit
    def run(key):
        k = jax.random.split(key, 3)
        state, first = env.reset(k[0], n)
        state, one = step(env, state, jnp.zeros(n, jnp.int32), k[1])
        return first, one, step(env, state, jnp.zeros(n, jnp.int32), k[2])[1]

    first, one, two = jax.tree.map(np.asarray, run(jax.random.key(0)))
    numbers = {
        "first state": first[:, 0], "first observation": first[:, 2],
        "move": one.next_obs[:, 1], "reward": one.reward, "observation": one.next_obs[:, 2],
        "next move": two.next_obs[:, 1], "next reward": two.reward, "next observation": two.next_obs[:, 2],
    }
    table = np.stack(list(numbers.values()))
    assert len(np.unique(table)) > 0.995 * table.size  # float32 uniforms have 2^23 values: a few coincide by chance
    ended = one.terminated
    table = np.concatenate([table, [ended]])
    assert np.abs(np.corrcoef(table) - np.eye(len(table))).max() < 5 / np.sqrt(n)
    assert abs(ended.mean() - 0.5) < 5 * 0.5 / np.sqrt(n)

    again = np.stack([one.obs[ended, 0], one.obs[ended, 2], *(x[ended] for x in numbers.values())])
    assert np.abs(np.corrcoef(again) - np.eye(len(again))).max() < 5 / np.sqrt(ended.sum())
    np.testing.assert_array_equal(one.obs[ended, 1], 0.5)
    np.testing.assert_array_equal(one.obs[~ended], one.next_obs[~ended])


class Scaled(FuncEnv):
    """Each function uses a parameter of its own."""

    def get_default_params(self, **kwargs):
        return {"start": self.start, "gain": 2.0, "lens": 10.0, "price": 7.0, "top": 9.0}

    def initial(self, rng, params=None):
        return jnp.float32(params["start"])

    def transition(self, state, action, rng, params=None):
        return state + params["gain"] * action

    def observation(self, state, rng, params=None):
        return params["lens"] * state

    def reward(self, state, action, next_state, rng, params=None):
        return params["price"] * action

    def terminal(self, state, rng, params=None):
        return state > params["top"]


def test_the_parameters_of_the_environment_reach_each_of_its_functions():
    env = adapt(Scaled({"start": 3.0}), spec(None))
    (_, obs), (_, out) = play(env, np.array([[1.0, 2.0], [3.0, 1.0]], np.float32), jax.random.key(0))
    np.testing.assert_array_equal(obs, [30, 30])
    np.testing.assert_array_equal(out.next_obs, [[50, 70], [110, 90]])
    np.testing.assert_array_equal(out.obs, [[50, 70], [30, 90]])
    np.testing.assert_array_equal(out.reward, [[7, 14], [21, 7]])
    np.testing.assert_array_equal(out.terminated, [[False, False], [True, False]])


class Picture(FuncEnv):
    """An image of the step."""

    def initial(self, rng, params=None):
        return jnp.uint8(0)

    def transition(self, state, action, rng, params=None):
        return state + action.astype(jnp.uint8).sum(dtype=jnp.uint8)

    def observation(self, state, rng, params=None):
        return jnp.arange(6, dtype=jnp.uint8).reshape(2, 3, 1) + 10 * state

    def reward(self, state, action, next_state, rng, params=None):
        return 1

    def terminal(self, state, rng, params=None):
        return False


def test_images_and_actions_of_any_shape():
    _, (_, out) = play(adapt(Picture(), spec(2)), np.ones((3, 2, 4), np.float32), jax.random.key(0))
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    assert out.obs.dtype == out.next_obs.dtype == jnp.uint8
    assert out.reward.dtype == jnp.float32
    for t, (after, seen) in enumerate([(40, 40), (80, 0), (40, 40)]):
        for copy in range(2):
            np.testing.assert_array_equal(out.next_obs[t, copy], image + after)
            np.testing.assert_array_equal(out.obs[t, copy], image + seen)
    np.testing.assert_array_equal(out.terminated, False)
    np.testing.assert_array_equal(out.truncated, [[False] * 2, [True] * 2, [False] * 2])


def test_the_spec_is_handed_on():
    assert LADDER.spec == spec(5)


class Recorded(gymnasium.Env):
    """The episodes of one copy, from its observations: first [...], and steps [T] with their successors and ends."""

    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, space, first, out):
        self.observation_space, self.begins, self.out, self.t = space, [first, *out.obs], out, -1

    def reset(self, *, seed=None, options=None):
        return self.begins[self.t + 1], {}

    def step(self, action):
        self.t += 1
        return self.out.next_obs[self.t], 0.0, bool(self.out.terminated[self.t]), bool(self.out.truncated[self.t]), {}


@pytest.mark.parametrize("frames", [2, 4])
def test_stacked_frames_are_those_of_gymnasiums_wrapper_transition_by_transition(frames, played):
    (_, first), (_, out) = played
    env = stacked(LADDER, frames)
    (_, begin), (_, found) = jax.jit(lambda key: play(env, ACTIONS, key))(jax.random.key(0))
    for i in range(3):
        mine = jax.tree.map(lambda x, i=i: np.asarray(x[:, i]), found)
        raw = Recorded(spec(5).observation_space, first[i], jax.tree.map(lambda x, i=i: x[:, i], out))
        theirs = gymnasium.wrappers.FrameStackObservation(raw, frames, padding_type="reset")
        seen = theirs.reset()[0]
        np.testing.assert_array_equal(begin[i], seen)
        for t in range(len(ACTIONS)):
            successor, _, terminated, truncated, _ = theirs.step(0)
            np.testing.assert_array_equal(mine.next_obs[t], successor)
            seen = theirs.reset()[0] if terminated or truncated else successor
            np.testing.assert_array_equal(mine.obs[t], seen)
        assert env.spec.observation_space == theirs.observation_space
    np.testing.assert_array_equal(found.reward, out.reward)
    np.testing.assert_array_equal(found.terminated, out.terminated)


def test_a_stack_is_in_the_spec_and_a_stack_of_one_is_none():
    assert stacked(LADDER, 3).spec.stack == Stack(3, "repeat")
    assert stacked(LADDER, 3).spec._replace(stack=None, observation_space=spec(5).observation_space) == spec(5)
    assert stacked(LADDER, 3).keys == LADDER.keys
    assert stacked(LADDER, 1) is LADDER
