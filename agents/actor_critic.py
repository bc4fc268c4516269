"""Advantage actor-critic: the policy follows the gradient of its advantages, a value learns what returns to expect.

    loss = mean(-log pi(action | obs) * A + vf_coef * (V(obs) - target) ** 2 / 2 - ent_coef * entropy)

The advantage of an action is A(s, a) = Q(s, a) - V(s): how much better it is than the policy's average action. V is learned;
Q(s, a) is estimated from the rewards that followed, and the estimate is the target of V:
- `n_step`: the rewards of n steps, and the value after them (Mnih et al., "Asynchronous methods for deep reinforcement
  learning", 2016);
- `gae`: the average over all n, weighted by lambda ** n (Schulman et al., "High-dimensional continuous control using
  generalized advantage estimation", 2016). Lambda = 1 is the return to the end of the rollout.

Subtracting V(s), which does not depend on the action, leaves the gradient's mean unchanged and lowers its variance. The
gradient is exact with lambda = 1 and complete episodes (`agents.reinforce`). A rollout that ends inside an episode bootstraps
from an estimated value: this bias is what actor-critic methods trade for less variance. A discount below 1, whose factor
gamma ** t is left out as everywhere in practice, and the entropy bonus bias it too.

How this differs from Mnih et al.: environments are stepped side by side and an update is one of all of them (A2C of OpenAI's
Baselines); an episode that is cut by its time limit bootstraps from its last observation.

Shapes: `T` steps of a rollout, `B` environments.
"""

from typing import Literal

from jaxdl import optim
from jaxdl.core import config as configs
from jaxdl.core.config import require_positive, require_unit
from jaxdl.core.types import Key, PyTree, UpdateResult
from jaxdl.ops import losses
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import on_policy, policy, returns, rollout
from jaxdl.rl.on_policy import Minibatch, State, planned_updates
from jaxdl.rl.task import agent_algorithm
from jaxdl.rl.types import Agent, EnvSpec, Trajectory


@configs.config
class Config(on_policy.Config):
    """Settings of actor-critic. Names are those of Stable-Baselines3's A2C where it has them; "SB3" marks its default."""

    total_steps: int = 300_000
    """Environment steps of the planned run, over all environments; schedules run over it."""
    rollout_steps: int = 8
    """Steps of each environment in one rollout, which makes one update (SB3 has 5; of 16, one CartPole seed in seven fails)."""
    estimator: Literal["gae", "n_step"] = "gae"
    """What estimates Q(s, a): a weighted average over all n, or the return of n_steps."""
    gae_lambda: float = 0.95
    """gae only: lambda; 1 is the return to the end of the rollout (SB3), 0 one step."""
    n_steps: int = 5
    """n_step only: steps of the return before it bootstraps (SB3); fewer at the end of a rollout."""
    normalize_advantage: bool = False
    """Standardize the advantages of each rollout."""
    normalize_reward: bool = True
    """Divide rewards by the standard deviation of their discounted sums, which is learned along the way: without it 1 to 3
    of 60 seeds forget CartPole at the end."""
    optim: OptimConfig = OptimConfig(learning_rate=3e-3, schedule="linear", eps=1e-5, max_grad_norm=0.5)
    """The optimizer: Adam in place of SB3's RMSProp, at a rate that falls (chosen on CartPole over 40 seeds)."""


METRICS = ("loss", "policy_loss", "value_loss", "entropy")


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the environment.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    on_policy.validate(config)
    require_positive(config, "rollout_steps", "n_steps")
    require_unit(config, "gae_lambda")
    rollout.check_sizes(config.total_steps, config.num_envs, config.rollout_steps)
    on_policy.check_standardized(config, config.num_envs * config.rollout_steps, "rollout")
    optim.validate(config.optim, config.num_envs)


def make(config: Config, spec: EnvSpec, axis_name: str | None = None) -> Agent:
    """The learner and its policies for an environment.

    Raises:
        UserError: as `policy.make`.
    """
    model = policy.make(config.policy, spec, "actor_critic")
    optimizer = optim.make(config.optim, horizon=planned_updates(config))

    def init(key: Key) -> State:
        params = model.init(key)
        return State(params, optimizer.init(params), model.moments)

    def loss_fn(params: PyTree, part: Minibatch, key: Key):
        del key
        out = model.unroll(params, part.carry, part.obs, part.first, config.optim.compute_dtype)
        actor = -model.actions.log_prob(out.dist, part.action) * part.advantage
        critic, entropy = losses.squared(out.value - part.target), model.actions.entropy(out.dist)
        loss = actor + config.vf_coef * critic - config.ent_coef * entropy
        return (part.weight * loss).mean(), on_policy.masked_means([loss, actor, critic, entropy], part.weight)

    def update(state: State, trajectory: Trajectory, key: Key) -> tuple[State, UpdateResult]:
        batch = on_policy.prepare_batch(state.moments, trajectory, config.gamma, axis_name)
        value, next_value = on_policy.values(model, state.params, trajectory, batch)
        steps = trajectory.reward, batch.discount, batch.continues
        target = (returns.lambda_returns(*steps, next_value, config.gae_lambda) if config.estimator == "gae" else
                  returns.n_step_returns(*steps, next_value, config.n_steps))
        advantage = target - value
        if config.normalize_advantage:
            advantage = on_policy.standardized(advantage, batch.weight, axis_name)
        whole = Minibatch(batch.obs, trajectory.first, trajectory.choice.action, advantage, target, batch.weight,
                          trajectory.carry)
        grads, metrics = optim.gradients(loss_fn, state.params, whole, key, config.optim, on_policy.BATCH_AXIS)
        params, opt = optimizer.step(grads, on_policy.on_schedule(state.opt, trajectory), state.params, axis_name)
        metrics = on_policy.named_metrics(METRICS, metrics)
        metrics["explained_variance"] = on_policy.explained_variance(value, target, batch.weight, axis_name)
        return State(params, opt, on_policy.update_stats(state.moments, trajectory, axis_name)), UpdateResult(metrics)

    return on_policy.make_agent(model, init, update)


make_run, make_host_run = on_policy.runs(make, validate=validate)
ALGORITHM = agent_algorithm("actor_critic", "advantage actor-critic, n-step or GAE", Config, validate, make, make_run,
                            make_host_run)
