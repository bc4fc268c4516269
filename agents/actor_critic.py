"""Advantage actor-critic: the policy follows the gradient of its advantages, a value learns what returns to expect.

    loss = mean(-log pi(action | obs) * A + vf_coef * (V(obs) - target) ** 2 / 2 - ent_coef * entropy)

The advantage of an action is A(s, a) = Q(s, a) - V(s): how much better it is than what the policy does on average. V is
learned; Q(s, a) is estimated from what was paid after it, and target is that estimate:
- `n_step`: the rewards of n steps, and the value after them (Mnih et al., "Asynchronous methods for deep reinforcement
  learning", 2016);
- `gae`: the average of all these n, weighted by lambda ** n (Schulman et al., "High-dimensional continuous control using
  generalized advantage estimation", 2016). Lambda = 1 is the return to the end of the rollout.

Subtracting V(s), which no action changes, leaves the gradient's mean as it is and lowers its variance. Exact it is with
lambda = 1 and whole episodes (`agents.reinforce`); a rollout that ends inside an episode bootstraps from a value that is an
estimate, which is the bias that actor-critic methods trade for less variance. So do a discount below 1, whose factor
gamma ** t is left out as everywhere in practice, and the entropy bonus.

How this differs from Mnih et al.: environments are stepped side by side and an update is one of all of them (A2C of OpenAI's
Baselines); an episode that is cut by its time limit bootstraps from its last observation.

Shapes: `T` steps of a rollout, `B` environments.
"""

from typing import ClassVar, Literal, NamedTuple

