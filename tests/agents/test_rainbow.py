"""The parts of Rainbow in DQN: updates against rlax, schedules, supports, and probe environments that all must learn."""

import dataclasses
import functools
import itertools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from scipy import special, stats
from tools import assert_close, differ, jit
from toys import ActionReward, OneStep, TwoSteps, spec_of

from jaxdl import nn
from jaxdl.agents import dqn
from jaxdl.core.config import leaves_as_arrays
from jaxdl.core.errors import UserError
from jaxdl.core.run import compose
from jaxdl.core.types import Learner, Mean, UpdateResult
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import envs, replay
from jaxdl.rl.envs.functional import adapt
from jaxdl.rl.replay import storage
from jaxdl.rl.replay.ring_buffer import Layout
from jaxdl.rl.types import Actor, EnvSpec, Transition
from jaxdl.runtime.device_driver import make_device_driver

SGD = OptimConfig(optimizer="sgd", learning_rate=0.1, schedule="constant")
SPEC, B, A = spec_of(3, 2), 12, 3
C51 = {"distribution": "c51", "v_min": -2.0, "v_max": 3.0, "atoms": 6}
QR = {"distribution": "qr", "atoms": 4}
SUPPORT = np.linspace(-2, 3, 6).astype(np.float32)
WEIGHT = np.random.default_rng(3).uniform(0.2, 7.0, B).astype(np.float32)


def batch_of(seed=0):
    rng = np.random.default_rng(seed)
    obs, next_obs = 2 * rng.normal(size=(2, B, 2)).astype(np.float32)
    discount = np.where(np.arange(B) % 4 == 0, 0, 0.9).astype(np.float32)
    action, reward = rng.integers(0, A, B).astype(np.int32), 2 * rng.normal(size=B).astype(np.float32)
    return Transition(obs, action, reward, discount, next_obs)


class Made:
    """A learner, compiled, with a state of its own whose target is not its parameters."""

    def __init__(self, **settings):
        self.config = dqn.Config(hidden_sizes=(5,), **{"optim": SGD, "tau": 0.25} | settings)
        self.learner = dqn.make(self.config, SPEC).learner
        self.update, init = jit(self.learner.update), jit(self.learner.init)
        params = [self.spread(init(jax.random.key(seed)).params, seed) for seed in (1, 2)]
        self.state = init(jax.random.key(1))._replace(params=params[0], target=params[1])
        self.network = dqn.QNetwork(A, (5,), "relu", self.config.dueling,
                                    None if self.config.distribution == "none" else self.config.atoms,
                                    self.config.noisy_sigma if self.config.noisy else None)

    @staticmethod
    def spread(params, seed):
        """Biases that are not zero, and values that are far apart."""
        rng = np.random.default_rng(seed)
        return jax.tree.map(lambda x: x + jnp.asarray(0.7 * rng.normal(size=x.shape), jnp.float32), params)

    def out(self, params, obs, noise=None):
        return self.network.apply(params | ({"noise": noise} if noise else {}), obs)

    def losses(self, params, batch, of_next, of_select):
        """By rlax, [B]; what the target says of the next observations, and what chooses the action, are numbers."""
        q = self.out(params, batch.obs, self.noise_of_online)
        kind = self.config.distribution
        common = (batch.action, batch.reward, batch.discount)
        if kind == "none":
            errors = jax.vmap(rlax.double_q_learning)(q, *common, of_next, of_select)
            return jnp.square(errors) / 2
        if kind == "c51":
            mean = (jax.nn.softmax(of_select) * SUPPORT).sum(-1)
            return jax.vmap(rlax.categorical_double_q_learning, (None, 0, 0, 0, 0, None, 0, 0))(
                SUPPORT, q, *common, SUPPORT, of_next, mean)
        tau = (jnp.arange(self.config.atoms) + 0.5) / self.config.atoms
        q, of_select, of_next = (x.swapaxes(1, 2) for x in (q, of_select, of_next))
        return jax.vmap(lambda *x: rlax.quantile_q_learning(x[0], tau, *x[1:], 1.0))(q, *common, of_select, of_next)

    def by_hand(self, batch, noises=(None, None, None), weight=None):
        """Losses [B] and gradient of the weighted mean, given the noises of target, online and selecting network."""
        self.noise_of_online = noises[1]
        of_next = self.out(self.state.target, batch.next_obs, noises[0])
        of_select = self.out(self.state.params, batch.next_obs, noises[2]) if self.config.double else of_next
        weight = np.ones(B) if weight is None else weight

        def total(params):
            losses = self.losses(params, batch, of_next, of_select)
            return (weight * losses).mean(), losses

        grads, losses = jax.grad(total, has_aux=True)(self.state.params)
        return np.asarray(losses), grads


