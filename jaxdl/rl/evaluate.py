"""Returns of a policy in Gymnasium's own environment, whatever it was trained on; on the device where there is none.

Every lane plays a fixed number of episodes: taking the first so many that end would favour short ones. In Atari an
episode is a whole game, and its rewards are unclipped.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.compile import START_OPTIONS
from jaxdl.core.errors import EnvError
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.rl import envs
from jaxdl.rl.episode_stats import renewed
from jaxdl.rl.types import Actor

_LANES = 10  # environments side by side, where each is a Python object or an emulator
_MANY = 100  # where they are rows of arrays
_ENDLESS = 100_000  # steps of one episode, after which it is taken to have no end
_CHUNK = 128  # steps on the device between two looks at what has ended


class Evaluation(NamedTuple):
    """Undiscounted returns of whole episodes (a time limit ends one too)."""

    returns: np.ndarray  # [episodes] float64
    lengths: np.ndarray  # [episodes] int64, in steps

    @property
    def episodes(self) -> int:
        """How many."""
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
             settings: envs.Config = envs.DEFAULTS) -> Evaluation:
    """Play `episodes` episodes.

    Args:
        actor: the policy.
        params: its parameters.
        env_id: of the environment.
        episodes: at least 1.
        seed: of the environments and of the policy.
        settings: of the environment; a lost life of Atari never ends an episode here.

    Raises:
        EnvError: the environment cannot be made or failed.
    """
    play = _on_device if envs.lives(env_id) == "jax" else _on_host
    return play(actor, params, env_id, episodes, seed, replace(settings, episodic_life=False))


class _Score:
    """What the lanes have played so far, and what is left to play."""

    def __init__(self, episodes: int, lanes: int):
        self.left = np.full(lanes, episodes // lanes)
        self.left[: episodes % lanes] += 1
        self.total, self.length = np.zeros(lanes), np.zeros(lanes, np.int64)
        self.returns: list[float] = []
        self.lengths: list[int] = []

    def add(self, reward: np.ndarray, ended: np.ndarray, counts: np.ndarray | bool = True) -> None:
        """A step of all lanes, [lanes] each; `counts` is false where it was none of an episode."""
        self.total += np.where(counts, reward, 0)
        self.length += counts
        if self.length[self.left > 0].max(initial=0) > _ENDLESS:
            raise EnvError(f"an episode has not ended after {_ENDLESS:,} steps; give the environment a time_limit")
        for lane in np.flatnonzero(ended):
            if self.left[lane] > 0:
                self.returns.append(self.total[lane])
                self.lengths.append(self.length[lane])
                self.left[lane] -= 1
            self.total[lane] = self.length[lane] = 0

    def result(self) -> Evaluation:
        return Evaluation(np.array(self.returns), np.array(self.lengths))


def _on_host(actor: Actor, params: PyTree, env_id: str, episodes: int, seed: int, settings: envs.Config) -> Evaluation:
    lanes = min(episodes, _MANY if envs.is_vectorized(env_id, settings) else _LANES)
    score, t, ended = _Score(episodes, lanes), 0, np.zeros(lanes, bool)
    act, key = program(actor), jax.random.key(seed)
    venv = envs.make_host(env_id, lanes, settings=settings)
    try:
        obs = venv.reset(seed)
        carry = jax.jit(actor.init, static_argnums=0)(lanes)
        while score.left.any():
            carry, action = act(params, carry, ended, obs, key, np.int32(t))
            obs, reward, terminated, truncated, _, reset = venv.step(np.asarray(action))
            t += 1
            ended = (terminated | truncated) & ~reset
            score.add(reward, ended, ~reset)
    finally:
        venv.close()
    return score.result()


def _on_device(actor: Actor, params: PyTree, env_id: str, episodes: int, seed: int, settings: envs.Config) -> Evaluation:
    lanes = min(episodes, _MANY)
    score, t = _Score(episodes, lanes), 0
    begin, play = _programs(actor, env_id, lanes, settings)
    key = jax.random.key(seed)
    key, k_begin = jax.random.split(key)
    state = begin(k_begin)
    while score.left.any():
        state, rewards, ends = play(params, state, key, np.int32(t))
        t += _CHUNK
        for reward, ended in zip(np.asarray(rewards), np.asarray(ends), strict=True):
            score.add(reward, ended)
    return score.result()


@functools.lru_cache(maxsize=16)
def _programs(actor: Actor, env_id: str, lanes: int, settings: envs.Config) -> tuple[Callable, Callable]:
    """`(key) -> state`, and `(params, state, key, t) -> (state, rewards [T, lanes], ends [T, lanes])`."""
    env = envs.make_device(env_id, settings)

    def begin(key: Key) -> PyTree:
        return *env.reset(key, lanes), actor.init(lanes)

    def play(params: PyTree, state: PyTree, key: Key, t: Array) -> tuple[PyTree, Array, Array]:
        def step(state, t):
            inner, obs, carry = state
            k_act, k_env = jax.random.split(jax.random.fold_in(key, t))
            carry, action, _ = actor.act(params, carry, obs, actor.sample_noise(k_act, lanes), t)
            inner, out = env.step(inner, action, env.sample_noise(jax.random.split(k_env, (env.keys, lanes))))
            ended = out.terminated | out.truncated
            return (inner, out.obs, renewed(actor, carry, ended)), (out.reward, ended)

        state, (rewards, ends) = jax.lax.scan(step, state, t + jnp.arange(_CHUNK, dtype=jnp.int32))
        return state, rewards, ends

    return short_lived(begin), short_lived(play)


def short_lived(function: Callable) -> Callable:
    """`function`, to be compiled quickly: MinAtar's games take eight seconds otherwise, which no evaluation gets back."""
    return jax.jit(function, compiler_options=START_OPTIONS if jax.default_backend() == "cpu" else None)


@functools.lru_cache(maxsize=16)
def program(actor: Actor) -> Callable:
    """The actor, compiled once for all evaluations; where an episode begins anew so does its carry."""

    def act(params: PyTree, carry: PyTree, begins: Array, obs: Array, key: Array, t: Array) -> tuple[PyTree, Array]:
        noise = actor.sample_noise(jax.random.fold_in(key, t), len(obs))
        carry, action, _ = actor.act(params, carry, obs, noise, t)
        return renewed(actor, carry, begins), action

    return jax.jit(act)
