"""What policy-gradient methods share: settings, a learner's state, the arithmetic of rollouts, and their runs.

A learner gets a rollout (`Trajectory`), reads it (`prepare_batch`), values it (`values`), makes of it what its loss takes
(`Minibatch`) and returns a new `State`. Rollouts and minibatches are time-major, and rows in which an environment was only
reset have weight 0.

Shapes: `T` steps of a rollout, `B` environments, `b` sequences of a minibatch.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import optim
from jaxdl.core import axis
from jaxdl.core import config as configs
from jaxdl.core.config import require, validate_untraced
from jaxdl.core.errors import UserError
from jaxdl.core.run import compose
from jaxdl.core.types import Array, Key, Learner, Mean, Metrics, PyTree, Run
from jaxdl.ops.running_stats import Moments
from jaxdl.rl import agent_config, envs, policy, rollout
from jaxdl.rl.host_run import compose_host
from jaxdl.rl.policy import Config as PolicyConfig
from jaxdl.rl.policy import Model, Policy
from jaxdl.rl.types import Agent, Env, EnvSpec, HostRun, Trajectory


@configs.config
class Config(agent_config.Config):
    """Settings of a policy gradient; an algorithm adds `rollout_steps`, `optim` and its own."""

    ent_coef: float = 0.01
    """Weight of the entropy bonus (Mnih et al. 2016)."""
    vf_coef: float = 0.5
    """Weight of the value's loss (Baselines)."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of their discounted sums, which is learned along the way."""
    policy: PolicyConfig = PolicyConfig()
    """The policy and its value."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree
    moments: Moments | None  # of the observations, where they are normalized


class Batch(NamedTuple):
    """A trajectory as a learner reads it, [T, B, ...]: observations normalized, ends as numbers."""

    obs: Array
    next_obs: Array
    discount: Array  # gamma, and 0 after a termination
    continues: Array  # bool: the next row is of the same episode
    weight: Array  # float32: of mean 1 over all shards, 0 where a row only reset its environment


class Minibatch(NamedTuple):
    """What a loss reads: sequences [T, b, ...]."""

    obs: Array
    first: Array
    action: Array
    advantage: Array
    target: Array  # of the value
    weight: Array
    carry: PyTree  # [b, ...] before the first step
    log_prob: Array | None = None  # of the action, by the policy that played (PPO)
    value: Array | None = None  # by the network that played (PPO)


BATCH_AXIS = Minibatch(1, 1, 1, 1, 1, 1, carry=0, log_prob=1, value=1)  # of sequences, for `optim.gradients`


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the environment.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    agent_config.validate(config)
    for field in ("ent_coef", "vf_coef"):
        require(config, field, 0 <= getattr(config, field) < float("inf"), "0 or above")
    policy.validate(config.policy)


def check_standardized(config: Config, steps: int, of_what: str) -> None:
    """Refuse to standardize the advantage of one step, which is 0 whatever it was: the policy would never move.

    Raises:
        UserError: names the field and what would do.
    """
    if config.normalize_advantage and steps == 1:
        raise UserError(f"normalize_advantage=True standardizes the advantages of each {of_what}, which is one step here: all "
                        "would be 0 and the policy would not learn; set normalize_advantage=False, or take more steps together")


def planned_updates(config: Config) -> int:
    """Rollouts in a run of `total_steps`."""
    return config.total_steps // (config.num_envs * config.rollout_steps)


def prepare_batch(moments: Moments | None, trajectory: Trajectory, gamma: float | Array, axis_name: str | None) -> Batch:
    """The trajectory as a learner reads it, normalized by the statistics it was played with."""
    return Batch(
        policy.normalize(moments, trajectory.obs), policy.normalize(moments, trajectory.next_obs),
        gamma * (1.0 - trajectory.terminated), ~(trajectory.terminated | trajectory.truncated),
        weights(trajectory.valid, axis_name))


def values(model: Model, params: PyTree, trajectory: Trajectory, batch: Batch) -> tuple[Array, Array]:
    """Values [T, B] of the observations and of their true successors."""
    out = model.unroll(params, trajectory.carry, batch.obs, trajectory.first)
    return out.value, model.value_after(params, out.carries, batch.next_obs)


def on_schedule(opt: PyTree, trajectory: Trajectory, updates: int = 1) -> PyTree:
    """The optimizer's state with schedules as far as the environment steps are; a rollout makes so many `updates`.

    On the host rows that only reset are no steps, and a run has more rollouts than were planned.
    """
    if trajectory.earlier is None:
        return opt
    return optim.at_update(opt, jnp.round(updates * trajectory.earlier).astype(jnp.int32))


def update_stats(moments: Moments | None, trajectory: Trajectory, axis_name: str | None) -> Moments | None:
    """The statistics of observations after adding those of a trajectory; None where observations are not normalized."""
    if moments is None:
        return None
    return moments.add(trajectory.obs.reshape(-1, *moments.mean.shape), axis_name, trajectory.valid.reshape(-1))


def weights(valid: Array, axis_name: str | None) -> Array:
    """float32, 0 where not `valid`, and of mean 1 over all shards: a mean of weighted numbers is that of the valid ones."""
    share = valid.mean(dtype=jnp.float32)
    if axis_name is not None:
        share = jax.lax.pmean(share, axis_name)
    return valid / jnp.maximum(share, 1e-8)


def standardized(x: Array, weight: Array, axis_name: str | None) -> Array:
    """`(x - mean) / (standard deviation + 1e-8)` of weighted numbers, over all shards."""
    mean, variance = _moments(x, weight, axis_name)
    return (x - mean) / (jnp.sqrt(variance) + 1e-8)


def explained_variance(value: Array, target: Array, weight: Array, axis_name: str | None) -> Mean:
    """Share of the targets' variance that the values predict: 1 is all, 0 no more than the targets' mean would."""
    left, total = _moments(target - value, weight, axis_name)[1], _moments(target, weight, axis_name)[1]
    return Mean.of(1.0 - left / jnp.maximum(total, 1e-8))


def deviations(obs: Array, axis_name: str | None) -> Array:
    """The standard deviation of each number of observations [T, B, ...], over all shards; never zero."""
    def mean(x: Array) -> Array:
        return axis.mean_over(x.mean((0, 1)), axis_name)

    return jnp.maximum(jnp.sqrt(mean(jnp.square(obs - mean(obs)))), 1e-6)


def _moments(x: Array, weight: Array, axis_name: str | None) -> tuple[Array, Array]:
    """Mean and variance: the mean over all shards first, then that of the squared deviations."""
    mean = (weight * x).mean()
    if axis_name is not None:
        mean = jax.lax.pmean(mean, axis_name)
    variance = (weight * jnp.square(x - mean)).mean()
    return mean, variance if axis_name is None else jax.lax.pmean(variance, axis_name)


def masked_means(values: list[Array], weight: Array) -> Mean:
    """Means of k arrays of the shape of `weight` where it is not 0, as one `Mean` of totals [k].

    They are summed together: in a loop each number that is kept costs kernels.
    """
    counts = weight > 0
    stacked = jnp.stack([jnp.where(counts, x, 0.0).reshape(-1) for x in values])
    return Mean(stacked.sum(1), counts.sum(dtype=jnp.float32))


def named_metrics(names: Sequence[str], means: Mean) -> Metrics:
    """Means of totals [k] by their names; those of a stack of them [n, k] are merged."""
    total, count = means.total.reshape(-1, len(names)).sum(0), means.count.sum()
    return {name: Mean(total[i], count) for i, name in enumerate(names)}


def flatten_time(tree: PyTree) -> PyTree:
    """Arrays [T, B, ...] -> [1, T * B, ...]: every step a sequence of its own."""
    return jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), tree)


def select(batch: Minibatch, index: Array) -> Minibatch:
    """The sequences `index`, int [b], of a batch."""
    sequences = jax.tree.map(lambda x: x[:, index], batch._replace(carry=None))
    return sequences._replace(carry=jax.tree.map(lambda h: h[index], batch.carry))


def make_agent(model: Model, init: Callable[[Key], State], update: Callable) -> Agent:
    """The agent of a model whose learner has a `State`, or one with more fields."""
    learner = Learner(init, update, lambda state: Policy(state.params, state.moments))
    return Agent(learner, model.explore, model.greedy, model.outputs, model.value)


def runs(make: Callable[..., Agent], rollout_steps: Callable[[Any, EnvSpec, bool], int] | None = None,
         fresh_episodes: Callable[[Any], bool] | None = None, validate: Callable[[Any], None] = lambda config: None
         ) -> tuple[Callable[..., Run], Callable[..., HostRun]]:
    """The functions `make_run` and `make_host_run` of an algorithm.

    Args:
        make: (config, spec, axis_name) -> its agent.
        rollout_steps: (config, spec, fresh) -> steps of each environment in one rollout; `config.rollout_steps` if not given.
        fresh_episodes: (config) -> whether rollouts begin with new episodes, where environments can be reset at any time;
            if not given episodes go on from one rollout to the next.
        validate: refuses settings that make no sense, before a run is made of them.
    """

    def settings(config: Config, spec: EnvSpec, axis_name: str | None, shards: int, resettable: bool) -> rollout.Settings:
        fresh = resettable and fresh_episodes is not None and fresh_episodes(config)
        steps = config.rollout_steps if rollout_steps is None else rollout_steps(config, spec, fresh)
        num_envs = axis.share(config, shards).num_envs
        return rollout.Settings(num_envs, steps, config.gamma, config.clip_reward, config.normalize_reward, fresh, axis_name,
                                shards)

    def make_run(config: Config, axis_name: str | None = None, env: Env | None = None, shards: int = 1) -> Run:
        """The run on an environment on the device; `env` is one that was made before."""
        validate_untraced(validate, config)
        env = env or envs.make_device(config.env_id, config.env, config.num_envs)
        agent, source = make(config, env.spec, axis_name), settings(config, env.spec, axis_name, shards, not env.outside_jax)
        return compose(agent.learner, rollout.rollout(env, agent.explore, source), stride=source.stride, axis_name=axis_name)

    def make_host_run(config: Config, spec: EnvSpec, axis_name: str | None = None, shards: int = 1) -> HostRun:
        """The run on Gymnasium environments."""
        validate_untraced(validate, config)
        agent, source = make(config, spec, axis_name), settings(config, spec, axis_name, shards, False)
        host = rollout.host_rollout(spec, agent.learner, agent.explore, source)
        return compose_host(agent.learner, host, num_envs=config.num_envs, stride=source.stride, rows=source.steps, updates=1,
                            first_step=0, axis_name=axis_name)

    return make_run, make_host_run
