"""Deep Q-learning with experience replay and a target network, and the parts of Rainbow as settings.

    target = reward + discount * max_a Q_target(next_obs, a)
    loss   = mean over the batch of (Q(obs, action) - target) ** 2 / 2

Mnih et al., "Human-level control through deep reinforcement learning" (Nature, 2015). Options that compose; all of them
together are Rainbow (Hessel et al. 2018):
- `double`: the online network chooses the action that the target network values (van Hasselt et al. 2016);
- `dueling`: Q = V + A - mean(A) (Wang et al. 2016);
- `n_steps`: returns of n steps (Sutton 1988), cut at ends of episodes; off-policy actions within them are not corrected;
- `prioritized`: transitions with large errors are drawn more often and weigh less (Schaul et al. 2016);
- `noisy`: noise in the weights explores in place of random actions (Fortunato et al. 2018);
- `distribution`: c51 learns the distribution of returns on fixed atoms (Bellemare et al. 2017), qr their quantiles
  (Dabney et al. 2018); values are the means.

How this differs from the paper: Adam in place of RMSProp; errors are not clipped, rewards only if asked for; the target
network follows slowly (Lillicrap et al. 2016) in place of being copied now and then; an episode that is cut by its time
limit bootstraps from its last observation, as one that goes on; each environment tosses a coin of its own for
epsilon-greedy, or has noise of its own. Loss and target are settings. With the Huber loss a fast target diverges on
CartPole: its few terminal transitions have the large errors, which that loss clips. Greedy actions have no noise.

Shapes: `B` batch, `N` environments, `A` actions, `Z` atoms or quantiles.
"""

import math
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxdl import nn, optim
from jaxdl.core import axis
from jaxdl.core import config as configs
from jaxdl.core.config import require, require_positive, require_unit, validate_untraced
from jaxdl.core.errors import UserError
from jaxdl.core.run import compose
from jaxdl.core.types import Array, Key, Learner, Mean, PyTree, Run, UpdateResult
from jaxdl.ops import distributions, losses
from jaxdl.ops.running_stats import Moments
from jaxdl.optim import Config as OptimConfig
from jaxdl.rl import actions, agent_config, envs, observations, replay
from jaxdl.rl.host_run import compose_host
from jaxdl.rl.policy import Policy, normalize, observation_stats
from jaxdl.rl.task import agent_algorithm
from jaxdl.rl.types import Actor, Agent, Env, EnvSpec, HostRun, Transition


