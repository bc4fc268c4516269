"""REINFORCE: the score-function estimator of the policy gradient, with a choice of baselines.

    grad J = E[sum_t gamma^t grad log pi(a_t | s_t) (G_t - b_t)],    G_t = sum_{k >= t} gamma^(k - t) r_k

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning" (1992); the baseline b
lowers the variance. `returns=episode` has the return of the whole episode, G_0, in place of gamma^t G_t: also unbiased, but
noisier, since rewards before an action do not depend on it. Baselines:
- `none`: b = 0;
- `constant`: a moving average of the returns of earlier rollouts. Unbiased: it does not depend on these actions;
- `batch`: the mean over the rollout's episodes of their returns at the same step (0 once an episode is over). An episode's own
  return is part of it: with N episodes the expected gradient is (1 - 1/N) of the true one, in the same direction;
- `leave_one_out`: the mean over the other episodes, which is unbiased (Kool et al. 2019, "Buy 4 REINFORCE samples, get a
  baseline for free!");
- `value`: a learned V(s_t), as it was before the rollout. Unbiased for any V (Sutton et al. 2000).

The gradient is made of (`learn_from`) `complete` episodes, or of `fragments`. Complete ones are those that began so early that
the rollout holds them to their end however long they last: which count is settled before they are played, so that long ones
count as often as short ones. Their gradients are summed over steps and averaged over episodes. Fragments are all steps of the
rollout, averaged; returns bootstrap at its end, from the value that is then needed, so that the rest is an estimate.

What the defaults change about the gradient: the factor gamma^t is left out (`discount_states` keeps it), as everywhere in
practice, since it would stop learning late in an episode; the update is then not the gradient of any objective (Nota & Thomas
2020). An entropy bonus adds its own gradient. Averages over steps weigh long episodes more. Clipping the gradient, and Adam,
change its length. Where a time limit ends an episode, the return bootstraps with the value baseline and ends with the others.
Rollouts longer than the time limit, as by default, hold a random number N of complete episodes: the sum of their gradients has
the mean E[N] grad J, and division by N biases it by the order of 1/N. The gradient is exact, and tested to be, for rollouts
of one time limit on the device, episodes that terminate, gamma = 1 or `discount_states`, no entropy bonus, no normalization.

Shapes: `T` steps of a rollout, `B` environments, `H` the time limit of an episode.
"""

from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import optim
from jaxdl.core import axis
from jaxdl.core import config as configs
from jaxdl.core.config import require_positive, require_unit
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, Mean, PyTree, UpdateResult
from jaxdl.ops import baselines, losses
from jaxdl.ops.running_stats import Moments
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import on_policy, policy, rollout
from jaxdl.rl import returns as returns_of
from jaxdl.rl.on_policy import Minibatch
from jaxdl.rl.task import agent_algorithm
from jaxdl.rl.types import Agent, EnvSpec, Trajectory


@configs.config
class Config(on_policy.Config):
    """Settings of REINFORCE."""

    renamed: ClassVar[dict[str, str]] = {"episodes": "learn_from"}

    total_steps: int = 500_000
    """Environment steps of the planned run, over all environments; schedules run over it."""
    rollout_steps: int | None = None
    """Steps of each environment in one rollout, which makes one update; if not given 64 for fragments, and for complete
    episodes twice their time limit."""
    baseline: baselines.Name = "value"
    """The baseline that is subtracted from returns."""
    returns: Literal["to_go", "episode"] = "to_go"
    """The weight of an action: the rewards after it, or those of its whole episode."""
    learn_from: Literal["auto", "complete", "fragments"] = "auto"
    """Learn from complete episodes alone, or from all steps; auto is fragments with the value baseline, else complete."""
    discount_states: bool = False
    """Keep the factor gamma^t of the t-th step of an episode, which makes the gradient that of the discounted return."""
    baseline_decay: float = 0.9
    """constant only: the factor by which a rollout reduces the weight of earlier ones."""
    normalize_advantage: bool = False
    """Standardize the weights of actions over the rollout."""
    vf_coef: float = 0.5
    """Weight of the value's loss (baseline=value only)."""
    optim: OptimConfig = OptimConfig(learning_rate=4e-3, schedule="linear", eps=1e-5, max_grad_norm=0.5)
    """The optimizer; a high rate that falls (chosen on CartPole over 30 seeds)."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree
    moments: Moments | None  # of the observations, where they are normalized
    average: Mean | None  # of earlier returns, where it is the baseline


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the environment.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    on_policy.validate(config)
    require_positive(config, "rollout_steps")
    require_unit(config, "baseline_decay")
    if not complete(config):
        if config.baseline != "value":
            raise UserError(f"learn_from=fragments needs baseline=value: baseline={config.baseline} does not estimate the "
                            "rewards after a fragment; use learn_from=complete")
        for field, plain in (("returns", "to_go"), ("discount_states", False)):
            if getattr(config, field) != plain:
                raise UserError(f"{field}={getattr(config, field)} needs complete episodes; add learn_from=complete")
    optim.validate(config.optim, config.num_envs)


def complete(config: Config) -> bool:
    """Whether only complete episodes are learned from."""
    return config.learn_from == "complete" or (config.learn_from == "auto" and config.baseline != "value")


def rollout_steps(config: Config, spec: EnvSpec, fresh: bool = True) -> int:
    """Steps of each environment in one rollout. If rollouts do not begin with `fresh` episodes, one must end in it first.

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
    on_policy.check_standardized(config, config.num_envs * steps, "rollout")
    return steps


class Episodic(NamedTuple):
    """Positions of the rows of a rollout in their episodes, [T, B]."""

    begin: Array  # int32: the row at which its episode began, -1 before the rollout
    age: Array  # int32: rows since then
    whole: Array  # bool: part of a complete episode


