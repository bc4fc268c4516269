"""Policies: sequences are steps, and memory reaches back to where an episode begins."""

import functools
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.experimental.functional import FuncEnv
from tools import assert_close, jit

from jaxdl.core.errors import EnvError, UserError
from jaxdl.ops.running_stats import Moments
from jaxdl.rl import policy, rollout
from jaxdl.rl.envs.functional import adapt
from jaxdl.rl.episode_stats import reset_carry
from jaxdl.rl.types import EnvSpec

T, B, A = 6, 3, 4
BOX = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)


def spec_of(actions=None, observations=BOX):
    return EnvSpec("small", observations, actions or gymnasium.spaces.Discrete(A), None)


# --- Sequences.


OBS = jax.random.normal(jax.random.key(0), (T, B, 2))
NEXT_OBS = jax.random.normal(jax.random.key(1), (T, B, 2))
FIRST = jnp.zeros((T, B), bool).at[0, 1].set(True).at[3, 0].set(True).at[jnp.array([2, 5]), 2].set(True)
KINDS = [("none", False), ("none", True), ("gru", True), ("lstm", False)]


class Played(NamedTuple):
    """Outputs of a model for the same steps, all at once and one after the other."""

    whole: policy.Unrolled
    after: jax.Array  # value_after
    steps: policy.Unrolled  # one by one
    peeked: jax.Array  # the value of next_obs as one step more
    rolled: jax.Array  # value_after where the next observation is the next one played
    of_value: object  # gradients by the parameters, of the sum of the squared values
    of_dist: object  # and of distributions
    reach: jax.Array  # [T] of the gradient of the last step's output by the observation of each, of the environments
    ahead: jax.Array  # the same of the first step's output
    reach_value: jax.Array


def model_of(recurrent="none", shared=False, spec=None, **changed):
    config = policy.Config(hidden_sizes=(5,), recurrent=recurrent, recurrent_size=4, shared=shared, **changed)
    return policy.make(config, spec or spec_of(), "tester")