@configs.config
class Config(agent_config.Config):
    """Settings of DQN. Names are those of Stable-Baselines3 where it has them; "SB3" marks a default of its DQN."""

    shared_sizes: ClassVar[tuple[str, ...]] = ("num_envs", "buffer_size", "batch_size")  # devices share these: `axis.share`

    buffer_size: int = 100_000
    """Capacity of the replay memory, in steps; a multiple of num_envs."""
    learning_starts: int = 1_000
    """Environment steps of uniformly random actions before the first update (CleanRL has 10,000, SB3 100)."""
    batch_size: int = 128
    """Transitions in one update (CleanRL)."""
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
    prioritized: bool = False
    """Draw transitions in proportion to their errors."""
    priority_exponent: float = 0.5
    """Exponent of priorities, alpha (Hessel et al. 2018); 0 draws uniformly."""
    importance_exponent: float = 0.4
    """Exponent of the weights that undo the draws' bias, beta, at the beginning; it rises to 1 (Schaul et al. 2016)."""
    noisy: bool = False
    """Noise in the weights of dense layers; epsilon is then 0."""
    noisy_sigma: float = 0.5
    """Initial scale of that noise (Fortunato et al. 2018)."""
    distribution: Literal["none", "c51", "qr"] = "none"
    """What is learned of returns: their mean, their distribution on fixed atoms, or their quantiles."""
    atoms: int = 51
    """Atoms of c51 (Bellemare et al. 2017), or quantiles of qr (where Dabney et al. 2018 have 200)."""
    v_min: float | None = None
    """c51 only: the lowest return that its atoms reach; known for some environments (SUPPORTS)."""
    v_max: float | None = None
    """c51 only: the highest one."""
    normalize_obs: bool = False
    """Subtract the mean of the observations and divide by their standard deviation; both are learned along the way."""
    loss: Literal["huber", "squared"] = "squared"
    """Loss of the temporal difference (CleanRL); huber is squared up to 1 and linear beyond (SB3). Not for distributions."""
    hidden_sizes: tuple[int, ...] = (120, 84)
    """Widths of the hidden layers (CleanRL)."""
    activation: str = "relu"
    """Nonlinearity of the hidden layers."""
    optim: OptimConfig = OptimConfig(learning_rate=2e-3, schedule="linear", final_fraction=0.05)
    """The optimizer; a high rate that falls (chosen on CartPole over 20 seeds: a low one is late, a constant one relapses)."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""


# Discounted returns at gamma = 0.99, with room above what is reached: a support that clips its targets is biased.
SUPPORTS = {"CartPole-v1": (0.0, 110.0), "Acrobot-v1": (-100.0, 0.0), "MountainCar-v0": (-100.0, 0.0),
            "LunarLander-v3": (-200.0, 200.0), "Breakout-MinAtar": (0.0, 20.0), "Asterix-MinAtar": (0.0, 20.0),
            "Freeway-MinAtar": (0.0, 20.0), "SpaceInvaders-MinAtar": (0.0, 50.0)}


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    target: PyTree  # like params
    opt: PyTree
    since_target: Array  # int32 (): environment steps * gradient_steps since the last target update
    moments: Moments | None  # of the observations, where they are normalized


class QNetwork(linen.Module):
    """obs [B, ...] -> action values [B, A], or their distributions [B, A, Z]: `nn.encode`, an MLP, a head."""

    num_actions: int
    hidden_sizes: tuple[int, ...]
    activation: str
    dueling: bool
    atoms: int | None
    noisy: float | Array | None
    form: nn.Form = nn.Form()
    dtype: str = "float32"

    @linen.compact
    def __call__(self, obs: Array) -> Array:
        x = nn.encode(obs, self.form, self.dtype)
        x = nn.MLP(self.hidden_sizes, activation=self.activation, noisy=self.noisy, dtype=self.dtype)(x)
        return nn.QHead(self.num_actions, self.dueling, self.atoms, noisy=self.noisy)(x)


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the environment.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    agent_config.validate(config)
    require_positive(config, "buffer_size", "learning_starts", "batch_size", "train_freq", "gradient_steps",
                     "target_update_interval", "n_steps", "tau", "noisy_sigma")
    require_unit(config, "tau", "exploration_initial_eps", "exploration_final_eps", "exploration_fraction",
                 "priority_exponent", "importance_exponent")
    require(config, "atoms", 2 <= config.atoms <= 10_000, "between 2 and 10000")
    for end in ("v_min", "v_max"):
        require(config, end, getattr(config, end) is None or math.isfinite(getattr(config, end)), "a finite number")
    if config.distribution != "c51" and (config.v_min is not None or config.v_max is not None):
        raise UserError(f"v_min and v_max are c51's, and distribution is {config.distribution}; leave them out")
    require(config, "target_update_interval", config.target_update_interval * config.gradient_steps < 2**31,
            f"below 2**31 / gradient_steps={config.gradient_steps}")
    require(config, "hidden_sizes", all(n > 0 for n in config.hidden_sizes), "widths above 0")
    nn.activation(config.activation)
    config.init.validate()
    optim.validate(config.optim, config.batch_size)
    sizes = source_settings(config)
    replay.check_sizes(sizes)
    first_end = sizes.first_step + sizes.stride
    if first_end > config.total_steps:
        raise UserError(f"learning_starts={config.learning_starts} leaves nothing to learn in "
                        f"total_steps={config.total_steps}: the first round of updates ends at step {first_end}; lower the "
                        "one or raise the other")


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


def _at(values: Array, action: Array) -> Array:
    """`values[i, action[i]]`, [B, A, ...] -> [B, ...]: a comparison, as the gradient of a gather, a scatter, is slow."""
    chosen = (action[:, None] == jnp.arange(values.shape[1])).reshape(*values.shape[:2], *[1] * (values.ndim - 2))
    return jnp.where(chosen, values, 0).sum(1)


def support(config: Config, env_id: str) -> tuple[Any, Any]:
    """The lowest and the highest of c51's atoms.

    Raises:
        UserError: they are not given and not known for the environment, or not in order.
    """
    low, high = SUPPORTS.get(env_id, (-10.0, 10.0) if env_id.startswith("ALE/") else (None, None))
    low, high = (given if given is not None else known for given, known in ((config.v_min, low), (config.v_max, high)))
    if low is None or high is None:
        raise UserError(f"c51 needs v_min and v_max, the range of discounted returns: it is not known for {env_id}; give "
                        "them, or use distribution=qr, which needs none")
    if not any(isinstance(end, jax.core.Tracer) for end in (low, high)) and not low < high:
        raise UserError(f"v_min must be below v_max, got v_min={low} and v_max={high}")
    return low, high


def action_values(config: Config, ends: tuple[Any, Any] | None, out: Array) -> Array:
    """Action values [B, A] of the network's output: itself, or the means of its distributions [B, A, Z]."""
    if config.distribution == "c51":
        return (jax.nn.softmax(out) * jnp.linspace(*ends, config.atoms)).sum(-1)
    return out.mean(-1) if config.distribution == "qr" else out


