"""PPO and actor-critic: their losses and gradients by hand, each the other where they must be, and what an epoch is."""

import dataclasses
import functools
import itertools
import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax
from jax.experimental import io_callback
from tools import assert_close, jit

from jaxdl import optim
from jaxdl.agents import actor_critic, ppo, reinforce
from jaxdl.core.errors import UserError
from jaxdl.ops.running_stats import Moments
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import on_policy, policy, returns
from jaxdl.rl.on_policy import Minibatch
from jaxdl.rl.policy import Config as PolicyConfig
from jaxdl.rl.types import EnvSpec, Trajectory

T, B, A = 6, 4, 3
SPEC = EnvSpec("small", gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32), gymnasium.spaces.Discrete(A), None)
SGD, ADAM = (OptimConfig(optimizer=name, learning_rate=0.1, eps=1e-3, schedule="constant", max_grad_norm=None)
             for name in ("sgd", "adam"))
SMALL = PolicyConfig(hidden_sizes=(5,), recurrent_size=4)
COMMON = {"num_envs": B, "rollout_steps": T, "total_steps": 10_000, "policy": SMALL, "optim": SGD, "gamma": 0.9,
          "gae_lambda": 0.8}
assert_close = functools.partial(assert_close, rtol=1e-6, atol=1e-7)


def differ(a, b):
    return any(not np.allclose(x, y, rtol=1e-4, atol=1e-5)
               for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def ppo_config(**settings):
    """One epoch of one minibatch, nothing normalized."""
    return ppo.Config(**COMMON | {"num_epochs": 1, "num_minibatches": 1, "normalize_advantage": False} | settings)


def critic_config(**settings):
    return actor_critic.Config(**COMMON | settings)


def recurrent(kind):
    return {"policy": dataclasses.replace(SMALL, recurrent=kind)}


@functools.cache
def updating(algorithm):
    """(config, state, trajectory, key) -> (state, metrics); a config of the same form is the same program."""
    def update(config, state, batch, key):
        state, aux = algorithm.make(config, SPEC).learner.update(state, batch, key)
        return state, aux.metrics

    return jit(update)


ALGORITHMS = {module.Config: module for module in (ppo, actor_critic, reinforce)}


def update(config, state, batch, seed=0):
    return updating(ALGORITHMS[type(config)])(config, state, batch, jax.random.key(seed))


@functools.cache
def params_of(kind):
    """Parameters of a policy that has preferences: none of them is small."""
    config, rng = dataclasses.replace(SMALL, recurrent=kind), np.random.default_rng(9)
    params = jax.device_get(jit(policy.make(config, SPEC, "tester").init)(jax.random.key(0)))
    return jax.tree.map(lambda x: np.float32(x + 0.4 * rng.normal(size=x.shape)), params)


def state_of(algorithm, config):
    """A state of the learner with those parameters; all else begins at zero."""
    shapes = jax.eval_shape(algorithm.make(config, SPEC).learner.init, jax.random.key(0))
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)._replace(params=params_of(config.policy.recurrent))


def flags():
    """terminated, truncated, first, valid [T, B]: ends of all kinds, with rows that only reset and without."""
    terminated, truncated, first = np.zeros((3, T, B), bool)
    valid = np.ones((T, B), bool)
    terminated[[2, 4, 0], [0, 2, 3]] = True
    truncated[[1, 4], [1, 2]] = True
    valid[[3, 2, 5], [0, 1, 2]] = False
    first[[4, 3, 1, 0], [0, 1, 3, 1]] = True
    return terminated, truncated, first, valid