def shaken(params):
    """Parameters of which none is small."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    return treedef.unflatten([x + 0.4 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


@functools.cache
def played(recurrent, shared):
    model = model_of(recurrent, shared)
    values = lambda params, carries, obs: model.value_after(params, jax.tree.map(  # noqa: E731
        lambda h: h[None], carries), obs[None])[0]

    @jit
    def play(key):
        params = shaken(model.init(key))
        begin = jax.tree.map(lambda h: 0.5 * jax.random.normal(jax.random.key(2), h.shape), model.explore.init(B))

        def step(carry, x):
            obs, first, next_obs = x
            kept = reset_carry(model.explore, carry, first)
            noise = model.explore.sample_noise(key, B)
            carry, _, choice = model.explore.act(policy.Policy(params, None), kept, obs, noise, 0)
            return carry, (choice.dist, values(params, kept, obs), carry, values(params, carry, next_obs))

        def first_and_last(dist):
            return jnp.stack([dist[0], dist[-1]]).sum((1, 2))

        dist, value, carries, peeked = jax.lax.scan(step, begin, (OBS, FIRST, NEXT_OBS))[1]
        whole = model.unroll(params, begin, OBS, FIRST)
        unroll = lambda params, obs: model.unroll(params, begin, obs, FIRST)  # noqa: E731
        of_value, of_dist = (jax.grad(f)(params) for f in (
            lambda p: jnp.square(unroll(p, OBS).value).sum(), lambda p: jnp.square(unroll(p, OBS).dist).sum()))
        ahead, reach = jnp.abs(jax.jacrev(lambda obs: first_and_last(unroll(params, obs).dist))(OBS)).sum(-1)
        reach_value = jnp.abs(jax.grad(lambda obs: unroll(params, obs).value[-1].sum())(OBS)).sum(-1)
        after, rolled = (model.value_after(params, whole.carries, x) for x in (NEXT_OBS, jnp.roll(OBS, -1, 0)))
        return Played(whole, after, policy.Unrolled(dist, value, carries), peeked, rolled, of_value, of_dist, reach, ahead,
                      reach_value)

    return jax.device_get(play(jax.random.key(3)))


@pytest.mark.parametrize(("recurrent", "shared"), KINDS)
def test_a_sequence_is_its_steps_one_after_the_other(recurrent, shared):
    p = played(recurrent, shared)
    assert (p.whole.dist.shape, p.whole.value.shape) == ((T, B, A), (T, B))
    assert_close(p.whole, p.steps)
    assert p.whole.dist.std() > 0.1
    assert (p.whole.carries is None) == (recurrent == "none")
    assert len(jax.tree.leaves(p.whole.carries)) == {"none": 0, "gru": 1, "lstm": 2}[recurrent] * (1 if shared else 2)


@pytest.mark.parametrize(("recurrent", "shared"), KINDS)
def test_the_value_after_a_step_is_that_of_the_next_observation_with_what_is_remembered(recurrent, shared):
    p = played(recurrent, shared)
    assert p.after.shape == (T, B)
    np.testing.assert_allclose(p.after, p.peeked, rtol=1e-5, atol=1e-6)
    if recurrent != "none":
        assert np.abs(p.after - played("none", shared).after).min() > 0


@pytest.mark.parametrize(("recurrent", "shared"), KINDS)
def test_where_an_episode_goes_on_the_value_after_a_step_is_the_value_of_the_next(recurrent, shared):
    p, goes_on = played(recurrent, shared), ~np.asarray(FIRST)[1:]
    np.testing.assert_allclose(p.rolled[:-1][goes_on], p.whole.value[1:][goes_on], rtol=1e-5, atol=1e-6)
    if recurrent != "none":  # an episode that was cut remembers
        assert (np.abs(p.rolled[:-1] - p.whole.value[1:])[~goes_on] > 1e-3).all()


@pytest.mark.parametrize(("recurrent", "shared"), KINDS)
def test_gradients_reach_back_to_where_the_episode_begins_and_never_ahead(recurrent, shared):
    p = played(recurrent, shared)
    begins = [3, 0, 5] if recurrent != "none" else [T - 1] * B  # of the last step's episode
    for reach in (p.reach, p.reach_value):
        for b, begin in enumerate(begins):
            assert (reach[begin:, b] > 0).all()
            assert not reach[:begin, b].any()
    assert (p.ahead[0] > 0).all()
    assert not p.ahead[1:].any()


def size(grads):
    return {name: sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(part)) for name, part in grads["params"].items()}


@pytest.mark.parametrize(("recurrent", "shared"), KINDS)
def test_the_values_loss_moves_the_policys_torso_only_where_it_is_shared(recurrent, shared):
    p = played(recurrent, shared)
    of_value, of_dist = size(p.of_value), size(p.of_dist)
    common = {"torsos_0"} | ({"cells_0"} if recurrent != "none" else set())
    value_only = {"value"} | (set() if shared else {name[:-1] + "1" for name in common})
    policy_only = {"policy"} | (set() if shared else common)
    assert set(of_value) == common | value_only | policy_only
    for name in of_value:
        assert (of_value[name] > 0) == (name not in policy_only)
        assert (of_dist[name] > 0) == (name not in value_only)


# --- The first policy, and Gaussians.


@pytest.mark.parametrize(("recurrent", "shared"), [("none", False), ("lstm", True)])
def test_the_first_policy_hardly_prefers_any_action(recurrent, shared):
    model = model_of(recurrent, shared)
    obs = 3 * jax.random.normal(jax.random.key(0), (1, 200, 2))

    @jit
    def say(keys):
        return jax.vmap(lambda key: model.unroll(model.init(key), model.explore.init(200), obs, jnp.ones((1, 200), bool)))(keys)

    out = say(jax.random.split(jax.random.key(1), 20))
    probabilities = jax.nn.softmax(out.dist)
    assert np.abs(probabilities - 1 / A).max() < 0.02
    assert probabilities.std() > 1e-5
    assert out.value.std() > 0.03  # values begin as other layers do


@functools.cache
def gaussian():
    """A first policy over a Box: its parameters, what it says of 200 observations, and what a shaken one does in them."""
    model = model_of(spec=spec_of(gymnasium.spaces.Box(-1, 1, (3,), np.float32)), log_std=-0.7)

    @jit
    def play(key):
        params, obs = model.init(key), 3 * jax.random.normal(key, (200, 2))
        other = policy.Policy(shaken(params), None)
        return (params, model.unroll(params, None, obs[None], jnp.ones((1, 200), bool)).dist[0],
                model.greedy.act(other, None, obs, None, 0)[1],
                model.explore.act(other, None, obs, model.explore.sample_noise(key, 200), 0)[2].dist)

    return jax.device_get(play(jax.random.key(1)))


def test_a_gaussian_begins_at_zero_with_the_deviation_it_is_given_whatever_is_seen():
    params, dist, *_ = gaussian()
    assert np.abs(dist[:, :3]).max() < 0.1
    np.testing.assert_allclose(dist[:, 3:], -0.7, rtol=1e-6)
    np.testing.assert_allclose(params["params"]["spread"], [-0.7] * 3, rtol=1e-6)


def test_the_most_likely_action_of_a_gaussian_is_its_mean():
    _, _, action, dist = gaussian()
    np.testing.assert_allclose(action, np.clip(dist[:, :3], -1, 1), rtol=1e-5, atol=1e-6)
    assert (np.abs(dist[:, :3]) > 1).any()


# --- Acting.


@functools.cache
def first_params():
    return jit(lambda key: shaken(model_of().init(key)))(jax.random.key(0))


def test_greedy_takes_the_mode_and_exploring_draws_from_the_distribution():
    model = model_of()
    params = policy.Policy(first_params(), None)
    obs = np.tile(OBS[0, :1] * np.array([[1.0], [-1.0], [2.0], [-2.0]], np.float32), (2000, 1))

    @jit
    def act(key):
        return (model.explore.act(params, None, obs, model.explore.sample_noise(key, 8000), 0),
                model.greedy.act(params, None, obs, None, 0))

    (carry, action, choice), (_, best, extras) = act(jax.random.key(2))
    assert (carry, extras) == (None, {})
    np.testing.assert_array_equal(best, choice.dist.argmax(-1))
    assert len(np.unique(best)) > 1
    np.testing.assert_array_equal(choice.action, action)
    for i in range(4):
        often = np.bincount(action[i::4], minlength=A) / 2000
        np.testing.assert_allclose(often, jax.nn.softmax(choice.dist[i]), atol=4 * 0.5 / np.sqrt(2000))


@pytest.mark.parametrize("actor", ["explore", "greedy"])
def test_acting_sees_observations_by_the_statistics(actor):
    plain, normal = model_of(), model_of(normalize_obs=True)
    assert plain.moments is None
    assert float(normal.moments.count) == 0
    params = first_params()
    moments = Moments(jnp.float32(10), jnp.array([1.0, -2.0]), jnp.array([40.0, 2.5]))  # variances 4 and 1/4
    by_hand = (np.asarray(OBS[0]) - [1, -2]) / [2, 0.5]
    noise = plain.explore.sample_noise(jax.random.key(1), B)
    _, action, extras = jit(getattr(normal, actor).act)(policy.Policy(params, moments), None, OBS[0], noise, 0)
    _, expected, expected_extras = jit(getattr(plain, actor).act)(
        policy.Policy(params, None), None, jnp.float32(by_hand), noise, 0)
    np.testing.assert_array_equal(action, expected)
    assert_close(extras, expected_extras, rtol=1e-4)
    if extras:
        unseen = plain.explore.act(policy.Policy(params, None), None, OBS[0], noise, 0)[2].dist
        assert np.abs(extras.dist - unseen).min() > 1e-3


def test_only_floating_point_observations_are_normalized():
    images = spec_of(observations=gymnasium.spaces.Box(0, 255, (8, 8, 1), np.uint8))
    with pytest.raises(UserError, match="normalize_obs is for observations of floating-point numbers, and small has Box"):
        policy.make(policy.Config(normalize_obs=True), images, "tester")
    policy.make(policy.Config(), images, "tester")


@pytest.mark.parametrize(("changed", "message"), [
    ({"hidden_sizes": (4, 0)}, r"hidden_sizes must be widths above 0, got \(4, 0\)"),
    ({"recurrent_size": 0}, "recurrent_size must be above 0, got 0"),
    ({"log_std": 21.0}, "log_std must be between -20 and 20, got 21.0"),
    ({"log_std": float("nan")}, "log_std must be between -20 and 20"),
    ({"activation": "tanj"}, "no activation 'tanj'; did you mean 'tanh'"),
])
def test_settings_that_make_no_sense_are_refused(changed, message):
    policy.validate(policy.Config())
    with pytest.raises(UserError, match=message):
        policy.validate(policy.Config(**changed))


def test_spaces_that_it_cannot_serve_are_refused_by_name():
    with pytest.raises(EnvError, match="tester needs observations of Box or Discrete or MultiDiscrete or MultiBinary, and sm"):
        policy.make(policy.Config(), spec_of(observations=gymnasium.spaces.Tuple([BOX])), "tester")
    with pytest.raises(UserError, match="squash is for Box actions"):
        policy.make(policy.Config(squash=True), spec_of(), "tester")


# --- Actions of all kinds, in an environment.


class Echo(FuncEnv):
    """It shows the action that it was given."""

    def __init__(self, space):
        super().__init__()
        self.space = space

    def initial(self, rng, params=None):
        return jnp.zeros(self.space.shape, jax.dtypes.canonicalize_dtype(self.space.dtype))

    def transition(self, state, action, rng, params=None):
        assert (action.shape, action.dtype) == (state.shape, state.dtype)
        return action

    def observation(self, state, rng, params=None):
        return state.astype(jnp.float32).ravel()

    def reward(self, state, action, next_state, rng, params=None):
        return 0.0

    def terminal(self, state, rng, params=None):
        return False


SPACES = {
    "discrete": gymnasium.spaces.Discrete(3, start=-1),
    "multidiscrete": gymnasium.spaces.MultiDiscrete([[2, 3], [4, 1]], start=[[0, 5], [-2, 7]]),
    "multibinary": gymnasium.spaces.MultiBinary((2, 2)),
    "box": gymnasium.spaces.Box(np.float32([-0.5, 0]), np.float32([0.5, np.inf]), dtype=np.float32),
    "squashed": gymnasium.spaces.Box(np.float32([[-2.0], [1.0]]), np.float32([[0.5], [1.5]]), dtype=np.float32),
}


@functools.cache
def echoed():
    """By name: the actions that the environment got, the policy's own, and what of them makes the environment's."""

    def play(name, key):
        space = SPACES[name]
        width = int(np.prod(space.shape))
        spec = spec_of(space, gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32))
        model = policy.make(policy.Config(hidden_sizes=(4,), log_std=0.5, squash=name == "squashed"), spec, "tester")
        source = rollout.rollout(adapt(Echo(space), spec), model.explore, rollout.Settings(40, 10, 1.0))
        params = policy.Policy(model.init(key), None)
        state, _ = source.collect(source.init(key), params, jax.random.split(key, source.keys), jnp.int32(0))
        choice = state.trajectory.choice
        return state.trajectory.next_obs, choice.action, model.actions.to_env(choice.action)

    return jax.device_get(jit(lambda key: {name: play(name, key) for name in SPACES})(jax.random.key(0)))


@pytest.mark.filterwarnings("ignore:.*length of a multi-dimensional")
@pytest.mark.parametrize("name", SPACES)
def test_the_environment_gets_actions_within_its_space_and_the_learner_the_policys_own(name):
    space = SPACES[name]
    given, own, to_env = echoed()[name]
    given = given.reshape(400, *space.shape)
    np.testing.assert_array_equal(given, to_env.reshape(400, *space.shape))
    assert all(space.contains(x) for x in given.astype(space.dtype))
    if name in ("box", "squashed"):
        assert own.std() > 1
        assert not all(space.contains(x) for x in own.reshape(400, *space.shape).astype(space.dtype))
    else:
        assert len(np.unique(given.reshape(400, -1), axis=0)) == {"discrete": 3, "multidiscrete": 24, "multibinary": 16}[name]
        assert own.min() == 0