def loss_and_priority(config: Config, ends: tuple[Any, Any] | None, batch: Transition, out: Array, next_out: Array,
                      q_select: Array) -> tuple[Array, Array, dict[str, Mean]]:
    """Losses [B], the errors that priorities are made of [B], and metrics of the distribution.

    `out` and `next_out` [B, A, ...] are outputs of the online network for the observations and of the target network for the
    next ones; the values `q_select` [B, A] choose the next action; `ends` are those of c51's atoms.
    """
    if config.distribution == "none":
        delta = td_error(out, batch.action, batch.reward, batch.discount, next_out, q_select)
        loss = {"huber": losses.huber, "squared": losses.squared}[config.loss](delta)
        return loss, jnp.abs(delta), {}
    chosen, following = _at(out, batch.action), jax.lax.stop_gradient(_at(next_out, q_select.argmax(-1)))
    reward, discount = batch.reward[:, None], batch.discount[:, None]
    if config.distribution == "qr":
        loss = losses.quantile_huber(chosen, reward + discount * following)
        return loss, loss, {}
    atoms, probs = reward + discount * jnp.linspace(*ends, config.atoms), jax.nn.softmax(following)
    target = distributions.categorical_projection(atoms, probs, *ends, config.atoms)
    loss = -(target * jax.nn.log_softmax(chosen)).sum(-1)
    half = 0.5 * (ends[1] - ends[0]) / (config.atoms - 1)  # an atom no further outside than that is rounded, not clipped
    outside = jnp.where((atoms < ends[0] - half) | (atoms > ends[1] + half), probs, 0).sum(-1)
    # the divergence, not the cross-entropy: what is learned perfectly has no priority, however random the return
    return loss, loss + jax.scipy.special.xlogy(target, target).sum(-1), {"clipped_targets": Mean.of(outside)}


