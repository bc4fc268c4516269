"""The rollout source: the policy plays `T` steps of every environment, and the learner gets them, once.

On the device (`rollout`) a collect is one loop; on the host (`host_rollout`) the same trajectory is filled a vector step at a
time. Episodes go on from one rollout to the next; where complete episodes are wanted (`fresh`), every rollout on the device
resets its environments first.

Rewards may be divided by the standard deviation of the discounted sums of all rewards so far (OpenAI Baselines'
VecNormalize; Engstrom et al. 2020, "Implementation matters in deep policy gradients"), and are then clipped to +- 10. How
this differs: the statistics that scale a rollout include all of it.

Shapes: `E` environments, `T` vector steps.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, Learner, Metrics, PyTree, Source
from jaxdl.ops.running_stats import Moments
from jaxdl.rl.episode_stats import Episodes, finished_metrics, reset_carry
from jaxdl.rl.types import Actor, Env, EnvSpec, HostSource, TimeStep, Trajectory, pack_step, unpack_step


class Settings(NamedTuple):
    """Sizes and numbers of a rollout source."""

    num_envs: int  # E
    steps: int  # T: vector steps of one rollout
    gamma: Array  # discount per step, of the sums whose standard deviation scales rewards
    clip_reward: bool = False  # to [-1, 1]; returns of episodes are reported unclipped
    normalize_reward: bool = False
    fresh: bool = False  # on the device: every rollout begins with new episodes
    axis_name: str | None = None  # the statistics of rewards are those of all its shards
    shards: int = 1  # devices that have E environments each

    @property
    def stride(self) -> int:
        """Environment steps of one rollout, on all devices."""
        return self.num_envs * self.steps * self.shards


def check_sizes(total_steps: int, num_envs: int, steps: int) -> None:
    """Refuse a rollout that is longer than the run.

    Raises:
        UserError: names the fields, what was given and what would do.
    """
    if num_envs * steps > total_steps:
        raise UserError(f"a rollout of num_envs={num_envs} environments and {steps} steps of each is longer than "
                        f"total_steps={total_steps}; lower the one or raise the other")


class Scale(NamedTuple):
    """Statistics of discounted sums of rewards."""

    total: Array  # [E] the running sum of each environment
    moments: Moments

    @staticmethod
    def init(num_envs: int) -> "Scale":
        """Statistics of no rewards."""
        return Scale(jnp.zeros(num_envs), Moments.init(()))

    def add(self, reward: Array, ends: Array, valid: Array, settings: Settings) -> tuple["Scale", Array]:
        """Add a rollout, and divide its rewards by the standard deviation of discounted sums.

        Args:
            reward: [T, E].
            ends: bool [T, E], where an episode ends.
            valid: bool [T, E], which rows count.
            settings: of the source.

        Returns:
            The statistics with this rollout, and the scaled rewards [T, E].
        """
        def step(total: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
            total = settings.gamma * total + x[0]
            return jnp.where(x[1], 0, total), total

        total, sums = jax.lax.scan(step, self.total, (reward, ends))
        moments = self.moments.add(sums.reshape(-1), settings.axis_name, valid.reshape(-1))
        return Scale(total, moments), jnp.clip(reward * moments.inverse_deviation(), -10, 10)


def _reset(scale: Scale | None) -> Scale | None:
    """The statistics when all environments are reset: the sums begin at zero again."""
    return None if scale is None else scale._replace(total=jnp.zeros_like(scale.total))


class RolloutState(NamedTuple):
    """State of the rollout source."""

    env: PyTree
    obs: Array  # [E, ...]
    first: Array  # [E] bool: `obs` is the first of an episode
    carry: PyTree
    episodes: Episodes
    scale: Scale | None
    trajectory: Trajectory | None  # kept between collect and sample only


def rollout(env: Env, actor: Actor, settings: Settings) -> Source:
    """Rollouts of environments on the device. The extras of `actor.act` become `Trajectory.choice`."""
    num_envs, steps = settings.num_envs, settings.steps
    keys_a_step = 1 + env.keys * num_envs

    def initial_state(key: Key) -> dict[str, Any]:
        env_state, obs = env.reset(key, num_envs)
        return {"env": env_state, "obs": obs, "first": jnp.ones(num_envs, bool), "carry": actor.init(num_envs),
                "episodes": Episodes.init(num_envs)}

    def init(key: Key) -> RolloutState:
        scale = Scale.init(num_envs) if settings.normalize_reward else None
        return RolloutState(**initial_state(key), scale=scale, trajectory=None)

    def restart(state: RolloutState, key: Key) -> RolloutState:
        return state._replace(**initial_state(key), scale=_reset(state.scale))

    def collect(state: RolloutState, params: PyTree, keys: Key, t: Array, data: PyTree = None
                ) -> tuple[RolloutState, Metrics]:
        del data
        if settings.fresh:
            state, keys = restart(state, keys[0]), keys[1:]

        def step(carry: tuple, x: tuple[Array, PyTree, PyTree]) -> tuple[tuple, tuple]:
            env_state, obs, first, actor_carry, episodes = carry
            i, actor_noise, env_noise = x
            actor_carry = reset_carry(actor, actor_carry, first)
            now = t + i * num_envs * settings.shards
            actor_carry, action, choice = actor.act(params, actor_carry, obs, actor_noise, now)
            env_state, ts = env.step(env_state, action, env_noise)
            episodes, sums, over = episodes.step(ts)
            rows = pack_step(ts, over, *sums)
            return (env_state, ts.obs, over, actor_carry, episodes), (obs, choice, ts.next_obs, rows)

        carry = (state.env, state.obs, state.first, state.carry, state.episodes)
        keys = keys.reshape(steps, keys_a_step)  # what is drawn is drawn for all steps at once: a hash is a loop of kernels
        xs = (jnp.arange(steps, dtype=jnp.int32), jax.vmap(lambda key: actor.sample_noise(key, num_envs))(keys[:, 0]),
              jax.vmap(env.sample_noise)(keys[:, 1:].reshape(steps, env.keys, num_envs)))
        carry, (obs, choice, next_obs, rows) = jax.lax.scan(step, carry, xs)
        rows = rows.swapaxes(0, 1)
        reward, terminated, truncated, over = unpack_step(rows[:4])
        first = jnp.concatenate([state.first[None], over[:-1]])
        valid = ~over if env.outside_jax else jnp.ones_like(over)  # resets are steps of their own where games are outside JAX
        trajectory = Trajectory(obs, choice, reward, next_obs, terminated, truncated, first, valid, state.carry)
        scale, trajectory = _scaled(trajectory, state.scale, settings)
        return RolloutState(*carry, scale, trajectory), finished_metrics(*rows[4:], over)

    def sample(state: RolloutState, key: Key, t: Array, data: PyTree = None) -> tuple[RolloutState, Trajectory]:
        del key, t, data
        return state._replace(trajectory=None), state.trajectory

    return Source(init, sample, keys=settings.fresh + steps * keys_a_step, collect=collect,
                  restart=restart if env.outside_jax else None,
                  env_axis=RolloutState(0, 0, 0, 0, Episodes(sums=1), _scale_axis(settings), None))


def _scaled(rows: Trajectory, scale: Scale | None, settings: Settings) -> tuple[Scale | None, Trajectory]:
    """Clip and scale the rewards of a rollout, as the settings ask for."""
    reward = jnp.clip(rows.reward, -1, 1) if settings.clip_reward else rows.reward
    if scale is not None:
        scale, reward = scale.add(reward, rows.terminated | rows.truncated, rows.valid, settings)
    return scale, rows._replace(reward=reward)


def _scale_axis(settings: Settings) -> Scale | None:
    """`Source.env_axis` of the statistics of rewards."""
    return Scale(total=0, moments=None) if settings.normalize_reward else None


class HostRolloutState(NamedTuple):
    """State of the rollout source whose environments live on the host."""

    obs: Array  # [E, ...] the last observation
    first: Array  # [E] bool: it is the first of an episode
    carry: PyTree  # after it
    choice: PyTree  # [E, ...] the actor's extras for it
    episodes: Episodes
    scale: Scale | None
    row: Array  # int32 (): rows of the rollout that are filled
    noise: PyTree  # [T, ...] of its steps, drawn ahead: hashes are many kernels, and a step on the host would need two
    begin: PyTree  # the carry before its first row
    rows: tuple[Array, PyTree, Array]  # [T, ...] obs, choices, and [T, 5, E] of `pack_step`, first and valid


def host_rollout(spec: EnvSpec, learner: Learner, actor: Actor, settings: Settings) -> HostSource:
    """Rollouts of environments on the host: the same trajectories as `rollout`'s, fed from outside a step at a time.

    Args:
        spec: the environment.
        learner: has the actor's parameters, which tell the shapes of its extras.
        actor: as for `rollout`.
        settings: of the source.
    """
    num_envs, steps = settings.num_envs, settings.steps
    obs_shape = jax.ShapeDtypeStruct((num_envs, *spec.observation_space.shape),
                                     jax.dtypes.canonicalize_dtype(spec.observation_space.dtype))

    def extras(obs: Array, key: Key) -> PyTree:
        params = learner.params(learner.init(key))
        return actor.act(params, actor.init(num_envs), obs, actor.sample_noise(key, num_envs), jnp.zeros((), jnp.int32))[2]

    choice_shape = jax.eval_shape(extras, obs_shape, jax.random.key(0))

    def initial_state(obs: Array) -> dict[str, Any]:
        rows = jax.tree.map(lambda x: jnp.zeros((steps, *x.shape), x.dtype),
                            (obs_shape, choice_shape, jax.ShapeDtypeStruct((5, num_envs), jnp.float32)))
        carry, choice = actor.init(num_envs), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), choice_shape)
        return {"obs": obs, "first": jnp.ones(num_envs, bool), "carry": carry, "begin": carry, "choice": choice,
                "episodes": Episodes.init(num_envs), "row": jnp.zeros((), jnp.int32), "rows": rows}

    def noise(key: Key) -> PyTree:
        return jax.vmap(lambda key: actor.sample_noise(key, num_envs))(jax.random.split(key, steps))

    def init(obs: Array) -> HostRolloutState:
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(noise, jax.random.key(0)))
        scale = Scale.init(num_envs) if settings.normalize_reward else None
        return HostRolloutState(**initial_state(obs), noise=empty, scale=scale)

    def prepare(state: HostRolloutState, key: Key) -> HostRolloutState:
        return state._replace(noise=noise(key))

    def restart(state: HostRolloutState, obs: Array) -> HostRolloutState:
        return state._replace(**initial_state(obs), scale=_reset(state.scale))

    def observe(state: HostRolloutState, step: TimeStep) -> tuple[HostRolloutState, Metrics]:
        new = state.obs, state.choice, pack_step(step, state.first, ~step.reset)
        rows = jax.tree.map(lambda all_, row: jax.lax.dynamic_update_index_in_dim(all_, row, state.row, 0), state.rows, new)
        episodes, metrics = state.episodes.add(step)
        return state._replace(obs=step.obs, first=step.reset, episodes=episodes, row=state.row + 1, rows=rows), metrics

    def act(state: HostRolloutState, params: PyTree, key: None, t: Array) -> tuple[HostRolloutState, Array, Metrics]:
        del key
        drawn = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, state.row, keepdims=False), state.noise)
        carry, action, choice = actor.act(params, reset_carry(actor, state.carry, state.first), state.obs, drawn, t)
        return state._replace(carry=carry, choice=choice), action, {}

    def sample(state: HostRolloutState, key: Key, t: Array, data: PyTree = None) -> tuple[HostRolloutState, Trajectory]:
        del key, data
        obs, choice, rows = state.rows
        next_obs = jnp.concatenate([obs[1:], state.obs[None]])  # resets are steps of their own: no row is missing
        reward, *flags = unpack_step(rows.swapaxes(0, 1))
        scale, trajectory = _scaled(Trajectory(obs, choice, reward, next_obs, *flags, state.begin), state.scale, settings)
        transitions = axis.sum_over(trajectory.valid.sum(dtype=jnp.int32), settings.axis_name)
        trajectory = trajectory._replace(earlier=(t - transitions) / settings.stride)
        return state._replace(scale=scale, row=jnp.zeros((), jnp.int32), begin=state.carry), trajectory

    env_axis = HostRolloutState(
        obs=0, first=0, carry=0, choice=0, episodes=Episodes(sums=1), scale=_scale_axis(settings), row=None, begin=0,
        noise=None, rows=(1, 1, 2))  # noise is drawn again after a restart
    return HostSource(init, restart, observe, act, sample, env_axis=env_axis, prepare=prepare)