@functools.cache
def batch_of(kind="none", drift=0.0):
    """A rollout of the policy of `state_of`, or of one that is `drift` away from it."""
    rng = np.random.default_rng(1)
    obs, last_obs = np.float32(rng.normal(size=(2, T, B, 2)))
    terminated, truncated, first, valid = flags()
    goes_on = ~(terminated | truncated) & (np.arange(T) < T - 1)[:, None]
    next_obs = np.where(goes_on[..., None], np.roll(obs, -1, 0), last_obs)
    model = policy.make(dataclasses.replace(SMALL, recurrent=kind), SPEC, "tester")
    carry = jax.tree.map(lambda h: np.float32(0.5 * rng.normal(size=h.shape)), model.explore.init(B))
    dist = np.asarray(jit(model.unroll)(params_of(kind), carry, obs, first).dist + drift * rng.normal(size=(T, B, A)))
    choice = policy.ActionInfo(np.int32(rng.integers(A, size=(T, B))), np.float32(dist))
    reward = np.float32(np.where(valid, rng.normal(size=(T, B)), 0))
    return Trajectory(obs, choice, reward, next_obs, terminated, truncated, first, valid, carry)


# --- The formulas.


RATIO = np.float32([0.5, 0.5, 0.9, 1.0, 1.1, 1.5, 1.5])
ADVANTAGE = np.float32([2.0, -2.0, 3.0, -1.0, 1.0, 2.0, -2.0])


def test_the_surrogate_by_hand():
    """A gain ends at 1 + eps, and at 1 - eps where the advantage is negative; losses are never cut."""
    np.testing.assert_allclose(ppo.surrogate(RATIO, ADVANTAGE, 0.2), [1.0, -1.6, 2.7, -1.0, 1.1, 2.4, -3.0], rtol=1e-6)
    slope = jax.vmap(jax.grad(ppo.surrogate), (0, 0, None))(RATIO, ADVANTAGE, 0.2)
    np.testing.assert_allclose(slope, [2, 0, 3, -1, 1, 0, -2], rtol=1e-6)


def test_the_surrogate_is_that_of_rlax():
    ratio, advantage = np.float32(np.random.default_rng(0).normal(size=(2, 100)))
    ratio = np.exp(0.5 * ratio)
    theirs = rlax.clipped_surrogate_pg_loss(ratio, advantage, 0.3)
    np.testing.assert_allclose(-ppo.surrogate(ratio, advantage, 0.3).mean(), theirs, rtol=1e-5)


def test_the_values_loss_by_hand():
    value, old, target = jnp.array([[1.0, 3.0, 3.0, -2.0], [0.5, 2.0, 2.0, -1.0], [2.0, 4.0, 2.0, 5.0]])
    np.testing.assert_allclose(ppo.value_loss(value, old, target, None), [0.5, 0.5, 0.5, 24.5])
    # the values may move to 0.5 +- 0.4, 2 +- 0.4 and -1 +- 0.4
    np.testing.assert_allclose(ppo.value_loss(value, old, target, 0.4), [1.1**2 / 2, 1.6**2 / 2, 0.5, 24.5], rtol=1e-6)
    slope = jax.vmap(jax.grad(ppo.value_loss), (0, 0, 0, None))(value, old, target, 0.4)
    np.testing.assert_allclose(slope, [0, 0, 1, -7], rtol=1e-6)


# --- Actor-critic by hand, of a table.


TABLE = EnvSpec("rooms", gymnasium.spaces.Discrete(3), gymnasium.spaces.Discrete(2), None)


def estimated(reward, terminated, truncated, value, next_value, gamma, lam=None, n=None):
    """Targets of one environment by their definitions: the average of n-step returns, weighted, or one of them."""
    def after(t, steps):
        total, discount = 0.0, 1.0
        for k in range(t, min(t + steps, len(reward))):
            total, discount, last = total + discount * reward[k], discount * gamma, k
            if terminated[k]:
                return total
            if truncated[k]:
                break
        return total + discount * next_value[last]

    def limit(t):
        ends = [k for k in range(t, len(reward)) if terminated[k] or truncated[k] or k == len(reward) - 1]
        return ends[0] - t + 1

    if n is not None:
        return [after(t, n) for t in range(len(reward))]
    return [sum((1 - lam) * lam ** (k - 1) * after(t, k) for k in range(1, limit(t))) + lam ** (limit(t) - 1) * after(t, T)
            for t in range(len(reward))]


