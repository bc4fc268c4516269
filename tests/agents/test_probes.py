"""Probe environments: each localizes what is wrong with a policy-gradient method, and all are learned side by side.

A probe is a table of few states, so that one program trains an algorithm in all of them at once.
"""

import functools
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.experimental.functional import FuncEnv
from tools import jit

from jaxdl.agents import actor_critic, ppo, reinforce
from jaxdl.core.run import advance
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import policy
from jaxdl.rl.envs.functional import adapt
from jaxdl.rl.policy import Config as PolicyConfig
from jaxdl.rl.types import EnvSpec

GAMMA = 0.7
STATES, END, LIMIT = 7, 6, 4
SPEC = EnvSpec("probe", gymnasium.spaces.Box(0, 1, (STATES,), np.float32), gymnasium.spaces.Discrete(2), LIMIT)


class Probe(NamedTuple):
    """What an environment is, and what must be learned of it along its two paths (three steps at most)."""

    next_state: dict  # state -> state, or one for each action; those that are missing end the episode
    reward: dict  # state -> reward, or one for each action; 0 where it is missing
    start: tuple  # two states, as likely
    paths: tuple  # of the best policy from each of them
    value: tuple  # along a path, for both or for each
    best: tuple  # actions along a path, None where they do not matter
    looks: dict = {}  # state -> the state that it looks like  # noqa: RUF012


FROM_FIRST = ((0, 2, 4), (1, 3, 5))
PROBES = {
    "one step that pays": Probe({}, {0: 1, 1: 1}, (0, 1), ((0,), (1,)), (1,), (None,)),
    "one step that pays what is seen": Probe({}, {0: -1, 1: 1}, (0, 1), ((0,), (1,)), ((-1,), (1,)), (None,)),
    "one step that pays an action": Probe({}, {0: (-1, 1), 1: (-1, 1)}, (0, 1), ((0,), (1,)), (1,), (1,)),
    "one step that pays the action that is seen": Probe(
        {}, {0: (1, -1), 1: (-1, 1)}, (0, 1), ((0,), (1,)), (1,), ((0,), (1,))),
    "two steps of which the last pays": Probe({0: 1}, {1: 1}, (0, 0), ((0, 1), (0, 1)), (GAMMA, 1), (None, None)),
    "three steps of which the last pays the first action": Probe(
        {0: (1, 2), 1: 3, 2: 4}, {4: 1}, (0, 0), ((0, 2, 4), (0, 2, 4)), (GAMMA**2, GAMMA, 1), (1, None, None)),
    "steps that pay for ever, of which the recording ends": Probe(
        {0: 0, 1: 1}, {0: 1, 1: 1}, (0, 1), ((0, 0), (1, 1)), (1 / (1 - GAMMA),) * 2, (None, None)),
    "three steps of which the last pays the action that was seen in the first": Probe(
        {0: 2, 1: 3, 2: 4, 3: 5}, {4: (1, -1), 5: (-1, 1)}, (0, 1), FROM_FIRST, (GAMMA**2, GAMMA, 1),
        ((None, None, 0), (None, None, 1)), {3: 2, 5: 4}),
}
*SEEN, MEMORY = PROBES


def table(probe):
    """The arrays of a probe: next state and reward [STATES, 2], start [2], what a state looks like [STATES]."""
    next_state = np.array([np.broadcast_to(probe.next_state.get(s, END), 2) for s in range(STATES)])
    reward = np.array([np.broadcast_to(probe.reward.get(s, 0), 2) for s in range(STATES)], np.float32)
    return next_state, reward, np.array(probe.start), np.array([probe.looks.get(s, s) for s in range(STATES)])


class Table(FuncEnv):
    """The environment of such arrays, which may be traced."""

    def __init__(self, arrays):
        super().__init__()
        self.next_state, self.payment, self.start, self.looks = arrays

    def initial(self, rng, params=None):
        return self.start[jax.random.bernoulli(rng).astype(jnp.int32)]

    def transition(self, state, action, rng, params=None):
        return self.next_state[state, action]

    def observation(self, state, rng, params=None):
        return jax.nn.one_hot(self.looks[state], STATES)

    def reward(self, state, action, next_state, rng, params=None):
        return self.payment[state, action]

    def terminal(self, state, rng, params=None):
        return state == END


