"""The replay source: the policy acts and stores, the learner gets transitions drawn from all that is stored.

Lin, "Self-improving reactive agents" (1992); Mnih et al., "Human-level control through deep reinforcement learning" (2015).
A transition of n steps is put together when it is drawn, from n neighbours of one environment: it ends early at the end
of an episode and at the newest item, and then bootstraps from the last true observation it reached.

Shapes: `E` environments, `k` vector steps, `B` batch, `n` steps of the return.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import returns
from jaxdl.errors import UserError
from jaxdl.sources import memory as memories
from jaxdl.types import (
    Actor,
    Array,
    Env,
    EnvSpec,
    Experience,
    HostSource,
    HostStep,
    Key,
    Mean,
    Metrics,
    PyTree,
    Source,
    Transition,
)


class Episodes(NamedTuple):
    """Running return and length of each environment's current episode, both [E] float32."""

    total: Array
    length: Array

    @staticmethod
    def init(num_envs: int) -> "Episodes":
        """No episode has begun."""
        return Episodes(jnp.zeros(num_envs), jnp.zeros(num_envs))

    def add(self, reward: Array, done: Array, valid: Array | None = None) -> tuple["Episodes", Metrics]:
        """One step on, where `valid`; the metrics hold the episodes that ended with it."""
        total, length = self.total + reward, self.length + (1 if valid is None else valid)
        metrics = {"episode_return": Mean.of(total, done), "episode_length": Mean.of(length, done)}
        return Episodes(jnp.where(done, 0, total), jnp.where(done, 0, length)), metrics


class ReplayState(NamedTuple):
    """State of the replay source."""

    env: PyTree
    obs: Array  # [E, ...]
    carry: PyTree
    episodes: Episodes
    memory: memories.MemoryState


def experience_of(spec: EnvSpec) -> Experience:
    """One item of the memory, as shapes and dtypes."""
    obs, action = (jax.ShapeDtypeStruct(space.shape, jax.dtypes.canonicalize_dtype(space.dtype))
                   for space in (spec.observation_space, spec.action_space))
    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    return Experience(obs, action, jax.ShapeDtypeStruct((), jnp.float32), obs, flag, flag)


def sampler(memory: memories.Memory, batch_size: int, n_steps: int, gamma: Array) -> Callable[..., Transition]:
    """`(memory state, key) -> Transition [B]`: uniform draws, returns of `n_steps` steps discounted by `gamma`."""

    def sample(state: memories.MemoryState, key: Key) -> Transition:
        items, available = memory.sample(state, key, batch_size, n_steps)
        reward, discount, last = returns.n_step_transition(
            items.reward, items.terminated, items.terminated | items.truncated, available, gamma)
        first = jax.tree.map(lambda x: x[0], items)
        next_obs = first.next_obs
        if n_steps > 1:
            next_obs = items.next_obs.at[last, jnp.arange(batch_size)].get(mode="promise_in_bounds")
        return Transition(first.obs, first.action, reward, discount, next_obs)

    return sample


def replay(
    env: Env, actor: Actor, *, num_envs: int, buffer_size: int, batch_size: int, train_freq: int, learning_starts: int,
    n_steps: int, gamma: Array,
) -> Source:
    """Replay of environments on the device.

    Args:
        num_envs: environments, E.
        buffer_size: items; a multiple of `num_envs`.
        train_freq: vector steps that one `collect` takes, k: `k * E` environment steps.
        learning_starts: environment steps stored by `warmup`, rounded up to whole collects.
        n_steps: steps of the return, n.
        gamma: discount per step, a number or a traced scalar.

    Raises:
        UserError: a size does not fit another one; it names both.
    """
    check_sizes(num_envs, buffer_size, batch_size, train_freq, learning_starts)
    memory = memories.make(experience_of(env.spec), buffer_size, num_envs)
    draw = sampler(memory, batch_size, n_steps, gamma)
    stride = num_envs * train_freq
    keys_a_step = 1 + env.keys * num_envs

    def init(key: Key) -> ReplayState:
        env_state, obs = env.reset(key, num_envs)
        return ReplayState(env_state, obs, actor.init(num_envs), Episodes.init(num_envs), memory.init())

    def collect(state: ReplayState, params: PyTree, keys: Key, t: Array, data: PyTree = None):
        del data

        def step(carry, x):
            env_state, obs, actor_carry, episodes = carry
            i, k = x
            actor_carry, action, extras = actor.act(params, actor_carry, obs, k[0], t + i * num_envs)
            env_state, ts = env.step(env_state, action, k[1:].reshape(env.keys, num_envs))
            item = Experience(obs, action, ts.reward, ts.next_obs, ts.terminated, ts.truncated)
            episodes, metrics = episodes.add(ts.reward, ts.terminated | ts.truncated)
            metrics |= {name: Mean.of(x) for name, x in extras.items()}
            return (env_state, ts.obs, actor_carry, episodes), (item, metrics)

        carry = (state.env, state.obs, state.carry, state.episodes)
        steps = jnp.arange(train_freq, dtype=jnp.int32), keys.reshape(train_freq, keys_a_step)
        if train_freq == 1:  # a scan of one step would cost its bookkeeping
            carry, out = step(carry, jax.tree.map(lambda x: x[0], steps))
            items, metrics = jax.tree.map(lambda x: x[None], out)
        else:
            carry, (items, metrics) = jax.lax.scan(step, carry, steps)
        stored = memory.add(state.memory, items)
        return ReplayState(*carry, stored), jax.tree.map(lambda x: x.sum(0), metrics)

    def warmup(state: ReplayState, params: PyTree, key: Key, t: Array, data: PyTree = None) -> ReplayState:
        def body(i, carry):
            s, key = carry
            keys = jax.random.split(key, 1 + train_freq * keys_a_step)
            return collect(s, params, keys[1:], t + i * stride, data)[0], keys[0]

        return jax.lax.fori_loop(0, warmup_collects(learning_starts, stride), body, (state, key))[0]

    def sample(state: ReplayState, key: Key, data: PyTree = None) -> tuple[ReplayState, Transition]:
        del data
        return state, draw(state.memory, key)

    def feedback(state: ReplayState, batch: Transition, told: PyTree) -> ReplayState:
        del batch, told
        return state

    return Source(init, train_freq * keys_a_step, warmup, collect, sample, feedback)


