"""Deep Q-learning with experience replay and a target network.

    target = reward + discount * max_a Q_target(next_obs, a)
    loss   = mean over the batch of (Q(obs, action) - target) ** 2 / 2

Mnih et al., "Human-level control through deep reinforcement learning" (Nature, 2015). Options that compose:
- `double`: the online network chooses the action that the target network values (van Hasselt et al. 2016);
- `dueling`: Q = V + A - mean(A) (Wang et al. 2016);
- `n_steps`: returns of n steps (Sutton 1988), cut at ends of episodes; off-policy actions within them are not corrected.

How this differs from the paper: Adam in place of RMSProp; rewards and errors are not clipped; the target network follows
slowly (Lillicrap et al. 2016) in place of being copied now and then; an episode that is cut by its time limit bootstraps
from its last observation, as one that goes on; each environment tosses a coin of its own for epsilon-greedy. Loss and
target are settings. With the Huber loss a fast target diverges on CartPole: its few terminal transitions have the large
errors, which that loss clips.

Shapes: `B` batch, `N` environments, `A` actions.
"""

from typing import Any, Literal, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import config as configs
from jaxdl import envs, losses, nn, optim, parallel
from jaxdl.config import require, require_positive, require_unit
from jaxdl.errors import UserError
from jaxdl.optim import Config as OptimConfig
from jaxdl.run import compose, compose_host
from jaxdl.sources import replay
from jaxdl.types import Actor, Array, Aux, EnvSpec, HostRun, Key, Learner, Mean, PyTree, Run, Transition


