"""What the baselines of REINFORCE save: the variance of its gradient on a problem whose gradient is known.

    python -m experiments.baselines --out docs/reinforce-variance.png

`Steps` is small enough for exact values and an exact gradient (`values`, `gradient`). `estimates` has the real learner
estimate that gradient from the real rollouts, many times at one policy: an estimate is what one update of plain gradient
ascent at rate 1 adds to the parameters. Their variance is the trace of their covariance.

Shapes: `S` states, `A` actions, `K` estimators, `M` batches, `P` = (S + 1) * A parameters of the policy.
"""

import argparse
import functools
import io
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv
from jax.flatten_util import ravel_pytree

from agents import reinforce
from jaxdl import drive, files, policy
from jaxdl.config import to_dict
from jaxdl.envs.functional import adapt
from jaxdl.optim import Config as OptimConfig
from jaxdl.policy import Config as PolicyConfig
from jaxdl.sources import rollout
from jaxdl.types import Array, EnvSpec, Key, PyTree

LIMIT, END, ACTIONS = 3, 7, 3
SPEC = EnvSpec("Steps", gymnasium.spaces.Discrete(END + 1), gymnasium.spaces.Discrete(ACTIONS), LIMIT)
BASE = reinforce.Config(num_envs=8, total_steps=2**30, rollout_steps=LIMIT, episodes="complete", gamma=1.0, ent_coef=0.0,
                        policy=PolicyConfig(hidden_sizes=()), optim=OptimConfig(optimizer="sgd", learning_rate=1.0))


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First [S], successors [S, A, S] and rewards [S, A, S], the same always."""
    rng = np.random.default_rng(1)
    successors, rewards = np.zeros((END + 1, ACTIONS, END + 1)), np.zeros((END + 1, ACTIONS, END + 1))
    successors[END, :, END] = 1
    for here, there in (((0, 1), (2, 3, 4, END)), ((2, 3, 4), (5, 6, END)), ((5, 6), (END,))):
        for state in here:
            successors[state][:, there] = rng.dirichlet([1] * (len(there) - 1) + [0.4], ACTIONS)
            rewards[state] = 2 + rng.normal() + rng.normal(size=(ACTIONS, END + 1))
    return np.array([0.6, 0.4] + [0] * (END - 1)), successors, rewards


FIRST, SUCCESSORS, REWARDS = _tables()


class Steps(FuncEnv):
    """Three steps, by states 0-1, 2-4 and 5-6 to the end, 7, which may come before: all ends are terminations.

    Chance has a part in every step, and a step pays 2 on average, so that what a return is compared to matters.
    """

    def initial(self, rng, params=None):
        return jax.random.choice(rng, END + 1, p=jnp.asarray(FIRST, jnp.float32)).astype(jnp.int32)

    def transition(self, state, action, rng, params=None):
        return jax.random.choice(rng, END + 1, p=jnp.asarray(SUCCESSORS, jnp.float32)[state, action]).astype(jnp.int32)

    def observation(self, state, rng, params=None):
        return state

    def reward(self, state, action, next_state, rng, params=None):
        return jnp.asarray(REWARDS, jnp.float32)[state, action, next_state]

    def terminal(self, state, rng, params=None):
        return state == END


def probabilities(params: PyTree) -> Array:
    """Of the actions in all states, [S, A]."""
    obs = jnp.arange(END + 1, dtype=jnp.int32)[None]
    out = policy.make(BASE.policy, SPEC, "reinforce").unroll(params, None, obs, jnp.ones_like(obs, bool))
    return jax.nn.softmax(out.dist[0])


def values(pi: Array, gamma: float) -> tuple[Array, Array]:
    """V [S] and Q [S, A] of a policy [S, A], exactly: one backup for each step that there can be."""
    successors, paid = jnp.asarray(SUCCESSORS, jnp.float32), jnp.asarray((SUCCESSORS * REWARDS).sum(-1), jnp.float32)
    v = jnp.zeros(END + 1)
    for _ in range(LIMIT):
        v = (pi * (paid + gamma * successors @ v)).sum(-1).at[END].set(0)
    return v, paid + gamma * successors @ v


def gradient(params: PyTree, gamma: float) -> Array:
    """Of the mean (discounted) return of an episode by the policy's parameters, exactly, [P]."""
    return policy_part(jax.grad(lambda p: FIRST.astype(np.float32) @ values(probabilities(p), gamma)[0])(params))


def policy_part(params: PyTree) -> Array:
    """The parameters of the policy, [P]: for each action its bias, then for each state those of its actions."""
    return ravel_pytree(params["params"]["policy"])[0]


def parameters(seed: int) -> PyTree:
    """A policy that prefers some actions, and the value with which learning would begin."""
    key, key_policy = jax.random.split(jax.random.key(seed))
    params = policy.make(BASE.policy, SPEC, "reinforce").init(key)["params"]
    head, preferences = params["policy"], 0.7 * jax.random.normal(key_policy, (END + 2, ACTIONS))
    return {"params": params | {"policy": head | {"bias": 0.3 * preferences[0], "kernel": preferences[1:]}}}


def with_value(params: PyTree, v: Array) -> PyTree:
    """The same policy, with `v` [S] as its value."""
    return {"params": params["params"] | {"value": {"bias": jnp.zeros(1), "kernel": v[:, None]}}}


Entry = tuple[reinforce.Config, PyTree, float]  # an estimator: its settings, its parameters, its average of earlier returns


def estimates(entries: Sequence[Entry], batches: int, seed: int, steps: int = LIMIT) -> tuple[np.ndarray, np.ndarray]:
    """What updates add to the parameters of the policy, all estimators from the same rollouts.

    Args:
        entries: the estimators; of one policy and one `num_envs`.
        batches: M.
        seed: of the rollouts.
        steps: of each environment in a rollout, which begins with a new episode.

    Returns:
        Estimates [K, M, P], and in how many complete episodes each batch has, [M].
    """
    config, params, _ = entries[0]
    agents = [reinforce.make(config, SPEC) for config, _, _ in entries]
    source = rollout.rollout(adapt(Steps(), SPEC), agents[0].explore,
                             rollout.Settings(config.num_envs, steps, config.gamma, fresh=True))

    def one(key: Key) -> tuple[Array, Array]:
        keys, t = jax.random.split(key, 1 + source.keys), jnp.zeros((), jnp.int32)
        played, _ = source.collect(source.init(keys[0]), policy.Policy(params, None), keys[1:], t)
        trajectory = source.sample(played, key, t)[1]
        return jnp.stack([added(agent, entry, trajectory) for agent, entry in zip(agents, entries, strict=True)]), (
            trajectory.first[:steps - LIMIT + 1].sum())

    def added(agent, entry, trajectory):
        _, params, average = entry
        state = agent.learner.init(jax.random.key(0))._replace(params=params)
        if state.average is not None:
            state = state._replace(average=state.average._replace(total=jnp.float32(average), count=jnp.ones(())))
        new = agent.learner.update(state, trajectory, jax.random.key(0))[0].params
        return policy_part(new) - policy_part(params)

    run = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=min(batches, 500)), compiler_options=drive.TRAIN_OPTIONS)
    found, episodes = jax.device_get(run(jax.random.split(jax.random.key(seed), batches)))
    return found.swapaxes(0, 1).astype(np.float64), episodes


def variance(found: np.ndarray) -> tuple[float, float]:
    """The trace of the covariance of estimates [M, P], and its standard error."""
    squares = np.square(found - found.mean(0)).sum(1)
    return float(squares.sum() / (len(squares) - 1)), float(squares.std() / len(squares) ** 0.5)