def warmup_collects(learning_starts: int, stride: int) -> int:
    """Collects of `stride` environment steps that store at least `learning_starts` of them."""
    return -(-learning_starts // stride)


def check_sizes(num_envs: int, buffer_size: int, batch_size: int, train_freq: int, learning_starts: int) -> None:
    """Refuse sizes that do not fit one another.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    stride = num_envs * train_freq
    memories.check_capacity(buffer_size, num_envs)
    if buffer_size < batch_size:
        raise UserError(f"buffer_size={buffer_size} is smaller than batch_size={batch_size}: no batch could be drawn "
                        "from it; raise the one or lower the other")
    if stride > buffer_size:
        raise UserError(f"num_envs * train_freq = {stride} steps between two updates do not fit "
                        f"buffer_size={buffer_size}; lower train_freq or num_envs, or raise buffer_size")
    if learning_starts < 1:
        raise UserError(f"learning_starts must be at least 1 (nothing can be drawn from an empty memory), "
                        f"got {learning_starts}")


class HostReplayState(NamedTuple):
    """State of the replay source whose environments live on the host."""

    obs: Array  # [E, ...] what the policy saw last
    action: Array  # [E, ...] what it did
    skip: Array  # [E] bool: the coming step only resets the environment
    carry: PyTree
    episodes: Episodes
    memory: memories.MemoryState


def host_replay(
    spec: EnvSpec, actor: Actor, *, num_envs: int, buffer_size: int, batch_size: int, train_freq: int,
    learning_starts: int, n_steps: int, gamma: Array,
) -> HostSource:
    """Replay of Gymnasium environments: the same memory and draws as `replay`, fed from outside a step at a time.

    Gymnasium resets an environment in the step after the one that ended its episode (NEXT_STEP): that step is no
    transition, and is left out of the memory. Arguments and errors as in `replay`.
    """
    check_sizes(num_envs, buffer_size, batch_size, train_freq, learning_starts)
    one = experience_of(spec)
    memory = memories.make(one, buffer_size, num_envs)
    draw = sampler(memory, batch_size, n_steps, gamma)

    def init(obs: Array) -> HostReplayState:
        action = jnp.zeros((num_envs, *one.action.shape), one.action.dtype)
        return HostReplayState(obs, action, jnp.zeros(num_envs, jnp.bool_), actor.init(num_envs),
                               Episodes.init(num_envs), memory.init())

    def restart(state: HostReplayState, obs: Array) -> HostReplayState:
        # what was under way ends as by a truncation, or returns of n steps would go on into the new episodes
        cut = memory.amend(state.memory, lambda item: item._replace(truncated=~item.terminated))
        return state._replace(obs=obs, skip=jnp.zeros(num_envs, jnp.bool_), carry=actor.init(num_envs),
                              episodes=Episodes.init(num_envs), memory=cut)

    def observe(state: HostReplayState, ts: HostStep) -> tuple[HostReplayState, Metrics]:
        done = ts.terminated | ts.truncated
        item = Experience(state.obs, state.action, ts.reward, ts.obs, ts.terminated, ts.truncated)
        stored = memory.add(state.memory, jax.tree.map(lambda x: x[None], item), ~state.skip[None])
        episodes, metrics = state.episodes.add(ts.reward, done, ~state.skip)
        return state._replace(obs=ts.obs, skip=done, episodes=episodes, memory=stored), metrics

    def act(state: HostReplayState, params: PyTree, key: Key, t: Array) -> tuple[HostReplayState, Array, Metrics]:
        carry, action, extras = actor.act(params, state.carry, state.obs, key, t)
        return state._replace(carry=carry, action=action), action, {name: Mean.of(x) for name, x in extras.items()}

    def sample(state: HostReplayState, key: Key, data: PyTree = None) -> tuple[HostReplayState, Transition]:
        del data
        return state, draw(state.memory, key)

    return HostSource(init, restart, observe, act, sample, lambda state, batch, told: state)