def table_loss_by_hand(p, values, rollout, target, ent_coef, vf_coef):
    """Metrics, and the gradients by the logits [states, actions] and by the values [states]."""
    valid = rollout.valid
    obs, action, target = rollout.obs[valid], rollout.choice.action[valid], target[valid]
    error, entropy = target - values[obs], -(p * np.log(p)).sum(1)
    of_logits, of_values = np.zeros((3, 2)), np.zeros(3)
    for s, a, e in zip(obs, action, error, strict=True):
        of_logits[s] += (-e * (np.eye(2)[a] - p[s]) + ent_coef * p[s] * (np.log(p[s]) + entropy[s])) / len(obs)
        of_values[s] -= vf_coef * e / len(obs)
    metrics = {"entropy": entropy[obs].mean(), "value_loss": (error**2 / 2).mean(),
               "policy_loss": (-np.log(p)[obs, action] * error).mean(), "explained_variance": 1 - error.var() / target.var()}
    loss = metrics["policy_loss"] + vf_coef * metrics["value_loss"] - ent_coef * metrics["entropy"]
    return metrics | {"loss": loss}, of_logits, of_values


@pytest.mark.parametrize("estimator", ["gae", "n_step"])
def test_an_update_of_a_table_of_preferences_and_values_by_hand(estimator):
    rate, ent_coef, vf_coef, gamma = 0.3, 0.05, 0.7, 0.9
    config = critic_config(policy=PolicyConfig(hidden_sizes=()), ent_coef=ent_coef, vf_coef=vf_coef, estimator=estimator,
                           n_steps=2, optim=dataclasses.replace(SGD, learning_rate=rate))
    learner, rng = actor_critic.make(config, TABLE).learner, np.random.default_rng(0)
    state = jit(learner.init)(jax.random.key(0))
    logits, values = rng.normal(size=(3, 2)), rng.normal(size=3)
    state.params["params"]["policy"]["kernel"] = np.float32(logits)
    state.params["params"]["value"]["kernel"] = np.float32(values[:, None])
    (obs, next_obs), action = rng.integers(3, size=(2, T, B)), rng.integers(2, size=(T, B))
    terminated, truncated, first, valid = flags()
    reward = rng.normal(size=(T, B)) * valid
    batch = Trajectory(np.int32(obs), policy.ActionInfo(np.int32(action), np.zeros((T, B, 2), np.float32)), np.float32(reward),
                       np.int32(next_obs), terminated, truncated, first, valid, None)

    target = np.stack([estimated(*(x[:, b] for x in (reward, terminated, truncated, values[obs], values[next_obs])), gamma,
                                 **({"lam": 0.8} if estimator == "gae" else {"n": 2})) for b in range(B)], 1)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    metrics, of_logits, of_values = table_loss_by_hand(p, values, batch, target, ent_coef, vf_coef)

    new, result = jit(learner.update)(state, batch, jax.random.key(0))
    assert_close(new.params["params"], {
        "policy": {"kernel": logits - rate * of_logits, "bias": -rate * of_logits.sum(0)},
        "value": {"kernel": (values - rate * of_values)[:, None], "bias": np.array([-rate * of_values.sum()])}},
        rtol=1e-5, atol=1e-6)
    assert {name: float(m.total / m.count) for name, m in result.metrics.items()} == pytest.approx(metrics, rel=1e-4)
    assert result.metrics["loss"].count == valid.sum()


# --- PPO's update.


def forward(params, obs):
    """Logits and values of a network without memory."""
    p = params["params"]

    def torso(name, x):
        layer = p[name]["MLP_0"]["Dense_0"]
        return jnp.tanh(x @ layer["kernel"] + layer["bias"])

    return (torso("torsos_0", obs) @ p["policy"]["kernel"] + p["policy"]["bias"],
            (torso("torsos_1", obs) @ p["value"]["kernel"] + p["value"]["bias"])[..., 0])