def make(config: Config, spec: EnvSpec, axis_name: str | None = None, sizes: replay.Settings | None = None) -> Agent:
    """The learner and its policies for an environment; `sizes` are `source_settings(config)`, where they are known already.

    Raises:
        UserError: the environment's actions are not discrete or its observations are no arrays of numbers; or c51 does not
            know its range of returns.
    """
    network, ends = q_network(config, spec), support(config, spec.id) if config.distribution == "c51" else None
    sizes = source_settings(config) if sizes is None else sizes
    optimizer = optim.make(config.optim, horizon=sizes.planned_updates(config.total_steps))
    space, initial_moments = spec.observation_space, observation_stats(config.normalize_obs, spec)

    def init(key: Key) -> State:
        params = nn.init(network, key, jnp.zeros((1, *space.shape), jax.dtypes.canonicalize_dtype(space.dtype)),
                         initial=config.init)
        return State(params, params, optimizer.init(params), jnp.zeros((), jnp.int32), initial_moments)

    def apply(params: PyTree, obs: Array, noise: PyTree | None = None, network: QNetwork = network) -> Array:
        return network.apply(params | ({"noise": noise} if noise else {}), obs)

    learn = partial(apply, network=network.clone(dtype=config.optim.compute_dtype))

    def loss_fn(params: PyTree, target: PyTree, batch: Transition, key: Key) -> tuple[Array, tuple[dict[str, Mean], Array]]:
        noises: list[PyTree] = [None] * 3
        if config.noisy:
            drawn = nn.noise(params, key, (3,))
            noises = [jax.tree.map(lambda x, i=i: x[i], drawn) for i in range(3)]
        next_out = learn(target, batch.next_obs, noises[0])
        if config.double:
            noise = None
            if config.noisy:  # each half of the rows has its own
                noise = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), batch.reward.shape[0], axis=0), *noises[1:])
            out, select = jnp.split(learn(params, jnp.concatenate([batch.obs, batch.next_obs]), noise), 2)
        else:
            out, select = learn(params, batch.obs, noises[1]), next_out
        loss, error, more = loss_and_priority(config, ends, batch, out, next_out, action_values(config, ends, select))
        weighted = loss if batch.weight is None else batch.weight * loss
        metrics = {"loss": Mean.of(loss), "q_mean": Mean.of(action_values(config, ends, out))} | more
        return weighted.mean(), (metrics, error)

    def update(state: State, batch: Transition, key: Key) -> tuple[State, UpdateResult]:
        moments = None if state.moments is None else state.moments.add(batch.obs, axis_name)
        batch = batch._replace(obs=normalize(moments, batch.obs), next_obs=normalize(moments, batch.next_obs),
                               action=actions.to_index(spec.action_space, batch.action))
        if batch.weight is not None:
            largest = batch.weight.max() if axis_name is None else jax.lax.pmax(batch.weight.max(), axis_name)
            batch = batch._replace(weight=batch.weight / largest)
        grads, (metrics, error) = optim.gradients(
            lambda params, batch, key: loss_fn(params, state.target, batch, key), state.params, batch, key,
            config.optim)
        params, opt = optimizer.step(grads, state.opt, state.params, axis_name)
        target, since_target = update_target(config, params, state.target, state.since_target)
        feedback = error if config.prioritized else None
        return State(params, target, opt, since_target, moments), UpdateResult(metrics, feedback)

    def values(policy: Policy, carry: None, obs: Array, noise: PyTree | None = None) -> Array:
        del carry
        return action_values(config, ends, apply(policy.network, normalize(policy.moments, obs), noise))

    def greedy(policy: Policy, carry: None, obs: Array, key: Key, t: Array) -> tuple[None, Array, dict[str, Array]]:
        del key, t
        return carry, actions.of_index(spec.action_space, values(policy, carry, obs).argmax(-1)), {}

    def explore(policy: Policy, carry: None, obs: Array, key: Key, t: Array) -> tuple[None, Array, dict[str, Array]]:
        eps, noise = epsilon(config, t), None
        if config.noisy:
            key, k_noise = jax.random.split(key)
            noise = nn.noise(policy.network, k_noise, obs.shape[:1])
        action = values(policy, carry, obs, noise).argmax(-1)
        coin, random = jax.random.uniform(key, (2, *action.shape))  # one draw for both: half the hashing
        uniform = (random * network.num_actions).astype(action.dtype)
        return carry, actions.of_index(spec.action_space, jnp.where(coin < eps, uniform, action)), {"epsilon": eps}

    def no_carry(n: int) -> None:
        del n

    return Agent(Learner(init, update, lambda state: Policy(state.params, state.moments)), Actor(no_carry, explore),
                 Actor(no_carry, greedy), values, lambda policy, carry, obs: values(policy, carry, obs).max(-1))


