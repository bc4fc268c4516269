"""The replay source: the policy acts, its steps are stored, and the learner gets transitions sampled from all of them.

Lin, "Self-improving reactive agents" (1992); Mnih et al., "Human-level control through deep reinforcement learning" (2015).
The memory (`sampling.Memory`) decides what is stored and how it is sampled. Here it is filled, by environments on the device
(`replay`) or on the host (`host_replay`).

Shapes: `E` environments, `k` vector steps, `B` batch, `n` steps of the return.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, Mean, Metrics, PyTree, Source
from jaxdl.rl.episode_stats import Episodes
from jaxdl.rl.replay import ring_buffer, sampling
from jaxdl.rl.replay.frame_storage import deduplicated_frames
from jaxdl.rl.replay.storage import full_transitions
from jaxdl.rl.types import Actor, Env, EnvSpec, HostSource, TimeStep, Transition


class Settings(NamedTuple):
    """Sizes and numbers of a replay source."""

    num_envs: int  # environments, E
    buffer_size: int  # steps; a multiple of num_envs
    batch_size: int  # B
    train_freq: int  # vector steps that one collect takes, k: k * E environment steps
    gradient_steps: int  # samples taken after each collect
    learning_starts: int  # environment steps stored by the warm-up on all devices, rounded up to whole collects
    n_steps: int  # n
    gamma: Array  # discount per step, a number or a traced scalar
    clip_reward: bool = False  # store rewards clipped to [-1, 1]; returns of episodes are reported as they are
    priorities: tuple[Array, Callable[[Array], Array]] | None = None  # alpha, and steps -> beta; None: uniform draws
    shards: int = 1  # devices, each with num_envs environments, a memory of buffer_size and a batch of batch_size

    @property
    def stride(self) -> int:
        """Environment steps of one collect, on all devices."""
        return self.num_envs * self.train_freq * self.shards

    @property
    def warmup_collects(self) -> int:
        """Collects that store at least `learning_starts` steps."""
        return -(-self.learning_starts // self.stride)

    @property
    def first_step(self) -> int:
        """Environment steps of the warm-up, before the first update."""
        return self.stride * self.warmup_collects

    def planned_updates(self, total_steps: int) -> int:
        """Updates in a run of `total_steps` environment steps: the horizon of the learning rate's schedule."""
        return max((total_steps - self.first_step) // self.stride, 1) * self.gradient_steps


def make_memory(spec: EnvSpec, settings: Settings, resets: bool) -> sampling.Memory:
    """The replay memory for an environment: images in stacks are stored a frame at a time, all else as it is.

    Args:
        spec: the environment.
        settings: of the source.
        resets: the environment resets in steps of its own, which it marks (`TimeStep.reset`).

    Raises:
        UserError: a size does not fit another one; it names both.
    """
    check_sizes(settings)
    space = spec.observation_space
    stacks_of_images = spec.stack is not None and len(space.shape) > 2 and space.dtype == np.uint8
    store = deduplicated_frames if resets and stacks_of_images else full_transitions
    stored = store(spec, num_envs=settings.num_envs, buffer_size=settings.buffer_size, n_steps=settings.n_steps,
                   gamma=settings.gamma)
    if settings.priorities is None:
        return sampling.uniform(stored, settings.batch_size)
    alpha, beta = settings.priorities
    return sampling.prioritized(stored, settings.batch_size, alpha=alpha, beta=beta, updates=settings.gradient_steps)


class ReplayState(NamedTuple):
    """State of the replay source."""

    env: PyTree
    obs: Array  # [E, ...]
    carry: PyTree
    episodes: Episodes
    memory: PyTree


def replay(env: Env, actor: Actor, settings: Settings) -> Source:
    """Replay of environments on the device.

    Raises:
        UserError: a size does not fit another one; it names both.
    """
    num_envs, train_freq, stride = settings.num_envs, settings.train_freq, settings.stride
    memory = make_memory(env.spec, settings, resets=env.outside_jax)
    keys_a_step = 1 + env.keys * num_envs

    def init(key: Key) -> ReplayState:
        env_state, obs = env.reset(key, num_envs)
        return ReplayState(env_state, obs, actor.init(num_envs), Episodes.init(num_envs), memory.init(obs))

    def restart(state: ReplayState, key: Key) -> ReplayState:
        env_state, obs = env.reset(key, num_envs)
        return ReplayState(env_state, obs, actor.init(num_envs), Episodes.init(num_envs), memory.restart(state.memory, obs))

    def collect(state: ReplayState, params: PyTree, keys: Key, t: Array, data: PyTree = None):
        del data

        def step(carry, x):
            env_state, obs, actor_carry, episodes = carry
            i, k = x
            actor_carry, action, extras = actor.act(params, actor_carry, obs, actor.sample_noise(k[0], num_envs),
                                                    t + i * num_envs * settings.shards)
            env_state, ts = env.step(env_state, action, env.sample_noise(k[1:].reshape(env.keys, num_envs)))
            episodes, metrics = episodes.add(ts)
            metrics |= {name: Mean.of(x) for name, x in extras.items()}
            item = memory.item(obs, action, _clipped(ts) if settings.clip_reward else ts)
            return (env_state, ts.obs, actor_carry, episodes), (item, metrics)

        carry = (state.env, state.obs, state.carry, state.episodes)
        steps = jnp.arange(train_freq, dtype=jnp.int32), keys.reshape(train_freq, keys_a_step)
        if train_freq == 1:  # a scan of one step would cost its bookkeeping
            carry, out = step(carry, jax.tree.map(lambda x: x[0], steps))
            items, metrics = jax.tree.map(lambda x: x[None], out)
        else:
            carry, (items, metrics) = jax.lax.scan(step, carry, steps)
        return ReplayState(*carry, memory.add(state.memory, items)), jax.tree.map(lambda x: x.sum(0), metrics)

    def warmup(state: ReplayState, params: PyTree, key: Key, t: Array, data: PyTree = None) -> ReplayState:
        def body(i, carry):
            s, key = carry
            keys = jax.random.split(key, 1 + train_freq * keys_a_step)
            return collect(s, params, keys[1:], t + i * stride, data)[0], keys[0]

        return jax.lax.fori_loop(0, settings.warmup_collects, body, (state, key))[0]

    sample, feedback = _learning(memory)
    return Source(init, sample, keys=train_freq * keys_a_step, warmup=warmup, collect=collect, feedback=feedback,
                  restart=restart if env.outside_jax else None,
                  env_axis=ReplayState(0, 0, 0, Episodes(sums=1), memory.env_axis),
                  without_memory=lambda state: state._replace(memory=None))


def _learning(memory: sampling.Memory) -> tuple[Callable, Callable]:
    """`sample` and `feedback` of a source whose state has a `memory`."""

    def sample(state: PyTree, key: Key, t: Array, data: PyTree = None) -> tuple[PyTree, Transition]:
        del data
        sampled, batch = memory.sample(state.memory, key, t)
        return state._replace(memory=sampled), batch

    def feedback(state: PyTree, batch: Transition, error: Array) -> PyTree:
        return state._replace(memory=memory.feedback(state.memory, batch, error))

    return sample, feedback


def _clipped(ts: TimeStep) -> TimeStep:
    return ts._replace(reward=jnp.clip(ts.reward, -1, 1))


def check_sizes(settings: Settings) -> None:
    """Refuse sizes that do not fit one another.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    buffer_size, batch_size = settings.buffer_size, settings.batch_size
    ring_buffer.check_capacity(buffer_size, settings.num_envs)
    if buffer_size < batch_size:
        raise UserError(f"buffer_size={buffer_size} is smaller than batch_size={batch_size}: no batch could be drawn "
                        "from it; raise the one or lower the other")
    if (steps := settings.num_envs * settings.train_freq) > buffer_size:
        raise UserError(f"num_envs * train_freq = {steps} steps between two updates do not fit "
                        f"buffer_size={buffer_size}; lower train_freq or num_envs, or raise buffer_size")
    if settings.learning_starts < 1:
        raise UserError(f"learning_starts must be at least 1 (nothing can be drawn from an empty memory), "
                        f"got {settings.learning_starts}")
    if buffer_size // settings.num_envs < settings.n_steps:
        raise UserError(f"n_steps={settings.n_steps} is longer than an environment's share of the memory "
                        f"({buffer_size // settings.num_envs} steps); raise buffer_size")


class HostReplayState(NamedTuple):
    """State of the replay source whose environments run on the host."""

    obs: Array  # [E, ...] the latest observations
    action: Array  # [E, ...] the actions taken after them
    carry: PyTree
    episodes: Episodes
    memory: PyTree


def host_replay(spec: EnvSpec, actor: Actor, settings: Settings) -> HostSource:
    """Replay of environments on the host: the memory of `replay`, filled from outside a step at a time.

    Raises:
        UserError: as `replay`.
    """
    num_envs = settings.num_envs
    memory = make_memory(spec, settings, resets=True)
    one = jax.ShapeDtypeStruct(spec.action_space.shape, jax.dtypes.canonicalize_dtype(spec.action_space.dtype))

    def first_state(obs: Array, stored: PyTree) -> HostReplayState:
        action = jnp.zeros((num_envs, *one.shape), one.dtype)
        return HostReplayState(obs, action, actor.init(num_envs), Episodes.init(num_envs), stored)

    def init(obs: Array) -> HostReplayState:
        return first_state(obs, memory.init(obs))

    def restart(state: HostReplayState, obs: Array) -> HostReplayState:
        return first_state(obs, memory.restart(state.memory, obs))

    def observe(state: HostReplayState, step: TimeStep) -> tuple[HostReplayState, Metrics]:
        ts = step._replace(next_obs=step.obs)
        item = memory.item(state.obs, state.action, _clipped(ts) if settings.clip_reward else ts)
        stored = memory.add(state.memory, jax.tree.map(lambda x: x[None], item))
        episodes, metrics = state.episodes.add(step)
        return state._replace(obs=step.obs, episodes=episodes, memory=stored), metrics

    def act(state: HostReplayState, params: PyTree, key: Key, t: Array) -> tuple[HostReplayState, Array, Metrics]:
        carry, action, extras = actor.act(params, state.carry, state.obs, actor.sample_noise(key, num_envs), t)
        return state._replace(carry=carry, action=action), action, {name: Mean.of(x) for name, x in extras.items()}

    return HostSource(init, restart, observe, act, *_learning(memory),
                      env_axis=HostReplayState(0, 0, 0, Episodes(sums=1), memory.env_axis),
                      without_memory=lambda state: state._replace(memory=None))