def test_an_update_descends_the_gradient_of_the_loss_written_by_hand():
    """The policy that played is another one, so that ratios lie on both sides of the range. Values do so in later epochs."""
    config = ppo_config(normalize_advantage=True, clip_range=0.3, clip_range_vf=0.05, ent_coef=0.1, vf_coef=0.6)
    state, batch = state_of(ppo, config), batch_of(drift=0.7)
    terminated, truncated, _, valid = flags()

    @jit
    def estimate(params):
        (_, value), (_, next_value) = (forward(params, x) for x in (batch.obs, batch.next_obs))
        return returns.gae(batch.reward, 0.9 * (1.0 - terminated), ~(terminated | truncated), value, next_value, 0.8), value

    advantage, value = estimate(state.params)
    rows = [np.asarray(x)[valid] for x in (batch.obs, *batch.choice, advantage, value)]
    obs, action, dist, advantage, old = rows
    target, i = advantage + old, np.arange(len(old))
    standard = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    old_log_prob = dist[i, action] - np.log(np.exp(dist).sum(1))

    def by_hand(params):
        logits, value = forward(params, obs)
        log_prob = jax.nn.log_softmax(logits)
        ratio = jnp.exp(log_prob[i, action] - old_log_prob)
        cut = jnp.where(standard > 0, jnp.minimum(ratio, 1.3), jnp.maximum(ratio, 0.7))
        entropy = -(jnp.exp(log_prob) * log_prob).sum(1)
        near = old + jnp.clip(value - old, -0.05, 0.05)
        of_value = jnp.maximum((value - target) ** 2, (near - target) ** 2) / 2
        parts = {"policy_loss": -(cut * standard).mean(), "value_loss": of_value.mean(), "entropy": entropy.mean(),
                 "approx_kl": (ratio - 1 - jnp.log(ratio)).mean(), "clip_fraction": (abs(ratio - 1) > 0.3).mean()}
        loss = parts["policy_loss"] + 0.6 * parts["value_loss"] - 0.1 * parts["entropy"]
        return loss, parts | {"loss": loss, "explained_variance": 1 - advantage.var() / target.var()}

    (_, parts), grads = jit(jax.value_and_grad(by_hand, has_aux=True))(state.params)
    new, metrics = update(config, state, batch)
    assert_close(new.params, jax.tree.map(lambda p, g: p - np.float32(0.1) * np.asarray(g), state.params, grads), rtol=1e-5,
                 atol=1e-6)
    means = {name: float(m.total / m.count) for name, m in metrics.items()}
    assert means == pytest.approx(jax.tree.map(float, parts), rel=1e-4, abs=1e-6)
    assert 0.2 < means["clip_fraction"] < 0.8
    assert metrics["loss"].count == valid.sum()


@pytest.mark.parametrize(("kind", "optim"), [("none", SGD), ("none", ADAM), ("lstm", ADAM)])
def test_one_epoch_of_one_minibatch_is_an_update_of_actor_critic(kind, optim):
    changed = {"optim": optim, "ent_coef": 0.05, "vf_coef": 0.7} | recurrent(kind)
    mine, other, batch = ppo_config(**changed), critic_config(**changed), batch_of(kind)
    state = state_of(ppo, mine)
    (new, metrics), (expected, other_metrics) = (update(config, state, batch) for config in (mine, other))
    assert_close(new.params, expected.params)
    assert differ(new.params, state.params)
    for name in ("entropy", "value_loss", "explained_variance"):
        np.testing.assert_allclose(metrics[name], other_metrics[name], rtol=1e-5)
    np.testing.assert_allclose([metrics["approx_kl"].total, metrics["clip_fraction"].total], 0, atol=1e-5)


def test_values_are_kept_near_the_old_ones_in_later_epochs():
    free, kept = (ppo_config(num_epochs=4, clip_range_vf=r, optim=dataclasses.replace(SGD, learning_rate=0.5))
                  for r in (1e9, 1e-3))
    state = state_of(ppo, free)
    value, after, near = (forward(s.params, batch_of().obs)[1] for s in (
        state, *(update(c, state, batch_of())[0] for c in (free, kept))))
    assert np.abs(near - value).max() < 0.7 * np.abs(after - value).max()