@configs.config
class Config:
    """Settings of DQN. Names are those of Stable-Baselines3 where it has them; "SB3" marks a default of its DQN."""

    env_id: str = "CartPole-v1"
    """Gymnasium id of the environment."""
    backend: Literal["auto", "device", "host"] = "auto"
    """Where it runs: device (a twin in JAX), host (Gymnasium's own), auto (device where there is a twin)."""
    vectorization: Literal["auto", "sync", "async", "native"] = "auto"
    """Host only: how Gymnasium steps several environments; auto is native where the environment has it, else sync."""
    num_envs: int = 8
    """Environments stepped side by side."""
    total_steps: int = 250_000
    """Environment steps of the planned run, over all environments; schedules run over it."""
    buffer_size: int = 100_000
    """Capacity of the replay memory, in steps; a multiple of num_envs."""
    learning_starts: int = 1_000
    """Environment steps of uniformly random actions before the first update (CleanRL has 10,000, SB3 100)."""
    batch_size: int = 128
    """Transitions in one update (CleanRL)."""
    gamma: float = 0.99
    """Discount per step (SB3)."""
    train_freq: int = 1
    """Vector steps between two rounds of updates: num_envs * train_freq environment steps."""
    gradient_steps: int = 1
    """Updates in one round (SB3)."""
    target_update_interval: int = 1
    """Environment steps between two updates of the target network; 1 is at every update."""
    tau: float = 0.01
    """Share of the online network that a target update takes over (Lillicrap et al. 2016); 1 copies it."""
    exploration_initial_eps: float = 1.0
    """Epsilon of epsilon-greedy at the beginning (SB3)."""
    exploration_final_eps: float = 0.05
    """Epsilon at the end (SB3)."""
    exploration_fraction: float = 0.2
    """Share of total_steps over which epsilon falls, linearly."""
    double: bool = False
    """Double Q-learning: the online network chooses the action, the target network values it."""
    dueling: bool = False
    """Separate streams for the value of the state and the advantages of the actions."""
    n_steps: int = 1
    """Steps of the return before it bootstraps."""
    loss: Literal["huber", "squared"] = "squared"
    """Loss of the temporal difference (CleanRL); huber is squared up to 1 and linear beyond (SB3)."""
    hidden_sizes: tuple[int, ...] = (120, 84)
    """Widths of the hidden layers (CleanRL)."""
    activation: str = "relu"
    """Nonlinearity of the hidden layers."""
    optim: OptimConfig = OptimConfig(learning_rate=2e-3, schedule="linear", final_fraction=0.05)
    """The optimizer; a high rate that falls (chosen on CartPole over 20 seeds: a low one is late, a constant one relapses)."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    target: PyTree  # like params
    opt: PyTree
    since_target: Array  # int32 (): environment steps * gradient_steps since the last target update


class Agent(NamedTuple):
    """A learner with its two policies."""

    learner: Learner
    explore: Actor
    greedy: Actor


class QNetwork(linen.Module):
    """obs [N, ...] -> action values [N, A]: an MLP on vectors, the Nature convolutions below it on images [H, W, C]."""

    num_actions: int
    hidden_sizes: tuple[int, ...]
    activation: str
    dueling: bool

    @linen.compact
    def __call__(self, obs: Array) -> Array:
        x = nn.NatureConv()(obs) if obs.ndim == 4 else obs.reshape(obs.shape[0], -1).astype(jnp.float32)
        x = nn.MLP(self.hidden_sizes, activation=self.activation)(x)
        return nn.QHead(self.num_actions, dueling=self.dueling)(x)


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the environment.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "num_envs", "total_steps", "buffer_size", "learning_starts", "batch_size", "train_freq",
                     "gradient_steps", "target_update_interval", "n_steps", "tau")
    require_unit(config, "gamma", "tau", "exploration_initial_eps", "exploration_final_eps", "exploration_fraction")
    require(config, "target_update_interval", config.target_update_interval * config.gradient_steps < 2**31,
            f"below 2**31 / gradient_steps={config.gradient_steps}")
    require(config, "hidden_sizes", all(n > 0 for n in config.hidden_sizes), "widths above 0")
    nn.activation(config.activation)
    optim.validate(config.optim, config.batch_size)
    replay.check_sizes(config.num_envs, config.buffer_size, config.batch_size, config.train_freq, config.learning_starts)
    first_end = first_step(config) + config.num_envs * config.train_freq
    if first_end > config.total_steps:
        raise UserError(f"learning_starts={config.learning_starts} leaves nothing to learn in "
                        f"total_steps={config.total_steps}: the first round of updates ends at step {first_end}; lower the "
                        "one or raise the other")
    if config.buffer_size // config.num_envs < config.n_steps:
        raise UserError(f"n_steps={config.n_steps} is longer than an environment's share of the memory "
                        f"({config.buffer_size // config.num_envs} steps); raise buffer_size")


def td_error(q: Array, action: Array, reward: Array, discount: Array, q_next: Array, q_select: Array) -> Array:
    """Temporal-difference errors [B]: `q[action] - (reward + discount * q_next[argmax q_select])`, no gradient in the target.

    Args:
        q: [B, A] values of the observations.
        action: [B] int.
        reward: [B].
        discount: [B], 0 after a termination.
        q_next: [B, A] target network's values of the next observations.
        q_select: [B, A] values that choose the next action: `q_next` itself, or the online network's (double).
    """
    best = _at(q_next, q_select.argmax(-1))
    return _at(q, action) - jax.lax.stop_gradient(reward + discount * best)


def _at(q: Array, action: Array) -> Array:
    """`q[i, action[i]]`, [B]: a comparison, because the gradient of a gather is a scatter, slow where B is small."""
    return jnp.where(action[:, None] == jnp.arange(q.shape[-1]), q, 0).sum(-1)


def make(config: Config, spec: EnvSpec, axis_name: str | None = None) -> Agent:
    """The learner and its policies for an environment.

    Raises:
        UserError: the environment's actions are not discrete or its observations are no arrays of numbers.
    """
    envs.check_spaces(spec, "dqn", actions=(gymnasium.spaces.Discrete,), observations=(gymnasium.spaces.Box,))
    num_actions = int(spec.action_space.n)
    network = QNetwork(num_actions, config.hidden_sizes, config.activation, config.dueling)
    tx = optim.make(config.optim, horizon=planned_updates(config))
    loss_of = {"huber": losses.huber, "squared": losses.squared}[config.loss]
    interval = config.target_update_interval * config.gradient_steps
    stride = config.num_envs * config.train_freq

    def init(key: Key) -> State:
        space = spec.observation_space
        params = nn.init(network, key, jnp.zeros((1, *space.shape), space.dtype))
        return State(params, params, tx.init(params), jnp.zeros((), jnp.int32))

    def loss_fn(params: PyTree, target: PyTree, batch: Transition) -> tuple[Array, dict[str, Mean]]:
        q_next = network.apply(target, batch.next_obs)
        if config.double:
            q, q_select = jnp.split(network.apply(params, jnp.concatenate([batch.obs, batch.next_obs])), 2)
        else:
            q, q_select = network.apply(params, batch.obs), q_next
        delta = td_error(q, batch.action, batch.reward, batch.discount, q_next, q_select)
        loss = loss_of(delta)
        return loss.mean(), {"loss": Mean.of(loss), "q_mean": Mean.of(q)}

    def update(state: State, batch: Transition, key: Key) -> tuple[State, Aux]:
        grads, metrics = optim.gradients(lambda params, batch, _: loss_fn(params, state.target, batch), state.params,
                                         batch, key, config.optim.accumulate)
        updates, opt = tx.update(parallel.mean_over(grads, axis_name), state.opt, state.params)
        params = jax.tree.map(jnp.add, state.params, updates)
        since = state.since_target + stride
        due = since >= interval
        share = jnp.where(due, config.tau, 0.0)
        target = jax.tree.map(lambda new, old: jnp.where(due, share * new + (1 - share) * old, old), params, state.target)
        return State(params, target, opt, since % interval), Aux(metrics)

    def greedy(params: PyTree, carry: None, obs: Array, key: Key, t: Array):
        del key, t
        return carry, network.apply(params, obs).argmax(-1).astype(jax.dtypes.canonicalize_dtype(spec.action_space.dtype)), {}

    def explore(params: PyTree, carry: None, obs: Array, key: Key, t: Array):
        _, best, _ = greedy(params, carry, obs, key, t)
        eps = epsilon(config, t)
        coin, random = jax.random.uniform(key, (2, *best.shape))  # one draw for both: half the hashing
        return carry, jnp.where(coin < eps, (random * num_actions).astype(best.dtype), best), {"epsilon": eps}

    def no_carry(n: int) -> None:
        del n

    return Agent(Learner(init, update, lambda state: state.params), Actor(no_carry, explore), Actor(no_carry, greedy))


def epsilon(config: Config, t: Array) -> Array:
    """Probability of a random action at environment step `t`: 1 before learning starts, then the linear schedule."""
    done = jnp.clip(t / jnp.maximum(config.exploration_fraction * config.total_steps, 1.0), 0.0, 1.0)
    scheduled = config.exploration_initial_eps + done * (config.exploration_final_eps - config.exploration_initial_eps)
    return jnp.where(t < config.learning_starts, 1.0, scheduled)


def planned_updates(config: Config) -> int:
    """Updates in a run of `total_steps`: the horizon of the learning rate's schedule."""
    return max((config.total_steps - first_step(config)) // (config.num_envs * config.train_freq), 1) * config.gradient_steps


def make_run(config: Config, axis_name: str | None = None) -> Run:
    """DQN on an environment that runs on the device."""
    env = envs.make_device(config.env_id)
    agent = make(config, env.spec, axis_name)
    stride = config.num_envs * config.train_freq
    source = replay.replay(env, agent.explore, **_memory(config))
    return compose(agent.learner, source, stride=stride, updates=config.gradient_steps, first_step=first_step(config),
                   axis_name=axis_name)


def make_host_run(config: Config, spec: EnvSpec) -> HostRun:
    """DQN on Gymnasium environments."""
    agent = make(config, spec)
    return compose_host(agent.learner, replay.host_replay(spec, agent.explore, **_memory(config)),
                        num_envs=config.num_envs, train_freq=config.train_freq, updates=config.gradient_steps,
                        first_step=first_step(config))


def first_step(config: Config) -> int:
    """Environment steps before the first update."""
    stride = config.num_envs * config.train_freq
    return stride * replay.warmup_collects(config.learning_starts, stride)


def _memory(config: Config) -> dict[str, Any]:
    names = ("num_envs", "buffer_size", "batch_size", "train_freq", "learning_starts", "n_steps", "gamma")
    return {name: getattr(config, name) for name in names}
