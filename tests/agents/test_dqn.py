"""DQN: its errors and gradients by hand and against rlax, its schedules, and probe environments whose values are known."""

import dataclasses
import functools
import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from scipy import stats
from tools import assert_close, differ, same_bits
from toys import ActionReward, OneStep, TwoSteps, spec_of

from jaxdl.agents import dqn
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.config import leaves_as_arrays
from jaxdl.core.errors import EnvError, UserError
from jaxdl.core.run import advance
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl.envs.functional import adapt
from jaxdl.rl.types import EnvSpec, Transition
from jaxdl.runtime.device_driver import make_device_driver

P_VALUE = 1e-4  # seeds are fixed: the statistical tests hold or not, once and for all
jit = functools.partial(jax.jit, compiler_options=TRAIN_OPTIONS)  # compiles in less time
SGD = OptimConfig(optimizer="sgd", learning_rate=0.1, schedule="constant")


# --- The error.


Q = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [0.0, -1.0, 2.0]])
ACTION = jnp.array([2, 0, 1])
REWARD = jnp.array([1.0, -1.0, 0.5])
DISCOUNT = jnp.array([0.5, 0.0, 1.0])
Q_NEXT = jnp.array([[10.0, 0.0, 2.0], [7.0, 7.0, 9.0], [-3.0, -4.0, -5.0]])
Q_SELECT = jnp.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("variant", [jax.jit, lambda f: f], ids=["jit", "plain"])
def test_errors_by_hand(variant):
    td_error = variant(dqn.td_error)
    plain = td_error(Q, ACTION, REWARD, DISCOUNT, Q_NEXT, Q_NEXT)
    np.testing.assert_allclose(plain, [3 - (1 + 0.5 * 10), 4 - (-1), -1 - (0.5 - 3)])
    double = td_error(Q, ACTION, REWARD, DISCOUNT, Q_NEXT, Q_SELECT)
    np.testing.assert_allclose(double, [3 - (1 + 0.5 * 2), 4 - (-1), -1 - (0.5 - 4)])


def test_errors_are_minus_those_of_rlax():
    k = jax.random.split(jax.random.key(0), 6)
    q, q_next, q_select = jax.random.normal(k[0], (3, 64, 5))
    action = jax.random.randint(k[1], (64,), 0, 5)
    reward, discount = jax.random.normal(k[2], (64,)), jax.random.uniform(k[3], (64,))
    plain = jax.vmap(rlax.q_learning)(q, action, reward, discount, q_next)
    double = jax.vmap(rlax.double_q_learning)(q, action, reward, discount, q_next, q_select)
    np.testing.assert_allclose(dqn.td_error(q, action, reward, discount, q_next, q_next), -plain, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dqn.td_error(q, action, reward, discount, q_next, q_select), -double, rtol=1e-5, atol=1e-6)
    assert np.abs(plain - double).max() > 0.1


def test_only_the_chosen_value_has_a_gradient():
    def total(q, reward, discount, q_next, q_select):
        return dqn.td_error(q, ACTION, reward, discount, q_next, q_select).sum()

    of_q, *of_target = jax.grad(total, argnums=(0, 1, 2, 3, 4))(Q, REWARD, DISCOUNT, Q_NEXT, Q_SELECT)
    np.testing.assert_array_equal(of_q, np.eye(3)[ACTION])
    assert not any(g.any() for g in of_target)


# --- One update.


SPEC = spec_of(3, 2)
BATCH_SIZE = 12


def forward(params, obs, dueling):
    p = params["params"]
    hidden, head = p["MLP_0"]["Dense_0"], p["QHead_0"]
    x = jnp.maximum(obs @ hidden["kernel"] + hidden["bias"], 0)
    advantage = x @ head["Dense_0"]["kernel"] + head["Dense_0"]["bias"]
    if not dueling:
        return advantage
    value = x @ head["Dense_1"]["kernel"] + head["Dense_1"]["bias"]
    return value + (advantage - advantage.mean(1, keepdims=True))


