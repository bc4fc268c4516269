"""Evaluation: returns of a policy in Gymnasium's own environment, whatever it was trained on; else on the device.

Environments are played side by side, each a fixed number of episodes: the first so many episodes to end would be short ones.
In Atari an episode is a whole game, and its rewards are unclipped.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core import streams
from jaxdl.core.compile import START_OPTIONS
from jaxdl.core.errors import EnvError
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.rl import envs
from jaxdl.rl.envs.family import Vectorization
from jaxdl.rl.episode_stats import reset_carry
from jaxdl.rl.types import Actor, Env

_NUM_ENVS = 10  # environments side by side, where each is a Python object or an emulator
_NUM_VECTORIZED = 100  # where they are rows of arrays
_MAX_STEPS = 100_000  # of one episode, which is then taken to have no end
_CHUNK = 128  # steps on the device between two counts of ended episodes


class Evaluation(NamedTuple):
    """Undiscounted returns of whole episodes (a time limit ends one too)."""

    returns: np.ndarray  # [episodes] float64
    lengths: np.ndarray  # [episodes] int64, in steps

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(self.returns)

    @property
    def return_mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def return_std(self) -> float:
        """Standard deviation of the returns, over the episodes."""
        return float(self.returns.std())


def evaluate(actor: Actor, params: PyTree, env_id: str, *, episodes: int, seed: int,
             settings: envs.Config = envs.DEFAULTS, vectorization: Vectorization = "auto", alone: bool = False) -> Evaluation:
    """Play `episodes` episodes.

    Args:
        actor: the policy.
        params: its parameters.
        env_id: of the environment.
        episodes: at least 1.
        seed: of the environments and of the policy, in a stream of their own (`core.streams`).
        settings: of the environment; a lost life of Atari never ends an episode here.
        vectorization: how environments on the host are stepped side by side, as in `envs.make_host`.
        alone: play them one after the other on the host, in an environment of which there may be one.

    Raises:
        EnvError: the environment cannot be made or failed.
    """
    settings = replace(settings, episodic_life=False)
    if envs.lives(env_id) == "jax":
        return _on_device(actor, params, env_id, episodes, seed, settings)
    return _on_host(actor, params, env_id, episodes, seed, settings, vectorization, alone)


class _Record:
    """Episodes that N environments have played so far, and how many each has left to play."""

    def __init__(self, episodes: int, num_envs: int):
        self.left = np.full(num_envs, episodes // num_envs)
        self.left[: episodes % num_envs] += 1
        self.total, self.length = np.zeros(num_envs), np.zeros(num_envs, np.int64)
        self.returns: list[float] = []
        self.lengths: list[int] = []

    def add(self, reward: np.ndarray, ended: np.ndarray, counts: np.ndarray | bool = True) -> None:
        """Add a step, [N] each; `counts` is false where it only reset the environment."""
        self.total += np.where(counts, reward, 0)
        self.length += counts
        if self.length[self.left > 0].max(initial=0) > _MAX_STEPS:
            raise EnvError(f"an episode has not ended after {_MAX_STEPS:,} steps; give the environment a time_limit")
        for i in np.flatnonzero(ended):
            if self.left[i] > 0:
                self.returns.append(self.total[i])
                self.lengths.append(self.length[i])
                self.left[i] -= 1
            self.total[i] = self.length[i] = 0

    def result(self) -> Evaluation:
        """The episodes that counted."""
        return Evaluation(np.array(self.returns), np.array(self.lengths))


def _on_host(actor: Actor, params: PyTree, env_id: str, episodes: int, seed: int, settings: envs.Config,
             vectorization: Vectorization, alone: bool) -> Evaluation:
    if envs.is_vectorized(env_id, settings, vectorization):
        vectorization, most = "native", _NUM_VECTORIZED
    else:
        most = 1 if alone else _NUM_ENVS
    num_envs = min(episodes, most)
    record, t, ended = _Record(episodes, num_envs), 0, np.zeros(num_envs, bool)
    act, key = program(actor), streams.key(seed, Purpose.EVALUATION)
    venv = envs.make_host(env_id, num_envs, vectorization, settings)
    try:
        obs = venv.reset(streams.host_seed(seed, Purpose.EVALUATION))
        carry = jax.jit(actor.init, static_argnums=0)(num_envs)
        while record.left.any():
            carry, action = act(params, carry, ended, obs, key, np.int32(t))
            obs, reward, terminated, truncated, _, reset = venv.step(np.asarray(action))
            t += 1
            ended = (terminated | truncated) & ~reset
            record.add(reward, ended, ~reset)
    finally:
        venv.close()
    return record.result()


def _on_device(actor: Actor, params: PyTree, env_id: str, episodes: int, seed: int, settings: envs.Config) -> Evaluation:
    num_envs = min(episodes, _NUM_VECTORIZED)
    record, t = _Record(episodes, num_envs), 0
    reset, play = _programs(actor, env_id, num_envs, settings)
    key, k_reset = jax.random.split(streams.key(seed, Purpose.EVALUATION))
    state = reset(k_reset)
    while record.left.any():
        state, rewards, ends = play(params, state, key, np.int32(t))
        t += _CHUNK
        for reward, ended in zip(np.asarray(rewards), np.asarray(ends), strict=True):
            record.add(reward, ended)
    return record.result()


@functools.lru_cache(maxsize=16)
def _programs(actor: Actor, env_id: str, num_envs: int, settings: envs.Config) -> tuple[Callable, Callable]:
    """`(key) -> state`, and `(params, state, key, t) -> (state, rewards [T, N], ends [T, N])`."""
    env = envs.make_device(env_id, settings)

    def reset(key: Key) -> PyTree:
        return *env.reset(key, num_envs), actor.init(num_envs)

    def play(params: PyTree, state: PyTree, key: Key, t: Array) -> tuple[PyTree, Array, Array]:
        def step(state: PyTree, t: Array) -> tuple[PyTree, tuple[Array, Array]]:
            state, _, reward, ended = _stepped(actor, env, params, state, jax.random.fold_in(key, t), t)
            return state, (reward, ended)

        state, (rewards, ends) = jax.lax.scan(step, state, t + jnp.arange(_CHUNK, dtype=jnp.int32))
        return state, rewards, ends

    return quick_jit(reset), quick_jit(play)


def _stepped(actor: Actor, env: Env, params: PyTree, state: PyTree, key: Key, t: Array) -> tuple[PyTree, Array, Array, Array]:
    """A step of environments on the device: the state after it, observations [N, ...] before it, rewards and ends [N]."""
    inner, obs, carry = state
    k_act, k_env = jax.random.split(key)
    carry, action, _ = actor.act(params, carry, obs, actor.sample_noise(k_act, len(obs)), t)
    inner, out = env.step(inner, action, env.sample_noise(jax.random.split(k_env, (env.keys, len(obs)))))
    ended = out.terminated | out.truncated
    return (inner, out.obs, reset_carry(actor, carry, ended)), obs, out.reward, ended


def quick_jit(function: Callable) -> Callable:
    """`jax.jit` that compiles quickly: MinAtar's games take eight seconds otherwise, which no evaluation wins back."""
    return jax.jit(function, compiler_options=START_OPTIONS if jax.default_backend() == "cpu" else None)


