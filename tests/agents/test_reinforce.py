"""REINFORCE: its estimates against the exact gradient of a small problem, what each action is weighed by, worked by hand."""

import functools
import itertools
from dataclasses import replace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxdl import optim
from jaxdl.agents import reinforce
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.errors import UserError
from jaxdl.core.types import Mean
from jaxdl.experiments.studies import baselines
from jaxdl.experiments.studies.baselines import BASE, END, FIRST, LIMIT, REWARDS, SPEC, SUCCESSORS
from jaxdl.ops.baselines import others_mean
from jaxdl.rl import policy
from jaxdl.rl.envs.functional import adapt
from jaxdl.rl.policy import ActionInfo
from jaxdl.rl.types import EnvSpec, Trajectory

P_VALUE = 1e-4  # seeds are fixed: the statistical tests hold or not, once and for all
EPISODES = 100_000
jit = functools.partial(jax.jit, compiler_options=TRAIN_OPTIONS)  # compiles in less time


# --- The estimator against the exact gradient.


@functools.cache
def fixed():
    """A policy with a value that is wrong, and with the exact one of gamma = 1."""
    params = baselines.parameters(0)
    wrong = baselines.with_value(params, jnp.linspace(-2.0, 5.0, END + 1))
    return wrong, baselines.with_value(params, baselines.values(baselines.probabilities(params), 1.0)[0])


@functools.cache
def exact(gamma=1.0):
    return np.asarray(baselines.gradient(fixed()[0], gamma), np.float64)


@functools.cache
def paths():
    """All episodes that there can be: probability, and (state, action, reward) of each step."""
    pi, found = np.asarray(baselines.probabilities(fixed()[0]), np.float64), []

    def walk(probability, state, steps):
        if state == END:
            return found.append((probability, steps))
        for action, successor in itertools.product(range(baselines.ACTIONS), range(END + 1)):
            if SUCCESSORS[state, action, successor] > 0:
                walk(probability * pi[state, action] * SUCCESSORS[state, action, successor], successor,
                     [*steps, (state, action, REWARDS[state, action, successor])])

    for state in np.flatnonzero(FIRST):
        walk(FIRST[state], state, [])
    return pi, found


def enumerated(returns="to_go", baseline=(0,) * (END + 1), gamma=1.0):
    """Of each episode the probability, the length and the estimate of the gradient [P] that it alone makes."""
    pi, found = paths()
    weight, length, estimate = [], [], []
    for probability, steps in found:
        g = np.zeros((END + 2, baselines.ACTIONS))
        for t, (state, action, _) in enumerate(steps):
            begin = t if returns == "to_go" else 0
            paid = sum(gamma**k * reward for k, (_, _, reward) in enumerate(steps[begin:], begin))
            score = np.eye(baselines.ACTIONS)[action] - pi[state]
            g[[0, state + 1]] += score * (paid - gamma**begin * baseline[steps[begin][0]])
        weight.append(probability)
        length.append(len(steps))
        estimate.append(g.ravel())
    return np.array(weight), np.array(length), np.array(estimate)


def entry(num_envs=8, params=0, **settings):
    return replace(BASE, num_envs=num_envs, **settings), fixed()[params]


BASELINES = ("none", "constant", "leave_one_out", "value")
KINDS = ("to_go", "episode")
CASES = [*((b, k, 0) for b in (*BASELINES, "batch") for k in KINDS), ("value", "to_go", 1), ("value", "episode", 1)]
DISCOUNTED = [("none", "to_go"), ("constant", "to_go"), ("leave_one_out", "to_go"), ("value", "to_go"), ("value", "episode")]


@functools.cache
def samples():
    """Estimates [M, P] of 8 episodes each, by baseline, kind of return and parameters."""
    found, episodes = baselines.estimates([entry(baseline=b, returns=k, params=p) for b, k, p in CASES], EPISODES // 8, 0,
                                           earlier=40)
    assert (episodes == 8).all()
    return dict(zip(CASES, found, strict=True))