@functools.cache
def _made(settings):
    return Made(**dict(settings))


def made(**settings):
    return _made(tuple(settings.items()))


def stepped(params, grads):
    return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)


# --- One update.


@pytest.mark.parametrize("settings", [
    C51, C51 | {"double": True, "dueling": True}, QR | {"dueling": True}, QR | {"double": True}],
    ids=["c51", "c51-double-dueling", "qr-dueling", "qr-double"])
def test_an_update_of_distributions_descends_the_gradient_of_rlax(settings):
    m, batch = made(**settings), batch_of()
    losses, grads = m.by_hand(batch)
    new, aux = m.update(m.state, batch, jax.random.key(0))
    assert_close(new.params, stepped(m.state.params, grads), rtol=1e-4, atol=1e-6)
    assert differ(new.params, m.state.params)
    loss, q = aux.metrics["loss"], aux.metrics["q_mean"]
    np.testing.assert_allclose(loss.total / loss.count, losses.mean(), rtol=1e-5)
    out = m.out(m.state.params, batch.obs)
    values = out.mean(-1) if settings["distribution"] == "qr" else (jax.nn.softmax(out) * SUPPORT).sum(-1)
    np.testing.assert_allclose(q.total / q.count, values.mean(), rtol=1e-4, atol=1e-5)
    assert_close(new.target, jax.tree.map(lambda p, t: 0.25 * p + 0.75 * t, new.params, m.state.target))
    assert aux.feedback is None
    if m.config.double:  # or the choice would not matter
        of_target = m.out(m.state.target, batch.next_obs)
        mean = (lambda x: x.mean(-1)) if settings["distribution"] == "qr" else lambda x: (jax.nn.softmax(x) * SUPPORT).sum(-1)
        chosen = mean(m.out(m.state.params, batch.next_obs)).argmax(-1)
        assert (chosen != mean(of_target).argmax(-1)).any()


def test_the_target_of_c51_reaches_beyond_its_atoms_as_often_as_it_says():
    m, batch = made(**C51), batch_of()
    probs = np.float64(jax.nn.softmax(m.out(m.state.target, batch.next_obs)))
    outside = []
    for i in range(B):
        best = (probs[i] * SUPPORT).sum(-1).argmax()
        reached = batch.reward[i] + batch.discount[i] * SUPPORT  # half a step of 1 may be rounded
        outside.append(sum(p for p, z in zip(probs[i, best], reached, strict=True) if not -2.5 <= z <= 3.5))
    assert 0 < np.mean(outside) < 0.9
    clipped = m.update(m.state, batch, jax.random.key(0))[1].metrics["clipped_targets"]
    assert float(clipped.count) == B
    np.testing.assert_allclose(clipped.total / B, np.mean(outside), rtol=1e-5)


def noises_of(m, seed):
    drawn = nn.noise(m.state.params, jax.random.key(seed), (3,))
    return [jax.tree.map(lambda x: x[i], drawn) for i in range(3)]  # noqa: B023


