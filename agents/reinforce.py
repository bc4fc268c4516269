"""REINFORCE: the score-function estimator of the policy gradient, with a choice of baselines.

    grad J = E[sum_t gamma^t grad log pi(a_t | s_t) (G_t - b_t)],    G_t = sum_{k >= t} gamma^(k - t) r_k

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning" (1992); the baseline b
lowers the variance. `returns=episode` has the return of the whole episode, G_0, in place of gamma^t G_t: as unbiased, and
noisier, since what was paid before an action cannot depend on it. Baselines:
- `none`: b = 0;
- `constant`: a moving average of the returns of earlier rollouts. Unbiased: it does not depend on these actions;
- `batch`: the mean of the rollout's episodes, of each step's returns at that step (0 once an episode is over). Its own
  return is in it: of N episodes, the mean of the gradient is (1 - 1/N) of the true one, in the same direction;
- `leave_one_out`: the mean of the other episodes, which is unbiased (Kool et al. 2019, "Buy 4 REINFORCE samples, get a
  baseline for free!");
- `value`: a learned V(s_t), as it was before the rollout. Unbiased for any V (Sutton et al. 2000).

What a gradient is made of (`episodes`): `complete` ones, those that began so early in the rollout that it holds them to
their end whatever they do: which are in is settled before they are played, so that long ones count as often as short ones.
Their gradients are summed over steps and averaged over episodes. Or `fragments`: all steps, the returns bootstrapped at the
rollout's end by the value that is then needed, and averaged over steps; what lies beyond the end is an estimate.

What the defaults change about the gradient: the factor gamma^t is left out (`discount_states` keeps it), as everywhere in
practice, since it would stop learning late in an episode; what is followed is then no gradient of any objective (Nota &
Thomas 2020). An entropy bonus adds its own gradient. Averages over steps weigh long episodes more. Clipping the gradient,
and Adam, change its length. A time limit that ends an episode is bootstrapped with the value baseline, and with the others
the end of the return. Rollouts longer than the time limit, as they are if not given, hold a random number N of complete
episodes: the sum of their gradients has the mean E[N] grad J, and division by N biases it by the order of 1/N. Exact, and
tested to be so, are rollouts of one time limit on the device, whose episodes terminate, gamma = 1 or `discount_states`, no
entropy bonus, no normalization.

Shapes: `T` steps of a rollout, `B` environments, `H` the time limit of an episode.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import optim
from jaxdl.core import axis
from jaxdl.core import config as configs
from jaxdl.core.config import require, require_positive, require_unit
from jaxdl.core.errors import UserError
from jaxdl.core.run import compose
from jaxdl.core.types import Array, Key, Learner, Mean, PyTree, Run, UpdateResult
from jaxdl.ops import losses
from jaxdl.ops.running_stats import Moments
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import envs, policy, rollout
from jaxdl.rl import returns as returns_of
from jaxdl.rl.envs import config as env_settings
from jaxdl.rl.host_run import compose_host
from jaxdl.rl.policy import Config as PolicyConfig
from jaxdl.rl.types import Agent, Env, EnvSpec, HostRun, Trajectory


@configs.config
class Config:
    """Settings of REINFORCE."""

    shared_sizes: ClassVar[tuple[str, ...]] = ("num_envs",)  # devices share these: `axis.share`

    env_id: str = "CartPole-v1"
    """Gymnasium id of the environment."""
    backend: Literal["auto", "device", "host"] = "auto"
    """Where it runs: device (a twin in JAX), host (Gymnasium's own), auto (device where there is a twin)."""
    vectorization: Literal["auto", "sync", "async", "native"] = "auto"
    """Host only: how Gymnasium steps several environments; auto is native where the environment has it, else sync."""
    num_envs: int = 8
    """Environments stepped side by side."""
    total_steps: int = 500_000
    """Environment steps of the planned run, over all environments; schedules run over it."""
    rollout_steps: int | None = None
    """Steps of each environment in one rollout, which makes one update; if not given 64 for fragments, and for complete
    episodes twice their time limit."""
    baseline: Literal["none", "constant", "batch", "leave_one_out", "value"] = "value"
    """What is subtracted from returns."""
    returns: Literal["to_go", "episode"] = "to_go"
    """What an action is weighed by: the rewards after it, or all of its episode."""
    episodes: Literal["auto", "complete", "fragments"] = "auto"
    """Learn from complete episodes alone, or from all steps; auto is fragments with the value baseline, else complete."""
    gamma: float = 0.99
    """Discount per step."""
    discount_states: bool = False
    """Keep the factor gamma^t of the t-th step of an episode, which makes the gradient that of the discounted return."""
    baseline_decay: float = 0.9
    """constant only: what a rollout leaves of the weight of earlier ones."""
    normalize_advantage: bool = False
    """Standardize what actions are weighed by, over the rollout."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus (Mnih et al. 2016)."""
    vf_coef: float = 0.5
    """value only: weight of its loss."""
    clip_reward: bool = False
    """Learn from rewards clipped to [-1, 1]."""
    normalize_reward: bool = False
    """Divide rewards by the standard deviation of their discounted sums, which is learned along the way."""
    policy: PolicyConfig = PolicyConfig()
    """The policy and its value."""
    optim: OptimConfig = OptimConfig(learning_rate=4e-3, schedule="linear", eps=1e-5, max_grad_norm=0.5)
    """The optimizer; a high rate that falls (chosen on CartPole over 30 seeds)."""
    env: env_settings.Config = env_settings.Config()
    """How the environment is made."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree
    moments: Moments | None  # of the observations, where they are normalized
    average: Mean | None  # of earlier returns, where it is the baseline


class Part(NamedTuple):
    """What the loss reads: sequences [B, T, ...]."""

    obs: Array
    first: Array
    action: Array
    advantage: Array  # returns less the baseline, weighed: its mean times the score is the gradient
    target: Array  # of the value
    weight: Array
    carry: PyTree  # [B, ...] before the first step


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the environment.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "num_envs", "total_steps", "rollout_steps")
    require_unit(config, "gamma", "baseline_decay")
    for field in ("ent_coef", "vf_coef"):
        require(config, field, 0 <= getattr(config, field) < float("inf"), "0 or above")
    env_settings.validate(config.env)
    policy.validate(config.policy)
    if not complete(config):
        if config.baseline != "value":
            raise UserError(f"episodes=fragments needs baseline=value: with baseline={config.baseline} nothing stands for what "
                            "comes after a fragment; use episodes=complete")
        for field, plain in (("returns", "to_go"), ("discount_states", False)):
            if getattr(config, field) != plain:
                raise UserError(f"{field}={getattr(config, field)} needs whole episodes; add episodes=complete")
    optim.validate(config.optim, config.num_envs)


def complete(config: Config) -> bool:
    """Whether complete episodes alone are learned from."""
    return config.episodes == "complete" or (config.episodes == "auto" and config.baseline != "value")


def rollout_steps(config: Config, spec: EnvSpec, fresh: bool = True) -> int:
    """Steps of each environment in one rollout; where rollouts do not begin with `fresh` episodes, one must end first.

    Raises:
        UserError: they cannot hold a complete episode, or are more than the whole run has.
    """
    steps = config.rollout_steps
    if complete(config):
        limit = spec.max_episode_steps
        if limit is None:
            raise UserError(f"complete episodes of {spec.id} need a time limit, and it has none; give time_limit")
        steps, needed = steps or 2 * limit, limit if fresh else 2 * limit
        if steps < needed:
            raise UserError(f"rollout_steps={steps} may hold no complete episode of {spec.id}, whose time limit is {limit}; "
                            f"{needed} do")
    steps = steps or 64
    rollout.check_sizes(config.total_steps, config.num_envs, steps)
    return steps


class Episodic(NamedTuple):
    """Where the rows of a rollout stand in their episodes, [T, B]."""

    begin: Array  # int32: the row at which its episode began, -1 before the rollout
    age: Array  # int32: rows since then
    whole: Array  # bool: of an episode that is complete whatever happens


def episodic(trajectory: Trajectory, limit: int) -> Episodic:
    """The episodes of a rollout: complete whatever happens are those that began at least `limit` rows before its end."""
    length = trajectory.first.shape[0]
    row = jnp.arange(length, dtype=jnp.int32)[:, None]
    begin = jax.lax.cummax(jnp.where(trajectory.first, row, -1))
    return Episodic(begin, row - begin, trajectory.valid & (begin >= 0) & (begin <= length - limit))


def others_mean(value: Array, at: Episodic, first: Array, limit: int, *, leave_out: bool, by_age: bool,
                axis_name: str | None = None) -> Array:
    """The mean over the rollout's complete episodes, [T, B]; with `leave_out` over those but one's own.

    Args:
        value: [T, B] returns.
        at: where the rows stand.
        first: [T, B] bool.
        limit: H.
        leave_out: an episode is not in its own mean; 0 where it is the only one.
        by_age: of the returns at the same step of each episode, 0 once it is over; else of their first returns.
        axis_name: the episodes are those of all its shards.
    """
    index = jnp.where(at.whole, at.age if by_age else 0, limit)  # beyond the last: dropped
    counted = at.whole if by_age else at.whole & first
    sums = jnp.zeros(limit).at[index.reshape(-1)].add(jnp.where(counted, value, 0).reshape(-1), mode="drop")
    count = (at.whole & first).sum(dtype=jnp.float32)
    sums, count = axis.sum_over((sums, count), axis_name)
    total = sums.at[index].get(mode="fill", fill_value=0)
    return (total - value) / jnp.maximum(count - 1, 1) * (count > 1) if leave_out else total / jnp.maximum(count, 1)


def make(config: Config, spec: EnvSpec, axis_name: str | None = None) -> Agent:
    """The learner and its policies for an environment.

    Raises:
        UserError: as `policy.make` and `rollout_steps`.
    """
    if config.returns == "episode" and spec.lives_lost_end_returns:
        raise UserError("returns=episode needs whole games, but episodic_life=True ends returns when a life is lost; set "
                        "episodic_life=False or use returns=to_go")
    model = policy.make(config.policy, spec, "reinforce")
    optimizer = optim.make(config.optim, horizon=planned_updates(config, spec))
    valued, limit = config.baseline == "value", spec.max_episode_steps

    def init(key: Key) -> State:
        params = model.init(key)
        average = Mean(jnp.zeros(()), jnp.zeros(())) if config.baseline == "constant" else None
        return State(params, optimizer.init(params), model.moments, average)

    def loss_fn(params: PyTree, part: Part, key: Key):
        del key
        obs, first = policy.sequences((part.obs, part.first))
        out = model.unroll(params, part.carry, obs, first)
        dist, value = policy.sequences((out.dist, out.value))
        of_policy, entropy = -model.actions.log_prob(dist, part.action) * part.advantage, model.actions.entropy(dist)
        of_value = losses.squared(value - part.target) if valued else jnp.zeros_like(value)
        loss = of_policy + part.weight * (config.vf_coef * of_value - config.ent_coef * entropy)
        said = [of_policy, entropy, of_value] if valued else [of_policy, entropy]
        return loss.mean(), policy.means(said, part.weight)

    def baseline(state: State, returns: Array, value: Array, first: Array, at: Episodic | None) -> Array:
        if config.baseline == "none":
            return jnp.zeros_like(returns)
        if config.baseline == "constant":
            return jnp.broadcast_to(state.average.total / jnp.maximum(state.average.count, 1e-8), returns.shape)
        if config.baseline == "value":
            return value if config.returns == "to_go" else jnp.take_along_axis(value, jnp.maximum(at.begin, 0), 0)
        return others_mean(returns, at, first, limit, leave_out=config.baseline == "leave_one_out",
                           by_age=config.returns == "to_go", axis_name=axis_name)

    def update(state: State, trajectory: Trajectory, key: Key) -> tuple[State, UpdateResult]:
        batch = policy.read(model, state.moments, trajectory, config.gamma, axis_name)
        value, next_value = jnp.zeros_like(trajectory.reward), jnp.zeros_like(trajectory.reward)
        if valued:
            played = model.unroll(state.params, trajectory.carry, batch.obs, trajectory.first)
            value, next_value = played.value, model.value_after(state.params, played.carries, batch.next_obs)
        to_go = returns_of.lambda_returns(trajectory.reward, batch.discount, batch.continues, next_value, 1.0)
        at = episodic(trajectory, limit) if complete(config) else None
        whole = trajectory.valid if at is None else at.whole
        weight = policy.weights(whole, axis_name)
        returns = to_go if config.returns == "to_go" else jnp.take_along_axis(to_go, jnp.maximum(at.begin, 0), 0)
        advantage = returns - baseline(state, returns, value, trajectory.first, at)
        if config.normalize_advantage:
            advantage = policy.standardized(advantage, weight, axis_name)
        if config.discount_states and config.returns == "to_go":
            advantage = advantage * config.gamma ** at.age.astype(jnp.float32)
        if at is None:
            advantage = advantage * weight
        else:  # a mean over episodes, not over steps
            episodes = axis.mean_over((whole & trajectory.first).mean(dtype=jnp.float32), axis_name)
            advantage = jnp.where(whole, advantage, 0) / jnp.maximum(episodes, 1e-8)
        part = Part(batch.obs, trajectory.first, trajectory.choice.action, advantage, to_go, weight, None)
        part = policy.sequences(part)._replace(carry=trajectory.carry)
        grads, said = optim.gradients(loss_fn, state.params, part, key, config.optim)
        params, opt = optimizer.step(grads, state.opt, state.params, axis_name)
        average = None
        if config.baseline == "constant":
            new = axis.sum_over(Mean.of(returns, whole), axis_name)
            average = jax.tree.map(lambda old, new: config.baseline_decay * old + new, state.average, new)
        metrics = policy.named(("policy_loss", "entropy", "value_loss")[: 2 + valued], said)
        if valued:
            metrics["explained_variance"] = policy.explained_variance(value, to_go, weight, axis_name)
        return State(params, opt, policy.observed(state.moments, trajectory, axis_name), average), UpdateResult(metrics)

    learner = Learner(init, update, lambda state: policy.Policy(state.params, state.moments))
    return Agent(learner, model.explore, model.greedy)


def planned_updates(config: Config, spec: EnvSpec) -> int:
    """Updates in a run of `total_steps`: the horizon of the learning rate's schedule."""
    return config.total_steps // (config.num_envs * rollout_steps(config, spec))


def make_run(config: Config, axis_name: str | None = None, env: Env | None = None, shards: int = 1) -> Run:
    """REINFORCE on an environment that runs on the device; `env` is one that was made before."""
    env = env or envs.make_device(config.env_id, config.env, config.num_envs)
    agent, source = make(config, env.spec, axis_name), _source(config, env.spec, axis_name, shards, fresh=not env.outside_jax)
    return compose(agent.learner, rollout.rollout(env, agent.explore, source), stride=source.stride, axis_name=axis_name)


def make_host_run(config: Config, spec: EnvSpec, axis_name: str | None = None, shards: int = 1) -> HostRun:
    """REINFORCE on Gymnasium environments."""
    agent, source = make(config, spec, axis_name), _source(config, spec, axis_name, shards, fresh=False)
    host = rollout.host_rollout(spec, agent.learner, agent.explore, source)
    return compose_host(agent.learner, host, num_envs=config.num_envs, train_freq=source.steps, updates=1, first_step=0,
                        axis_name=axis_name)


def _source(config: Config, spec: EnvSpec, axis_name: str | None, shards: int, fresh: bool) -> rollout.Settings:
    config = axis.share(config, shards)
    return rollout.Settings(config.num_envs, rollout_steps(config, spec, fresh), config.gamma, config.clip_reward,
                            config.normalize_reward, fresh and complete(config), axis_name, shards)