VARIANTS = {
    "actor_critic": (actor_critic, critic_config()),
    "actor_critic, n steps": (actor_critic, critic_config(estimator="n_step", normalize_advantage=True, **recurrent("gru"))),
    "ppo": (ppo, ppo_config(num_epochs=2, num_minibatches=3, normalize_advantage=True, clip_range_vf=0.1)),
    "ppo, recurrent": (ppo, ppo_config(num_epochs=2, num_minibatches=2, normalize_advantage=True, **recurrent("lstm"))),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_that_only_reset_change_nothing(name):
    algorithm, config = VARIANTS[name]
    state, batch = state_of(algorithm, config), batch_of(config.policy.recurrent)
    invalid = ~np.asarray(batch.valid)

    def spoilt(x, by):
        return np.where(invalid.reshape(*invalid.shape, *[1] * (x.ndim - 2)), by, x).astype(x.dtype)

    garbage = batch._replace(obs=spoilt(batch.obs, 50), next_obs=spoilt(batch.next_obs, -30), reward=spoilt(batch.reward, 900),
                             choice=policy.ActionInfo(spoilt(batch.choice.action, 2), spoilt(batch.choice.dist, 5)))
    (new, metrics), (other, other_metrics) = (update(config, state, x) for x in (batch, garbage))
    assert_close(new.params, other.params, rtol=1e-5, atol=1e-6)
    assert_close(metrics, other_metrics, rtol=1e-4, atol=1e-5)
    assert float(metrics["loss"].count) == batch.valid.sum() * getattr(config, "num_epochs", 1)
    counted = batch._replace(valid=np.ones_like(batch.valid))
    assert differ(update(config, state, counted)[0].params, new.params)


def recorded(config, state, batch, seed, monkeypatch):
    """What the gradients of an update are taken of and at, minibatch by minibatch: parts and parameters."""
    parts, plain = [], ppo.optim.gradients

    def gradients(loss_fn, params, part, *rest):
        io_callback(lambda x: parts.append(jax.tree.map(np.asarray, x)), None, (part, params), ordered=True)
        return plain(loss_fn, params, part, *rest)

    with monkeypatch.context() as m:
        m.setattr(ppo.optim, "gradients", gradients)
        jit(lambda *x: ppo.make(config, SPEC).learner.update(*x)[0].params)(state, batch, jax.random.key(seed))
        jax.effects_barrier()
    return zip(*parts, strict=True)


def all_sequences(config, state, batch):
    """A rollout as one minibatch, before it is weighed."""
    model = policy.make(config.policy, SPEC, "tester")

    @jit
    def estimates(params, batch):
        out = model.unroll(params, batch.carry, batch.obs, batch.first)
        next_value = model.value_after(params, out.carries, batch.next_obs)
        goes_on = ~(batch.terminated | batch.truncated)
        advantage = returns.gae(batch.reward, 0.9 * (1.0 - batch.terminated), goes_on, out.value, next_value, 0.8)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(batch.choice.dist), batch.choice.action[..., None], 2)[..., 0]
        return log_prob, out.value, advantage

    log_prob, value, advantage = estimates(state.params, batch)
    whole = Minibatch(batch.obs, batch.first, batch.choice.action, advantage, advantage + value, None, batch.carry, log_prob,
                      value)
    return whole if config.policy.recurrent != "none" else on_policy.flatten_time(whole)