def batch_of(seed=0):
    k = jax.random.split(jax.random.key(seed), 5)
    obs, next_obs = 2 * jax.random.normal(k[0], (2, BATCH_SIZE, 2))
    discount = jnp.where(jnp.arange(BATCH_SIZE) % 4 == 0, 0, 0.9)
    return Transition(obs, jax.random.randint(k[1], (BATCH_SIZE,), 0, 3), 2 * jax.random.normal(k[2], (BATCH_SIZE,)),
                      discount, next_obs)


@functools.cache
def learner_of(**settings):
    """A compiled learner and a state of its own whose target is not its parameters."""
    config = dqn.Config(hidden_sizes=(5,), **{"optim": SGD, "tau": 0.25} | settings)
    learner = dqn.make(config, SPEC).learner
    init = jit(learner.init)
    state = init(jax.random.key(1))
    return config, jit(learner.update), state._replace(target=init(jax.random.key(2)).params)


def deltas_by_hand(params, target, batch, config):
    """The errors, where the targets are numbers and no function of the parameters."""
    q_next = np.asarray(forward(target, batch.next_obs, config.dueling))
    select = np.asarray(forward(params, batch.next_obs, config.dueling)) if config.double else q_next
    values = np.array([row[s.argmax()] for row, s in zip(q_next, select, strict=True)])
    wanted = np.asarray(batch.reward) + np.asarray(batch.discount) * values
    return lambda p: forward(p, batch.obs, config.dueling)[np.arange(BATCH_SIZE), np.asarray(batch.action)] - wanted


@pytest.mark.parametrize(("loss", "double", "dueling"), [
    ("squared", False, False), ("huber", True, False), ("huber", False, True), ("squared", True, True)])
def test_an_update_descends_the_gradient_of_the_loss_written_by_hand(loss, double, dueling):
    config, update, state = learner_of(loss=loss, double=double, dueling=dueling)
    batch = batch_of()
    errors = deltas_by_hand(state.params, state.target, batch, config)

    def by_hand(params):
        delta = errors(params)
        huber = jnp.where(jnp.abs(delta) <= 1, delta**2 / 2, jnp.abs(delta) - 0.5)
        return (huber if loss == "huber" else delta**2 / 2).mean()

    size = np.abs(errors(state.params))
    assert size.min() < 1 < size.max()
    value, grads = jax.value_and_grad(by_hand)(state.params)
    new, aux = update(state, batch, jax.random.key(0))
    assert_close(new.params, jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads))
    assert differ(new.params, state.params)
    loss_metric, q_metric = aux.metrics["loss"], aux.metrics["q_mean"]
    assert (float(loss_metric.count), float(q_metric.count)) == (BATCH_SIZE, 3 * BATCH_SIZE)
    np.testing.assert_allclose(loss_metric.total / loss_metric.count, value, rtol=1e-5)
    q = forward(state.params, batch.obs, dueling)
    np.testing.assert_allclose(q_metric.total / q_metric.count, q.mean(), rtol=1e-5, atol=1e-6)
    assert_close(new.target, jax.tree.map(lambda p, t: 0.25 * p + 0.75 * t, new.params, state.target))


def test_the_double_target_is_another_one():
    config, _, state = learner_of(loss="squared", double=True, dueling=True)
    q, q_target = (forward(p, batch_of().next_obs, config.dueling) for p in (state.params, state.target))
    assert (q.argmax(1) != q_target.argmax(1)).any()


def test_where_the_discount_is_zero_the_next_observation_does_not_matter():
    _, update, state = learner_of(loss="squared", double=False, dueling=False)
    for discount, matters in ((0.0, False), (0.9, True)):
        batch = batch_of()._replace(discount=jnp.full(BATCH_SIZE, discount))
        here, there = (update(state, batch._replace(next_obs=x), jax.random.key(0))[0]
                       for x in (batch.next_obs, batch.next_obs + 3))
        assert differ(here.params, there.params) == matters