def near(a, b):
    return all(np.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_online_the_choosing_and_the_target_network_have_noises_of_their_own():
    m, batch = made(double=True, noisy=True), batch_of()
    noises = noises_of(m, 4)
    new = m.update(m.state, batch, jax.random.key(4))[0].params
    assert not near(new, stepped(m.state.params, m.by_hand(batch)[1]))  # as without noise
    found = [order for order in itertools.product(range(3), repeat=3)
             if near(new, stepped(m.state.params, m.by_hand(batch, [noises[i] for i in order])[1]))]
    assert len(found) == 1
    assert sorted(found[0]) == [0, 1, 2]
    assert differ(new, m.update(m.state, batch, jax.random.key(5))[0].params)


def test_without_double_the_target_chooses_with_the_noise_that_it_values_with():
    m, batch = made(noisy=True, **C51), batch_of()
    noises = noises_of(m, 4)
    new = m.update(m.state, batch, jax.random.key(4))[0].params
    found = [order for order in itertools.permutations(range(3), 2)
             if near(new, stepped(m.state.params, m.by_hand(batch, [*(noises[i] for i in order), None])[1]))]
    assert len(found) == 1


# --- Weights and feedback.


FEEDBACK = [{}, C51, QR]


@pytest.mark.parametrize("settings", FEEDBACK, ids=["td", "c51", "qr"])
def test_weights_scale_the_gradient_and_the_largest_is_one(settings):
    m, batch = made(prioritized=True, **settings), batch_of()
    losses, grads = m.by_hand(batch, weight=WEIGHT / WEIGHT.max())
    index = np.arange(B, dtype=np.int32)
    new, aux = m.update(m.state, batch._replace(weight=WEIGHT, index=index), jax.random.key(0))
    assert_close(new.params, stepped(m.state.params, grads), rtol=1e-4, atol=1e-6)
    loss = aux.metrics["loss"]
    np.testing.assert_allclose(loss.total / loss.count, losses.mean(), rtol=1e-5)  # what is reported has no weights
    again = m.update(m.state, batch._replace(weight=1000 * WEIGHT, index=index), jax.random.key(0))[0]
    assert_close(again.params, new.params, rtol=1e-4)


@pytest.mark.parametrize("settings", FEEDBACK, ids=["td", "c51", "qr"])
def test_priorities_are_made_of_errors_that_vanish_where_all_is_learned(settings):
    m, batch = made(prioritized=True, **settings), batch_of()
    losses, _ = m.by_hand(batch)
    told = m.update(m.state, batch._replace(weight=WEIGHT, index=np.arange(B, dtype=np.int32)), jax.random.key(0))[1].feedback
    assert told.shape == (B,)
    if settings is QR:
        expected = losses
    elif settings is C51:  # the divergence from the projected target
        probs = jax.nn.softmax(m.out(m.state.target, batch.next_obs))
        best = (probs * SUPPORT).sum(-1).argmax(-1)
        target = np.array([rlax.categorical_l2_project(r + g * SUPPORT, p[b], jnp.asarray(SUPPORT)) for r, g, p, b in
                           zip(batch.reward, batch.discount, probs, best, strict=True)], np.float64)
        chosen = np.asarray(jax.nn.softmax(m.out(m.state.params, batch.obs)))[np.arange(B), batch.action]
        expected = special.rel_entr(target, chosen).sum(-1)
        assert (losses - expected).max() > 0.1
    else:
        expected = np.sqrt(2 * losses)
    np.testing.assert_allclose(told, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shards", [2, 3])
def test_over_shards_weights_are_divided_by_the_largest_of_all(shards):
    settings = {"prioritized": True, **C51}
    m = made(**settings)
    batch = batch_of()._replace(weight=WEIGHT, index=np.arange(B, dtype=np.int32))
    learner = dqn.make(m.config, SPEC, "shards").learner
    parts = jax.tree.map(lambda x: x.reshape(shards, -1, *x.shape[1:]), batch)
    assert len({x.max() for x in parts.weight}) == shards
    over = jit(jax.vmap(learner.update, (None, 0, None), axis_name="shards"))(m.state, parts, jax.random.key(0))
    whole = m.update(m.state, batch, jax.random.key(0))
    for i in range(shards):
        assert_close(jax.tree.map(lambda x: x[i], over[0].params), whole[0].params, rtol=1e-4, atol=1e-6)  # noqa: B023
    np.testing.assert_allclose(over[1].feedback.reshape(-1), whole[1].feedback, rtol=1e-4, atol=1e-5)


# --- Schedules and acting.


def test_beta_rises_to_one_at_the_planned_end():
    config = dqn.Config(total_steps=1000, importance_exponent=0.4)
    t = jnp.array([0, 250, 500, 1000, 5000])
    np.testing.assert_allclose(jax.jit(dqn.beta)(config, t), [0.4, 0.55, 0.7, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("updates", [1, 2])
def test_a_run_draws_with_the_beta_of_its_time(updates):
    """On its way through the run, the source and the memory: weights at the planned end are those of beta = 1."""
    config = dqn.Config(num_envs=1, total_steps=1_000, prioritized=True, importance_exponent=0.0, learning_starts=20,
                        buffer_size=20, batch_size=4, hidden_sizes=(4,), gradient_steps=updates)
    seen = []
    learner = Learner(lambda key: (), lambda state, batch, key: (
        state, UpdateResult({"weight": Mean.of(batch.weight)}, jnp.arange(1.0, 5.0))), lambda state: None)
    sizes = dqn.source_settings(config)
    act = Actor(lambda n: None, lambda params, carry, obs, noise, t: (carry, jnp.zeros(len(obs), jnp.int32), {}))
    source = replay.replay(envs.make_device("CartPole-v1"), act, sizes)
    run = compose(learner, source, stride=1, updates=updates, first_step=sizes.first_step)
    state, step = jit(run.init)(jax.random.key(0)), jit(run.step)
    for t in (0, 500, 1_000):
        state, metrics = step(step(state)[0]._replace(t=jnp.int32(t)))
        seen.append(float(metrics["weight"].total / metrics["weight"].count))
    assert seen[0] == 1.0  # beta = 0 weighs all alike
    assert len(set(seen)) == 3


def test_with_noise_nothing_is_random_after_learning_starts():
    config = dqn.Config(noisy=True, learning_starts=50, exploration_initial_eps=0.9)
    np.testing.assert_array_equal(dqn.epsilon(config, jnp.array([0, 49, 50, 10**6])), [1, 1, 0, 0])


def test_noise_explores_and_the_greedy_policy_has_none():
    m = made(double=True, noisy=True)
    agent = dqn.make(m.config, SPEC)
    policy = agent.learner.params(m.state)
    obs = jnp.tile(jnp.array([[1.0, -0.5]]), (6, 1))
    keys = jax.random.split(jax.random.key(0), 500)

    def actions(act, t):
        return np.asarray(jit(jax.vmap(lambda k: act(policy, None, obs, k, t)[1]))(keys))

    best = int(m.out(m.state.params, obs)[0].argmax())
    assert (actions(agent.greedy.act, 10**6) == best).all()
    explored = actions(agent.explore.act, 10**6)
    assert explored.dtype == np.int32
    told = agent.explore.act(policy, None, obs, keys[0], 10**6)[2]
    assert float(told["epsilon"]) == 0
    assert len(np.unique(explored)) > 1
    assert (explored != explored[:, :1]).any(1).mean() > 0.2  # each environment has its own
    table = np.zeros((A, A))
    np.add.at(table, (explored[:, 0], explored[:, 1]), 1)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    assert stats.chi2_contingency(table).pvalue > 1e-4


# --- The support of c51.


@pytest.mark.parametrize(("env_id", "given", "ends"), [
    ("CartPole-v1", {}, (0, 110)), ("ALE/Pong-v5", {}, (-10, 10)), ("Breakout-MinAtar", {"v_max": 7.0}, (0, 7)),
    ("CartPole-v1", {"v_min": -1.0, "v_max": 1.0}, (-1, 1)), ("Strange-v0", {"v_min": 0.0, "v_max": 2.0}, (0, 2))])
def test_the_support_is_what_is_given_and_else_what_is_known(env_id, given, ends):
    assert dqn.support(dqn.Config(distribution="c51", **given), env_id) == ends


@pytest.mark.parametrize("given", [{}, {"v_min": 0.0}, {"v_max": 0.0}])
def test_an_unknown_support_is_asked_for(given):
    config = dqn.Config(distribution="c51", **given)
    message = r"c51 needs v_min and v_max, .* not known for Strange-v0; give them, or use distribution=qr, which needs none"
    with pytest.raises(UserError, match=message):
        dqn.support(config, "Strange-v0")
    with pytest.raises(UserError, match=message):
        dqn.make(config, SPEC._replace(id="Strange-v0"))


@pytest.mark.parametrize("config_of", [lambda c: c, leaves_as_arrays], ids=["as given", "as programs take it"])
@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (5.0, -1.0), (float("nan"), 1.0), (3, 1)])
def test_ends_that_are_not_in_order_are_refused(config_of, low, high):
    config = config_of(dqn.Config(distribution="c51", v_min=low, v_max=high))
    with pytest.raises(UserError, match=r"v_min must be below v_max, got v_min=.* and v_max="):
        dqn.make(config, SPEC)


@pytest.mark.parametrize("distribution", ["none", "qr"])
@pytest.mark.parametrize("given", [{"v_min": 0.0}, {"v_max": 1.0}])
def test_ends_of_atoms_are_refused_where_there_are_none(distribution, given):
    with pytest.raises(UserError, match=rf"v_min and v_max are c51's, and distribution is {distribution}; leave them out"):
        dqn.validate(dqn.Config(distribution=distribution, **given))


@pytest.mark.parametrize(("settings", "message"), [
    ({"atoms": 1}, "atoms must be between 2 and 10000, got 1"),
    ({"priority_exponent": 1.1}, "priority_exponent must be between 0 and 1, got 1.1"),
    ({"importance_exponent": -0.1}, "importance_exponent must be between 0 and 1, got -0.1"),
    ({"noisy_sigma": 0.0}, "noisy_sigma must be above 0, got 0"),
])
def test_settings_of_its_parts_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        dqn.validate(dqn.Config(**settings))


# --- Observations and rewards.


def normalized_by_hand(seen, x):
    seen = np.float64(seen)
    return ((x - seen.mean(0)) / seen.std(0)).clip(-10, 10).astype(np.float32)


def test_what_is_learned_from_is_normalized_by_all_that_was_drawn():
    m, plain = made(normalize_obs=True), made()
    assert plain.state.moments is None
    batches = [b._replace(obs=3 * b.obs + 40, next_obs=3 * b.next_obs + 40) for b in map(batch_of, (0, 1))]
    state, seen, expected = m.state, [], plain.state
    for batch in batches:
        seen.append(batch.obs)
        state, _ = m.update(state, batch, jax.random.key(0))
        by_hand = [normalized_by_hand(np.concatenate(seen), x) for x in (batch.obs, batch.next_obs)]
        expected, _ = plain.update(expected, batch._replace(obs=by_hand[0], next_obs=by_hand[1]), jax.random.key(0))
        assert_close(state.params, expected.params, rtol=1e-3, atol=1e-4)
    every = np.float64(np.concatenate(seen))
    np.testing.assert_allclose(state.moments.mean, every.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state.moments.deviations / (2 * B), every.var(0), rtol=1e-4)
    policy = m.learner.params(state)
    agents = [dqn.make(x.config, SPEC) for x in (m, plain)]
    x = 40 + 9 * np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    acted = agents[0].greedy.act(policy, None, x, None, 0)[1]
    wanted = agents[1].greedy.act(policy._replace(moments=None), None, normalized_by_hand(every, x), None, 0)[1]
    np.testing.assert_array_equal(acted, wanted)
    assert len(np.unique(acted)) > 1
    explored = agents[0].explore.act(policy, None, x, jax.random.key(0), 10**9)[1]  # all but a twentieth
    assert (np.asarray(explored) == wanted).mean() > 0.85


def test_bytes_are_not_normalized():
    box = gymnasium.spaces.Box(0, 255, (3,), np.uint8)
    spec = EnvSpec("Bytes-v0", box, gymnasium.spaces.Discrete(2), None)
    with pytest.raises(UserError, match="normalize_obs is for observations of floating-point numbers, and Bytes-v0 has Box"):
        dqn.make(dqn.Config(normalize_obs=True), spec)


class FivePerStep(TwoSteps):
    """Two steps: the first pays 5, the second -3."""

    def reward(self, state, action, next_state, rng, params=None):
        return jnp.where(state == 0, 5.0, -3.0)


def test_rewards_are_stored_clipped_and_returns_reported_as_they_are():
    spec = spec_of(2, 1)
    env = adapt(FivePerStep(), spec)
    config = dqn.Config(num_envs=2, buffer_size=40, batch_size=8, learning_starts=8, hidden_sizes=(4,), clip_reward=True,
                        normalize_obs=True, total_steps=1000, train_freq=2)
    run = dqn.make_run(config, env=env)

    @jit
    def steps(key):
        return jax.lax.scan(lambda s, _: run.step(s, None), run.init(key, None), length=3)

    state, metrics = steps(jax.random.key(0))
    rows = Layout.of(storage.experience_of(spec)).unpack(state.source.memory.rows)
    size = int(state.source.memory.size[0])
    assert size == 8 // 2 + 3 * 2
    for e in range(2):
        of_env = jax.tree.map(lambda x: np.asarray(x)[20 * e : 20 * e + size], rows)  # noqa: B023
        np.testing.assert_array_equal(of_env.reward, np.tile([1, -1], size // 2))
        np.testing.assert_array_equal(of_env.obs[:, 0], np.tile([0, 1], size // 2))
    assert float(metrics["episode_return"].count.sum()) == 2 * 3
    assert float(metrics["episode_return"].total.sum()) == 2 * 3 * (5 - 3)
    assert float(state.learner.moments.count) == 3 * 8
    mean, deviations = (float(x[0]) for x in state.learner.moments[1:])  # of zeros and ones
    assert deviations == pytest.approx(24 * mean * (1 - mean), rel=1e-4)


# --- Probe environments.


class RandomReward(OneStep):
    """It pays 1 in three cases out of four, else -1."""

    def reward(self, state, action, next_state, rng, params=None):
        return jnp.where(jax.random.bernoulli(rng, 0.75), 1.0, -1.0)


GAMMA = 0.5
PROBE = dqn.Config(num_envs=4, buffer_size=2000, batch_size=32, learning_starts=400, total_steps=2000, gamma=GAMMA, tau=0.2,
                   hidden_sizes=(16,), exploration_final_eps=0.5, optim=OptimConfig(learning_rate=1e-2, schedule="linear"))
ATOMS = {"distribution": "c51", "v_min": -1.0, "v_max": 1.0, "atoms": 5}  # -1, -1/2, 0, 1/2, 1
RAINBOW = ATOMS | {"double": True, "dueling": True, "n_steps": 2, "prioritized": True, "noisy": True}


def learned(env, settings):
    """What the network says, without noise, of observations after 400 steps; all that was ever done is remembered."""
    config = dataclasses.replace(PROBE, **settings)
    dqn.validate(config)
    made = adapt(env(), spec_of(2, 1))
    driver = make_device_driver(lambda c: dqn.make_run(c, env=made), [config], None, [0])
    state, report = driver.chunk(driver.start(), 400)
    assert report.bad_step == -1
    network = dqn.QNetwork(2, config.hidden_sizes, config.activation, config.dueling,
                           None if config.distribution == "none" else config.atoms,
                           config.noisy_sigma if config.noisy else None)
    return lambda obs: np.asarray(network.apply(driver.params(state).network, np.float32(obs)[:, None]))


@pytest.mark.parametrize("settings", [pytest.param({"prioritized": True, "gradient_steps": 2}, marks=pytest.mark.slow),
                                      QR | {"dueling": True, "prioritized": True}], ids=["prioritized", "qr"])
def test_values_are_learned_backwards(settings):
    out = learned(TwoSteps, settings)([0.0, 1.0])
    expected = np.array([GAMMA, 1.0]).reshape(2, *[1] * (out.ndim - 1))
    np.testing.assert_allclose(out, np.broadcast_to(expected, out.shape), atol=0.04)  # qr: every quantile


def test_values_of_actions_are_learned_by_noise():
    out = learned(ActionReward, {"noisy": True})([-1.0, 1.0])
    np.testing.assert_allclose(out, [[1, -1], [-1, 1]], atol=0.1)


@pytest.mark.parametrize(("env", "settings", "expected"), [
    (RandomReward, ATOMS, {-1.0: [0.25, 0, 0, 0, 0.75], 1.0: [0.25, 0, 0, 0, 0.75]}),
    (TwoSteps, RAINBOW, {0.0: [0, 0, 0, 1, 0], 1.0: [0, 0, 0, 0, 1]}),
], ids=["c51", "rainbow"])
def test_distributions_are_learned(env, settings, expected):
    probs = special.softmax(learned(env, settings)(list(expected)), axis=-1)
    wanted = np.array(list(expected.values()))[:, None]
    np.testing.assert_allclose(probs, np.broadcast_to(wanted, probs.shape), atol=0.1)