@functools.cache
def discounted_samples():
    entries = [entry(baseline=b, returns=k, gamma=0.8, discount_states=True) for b, k in DISCOUNTED]
    return dict(zip(DISCOUNTED, baselines.estimates(entries, EPISODES // 8, 1, earlier=40)[0], strict=True))


def deviations(found, expected):
    """p-values of the largest z-score of a component (Bonferroni) and of the chi-square of all together."""
    off, error = found.mean(0) - expected, found.std(0) / len(found) ** 0.5
    varies = error > 1e-7
    np.testing.assert_allclose(off[~varies], 0, atol=1e-6)
    z = np.abs(off[varies] / error[varies]).max()
    sizes, directions = np.linalg.eigh(np.cov(found.T))
    real = sizes > 1e-6 * sizes.max()  # scores of a state's actions sum to 0, and biases are sums over states
    chi2 = ((off @ directions[:, real]) ** 2 / sizes[real]).sum() * len(found)
    return min(1.0, varies.sum() * 2 * stats.norm.sf(z)), stats.chi2.sf(chi2, real.sum())


def assert_mean(found, expected):
    assert min(deviations(found, expected)) > P_VALUE


@pytest.mark.parametrize("gamma", [1.0, 0.8])
def test_the_exact_gradient_is_that_of_all_episodes_there_can_be(gamma):
    for returns in KINDS:
        weight, length, estimate = enumerated(returns, gamma=gamma)
        np.testing.assert_allclose(weight.sum(), 1, atol=1e-6)
        np.testing.assert_allclose(weight @ estimate, exact(gamma), atol=2e-6)
    assert [weight[length == n].sum() > 0.1 for n in (1, 2, 3)] == [True] * 3  # episodes of all lengths
    assert np.linalg.norm(exact(gamma)) > 0.5


@pytest.mark.parametrize(("baseline", "returns"), list(itertools.product(BASELINES, KINDS)))
def test_the_mean_of_the_estimates_is_the_gradient(baseline, returns):
    assert_mean(samples()[baseline, returns, 0], exact())
    assert min(deviations(samples()[baseline, returns, 0], 0.9 * exact())) < P_VALUE  # it would be seen


@pytest.mark.parametrize(("baseline", "returns"), DISCOUNTED)
def test_with_discounted_states_it_is_the_gradient_of_the_discounted_return(baseline, returns):
    assert_mean(discounted_samples()[baseline, returns], exact(0.8))
    assert min(deviations(discounted_samples()[baseline, returns], exact())) < P_VALUE


@pytest.mark.parametrize("n", [2, 4, 8])
def test_with_its_own_return_in_the_baseline_it_is_less_by_the_share_of_one_episode(n):
    found = ([samples()["batch", kind, 0] for kind in KINDS] if n == 8 else baselines.estimates(
        [entry(n, baseline="batch", returns=kind) for kind in KINDS], EPISODES // 2 // n, 2)[0])
    for x in found:
        assert_mean(x, (1 - 1 / n) * exact())
        assert min(deviations(x, exact())) < P_VALUE


@pytest.mark.parametrize("returns", KINDS)
def test_the_variance_is_that_of_all_episodes_there_can_be(returns):
    for baseline, params in (("none", 0), ("value", 0), ("value", 1)):
        v = np.asarray(fixed()[params]["params"]["value"]["kernel"][:, 0]) if baseline == "value" else (0,) * (END + 1)
        weight, _, estimate = enumerated(returns, v)
        trace = (weight @ np.square(estimate).sum(1) - np.square(exact()).sum()) / 8
        measured, error = baselines.variance(samples()[baseline, returns, params])
        assert abs(measured - trace) < 4 * error
        assert error < 0.015 * trace


def test_every_baseline_lowers_the_variance_and_the_true_value_most():
    to_go, episode = ({b: baselines.variance(samples()[b, kind, p])[0] for b, p in (
        ("none", 0), ("constant", 0), ("batch", 0), ("leave_one_out", 0), ("value", 1))} for kind in KINDS)
    assert to_go["value"] < 0.8 * to_go["leave_one_out"]
    assert to_go["leave_one_out"] < 0.7 * to_go["constant"]
    assert to_go["constant"] < 0.5 * to_go["none"]
    assert max(v for b, v in episode.items() if b != "none") < 0.25 * episode["none"]
    assert episode["value"] < 0.9 * episode["leave_one_out"]  # whose own noise is that of 7 episodes
    for both in (to_go, episode):
        assert both["batch"] == pytest.approx((7 / 8) ** 2 * both["leave_one_out"], rel=1e-3)  # the same, shorter
    for b in ("none", "batch", "leave_one_out", "value"):
        assert to_go[b] < 0.65 * episode[b]  # what was paid before an action is noise


def test_batch_is_leave_one_out_made_shorter_estimate_by_estimate():
    for kind in KINDS:
        np.testing.assert_allclose(samples()["batch", kind, 0], 7 / 8 * samples()["leave_one_out", kind, 0], atol=2e-5)


def test_of_longer_rollouts_the_sum_over_episodes_is_the_gradient_times_their_number():
    """Which episodes are in is settled before they are played: the mean of a sum of so many (Wald 1944)."""
    cases = [entry(2, baseline=b, returns=k, rollout_steps=12) for b, k in (("none", "to_go"), ("value", "episode"))]
    found, n = baselines.estimates(cases, EPISODES // 20, 3, steps=12)
    assert set(range(8, 13)) <= set(n.tolist())  # 2 environments of 4 to 10 episodes
    for x in found:
        assert_mean(n[:, None] * (x - exact()), np.zeros_like(exact()))


def test_what_the_division_by_a_random_number_of_episodes_does():
    """A mean over N episodes is none of N given ones: where the first is short there is a second beside it, here."""
    found, n = baselines.estimates([entry(1, baseline="none", rollout_steps=LIMIT + 1)], EPISODES // 2, 4, steps=LIMIT + 1)
    weight, length, estimate = enumerated()
    short = length == 1
    assert set(n.tolist()) == {1, 2}
    assert abs((n == 2).mean() - weight[short].sum()) < 0.005
    # E[(g_1 + g_2) / 2] where N = 2: half of what short episodes say, half of what any does
    expected = exact() + 0.5 * weight[short] @ (exact() - estimate[short])
    assert_mean(found[0], expected)
    assert min(deviations(found[0], exact())) < P_VALUE


def test_fragments_follow_the_exact_gradient_where_their_value_is_exact():
    """Mean over rows t of sum_s P(s_t = s) sum_a grad pi(a | s) Q(s, a): the policy gradient theorem, row by row."""
    steps, gamma = 2, 0.8
    pi, params = baselines.probabilities(fixed()[0]), fixed()[0]
    v, q = baselines.values(pi, gamma)
    here, visits, again = FIRST, np.zeros(END + 1), np.einsum("sa,sat->st", np.asarray(pi, np.float64), SUCCESSORS)
    again = again + again[:, [END]] * FIRST  # an episode that ends is followed by another, within the rollout
    again[:, END] = 0
    for _ in range(steps):
        visits, here = visits + here / steps, here @ again

    def objective(params):
        return ((jnp.asarray(visits, jnp.float32)[:, None] * baselines.probabilities(params)) * q).sum()

    expected = np.asarray(baselines.policy_part(jit(jax.grad(objective))(params)), np.float64)
    config = replace(BASE, baseline="value", learn_from="fragments", gamma=gamma, rollout_steps=steps)
    found, _ = baselines.estimates([(config, baselines.with_value(params, v)), (config, params)], EPISODES // 20, 5, steps)
    assert_mean(found[0], expected)
    assert min(deviations(found[1], expected)) < P_VALUE  # with another value it is not: it bootstraps


# --- What an action is weighed by. A row is a state of its own, all actions are 0 and the policy is uniform over two: what
# an update adds to the preference of a row's action is half of what the action is weighed by.

T, B, AFTER = 8, 2, 16
HAND = EnvSpec("hand", gymnasium.spaces.Discrete(18), gymnasium.spaces.Discrete(2), 3)
# Environments that reset in steps of their own (`x`); `>` a first step, `T` a termination, `L` the time limit.
#      row        0     1     2     3     4     5     6     7
# environment 0   T     x     >     T     x     >     .     L      a piece from before the rollout, two complete episodes
# environment 1   >     .     T     x     >T    x     >     .      two complete episodes, and one that does not end
REWARD = np.array([[7, 0, 1, 2, 0, 4, 8, 16], [32, 64, 128, 0, 256, 0, 512, 1024]], np.float32).T


def flags(*rows):
    """[T, B] bool from the rows of the two environments."""
    x = np.zeros((T, B), bool)
    for env, where in enumerate(rows):
        x[list(where), env] = True
    return x


WHOLE = flags((2, 3, 5, 6, 7), (0, 1, 2, 4))
OBS = np.arange(T * B, dtype=np.int32).reshape(T, B)
NEXT = np.concatenate([OBS[1:], [[AFTER, AFTER + 1]]])
PLAYED = Trajectory(OBS, ActionInfo(np.zeros((T, B), np.int32), np.zeros((T, B), np.float32)), REWARD, NEXT,
                    terminated=flags((0, 3), (2, 4)), truncated=flags((7,), ()), first=flags((2, 5), (0, 4, 6)),
                    valid=~flags((1, 4), (3, 5)), carry=None)
VALUE = np.arange(18, dtype=np.float32) ** 2 / 4  # of the states
HALF = replace(BASE, baseline="none", num_envs=B, gamma=0.5, rollout_steps=None)


def column(*numbers):
    """[T, B] from the numbers of the two environments."""
    return np.array(numbers, np.float64).T


TO_GO = column([0, 0, 2, 2, 0, 12, 16, 16], [96, 128, 128, 0, 256, 0, 0, 0])
G0 = column([0, 0, 2, 2, 0, 12, 12, 12], [96, 96, 96, 0, 256, 0, 0, 0])
AGE = column([0, 0, 0, 1, 0, 0, 1, 2], [0, 1, 2, 0, 0, 0, 0, 0])


def learner_of(config, axis_name=None):
    learner = reinforce.make(config, HAND, axis_name).learner
    state = learner.init(jax.random.key(0))
    head = {"kernel": jnp.zeros((18, 2)), "bias": jnp.zeros(2)}
    value = {"kernel": jnp.asarray(VALUE)[:, None], "bias": jnp.zeros(1)}
    return learner, state._replace(params={"params": state.params["params"] | {"policy": head, "value": value}})


HAND_CASES = {
    "none": {}, "none_episode": {"returns": "episode"}, "none_discounted": {"discount_states": True},
    "none_episode_discounted": {"returns": "episode", "discount_states": True},
    "batch": {"baseline": "batch"}, "batch_episode": {"baseline": "batch", "returns": "episode"},
    "batch_discounted": {"baseline": "batch", "discount_states": True},
    "leave_one_out": {"baseline": "leave_one_out"},
    "leave_one_out_episode": {"baseline": "leave_one_out", "returns": "episode"},
    "constant": {"baseline": "constant"}, "constant_episode": {"baseline": "constant", "returns": "episode"},
    "value": {"baseline": "value", "vf_coef": 0.3}, "value_episode": {"baseline": "value", "returns": "episode"},
    "fragments": {"baseline": "value", "vf_coef": 0.3, "learn_from": "fragments"},
    "entropy": {"ent_coef": 0.2}, "normalized": {"normalize_advantage": True},
    "parts": {"baseline": "leave_one_out", "optim": replace(BASE.optim, grad_accumulation=2)},
}


@functools.cache
def updates():
    """Each case: what the first update adds to the policy and to the value, and the new state; `constant` has a second."""
    def program(trajectory):
        found = {}
        for name, settings in HAND_CASES.items():
            learner, state = learner_of(replace(HALF, **settings))
            if name == "entropy":
                kernel = jnp.sin(jnp.arange(36.0)).reshape(18, 2)
                state.params["params"]["policy"]["kernel"] = kernel
                trajectory = trajectory._replace(reward=jnp.zeros((T, B)))
            new, aux = learner.update(state, trajectory, jax.random.key(0))
            found[name] = jax.tree.map(jnp.subtract, new.params["params"], state.params["params"]), new.average, aux.metrics
            trajectory = trajectory._replace(reward=jnp.asarray(REWARD))
            if name.startswith("constant"):
                then = state._replace(average=new.average)
                last, _ = learner.update(then, trajectory._replace(reward=2 * trajectory.reward), jax.random.key(0))
                found[f"{name} again"] = (
                    jax.tree.map(jnp.subtract, last.params["params"], state.params["params"]), last.average, {})
        return found

    return jax.device_get(jit(program)(PLAYED))


def weighed(name):
    """[T, B] what the actions were weighed by."""
    kernel = updates()[name][0]["policy"]["kernel"]
    np.testing.assert_allclose(kernel[:, 0], -kernel[:, 1], atol=1e-6)
    np.testing.assert_array_equal(kernel[[AFTER, AFTER + 1]], 0)
    return 2 * kernel[:16, 0].reshape(T, B)


def assert_weighed(name, expected, rtol=1e-5):
    np.testing.assert_allclose(weighed(name), expected, rtol=rtol, atol=1e-5)


def test_episodes_by_hand():
    at = jit(reinforce.episodic, static_argnums=1)(PLAYED, 3)
    np.testing.assert_array_equal(at.begin, column([-1, -1, 2, 2, 2, 5, 5, 5], [0, 0, 0, 0, 4, 4, 6, 6]))
    np.testing.assert_array_equal(at.whole, WHOLE)
    np.testing.assert_array_equal(at.age[WHOLE], AGE[WHOLE])
    longer = jit(reinforce.episodic, static_argnums=1)(PLAYED, 4)  # the limit tells, not where they end
    np.testing.assert_array_equal(longer.whole, flags((2, 3), (0, 1, 2, 4)))


def test_totals_of_episodes_by_hand():
    at = reinforce.episodic(PLAYED, 3)
    noise = np.where(WHOLE, TO_GO, 1e6).astype(np.float32)  # what others return plays no part
    totals, episodes = reinforce.totals_by_age(noise, at, 3)
    np.testing.assert_allclose(totals, [2 + 12 + 96 + 256, 2 + 16 + 128, 16 + 128])
    assert episodes == 4


def test_the_mean_of_others_leaves_out_ones_own_and_is_zero_where_there_are_none():
    np.testing.assert_allclose(others_mean(jnp.array([10.0, 8.0]), jnp.array([1.0, 2.0]), jnp.float32(4)), [3, 2])
    np.testing.assert_array_equal(others_mean(jnp.array([5.0, 0.0]), jnp.array([5.0, 9.0]), jnp.float32(1)), 0)


def test_returns_by_hand():
    assert_weighed("none", TO_GO / 4)  # of the four complete episodes
    assert_weighed("none_episode", G0 / 4)
    assert_weighed("none_discounted", 0.5**AGE * TO_GO / 4)
    assert_weighed("none_episode_discounted", G0 / 4)  # the factor is in the return


def test_baselines_of_other_episodes_by_hand():
    by_age = np.where(WHOLE, np.array([91.5, 36.5, 36.0])[AGE.astype(int)], 0)
    assert_weighed("batch", (TO_GO - by_age) / 4)
    assert_weighed("batch_discounted", 0.5**AGE * (TO_GO - by_age) / 4)
    assert_weighed("batch_episode", np.where(WHOLE, G0 - 91.5, 0) / 4)
    assert_weighed("leave_one_out", (TO_GO - by_age) / 3)
    assert_weighed("leave_one_out_episode", np.where(WHOLE, G0 - 91.5, 0) / 3)
    assert_weighed("parts", (TO_GO - by_age) / 3)  # microbatches make the same update


def test_the_moving_average_by_hand():
    for name, returns in (("constant", TO_GO), ("constant_episode", G0)):
        assert_weighed(name, returns / 4)  # nothing is known yet
        total = returns.sum()
        np.testing.assert_allclose(updates()[name][1], Mean(total, 9))  # of nine steps
        assert_weighed(f"{name} again", np.where(WHOLE, 2 * returns - total / 9, 0) / 4)
        np.testing.assert_allclose(updates()[f"{name} again"][1], Mean(0.9 * total + 2 * total, 0.9 * 9 + 9), rtol=1e-6)


def test_the_value_baseline_bootstraps_where_the_time_limit_ends_an_episode():
    v, last = VALUE[:16].reshape(T, B), 16 + VALUE[AFTER] / 2  # what none has as 16 alone
    to_go = np.array(TO_GO)
    to_go[5:, 0] = 4 + (8 + last / 2) / 2, 8 + last / 2, last
    assert_weighed("value", np.where(WHOLE, to_go - v, 0) / 4)
    begin = np.where(WHOLE, to_go - v, 0)
    for rows, env in (((2, 3), 0), ((5, 6, 7), 0), ((0, 1, 2), 1), ((4,), 1)):
        begin[list(rows), env] = begin[rows[0], env]
    assert_weighed("value_episode", begin / 4)
    learned = updates()["value"][0]["value"]["kernel"][:16, 0].reshape(T, B)
    np.testing.assert_allclose(learned, 0.3 * np.where(WHOLE, to_go - v, 0) / 9, rtol=1e-5, atol=1e-5)  # a mean over steps


def test_fragments_learn_from_every_step_by_hand():
    v = VALUE[:16].reshape(T, B)
    last, other = 16 + VALUE[AFTER] / 2, 1024 + VALUE[AFTER + 1] / 2
    to_go = TO_GO + column([7, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 512 + other / 2, other])
    to_go[5:, 0] = 4 + (8 + last / 2) / 2, 8 + last / 2, last
    expected = np.where(PLAYED.valid, to_go - v, 0) / 12
    assert_weighed("fragments", expected)
    learned = updates()["fragments"][0]["value"]["kernel"][:16, 0].reshape(T, B)
    np.testing.assert_allclose(learned, 0.3 * expected, rtol=1e-5, atol=1e-5)


def test_other_baselines_leave_the_value_alone():
    for name in ("none", "constant", "batch", "leave_one_out"):
        assert not updates()[name][0]["value"]["kernel"].any()
        assert "value_loss" not in updates()[name][2]


def test_the_entropy_bonus_is_the_mean_over_steps():
    """The gradient of H by logit k is -p_k (log p_k + H)."""
    logits = np.sin(np.arange(36.0)).reshape(18, 2)[:16].reshape(T, B, 2)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    entropy = -(p * np.log(p)).sum(-1, keepdims=True)
    expected = 0.2 * np.where(WHOLE[..., None], -p * (np.log(p) + entropy), 0) / 9
    added, _, metrics = updates()["entropy"]
    np.testing.assert_allclose(added["policy"]["kernel"][:16].reshape(T, B, 2), expected, atol=1e-6)
    assert np.abs(expected).max() > 1e-3
    assert metrics["entropy"].total / metrics["entropy"].count == pytest.approx(entropy[WHOLE].mean(), rel=1e-5)


def test_normalized_advantages_have_mean_0_and_deviation_1_over_the_complete_episodes():
    z = (TO_GO[WHOLE] - TO_GO[WHOLE].mean()) / TO_GO[WHOLE].std()
    np.testing.assert_allclose(weighed("normalized")[WHOLE], z / 4, rtol=1e-5)
    np.testing.assert_array_equal(weighed("normalized")[~WHOLE], 0)


def test_shards_make_the_update_of_the_whole():
    """Two shards, of two complete episodes and of one: the sums are theirs together."""
    uneven = PLAYED._replace(first=PLAYED.first & ~flags((), (4,)), valid=PLAYED.valid & ~flags((), (4,)),
                             carry=None)
    shards = jax.tree.map(lambda x: x.swapaxes(0, 1)[:, :, None], uneven)
    names = ("constant", "batch", "leave_one_out_episode", "value", "normalized")

    def program(whole, shards):
        found = {}
        for name in names:
            config = replace(HALF, ent_coef=0.1, **HAND_CASES[name])
            learner, state = learner_of(config)
            one, _ = learner.update(state, whole, jax.random.key(0))
            learner, _ = learner_of(config, "shards")
            each, _ = jax.vmap(lambda t, u=learner.update, s=state: u(s, t, jax.random.key(0)), axis_name="shards")(shards)
            found[name] = one, each
        return found

    for one, each in jax.device_get(jit(program)(uneven, shards)).values():
        for k in range(2):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(b[k], a, rtol=1e-5, atol=1e-5), one, each)  # noqa: B023


# --- Settings.


def test_complete_episodes_are_learned_from_where_no_value_is():
    assert not reinforce.complete(reinforce.Config())
    assert all(reinforce.complete(reinforce.Config(baseline=b)) for b in ("none", "constant", "batch", "leave_one_out"))
    assert reinforce.complete(reinforce.Config(learn_from="complete"))


@pytest.mark.parametrize(("settings", "message"), [
    *[({field: 0}, f"{field} must be above 0, got 0") for field in ("num_envs", "total_steps", "rollout_steps")],
    *[({field: 1.5}, f"{field} must be between 0 and 1, got 1.5") for field in ("gamma", "baseline_decay")],
    *[({field: -0.1}, f"{field} must be 0 or above, got -0.1") for field in ("ent_coef", "vf_coef")],
    *[({"learn_from": "fragments", "baseline": b}, f"learn_from=fragments needs baseline=value.*={b}.*learn_from=complete")
      for b in ("none", "constant", "batch", "leave_one_out")],
    ({"returns": "episode"}, "returns=episode.*learn_from=complete"),
    ({"discount_states": True}, "discount_states=True.*learn_from=complete"),
    ({"policy": policy.Config(hidden_sizes=(0,))}, r"hidden_sizes must be widths above 0, got \(0,\)"),
    ({"optim": replace(BASE.optim, grad_accumulation=3)}, "grad_accumulation=3 must divide the batch of 8"),
])
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        reinforce.validate(reinforce.Config(**settings))


@pytest.mark.parametrize("settings", [{"returns": "episode"}, {"discount_states": True}])
def test_what_needs_whole_episodes_has_them_without_a_value(settings):
    reinforce.validate(reinforce.Config(baseline="none", **settings))
    reinforce.validate(reinforce.Config(learn_from="complete", **settings))


def test_on_the_host_the_learning_rate_is_that_of_the_steps_and_not_of_the_rollouts():
    learner, state = learner_of(replace(HALF, optim=replace(BASE.optim, schedule="linear")))
    new, _ = jit(learner.update)(state, PLAYED._replace(earlier=jnp.float32(1.6)), jax.random.key(0))
    schedule, = (x for x in jax.tree.leaves(new.opt, is_leaf=optim.is_schedule) if optim.is_schedule(x))
    assert int(schedule.count) == 3


def test_the_weight_of_one_step_is_not_standardized():
    one = reinforce.Config(num_envs=1, rollout_steps=1, normalize_advantage=True)
    with pytest.raises(UserError, match=r"each rollout, which is one step here.*normalize_advantage=False"):
        reinforce.rollout_steps(one, HAND)
    assert reinforce.rollout_steps(replace(one, num_envs=2), HAND) == 1


def test_a_rollout_holds_an_episode():
    none = reinforce.Config(baseline="none")
    assert reinforce.rollout_steps(none, HAND) == 6
    assert reinforce.rollout_steps(none, HAND, fresh=False) == 6
    assert reinforce.rollout_steps(replace(none, rollout_steps=3), HAND) == 3
    assert reinforce.rollout_steps(replace(none, rollout_steps=6), HAND, fresh=False) == 6
    assert reinforce.rollout_steps(reinforce.Config(), HAND._replace(max_episode_steps=None)) == 64
    assert reinforce.rollout_steps(reinforce.Config(rollout_steps=1), HAND) == 1
    for settings, spec, fresh, message in (
            ({"rollout_steps": 2}, HAND, True, "rollout_steps=2 may hold no complete episode of hand, .* limit is 3; 3 do"),
            ({"rollout_steps": 5}, HAND, False, "rollout_steps=5 may hold no complete .* limit is 3; 6 do"),
            ({}, HAND._replace(max_episode_steps=None), True, "complete episodes of hand need a time limit.*give time_limit"),
            ({"total_steps": 47}, HAND, True, "num_envs=8 environments and 6 steps of each is longer than total_steps=47")):
        with pytest.raises(UserError, match=message):
            reinforce.rollout_steps(replace(none, **settings), spec, fresh)


@pytest.mark.parametrize(("settings", "external", "fresh", "stride"), [
    ({"baseline": "none"}, False, True, 8 * 6), ({"baseline": "value"}, False, False, 8 * 64),
    ({"baseline": "none"}, True, False, 8 * 6)])
def test_rollouts_begin_with_new_episodes_where_complete_ones_are_wanted(monkeypatch, settings, external, fresh, stride):
    made, original = [], reinforce.rollout.rollout
    monkeypatch.setattr(reinforce.rollout, "rollout", lambda e, a, s: made.append(s) or original(e, a, s))
    env = adapt(baselines.Steps(), SPEC)._replace(spec=SPEC._replace(lives="emulator" if external else "jax"))
    run = reinforce.make_run(reinforce.Config(**settings), env=env)
    assert (made[0].fresh, run.stride, made[0].stride) == (fresh, stride, stride)
    assert reinforce.planned_updates(reinforce.Config(**settings), SPEC) == 500_000 // stride