def test_dueling_streams_are_told_apart_by_the_mean_advantage():
    _, update, state = learner_of(loss="huber", double=False, dueling=True)
    batch = batch_of()._replace(discount=jnp.zeros(BATCH_SIZE))

    def losses(change):
        head = dict(state.params["params"]["QHead_0"])
        name, by = change
        head[name] = head[name] | {"bias": head[name]["bias"] + by}
        params = {"params": state.params["params"] | {"QHead_0": head}}
        metrics = update(state._replace(params=params), batch, jax.random.key(0))[1].metrics
        return {name: float(m.total / m.count) for name, m in metrics.items()}

    plain = losses(("Dense_0", 0.0))
    assert losses(("Dense_0", 7.0)) == pytest.approx(plain, abs=1e-5)  # the same to every advantage
    assert losses(("Dense_1", 7.0))["q_mean"] == pytest.approx(plain["q_mean"] + 7, abs=1e-4)  # mean_a Q = V


def test_microbatches_make_the_same_update():
    _, whole, state = learner_of(loss="squared", double=True, dueling=True)
    _, parts, _ = learner_of(loss="squared", double=True, dueling=True,
                             optim=dataclasses.replace(SGD, grad_accumulation=4))
    (expected, told), (new, said) = (u(state, batch_of(), jax.random.key(0)) for u in (whole, parts))
    assert_close(new, expected)
    assert_close(said, told)


# --- The target network.


@pytest.mark.parametrize(("num_envs", "train_freq", "gradient_steps", "interval"), [
    (4, 1, 1, 10), (2, 3, 5, 11), (8, 1, 2, 3)])
def test_the_target_is_copied_when_the_environment_steps_cross_the_interval(num_envs, train_freq, gradient_steps, interval):
    config = dqn.Config(hidden_sizes=(2,), optim=SGD, num_envs=num_envs, train_freq=train_freq, tau=1.0,
                        gradient_steps=gradient_steps, target_update_interval=interval)
    learner, batch = dqn.make(config, SPEC).learner, batch_of()

    def vector(tree):
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)])

    def body(state, key):
        state = learner.update(state, batch, key)[0]
        return state, (vector(state.params), vector(state.target))

    @jit
    def run(key):
        first = learner.init(key)
        return vector(first.target), *jax.lax.scan(body, first, jax.random.split(key, 12 * gradient_steps))[1]

    before, params, target = jax.device_get(run(jax.random.key(0)))
    stride, copies = num_envs * train_freq, []
    for p, t in zip(params, target, strict=True):
        copies.append(np.array_equal(t, p))
        assert copies[-1] or np.array_equal(t, before)
        before = t
    steps = [stride * (k + 1) / gradient_steps for k in range(len(params))]  # that stand behind each update
    crossings = np.diff([0, *(math.floor(s / interval + 1e-9) for s in steps)])
    assert copies == [c > 0 for c in crossings]
    if interval >= stride:
        assert np.sum(copies) == stride * 12 // interval  # nothing is lost at the seams between rounds


# --- Acting.


EXPLORING = dqn.Config(hidden_sizes=(4,), exploration_initial_eps=0.9, exploration_final_eps=0.1, learning_starts=50,
                       total_steps=1000, exploration_fraction=0.2)


def test_epsilon_falls_linearly_after_learning_starts():
    t = jnp.array([0, 49, 50, 100, 150, 200, 201, 10**6])
    np.testing.assert_allclose(jax.jit(dqn.epsilon)(EXPLORING, t), [1, 1, 0.7, 0.5, 0.3, 0.1, 0.1, 0.1], rtol=1e-5)
    none = dqn.Config(exploration_fraction=0.0, learning_starts=10)
    np.testing.assert_allclose(dqn.epsilon(none, jnp.array([9, 10])), [1, none.exploration_final_eps], rtol=1e-5)