def episodic(trajectory: Trajectory, limit: int) -> Episodic:
    """The episodes of a rollout; complete are those that began at least `limit` rows before its end, however they went."""
    length = trajectory.first.shape[0]
    row = jnp.arange(length, dtype=jnp.int32)[:, None]
    begin = jax.lax.cummax(jnp.where(trajectory.first, row, -1))
    return Episodic(begin, row - begin, trajectory.valid & (begin >= 0) & (begin <= length - limit))


def totals_by_age(returns: Array, at: Episodic, limit: int, axis_name: str | None = None) -> tuple[Array, Array]:
    """Sums over the rollout's complete episodes, on all shards.

    Args:
        returns: [T, B].
        at: where its rows stand.
        limit: H.

    Returns:
        The sum of the returns at each step of an episode, 0 of those that are over, [H]; the number of episodes, ().
    """
    index = jnp.where(at.whole, at.age, limit).reshape(-1)  # beyond the last: dropped
    totals = jnp.zeros(limit).at[index].add(jnp.where(at.whole, returns, 0).reshape(-1), mode="drop")
    episodes = (at.whole & (at.age == 0)).sum(dtype=jnp.float32)
    return axis.sum_over((totals, episodes), axis_name)


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
    metric_names = ("policy_loss", "entropy", "value_loss") if valued else ("policy_loss", "entropy")

    def init(key: Key) -> State:
        params = model.init(key)
        average = baselines.none_yet() if config.baseline == "constant" else None
        return State(params, optimizer.init(params), model.moments, average)

    def loss_fn(params: PyTree, part: Minibatch, key: Key):
        del key
        out = model.unroll(params, part.carry, part.obs, part.first, config.optim.compute_dtype)
        actor, entropy = -model.actions.log_prob(out.dist, part.action) * part.advantage, model.actions.entropy(out.dist)
        critic = losses.squared(out.value - part.target) if valued else jnp.zeros_like(out.value)
        loss = actor + part.weight * (config.vf_coef * critic - config.ent_coef * entropy)
        return loss.mean(), on_policy.masked_means([actor, entropy, critic][: len(metric_names)], part.weight)

    def baseline(state: State, returns: Array, value: Array, at: Episodic | None) -> Array:
        if config.baseline == "none":
            return jnp.zeros_like(returns)
        if config.baseline == "constant":
            return jnp.broadcast_to(baselines.value_of(state.average), returns.shape)
        if config.baseline == "value":
            return value if config.returns == "to_go" else jnp.take_along_axis(value, jnp.maximum(at.begin, 0), 0)
        totals, episodes = totals_by_age(returns, at, limit, axis_name)
        total = totals.at[at.age].get(mode="fill", fill_value=0) if config.returns == "to_go" else totals[0]
        return baselines.of_group(config.baseline, total, returns, episodes)

    def update(state: State, trajectory: Trajectory, key: Key) -> tuple[State, UpdateResult]:
        batch = on_policy.prepare_batch(state.moments, trajectory, config.gamma, axis_name)
        value, next_value = (on_policy.values(model, state.params, trajectory, batch) if valued else
                             (jnp.zeros_like(trajectory.reward),) * 2)
        to_go = returns_of.lambda_returns(trajectory.reward, batch.discount, batch.continues, next_value, 1.0)
        at = episodic(trajectory, limit) if complete(config) else None
        whole = trajectory.valid if at is None else at.whole
        weight = on_policy.weights(whole, axis_name)
        returns = to_go if config.returns == "to_go" else jnp.take_along_axis(to_go, jnp.maximum(at.begin, 0), 0)
        advantage = returns - baseline(state, returns, value, at)
        if config.normalize_advantage:
            advantage = on_policy.standardized(advantage, weight, axis_name)
        if config.discount_states and config.returns == "to_go":
            advantage = advantage * config.gamma ** at.age.astype(jnp.float32)
        if at is None:
            advantage = advantage * weight
        else:  # a mean over episodes, not over steps
            episodes = axis.mean_over((whole & trajectory.first).mean(dtype=jnp.float32), axis_name)
            advantage = jnp.where(whole, advantage, 0) / jnp.maximum(episodes, 1e-8)
        part = Minibatch(batch.obs, trajectory.first, trajectory.choice.action, advantage, to_go, weight, trajectory.carry)
        grads, metrics = optim.gradients(loss_fn, state.params, part, key, config.optim, on_policy.BATCH_AXIS)
        params, opt = optimizer.step(grads, on_policy.on_schedule(state.opt, trajectory), state.params, axis_name)
        average = None
        if config.baseline == "constant":
            new = axis.sum_over(Mean.of(returns, whole), axis_name)
            average = baselines.moved(state.average, new, config.baseline_decay)
        metrics = on_policy.named_metrics(metric_names, metrics)
        if valued:
            metrics["explained_variance"] = on_policy.explained_variance(value, to_go, weight, axis_name)
        return State(params, opt, on_policy.update_stats(state.moments, trajectory, axis_name), average), UpdateResult(metrics)

    return on_policy.make_agent(model, init, update)


def planned_updates(config: Config, spec: EnvSpec) -> int:
    """Updates in a run of `total_steps`: the horizon of the learning rate's schedule."""
    return config.total_steps // (config.num_envs * rollout_steps(config, spec))


make_run, make_host_run = on_policy.runs(make, rollout_steps, fresh_episodes=complete, validate=validate)
ALGORITHM = agent_algorithm("reinforce", "the score-function estimator with a choice of baselines", Config, validate, make,
                            make_run, make_host_run)