@functools.lru_cache(maxsize=16)
def program(actor: Actor) -> Callable:
    """The actor, compiled once for all evaluations; its carry is reset where `first` is true."""

    def act(params: PyTree, carry: PyTree, first: Array, obs: Array, key: Array, t: Array) -> tuple[PyTree, Array]:
        noise = actor.sample_noise(jax.random.fold_in(key, t), len(obs))
        carry, action, _ = actor.act(params, carry, obs, noise, t)
        return reset_carry(actor, carry, first), action

    return jax.jit(act)


def observed(actor: Actor, params: PyTree, env_id: str, *, steps: int, seed: int, settings: envs.Config = envs.DEFAULTS,
             num_envs: int = 4) -> np.ndarray:
    """Observations [steps, num_envs, ...] that a policy meets, episode after episode.

    Raises:
        EnvError: the environment cannot be made or failed.
    """
    key = streams.key(seed, Purpose.EVALUATION)
    if envs.lives(env_id) == "jax":
        env = envs.make_device(env_id, settings)

        def step(state: PyTree, key: Key) -> tuple[PyTree, Array]:
            return _stepped(actor, env, params, state, key, jnp.int32(0))[:2]

        def play(key: Key) -> Array:
            k_reset, k_steps = jax.random.split(key)
            begin = *env.reset(k_reset, num_envs), actor.init(num_envs)
            return jax.lax.scan(step, begin, jax.random.split(k_steps, steps))[1]

        return np.asarray(quick_jit(play)(key))
    act, found = program(actor), []
    venv = envs.make_host(env_id, num_envs, "auto", settings)
    try:
        obs, ended = venv.reset(streams.host_seed(seed, Purpose.EVALUATION)), np.zeros(num_envs, bool)
        carry = actor.init(num_envs)
        for t in range(steps):
            found.append(np.array(obs))
            carry, action = act(params, carry, ended, obs, key, np.int32(t))
            obs, _, terminated, truncated, _, _ = venv.step(np.asarray(action))
            ended = terminated | truncated
    finally:
        venv.close()
    return np.stack(found)