from jaxdl import optim
from jaxdl.core import axis
from jaxdl.core import config as configs
from jaxdl.core.config import require, require_positive, require_unit
from jaxdl.core.run import compose
from jaxdl.core.types import Array, Key, Learner, PyTree, Run, UpdateResult
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
    """Settings of actor-critic. Names are those of Stable-Baselines3's A2C where it has them; "SB3" marks its default."""

    shared_sizes: ClassVar[tuple[str, ...]] = ("num_envs",)  # devices share these: `axis.share`

    env_id: str = "CartPole-v1"
    """Gymnasium id of the environment."""
    backend: Literal["auto", "device", "host"] = "auto"
    """Where it runs: device (a twin in JAX), host (Gymnasium's own), auto (device where there is a twin)."""
    vectorization: Literal["auto", "sync", "async", "native"] = "auto"
    """Host only: how Gymnasium steps several environments; auto is native where the environment has it, else sync."""
    num_envs: int = 8
    """Environments stepped side by side."""
    total_steps: int = 300_000
    """Environment steps of the planned run, over all environments; schedules run over it."""
    rollout_steps: int = 8
    """Steps of each environment in one rollout, which makes one update (SB3 has 5; of 16, one CartPole seed in seven fails)."""
    gamma: float = 0.99
    """Discount per step (SB3)."""
    estimator: Literal["gae", "n_step"] = "gae"
    """What estimates Q(s, a): a weighted average over all n, or the return of n_steps."""
    gae_lambda: float = 0.95
    """gae only: lambda; 1 is the return to the end of the rollout (SB3), 0 one step."""
    n_steps: int = 5
    """n_step only: steps of the return before it bootstraps (SB3); shorter at the end of a rollout."""
    normalize_advantage: bool = False
    """Standardize the advantages of each rollout."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus (Mnih et al. 2016)."""
    vf_coef: float = 0.5
    """Weight of the value's loss (SB3)."""
    clip_reward: bool = False
    """Learn from rewards clipped to [-1, 1]."""
    normalize_reward: bool = True
    """Divide rewards by the standard deviation of their discounted sums, which is learned along the way: without it 1 to 3
    of 60 seeds forget CartPole at the end."""
    policy: PolicyConfig = PolicyConfig()
    """The policy and its value."""
    optim: OptimConfig = OptimConfig(learning_rate=3e-3, schedule="linear", eps=1e-5, max_grad_norm=0.5)
    """The optimizer: Adam in place of SB3's RMSProp, at a rate that falls (chosen on CartPole over 40 seeds)."""
    env: env_settings.Config = env_settings.Config()
    """How the environment is made."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree
    moments: Moments | None  # of the observations, where they are normalized


class Part(NamedTuple):
    """What the loss reads: sequences [B, T, ...]."""

    obs: Array
    first: Array
    action: Array
    advantage: Array
    target: Array  # of the value
    weight: Array
    carry: PyTree  # [B, ...] before the first step


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the environment.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "num_envs", "total_steps", "rollout_steps", "n_steps")
    require_unit(config, "gamma", "gae_lambda")
    for field in ("ent_coef", "vf_coef"):
        require(config, field, 0 <= getattr(config, field) < float("inf"), "0 or above")
    env_settings.validate(config.env)
    policy.validate(config.policy)
    rollout.check_sizes(config.total_steps, config.num_envs, config.rollout_steps)
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

    def loss_fn(params: PyTree, part: Part, key: Key):
        del key
        obs, first = policy.sequences((part.obs, part.first))
        out = model.unroll(params, part.carry, obs, first)
        dist, value = policy.sequences((out.dist, out.value))
        of_policy = -model.actions.log_prob(dist, part.action) * part.advantage
        of_value, entropy = losses.squared(value - part.target), model.actions.entropy(dist)
        loss = of_policy + config.vf_coef * of_value - config.ent_coef * entropy
        return (part.weight * loss).mean(), policy.means([loss, of_policy, of_value, entropy], part.weight)

    def update(state: State, trajectory: Trajectory, key: Key) -> tuple[State, UpdateResult]:
        batch = policy.read(model, state.moments, trajectory, config.gamma, axis_name)
        played = model.unroll(state.params, trajectory.carry, batch.obs, trajectory.first)
        next_value = model.value_after(state.params, played.carries, batch.next_obs)
        sequence = trajectory.reward, batch.discount, batch.continues
        target = (returns.lambda_returns(*sequence, next_value, config.gae_lambda) if config.estimator == "gae" else
                  returns.n_step_returns(*sequence, next_value, config.n_steps))
        advantage = target - played.value
        if config.normalize_advantage:
            advantage = policy.standardized(advantage, batch.weight, axis_name)
        part = Part(batch.obs, trajectory.first, trajectory.choice.action, advantage, target, batch.weight, None)
        part = policy.sequences(part)._replace(carry=trajectory.carry)
        grads, said = optim.gradients(loss_fn, state.params, part, key, config.optim)
        params, opt = optimizer.step(grads, state.opt, state.params, axis_name)
        metrics = policy.named(("loss", "policy_loss", "value_loss", "entropy"), said)
        metrics["explained_variance"] = policy.explained_variance(played.value, target, batch.weight, axis_name)
        return State(params, opt, policy.observed(state.moments, trajectory, axis_name)), UpdateResult(metrics)

    learner = Learner(init, update, lambda state: policy.Policy(state.params, state.moments))
    return Agent(learner, model.explore, model.greedy)


def planned_updates(config: Config) -> int:
    """Updates in a run of `total_steps`: the horizon of the learning rate's schedule."""
    return config.total_steps // (config.num_envs * config.rollout_steps)


def make_run(config: Config, axis_name: str | None = None, env: Env | None = None, shards: int = 1) -> Run:
    """Actor-critic on an environment that runs on the device; `env` is one that was made before."""
    env = env or envs.make_device(config.env_id, config.env, config.num_envs)
    agent, source = make(config, env.spec, axis_name), _source(config, axis_name, shards)
    return compose(agent.learner, rollout.rollout(env, agent.explore, source), stride=source.stride, axis_name=axis_name)


def make_host_run(config: Config, spec: EnvSpec, axis_name: str | None = None, shards: int = 1) -> HostRun:
    """Actor-critic on Gymnasium environments."""
    agent, source = make(config, spec, axis_name), _source(config, axis_name, shards)
    host = rollout.host_rollout(spec, agent.learner, agent.explore, source)
    return compose_host(agent.learner, host, num_envs=config.num_envs, train_freq=config.rollout_steps, updates=1,
                        first_step=0, axis_name=axis_name)


def _source(config: Config, axis_name: str | None, shards: int) -> rollout.Settings:
    config = axis.share(config, shards)
    return rollout.Settings(config.num_envs, config.rollout_steps, config.gamma, config.clip_reward, config.normalize_reward,
                            axis_name=axis_name, shards=shards)