@pytest.mark.parametrize("kind", ["none", "gru"])
def test_each_epoch_goes_once_through_all_rows_in_an_order_of_its_own(kind, monkeypatch):
    epochs, minibatches = 3, 2
    config = ppo_config(num_epochs=epochs, num_minibatches=minibatches, **recurrent(kind))
    state, batch = state_of(ppo, config), batch_of(kind)
    parts, _ = recorded(config, state, batch, 5, monkeypatch)
    whole, orders = all_sequences(config, state, batch), []
    length, size = (1, T * B) if kind == "none" else (T, B)
    assert [part.obs.shape for part in parts] == [(length, size // minibatches, 2)] * epochs * minibatches
    for epoch in range(epochs):
        of_epoch = parts[epoch * minibatches : (epoch + 1) * minibatches]
        joined = Minibatch(*(jax.tree.map(lambda *x, axis=axis: np.concatenate(x, axis), *fields)
                             for axis, *fields in zip(on_policy.BATCH_AXIS, *of_epoch, strict=True)))
        order = [int(np.flatnonzero((whole.obs[0] == x).all(1))[0]) for x in joined.obs[0]]
        assert sorted(order) == list(range(size))
        assert_close(joined._replace(weight=None), on_policy.select(whole, np.array(order)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose([part.weight.mean() for part in of_epoch], 1, rtol=1e-5)
        orders.append(tuple(order))
    if kind == "none":
        assert len(set(orders)) == epochs
        assert orders[0] != tuple(range(size))


def test_updates_end_where_the_policy_has_moved_too_far():
    """Not the update that moves it too far is undone: it is noticed by the next, which is the first that is left out."""
    slow = dataclasses.replace(SGD, learning_rate=0.05)
    two, three = (ppo_config(num_epochs=n, optim=slow) for n in (2, 3))
    state, batch = state_of(ppo, two), batch_of()
    (after_two, metrics), (after_three, other_metrics) = (update(c, state, batch) for c in (two, three))
    kl = [float(m["approx_kl"].total) / batch.valid.sum() for m in (metrics, other_metrics)]
    second, third = kl[0], kl[1] - kl[0]  # of the policy with which the second and the third update begin
    assert third > 2 * second > 0

    def limited(kl):
        new, metrics = update(ppo_config(num_epochs=3, optim=slow, target_kl=kl / 1.5), state, batch)
        return new.params, metrics["skipped_updates"]

    for limit, expected, skipped in ((1.5 * second, after_two, 1), (1.1 * third, after_three, 0)):
        params, count = limited(limit)
        assert_close(params, expected.params, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(count, [skipped, 3])
    params, count = limited(0.5 * second)
    np.testing.assert_array_equal(count, [2, 3])
    assert_close(params, update(ppo_config(optim=slow), state, batch)[0].params, rtol=1e-5, atol=1e-6)
    assert differ(params, after_two.params)


def test_after_an_update_that_was_left_out_no_minibatch_is_learned_from(monkeypatch):
    """In some of them the policy has moved less: what has ended has ended."""
    config = ppo_config(num_epochs=4, num_minibatches=6, target_kl=0.01)
    state, batch = state_of(ppo, config), batch_of()
    _, params = recorded(config, state, batch, 0, monkeypatch)
    moved = [differ_at_all(a, b) for a, b in itertools.pairwise(params)]
    assert 2 < sum(moved) < 15
    assert moved == sorted(moved, reverse=True)


def test_the_schedule_goes_on_past_updates_that_were_left_out():
    falling = OptimConfig(learning_rate=0.05, schedule="linear")
    config = ppo_config(num_epochs=4, num_minibatches=3, optim=falling, target_kl=1e-4)
    new, metrics = update(config, state_of(ppo, config), batch_of())
    assert 6 < metrics["skipped_updates"].total < 12
    schedule, = (x for x in jax.tree.leaves(new.opt, is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState))
                 if isinstance(x, optax.ScaleByScheduleState))
    adam, = (x for x in jax.tree.leaves(new.opt, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
             if isinstance(x, optax.ScaleByAdamState))
    assert int(schedule.count) == 12
    assert int(adam.count) == 12 - int(metrics["skipped_updates"].total)


def differ_at_all(a, b):
    return any(not np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(("algorithm", "config"), [
    (ppo, ppo_config(num_epochs=2, num_minibatches=3)), (actor_critic, critic_config())], ids=["ppo", "actor_critic"])
def test_the_learning_rate_falls_to_zero_at_the_planned_end(algorithm, config):
    falling = OptimConfig(optimizer="sgd", learning_rate=0.1, schedule="linear")
    config = dataclasses.replace(config, total_steps=3 * T * B + 5, optim=falling)
    assert algorithm.planned_updates(config) == 3
    state, moved = state_of(algorithm, config), []
    for _ in range(5):
        new, _ = update(config, state, batch_of())
        moved.append(sum(float(np.abs(np.asarray(x) - y).sum()) for x, y in zip(
            *map(jax.tree.leaves, (new.params, state.params)), strict=True)))
        state = new
    assert moved[2] > 0
    assert moved[3:] == [0, 0]
    assert moved[0] > moved[1] > moved[2]


@pytest.mark.parametrize(("algorithm", "config", "updates"), [
    (ppo, ppo_config(num_epochs=2, num_minibatches=3), 6), (actor_critic, critic_config(), 1)], ids=["ppo", "actor_critic"])
def test_on_the_host_the_learning_rate_is_that_of_the_steps_and_not_of_the_rollouts(algorithm, config, updates):
    """A run whose rows were resets has more rollouts than were planned; its schedule is where its environment steps are."""
    falling = OptimConfig(optimizer="sgd", learning_rate=0.1, schedule="linear")
    config = dataclasses.replace(config, total_steps=3 * T * B, optim=falling)
    state = state_of(algorithm, config)
    for earlier in (0.0, 1.75, 3.0):
        new, _ = update(config, state, batch_of()._replace(earlier=jnp.float32(earlier)))
        schedule, = (x for x in jax.tree.leaves(new.opt, is_leaf=optim.is_schedule) if optim.is_schedule(x))
        assert int(schedule.count) == round(earlier * updates) + updates
        assert differ_at_all(new.params, state.params) == (earlier < 3)


@pytest.mark.parametrize("name", ["ppo", "ppo, recurrent", "actor_critic"])
def test_microbatches_make_the_same_update(name):
    algorithm, config = VARIANTS[name]
    state, batch = state_of(algorithm, config), batch_of(config.policy.recurrent)
    configs = [dataclasses.replace(config, optim=dataclasses.replace(SGD, grad_accumulation=n)) for n in (2, 1)]
    (new, metrics), (expected, other_metrics) = (update(config, state, batch) for config in configs)
    assert_close(new.params, expected.params, rtol=1e-5, atol=1e-6)
    assert_close(metrics, other_metrics, rtol=1e-4, atol=1e-5)


# --- Statistics of observations.


NORMAL = {
    "ppo": (ppo, ppo_config(num_epochs=2)),
    "actor_critic": (actor_critic, critic_config()),
    "reinforce": (reinforce, reinforce.Config(**{k: v for k, v in COMMON.items() if k != "gae_lambda"})),
}


@pytest.mark.parametrize("name", NORMAL)
def test_an_update_sees_observations_by_the_statistics_of_before_and_brings_them_up_to_date_once(name):
    algorithm, plain = NORMAL[name]
    config = dataclasses.replace(plain, policy=dataclasses.replace(SMALL, normalize_obs=True))
    state, batch = state_of(algorithm, config), batch_of()
    assert state_of(algorithm, plain).moments is None
    shift, spread = np.float32([0.5, -1.0]), np.float32([2.0, 0.5])
    state = state._replace(moments=Moments(np.float32(50), shift, 50 * spread**2))
    new, _ = update(config, state, batch)
    seen = batch._replace(obs=(batch.obs - shift) / spread, next_obs=(batch.next_obs - shift) / spread)
    expected, _ = update(plain, state._replace(moments=None), seen)
    assert_close(new.params, expected.params, rtol=1e-5, atol=1e-6)
    assert algorithm.make(config, SPEC).learner.params(new).moments is new.moments
    obs = np.float64(batch.obs)[batch.valid]
    count = 50 + len(obs)
    mean = (50 * shift + obs.sum(0)) / count
    deviations = 50 * (spread**2 + (shift - mean) ** 2) + ((obs - mean) ** 2).sum(0)
    assert_close(new.moments, Moments(np.float32(count), np.float32(mean), np.float32(deviations)), rtol=1e-5)


# --- Plans, and what is refused.


def test_the_plans_by_hand():
    assert ppo.planned_updates(ppo.Config(num_envs=4, rollout_steps=10, total_steps=1039)) == 25
    assert actor_critic.planned_updates(actor_critic.Config(num_envs=4, rollout_steps=10, total_steps=1040)) == 26


@pytest.mark.parametrize(("module", "settings", "message"), [
    *[(module, {field: 0}, f"{field} must be above 0, got 0") for module, fields in (
        (ppo, ("num_envs", "total_steps", "rollout_steps", "num_epochs", "num_minibatches", "clip_range", "clip_range_vf",
               "target_kl")), (actor_critic, ("num_envs", "total_steps", "rollout_steps", "n_steps"))) for field in fields],
    *[(module, {field: value}, f"{field} must be between 0 and 1, got {value}") for module in (ppo, actor_critic)
      for field in ("gamma", "gae_lambda") for value in (-0.1, 1.1, math.nan)],
    *[(module, {field: value}, f"{field} must be 0 or above, got {value}") for module in (ppo, actor_critic)
      for field in ("ent_coef", "vf_coef") for value in (-0.1, math.inf, math.nan)],
    (ppo, {"num_minibatches": 3}, r"num_minibatches=3 must divide the 1024 steps \(num_envs \* rollout_steps\) of a rollout"),
    (ppo, {"num_minibatches": 16, "policy": PolicyConfig(recurrent="gru")},
     r"num_minibatches=16 must divide the 8 environments \(num_envs\) of a rollout"),
    (ppo, {"num_minibatches": 1024}, r"each minibatch \(num_minibatches=1024\), which is one step here.*normalize_advantage=F"),
    (ppo, {"num_minibatches": 8, "rollout_steps": 1, "policy": PolicyConfig(recurrent="gru")}, "which is one step here"),
    (actor_critic, {"num_envs": 1, "rollout_steps": 1, "normalize_advantage": True}, "each rollout, which is one step here"),
    (ppo, {"optim": OptimConfig(grad_accumulation=3)}, "grad_accumulation=3 must divide the batch of 256"),
    (ppo, {"optim": OptimConfig(grad_accumulation=4), "policy": PolicyConfig(recurrent="lstm")},
     "grad_accumulation=4 must divide the batch of 2"),
    (actor_critic, {"optim": OptimConfig(grad_accumulation=3)}, "grad_accumulation=3 must divide the batch of 8"),
    (ppo, {"total_steps": 1000}, "128 steps of each is longer than total_steps=1000"),
    (actor_critic, {"total_steps": 100, "rollout_steps": 16}, "16 steps of each is longer than total_steps=100"),
    (ppo, {"policy": PolicyConfig(activation="tanj")}, "did you mean 'tanh'"),
    (actor_critic, {"policy": PolicyConfig(recurrent_size=0)}, "recurrent_size must be above 0"),
])
def test_settings_that_make_no_sense_are_refused(module, settings, message):
    module.validate(module.Config())
    with pytest.raises(UserError, match=message):
        module.validate(module.Config(**settings))


def test_minibatches_of_one_step_are_taken_where_nothing_is_standardized():
    ppo.validate(ppo.Config(num_minibatches=1024, normalize_advantage=False))
    with pytest.raises(UserError, match="num_minibatches=8 must divide the 4 sequences that each device has"):
        ppo.shuffled_minibatches(jax.random.key(0), 4, 2, 8)


# --- Observations that are changed by the worst.


def test_the_worst_change_costs_its_divergence():
    """The term's weight times what the metrics' loss has more; none where it weighs nothing."""
    state, batch = state_of(ppo, ppo_config()), batch_of()
    losses = {}
    for weight in (None, 0.0, 1.0, 2.0):
        changed = {} if weight is None else {"robust_weight": weight, "robust_epsilon": 0.3}
        new, metrics = update(ppo_config(**changed), state, batch)
        losses[weight] = float(metrics["loss"].total / metrics["loss"].count)
        if weight == 0.0:
            assert_close(new.params, update(ppo_config(), state, batch)[0].params)
    assert losses[0.0] == pytest.approx(losses[None], abs=1e-6)
    assert losses[1.0] > losses[0.0] + 1e-3
    assert losses[2.0] - losses[0.0] == pytest.approx(2 * (losses[1.0] - losses[0.0]), rel=1e-3)


@pytest.mark.parametrize("settings", [{"robust_epsilon": 0.3}, {"robust_steps": 5}, {"robust_weight": -1.0},
                                      {"robust_weight": 1.0, "robust_epsilon": 0.0}])
def test_robust_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UserError, match="robust_"):
        ppo.validate(ppo.Config(**settings))