@pytest.fixture(scope="module")
def acting():
    """A policy of 4 actions on 6 environments; its observations; what it does under 4000 keys at time t."""
    config = dqn.Config(hidden_sizes=(4,), exploration_initial_eps=0.4, exploration_final_eps=0.4, learning_starts=50)
    agent = dqn.make(config, spec_of(4, 2))
    params = agent.learner.params(jax.jit(agent.learner.init)(jax.random.key(0)))
    obs = 2 * jax.random.normal(jax.random.key(1), (6, 2))

    @jax.jit
    def explore(t):
        _, action, extras = jax.vmap(lambda k: agent.explore.act(params, None, obs, k, t))(
            jax.random.split(jax.random.key(2), 4000))
        return action, extras["epsilon"]

    return agent, params, obs, explore


def test_the_greedy_policy_takes_the_largest_value(acting):
    agent, params, _, _ = acting
    obs = 3 * jax.random.normal(jax.random.key(3), (500, 2))
    carry, action, extras = agent.greedy.act(params, None, obs, jax.random.key(0), 0)
    q = np.asarray(forward(params.network, obs, False))
    np.testing.assert_array_equal(action, q.argmax(1))
    assert len(np.unique(action)) > 1
    assert action.dtype == jnp.int32
    assert carry is None
    assert extras == {}


def test_an_observation_that_is_one_of_several_is_one_hot():
    spec = EnvSpec("rooms", gymnasium.spaces.Discrete(50), gymnasium.spaces.Discrete(4), None)
    agent = dqn.make(dqn.Config(hidden_sizes=(6,)), spec)
    params = agent.learner.params(jax.jit(agent.learner.init)(jax.random.key(0)))
    _, action, _ = agent.greedy.act(params, None, np.arange(50), jax.random.key(0), 0)
    np.testing.assert_array_equal(action, forward(params.network, jnp.eye(50), False).argmax(1))
    assert len(np.unique(action)) > 1


@pytest.mark.parametrize("settings", [{}, {"distribution": "qr", "noisy": True}])
def test_actions_that_count_from_another_number_are_learned_and_taken_as_those_from_0(settings):
    def trained(start):
        spec = SPEC._replace(action_space=gymnasium.spaces.Discrete(3, start=start))
        agent = dqn.make(dqn.Config(hidden_sizes=(5,), optim=SGD, atoms=4, **settings), spec)
        batch = batch_of()
        batch = batch._replace(action=batch.action + start)
        state, _ = jit(agent.learner.update)(jit(agent.learner.init)(jax.random.key(1)), batch, jax.random.key(2))
        params = agent.learner.params(state)
        taken = [agent.greedy.act(params, None, batch.obs, jax.random.key(0), 0)[1]]
        taken += [agent.explore.act(params, None, batch.obs, jax.random.key(i), 0)[1] for i in range(5)]
        return params, np.array(taken)

    (params, actions), (others, moved) = trained(0), trained(-7)
    same_bits(params, others)
    np.testing.assert_array_equal(moved, actions - 7)
    assert set(actions.ravel()) == {0, 1, 2}


def test_exploring_takes_each_action_as_often_as_epsilon_says(acting):
    _, params, obs, explore = acting
    best = np.asarray(forward(params.network, obs, False)).argmax(1)
    action, eps = explore(50)
    np.testing.assert_allclose(eps, 0.4)
    for e in range(6):
        expected = np.full(4, 0.4 / 4) + 0.6 * (np.arange(4) == best[e])
        assert stats.chisquare(np.bincount(action[:, e], minlength=4), 4000 * expected).pvalue > P_VALUE


def test_before_learning_starts_every_action_is_as_likely(acting):
    action, eps = acting[3](49)
    np.testing.assert_array_equal(eps, 1)
    for e in range(6):
        assert stats.chisquare(np.bincount(action[:, e], minlength=4)).pvalue > P_VALUE


@pytest.mark.parametrize("t", [49, 50])
def test_each_environment_tosses_coins_of_its_own(acting, t):
    action = np.asarray(acting[3](t)[0])
    for e in range(6):
        for other in range(e):
            table = np.zeros((4, 4))
            np.add.at(table, (action[:, e], action[:, other]), 1)
            assert stats.chi2_contingency(table).pvalue > P_VALUE


# --- Plans, and what is refused.