def q_network(config: Config, spec: EnvSpec) -> QNetwork:
    """The network for an environment.

    Raises:
        UserError: the environment's actions are not discrete or its observations are no arrays of numbers.
    """
    envs.check_spaces(spec, "dqn", actions=(gymnasium.spaces.Discrete,), observations=observations.SPACES)
    return QNetwork(
        num_actions=int(spec.action_space.n), hidden_sizes=config.hidden_sizes, activation=config.activation,
        dueling=config.dueling, atoms=None if config.distribution == "none" else config.atoms,
        noisy=config.noisy_sigma if config.noisy else None, form=observations.form(spec))


def update_target(config: Config, params: PyTree, target: PyTree, since_target: Array) -> tuple[PyTree, Array]:
    """The target network after an update, and the environment steps * gradient_steps since it last followed `params`."""
    interval = config.target_update_interval * config.gradient_steps
    since_target = since_target + config.num_envs * config.train_freq
    due = since_target >= interval
    share = jnp.where(due, config.tau, 0.0)
    target = jax.tree.map(lambda new, old: jnp.where(due, share * new + (1 - share) * old, old), params, target)
    return target, since_target % interval


def epsilon(config: Config, t: Array) -> Array:
    """Probability of a random action at environment step `t`: 1 before learning starts, then the linear schedule."""
    done = jnp.clip(t / jnp.maximum(config.exploration_fraction * config.total_steps, 1.0), 0.0, 1.0)
    scheduled = config.exploration_initial_eps + done * (config.exploration_final_eps - config.exploration_initial_eps)
    return jnp.where(t < config.learning_starts, 1.0, 0.0 if config.noisy else scheduled)


def beta(config: Config, t: Array) -> Array:
    """Exponent of the importance weights at environment step `t`: it rises linearly to 1 at the planned end."""
    return config.importance_exponent + jnp.clip(t / config.total_steps, 0.0, 1.0) * (1.0 - config.importance_exponent)


def warn(config: Config, values: dict[str, Any]) -> str | None:
    """A warning about a row of metrics: the support of c51 is too narrow."""
    clipped = float(np.max(values.get("clipped_targets", 0.0)))
    if clipped <= 0.05:
        return None
    return (f"{clipped:.0%} of the distributions that c51 learns from lie outside of its atoms and are clipped; set v_min and "
            f"v_max wider (given: {config.v_min} and {config.v_max}; None is that of SUPPORTS for {config.env_id})")


def source_settings(config: Config, shards: int = 1) -> replay.Settings:
    """Sizes and numbers of the replay source of one of `shards` devices; they are the plan of the run."""
    config = axis.share(config, shards)
    names = ("num_envs", "buffer_size", "batch_size", "train_freq", "gradient_steps", "learning_starts", "n_steps", "gamma",
             "clip_reward")
    priorities = (config.priority_exponent, lambda t: beta(config, t)) if config.prioritized else None
    return replay.Settings(**{name: getattr(config, name) for name in names}, priorities=priorities, shards=shards)


def make_run(config: Config, axis_name: str | None = None, env: Env | None = None, shards: int = 1) -> Run:
    """DQN on an environment that runs on the device; `env` is one that was made before."""
    validate_untraced(validate, config)
    env, sizes = env or envs.make_device(config.env_id, config.env, config.num_envs), source_settings(config, shards)
    agent = make(config, env.spec, axis_name, sizes)
    return compose(agent.learner, replay.replay(env, agent.explore, sizes), stride=sizes.stride,
                   updates=config.gradient_steps, first_step=sizes.first_step, axis_name=axis_name)


def make_host_run(config: Config, spec: EnvSpec, axis_name: str | None = None, shards: int = 1) -> HostRun:
    """DQN on Gymnasium environments."""
    validate_untraced(validate, config)
    sizes = source_settings(config, shards)
    agent = make(config, spec, axis_name, sizes)
    return compose_host(
        agent.learner, replay.host_replay(spec, agent.explore, sizes), num_envs=config.num_envs, axis_name=axis_name,
        stride=sizes.stride, updates=config.gradient_steps, first_step=sizes.first_step)


ALGORITHM = agent_algorithm("dqn", "deep Q-learning with replay, and the parts of Rainbow as options", Config, validate, make,
                            make_run, make_host_run, warn)