def settings(rollout_steps, updates, rate, **policy_settings):
    return {"num_envs": 8, "rollout_steps": rollout_steps, "total_steps": 8 * rollout_steps * updates, "gamma": GAMMA,
            "ent_coef": 0.01, "normalize_reward": False,
            "policy": PolicyConfig(hidden_sizes=(16,), recurrent_size=16, **policy_settings),
            "optim": OptimConfig(learning_rate=rate, schedule="linear", eps=1e-5, max_grad_norm=0.5)}


LEARNERS = {
    "reinforce": (reinforce, reinforce.Config(**settings(8, 150, 0.02))),
    "reinforce, left out": (reinforce, reinforce.Config(**settings(8, 150, 0.02, recurrent="gru"),
                                                        baseline="leave_one_out")),
    "actor_critic": (actor_critic, actor_critic.Config(**settings(8, 150, 0.02))),
    "actor_critic, 2 steps": (actor_critic, actor_critic.Config(**settings(8, 300, 0.02, recurrent="gru", shared=True),
                                                                estimator="n_step", n_steps=2)),
    "ppo": (ppo, ppo.Config(**settings(8, 60, 0.01), num_epochs=4, num_minibatches=2)),
    "ppo, lstm": (ppo, ppo.Config(**settings(8, 60, 0.01, recurrent="lstm"), num_epochs=4, num_minibatches=2)),
}


def paths(probe):
    """States [2, 3], padded, and their values and best actions, NaN where they do not matter."""
    def padded(x):
        rows = np.full((2, 3), np.nan)
        for row, one in zip(rows, x if isinstance(x[0], tuple) else (x, x), strict=True):
            row[: len(one)] = np.array(one, float)
        return rows

    return np.nan_to_num(padded(probe.paths)).astype(int), padded(probe.value), padded(probe.best)


@functools.cache
def learned(name):
    """Of each probe the values [2, 3] along its paths and the probabilities of the second action."""
    algorithm, config = LEARNERS[name]
    algorithm.validate(config)
    updates = config.total_steps // (config.num_envs * config.rollout_steps)

    def train(arrays, path, key):
        run = algorithm.make_run(config, env=adapt(Table(arrays), SPEC))
        state, report = advance(run, run.init(key), None, updates)
        model = policy.make(config.policy, SPEC, "probe")
        obs = jax.nn.one_hot(arrays[-1][path.T], STATES)
        first = jnp.zeros((3, 2), bool).at[0].set(True)
        out = model.unroll(state.learner.params, model.explore.init(2), obs, first)
        return out.value.T, jax.nn.softmax(out.dist)[..., 1].T, report.bad_step

    arrays = [np.stack(x) for x in zip(*map(table, PROBES.values()), strict=True)]
    states = np.stack([paths(probe)[0] for probe in PROBES.values()])
    program = jit(jax.vmap(train, in_axes=(0, 0, None)))
    value, probability, bad_step = jax.device_get(program(arrays, states, jax.random.key(0)))
    assert (bad_step == -1).all()
    return dict(zip(PROBES, zip(value, probability, strict=True), strict=True))


def of_best(probe, probability):
    """The probabilities of the best actions, where they matter."""
    best = paths(probe)[2]
    return np.where(best == 1, probability, 1 - probability)[~np.isnan(best)]


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("probe", SEEN)
def test_values_and_the_best_actions_of_a_probe_are_learned(name, probe):
    value, probability = learned(name)[probe]
    expected = paths(PROBES[probe])[1]
    assert (of_best(PROBES[probe], probability) > 0.95).all()
    if not name.endswith("left out"):  # which learns no values
        matters = ~np.isnan(expected)
        np.testing.assert_allclose(value[matters], expected[matters], atol=0.05)


@pytest.mark.parametrize("name", LEARNERS)
def test_what_was_seen_before_is_acted_on_by_those_who_remember_and_by_no_others(name):
    value, probability = learned(name)[MEMORY]
    right = of_best(PROBES[MEMORY], probability)
    if LEARNERS[name][1].policy.recurrent == "none":
        np.testing.assert_allclose(right.sum(), 1, rtol=1e-5)  # one of the two cues it takes for the other
    else:
        assert (right > 0.95).all()
        if not name.endswith("left out"):
            np.testing.assert_allclose(value, paths(PROBES[MEMORY])[1], atol=0.05)
