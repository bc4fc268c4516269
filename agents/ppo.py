"""Proximal policy optimization: several passes over each rollout, with ratios of probabilities kept near 1.

    ratio  = pi(action | obs) / pi_old(action | obs)
    policy = -mean min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A)
    loss   = policy + vf_coef * mean (V - target) ** 2 / 2 - ent_coef * mean entropy

with A = GAE(lambda) of the old values and target = A + V_old. Schulman et al., "Proximal policy optimization algorithms"
(2017), eqs. 7 and 9; A by Schulman et al., "High-dimensional continuous control using generalized advantage estimation"
(2016).

How this differs from the paper: advantages are standardized in each minibatch, gradients are clipped, values may be (as in
OpenAI's Baselines; Engstrom et al. 2020 measure what that does). The updates of a rollout may end early, where the policy
has moved further than `target_kl` (by the estimate mean(ratio - 1 - log ratio) of Schulman 2020). An episode that is cut by
its time limit bootstraps from its last observation. With a recurrent policy a minibatch holds whole sequences, the rollouts
of some of the environments, whose states begin as they were played. With one epoch of one minibatch the ratio is 1, and the
gradient is that of `agents.actor_critic`.

Shapes: `T` steps of a rollout, `B` environments, `b` sequences of a minibatch.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl import optim
from jaxdl.core import axis
from jaxdl.core import config as configs
from jaxdl.core.config import require, require_positive, require_unit
from jaxdl.core.errors import UserError
from jaxdl.core.run import compose
from jaxdl.core.types import Array, Key, Learner, Mean, PyTree, Run, UpdateResult
from jaxdl.data.shuffle import shuffled_index
from jaxdl.ops import losses
from jaxdl.ops.running_stats import Moments
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import envs, policy, returns, rollout
from jaxdl.rl.envs import config as env_settings
from jaxdl.rl.host_run import compose_host
from jaxdl.rl.policy import Config as PolicyConfig
from jaxdl.rl.types import Agent, Env, EnvSpec, HostRun, Trajectory


@configs.config
class Config:
    """Settings of PPO. Names are those of Stable-Baselines3 where it has them."""

    shared_sizes: ClassVar[tuple[str, ...]] = ("num_envs",)  # devices share these: `axis.share`

    env_id: str = "CartPole-v1"
    """Gymnasium id of the environment."""
    backend: Literal["auto", "device", "host"] = "auto"
    """Where it runs: device (a twin in JAX), host (Gymnasium's own), auto (device where there is a twin)."""
    vectorization: Literal["auto", "sync", "async", "native"] = "auto"
    """Host only: how Gymnasium steps several environments; auto is native where the environment has it, else sync."""
    num_envs: int = 8
    """Environments stepped side by side."""
    total_steps: int = 200_000
    """Environment steps of the planned run, over all environments; schedules run over it."""
    rollout_steps: int = 128
    """Steps of each environment in one rollout (CleanRL)."""
    num_epochs: int = 4
    """Passes over a rollout (CleanRL)."""
    num_minibatches: int = 4
    """Parts that a pass is cut into, an update each (CleanRL)."""
    gamma: float = 0.99
    """Discount per step."""
    gae_lambda: float = 0.95
    """Lambda of the advantages: 0 trusts the value after one step, 1 the return (Schulman et al. 2017)."""
    clip_range: float = 0.2
    """How far the ratio may move from 1 before its gain ends (Schulman et al. 2017)."""
    clip_range_vf: float | None = None
    """How far a value may move from the old one before its loss no longer falls (Baselines); not given, it is free."""
    normalize_advantage: bool = True
    """Standardize the advantages of each minibatch (Baselines)."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus (Schulman et al. 2017)."""
    vf_coef: float = 0.5
    """Weight of the value's loss (Baselines)."""
    target_kl: float | None = None
    """End the updates of a rollout once the policy has moved by 1.5 times so much, in nats (Spinning Up)."""
    clip_reward: bool = False
    """Learn from rewards clipped to [-1, 1]."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of their discounted sums, which is learned along the way."""
    policy: PolicyConfig = PolicyConfig()
    """The policy and its value."""
    optim: OptimConfig = OptimConfig(learning_rate=1e-3, schedule="linear", eps=1e-5, max_grad_norm=0.5)
    """The optimizer (CleanRL's, at four times its rate: 2.5e-4 is late on CartPole)."""
    env: env_settings.Config = env_settings.Config()
    """How the environment is made."""


METRICS = ("approx_kl", "loss", "policy_loss", "value_loss", "entropy", "clip_fraction")


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree
    moments: Moments | None  # of the observations, where they are normalized


class Part(NamedTuple):
    """What the loss reads: sequences [b, T, ...], of one step each where the policy is not recurrent."""

    obs: Array
    first: Array
    action: Array
    log_prob: Array  # of the policy that played
    value: Array  # of the network that played
    advantage: Array
    target: Array  # of the value
    weight: Array
    carry: PyTree  # [b, ...] before the first step


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the environment.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "num_envs", "total_steps", "rollout_steps", "num_epochs", "num_minibatches", "clip_range",
                     "clip_range_vf", "target_kl")
    require_unit(config, "gamma", "gae_lambda")
    for field in ("ent_coef", "vf_coef"):
        require(config, field, 0 <= getattr(config, field) < float("inf"), "0 or above")
    env_settings.validate(config.env)
    policy.validate(config.policy)
    rollout.check_sizes(config.total_steps, config.num_envs, config.rollout_steps)
    whole, what = _sequences(config)
    if whole % config.num_minibatches:
        raise UserError(f"num_minibatches={config.num_minibatches} must divide the {whole} {what} of a rollout")
    optim.validate(config.optim, whole // config.num_minibatches)


def _sequences(config: Config) -> tuple[int, str]:
    """What minibatches are made of: how many there are in a rollout, and what they are."""
    if config.policy.recurrent != "none":
        return config.num_envs, "environments (num_envs)"
    return config.num_envs * config.rollout_steps, "steps (num_envs * rollout_steps)"


def surrogate(ratio: Array, advantage: Array, clip_range: float | Array) -> Array:
    """The clipped surrogate, to be made large: `min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A)`, [...] -> [...]."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip_range, 1 + clip_range) * advantage)


def value_loss(value: Array, old: Array, target: Array, clip_range: float | Array | None) -> Array:
    """Half the squared error; with a range the larger one of this and that of the value kept near the old one, [...]."""
    loss = losses.squared(value - target)
    if clip_range is None:
        return loss
    return jnp.maximum(loss, losses.squared(old + jnp.clip(value - old, -clip_range, clip_range) - target))


def make(config: Config, spec: EnvSpec, axis_name: str | None = None) -> Agent:
    """The learner and its policies for an environment.

    Raises:
        UserError: as `policy.make`.
    """
    model = policy.make(config.policy, spec, "ppo")
    recurrent = config.policy.recurrent != "none"
    optimizer = optim.make(config.optim, horizon=planned_updates(config) * config.num_epochs * config.num_minibatches)

    def init(key: Key) -> State:
        params = model.init(key)
        return State(params, optimizer.init(params), model.moments)

    def loss_fn(params: PyTree, part: Part, key: Key):
        del key
        obs, first = policy.sequences((part.obs, part.first))
        out = model.unroll(params, part.carry, obs, first)
        dist, value = policy.sequences((out.dist, out.value))
        log_ratio = model.actions.log_prob(dist, part.action) - part.log_prob
        ratio, entropy = jnp.exp(log_ratio), model.actions.entropy(dist)
        of_policy = -surrogate(ratio, part.advantage, config.clip_range)
        of_value = value_loss(value, part.value, part.target, config.clip_range_vf)
        loss = of_policy + config.vf_coef * of_value - config.ent_coef * entropy
        said = [ratio - 1 - log_ratio, loss, of_policy, of_value, entropy, jnp.abs(ratio - 1) > config.clip_range]
        return (part.weight * loss).mean(), policy.means(said, part.weight)

    def update(state: State, trajectory: Trajectory, key: Key) -> tuple[State, UpdateResult]:
        batch = policy.read(model, state.moments, trajectory, config.gamma, axis_name)
        played = model.unroll(state.params, trajectory.carry, batch.obs, trajectory.first)
        next_value = model.value_after(state.params, played.carries, batch.next_obs)
        advantage = returns.gae(trajectory.reward, batch.discount, batch.continues, played.value, next_value,
                                config.gae_lambda)
        target = advantage + played.value
        action, dist = trajectory.choice
        log_prob = model.actions.log_prob(dist, action)
        whole = Part(batch.obs, trajectory.first, action, log_prob, played.value, advantage, target, batch.weight, None)
        whole = policy.sequences(whole)._replace(carry=trajectory.carry) if recurrent else policy.steps(whole)

        def weigh(index: Array) -> tuple[Array, Array]:
            """Weights and advantages of a minibatch."""
            weight, gains = policy.weights(whole.weight[index] > 0, axis_name), whole.advantage[index]
            if config.normalize_advantage:
                gains = policy.standardized(gains, weight, axis_name)
            return weight, gains

        def minibatch(carry: tuple[PyTree, PyTree, Array], xs: tuple[Array, PyTree]) -> tuple[tuple, tuple[Mean, Array]]:
            params, opt, going = carry
            index, weighed = xs
            weight, gains = weigh(index) if weighed is None else weighed
            part = jax.tree.map(lambda x: x[index], whole)._replace(weight=weight, advantage=gains)
            grads, said = optim.gradients(loss_fn, params, part, key, config.optim)
            new = optimizer.step(grads, opt, params, axis_name)
            if config.target_kl is not None:
                moved = axis.sum_over(Mean(said.total[0], said.count), axis_name)
                going = going & (moved.total <= 1.5 * config.target_kl * moved.count)
                new = jax.tree.map(  # but the schedule of the learning rate goes on
                    lambda new, old: new if isinstance(new, optax.ScaleByScheduleState) else jnp.where(going, new, old),
                    new, (params, opt), is_leaf=lambda x: isinstance(x, optax.ScaleByScheduleState))
            return (*new, going), (said, going)

        size = trajectory.reward.shape[1] if recurrent else trajectory.reward.size
        passes = jnp.arange(config.num_epochs)  # each has an order of its own
        index = jax.vmap(lambda epoch: shuffled_index(key, epoch, jnp.arange(size), size))(passes)
        index = index.reshape(config.num_epochs * config.num_minibatches, -1)
        # Over shards all minibatches are weighed before the first, with as many reductions as one; alone that costs a tenth.
        parts = index, None if axis_name is None else jax.vmap(weigh)(index)
        (params, opt, _), (said, going) = jax.lax.scan(minibatch, (state.params, state.opt, jnp.ones((), bool)), parts)
        metrics = policy.named(METRICS, said) | ({} if config.target_kl is None else {"skipped_updates": Mean.of(~going)})
        metrics["explained_variance"] = policy.explained_variance(played.value, target, batch.weight, axis_name)
        return State(params, opt, policy.observed(state.moments, trajectory, axis_name)), UpdateResult(metrics)

    learner = Learner(init, update, lambda state: policy.Policy(state.params, state.moments))
    return Agent(learner, model.explore, model.greedy)


def planned_updates(config: Config) -> int:
    """Rollouts in a run of `total_steps`."""
    return config.total_steps // (config.num_envs * config.rollout_steps)


def make_run(config: Config, axis_name: str | None = None, env: Env | None = None, shards: int = 1) -> Run:
    """PPO on an environment that runs on the device; `env` is one that was made before."""
    env = env or envs.make_device(config.env_id, config.env, config.num_envs)
    agent, source = make(config, env.spec, axis_name), _source(config, axis_name, shards)
    return compose(agent.learner, rollout.rollout(env, agent.explore, source), stride=source.stride, axis_name=axis_name)


def make_host_run(config: Config, spec: EnvSpec, axis_name: str | None = None, shards: int = 1) -> HostRun:
    """PPO on Gymnasium environments."""
    agent, source = make(config, spec, axis_name), _source(config, axis_name, shards)
    host = rollout.host_rollout(spec, agent.learner, agent.explore, source)
    return compose_host(agent.learner, host, num_envs=config.num_envs, train_freq=config.rollout_steps, updates=1,
                        first_step=0, axis_name=axis_name)


def _source(config: Config, axis_name: str | None, shards: int) -> rollout.Settings:
    config = axis.share(config, shards)
    return rollout.Settings(config.num_envs, config.rollout_steps, config.gamma, config.clip_reward, config.normalize_reward,
                            axis_name=axis_name, shards=shards)