@pytest.mark.parametrize(("num_envs", "train_freq", "gradient_steps", "first", "planned"), [
    (8, 1, 1, 1000, 31_125), (8, 1, 4, 1000, 4 * 31_125), (8, 3, 2, 1008, 2 * 10_374), (7, 1, 1, 1001, 35_571)])
def test_the_plan_by_hand(num_envs, train_freq, gradient_steps, first, planned):
    config = dqn.Config(num_envs=num_envs, train_freq=train_freq, gradient_steps=gradient_steps)
    sizes = dqn.source_settings(config)
    assert (sizes.first_step, sizes.planned_updates(config.total_steps)) == (first, planned)


def test_the_learning_rate_falls_over_the_planned_updates():
    config = dqn.Config(hidden_sizes=(2,), num_envs=2, total_steps=16, learning_starts=8, gradient_steps=2,
                        optim=OptimConfig(optimizer="sgd", learning_rate=0.1, schedule="linear", final_fraction=0.0))
    assert dqn.source_settings(config).planned_updates(config.total_steps) == 8
    learner = dqn.make(config, SPEC).learner
    def body(state, key):
        new = learner.update(state, batch_of(), key)[0]
        return new, differ_by(new.params, state.params)

    def differ_by(a, b):
        return sum(jnp.abs(x - y).sum() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    run = jit(lambda key: jax.lax.scan(body, learner.init(key), jax.random.split(key, 10))[1])
    moved = np.asarray(run(jax.random.key(0)))
    assert (moved[:8] > 0).all()
    assert (moved[8:] == 0).all()


@pytest.mark.parametrize(("settings", "message"), [
    *[({field: 0}, f"{field} must be above 0, got 0") for field in
      ("num_envs", "total_steps", "buffer_size", "learning_starts", "batch_size", "train_freq", "gradient_steps",
       "target_update_interval", "n_steps", "tau")],
    *[({field: value}, f"{field} must be between 0 and 1, got {value}") for field in
      ("gamma", "exploration_initial_eps", "exploration_final_eps", "exploration_fraction")
      for value in (-0.1, 1.1, math.nan)],
    ({"tau": 1.5}, "tau must be between 0 and 1, got 1.5"),
    ({"hidden_sizes": (4, 0)}, r"hidden_sizes must be widths above 0, got \(4, 0\)"),
    ({"activation": "rellu"}, "no activation 'rellu'; did you mean 'relu'"),
    ({"optim": OptimConfig(learning_rate=-1.0)}, "learning_rate must be above 0, got -1.0"),
    ({"optim": OptimConfig(grad_accumulation=3)}, "grad_accumulation=3 must divide the batch of 128"),
    ({"buffer_size": 120}, "buffer_size=120 is smaller than batch_size=128"),
    ({"train_freq": 100, "buffer_size": 792}, "num_envs . train_freq = 800 .*buffer_size=792"),
    ({"learning_starts": 250_000}, "learning_starts=250000 leaves nothing to learn in total_steps=250000"),
    ({"n_steps": 21, "buffer_size": 160}, r"n_steps=21 is longer .*\(20 steps\)"),
])
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        dqn.validate(dqn.Config(**settings))


SPACES = gymnasium.spaces


@pytest.mark.parametrize(("observations", "actions", "message"), [
    (SPACES.Box(-1, 1, (2,)), SPACES.Box(-1, 1, (1,)), "dqn needs actions of Discrete, and Strange-v0 has Box"),
    (SPACES.Box(-1, 1, (2,)), SPACES.MultiDiscrete([2, 2]), "dqn needs actions of Discrete, and Strange-v0 has MultiDiscrete"),
    (SPACES.Box(-1, 1, (2,)), SPACES.Discrete(2, start=2**40), "Strange-v0 has actions beyond int32, Discrete"),
    (SPACES.Dict({"x": SPACES.Box(-1, 1, (2,))}), SPACES.Discrete(2),
     "dqn needs observations of Box or Discrete or MultiDiscrete or MultiBinary, and Strange-v0 has Dict"),
    (SPACES.Box(-1, 1, (0,)), SPACES.Discrete(2), "observations that are not empty, and Strange-v0 has Box"),
])
def test_spaces_that_it_cannot_serve_are_refused_by_name(observations, actions, message):
    with pytest.raises(EnvError, match=message):
        dqn.make(dqn.Config(), EnvSpec("Strange-v0", observations, actions, None))


# --- Probe environments: each localizes what is wrong.


class ObservedReward(OneStep):
    """It pays what is observed: the value depends on the observation."""

    def reward(self, state, action, next_state, rng, params=None):
        return state


class Endless(OneStep):
    """It pays 1 for ever; only the recording ends."""

    def reward(self, state, action, next_state, rng, params=None):
        return 1.0

    def terminal(self, state, rng, params=None):
        return False


GAMMA = 0.8
PROBE = dqn.Config(num_envs=4, buffer_size=400, batch_size=32, learning_starts=40, total_steps=1600, gamma=GAMMA, tau=0.2,
                   hidden_sizes=(16,), exploration_final_eps=0.5, optim=OptimConfig(learning_rate=1e-2))


def probe(monkeypatch, env, limit=None):
    monkeypatch.setattr(dqn.envs, "make_device", lambda *_: adapt(env(), spec_of(2, 1, limit)))


@pytest.mark.parametrize(("env", "settings", "limit", "values"), [
    (OneStep, {}, None, {-1.0: 1, 1.0: 1}),
    (ObservedReward, {"loss": "huber"}, None, {-1.0: -1, 1.0: 1}),
    (ActionReward, {"dueling": True}, None, {x: (-x, x) for x in (-1.0, 1.0)}),
    (TwoSteps, {}, None, {0.0: GAMMA, 1.0: 1}),
    (TwoSteps, {"n_steps": 3, "double": True}, None, {0.0: GAMMA, 1.0: 1}),
    (Endless, {"tau": 1.0, "target_update_interval": 30, "gradient_steps": 2}, 5, {-1.0: 5, 1.0: 5}),  # 1 / (1 - gamma)
    (Endless, {"n_steps": 3, "train_freq": 3, "gradient_steps": 3}, 5, {-1.0: 5, 1.0: 5}),
])
def test_the_values_of_a_probe_environment_are_learned(monkeypatch, env, settings, limit, values):
    probe(monkeypatch, env, limit)
    config = dataclasses.replace(PROBE, **settings)
    dqn.validate(config)
    driver = make_device_driver(dqn.make_run, [config], None, [0])
    state, report = driver.chunk(driver.start(), 400)
    assert report.bad_step == -1
    assert int(state.t) == driver.first_step + 400 * driver.stride
    q = forward(driver.params(state).network, jnp.array(list(values))[:, None], config.dueling)
    expected = np.array([np.broadcast_to(v, 2) for v in values.values()])
    np.testing.assert_allclose(q, expected, atol=0.04 * max(values.values(), key=abs) if limit else 0.04)


def test_members_of_a_population_over_learning_rates_and_discounts_are_single_runs(monkeypatch):
    probe(monkeypatch, TwoSteps)
    small = dqn.Config(num_envs=2, buffer_size=40, batch_size=8, learning_starts=20, total_steps=200, hidden_sizes=(4,),
                       n_steps=2)
    configs = [dataclasses.replace(small, gamma=gamma, optim=OptimConfig(learning_rate=rate))
               for gamma, rate in ((0.9, 1e-3), (0.5, 1e-3), (0.9, 1e-1))]
    traces = []

    def train(config):
        traces.append(1)
        run = dqn.make_run(config)
        return advance(run, run.init(jax.random.key(0)), None, 20)[0].learner.params

    members = [leaves_as_arrays(c) for c in configs]
    single = jit(train)
    alone = [single(c) for c in members]
    assert len(traces) == 1
    together = jit(jax.vmap(train))(jax.tree.map(lambda *x: jnp.stack(x), *members))
    for k in range(3):
        assert_close(jax.tree.map(lambda x: x[k], together), alone[k], rtol=1e-4, atol=1e-5)  # noqa: B023
    assert differ(alone[0], alone[1])
    assert differ(alone[0], alone[2])
