"""Small environments for tests: of Gymnasium's usual kind, vectors, and functional ones whose values are known."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.experimental.functional import FuncEnv
from gymnasium.vector import AutoresetMode, VectorEnv

from jaxdl.rl.types import EnvSpec

FINE = np.ones(2, np.float32)


class Toy(gymnasium.Env):
    """Three steps an episode; the observation counts them."""

    observation_space = spaces.Box(0, 9, (2,), np.float32)
    action_space = spaces.Discrete(2)
    closed = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        return self.observe(), float(10 * self.t + action), self.t == 3, False, {}

    def observe(self):
        return np.array([self.t, 7], np.float32)

    def close(self):
        type(self).closed += 1


class ToyVector(VectorEnv):
    """A vector environment of Toy's own: what it gives is what it was made to give."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space, single_action_space = Toy.observation_space, Toy.action_space

    def __init__(self, num_envs=1, obs=FINE, reward=0.0, terminated=False, max_episode_steps=None):
        self.num_envs, self.obs, self.reward, self.terminated = num_envs, obs, reward, terminated
        self.max_episode_steps = max_episode_steps
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        return np.ones((self.num_envs, 2), np.float32), {}

    def step(self, action):
        n = self.num_envs
        obs = np.stack([self.obs] * n) if isinstance(self.obs, np.ndarray) else self.obs
        reward, terminated = (x if isinstance(x, np.ndarray | list) else np.full(n, x) for x in (self.reward, self.terminated))
        return obs, reward, terminated, np.zeros(n, bool), {}


def spec_of(num_actions, size, limit=None, name="probe"):
    box = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
    return EnvSpec(name, box, gymnasium.spaces.Discrete(num_actions), limit)


class OneStep(FuncEnv):
    """One step from an observation of -1 or 1 that pays 1: the value is the reward."""

    def initial(self, rng, params=None):
        return jax.random.rademacher(rng, (), jnp.float32)

    def transition(self, state, action, rng, params=None):
        return state

    def observation(self, state, rng, params=None):
        return state[None]

    def reward(self, state, action, next_state, rng, params=None):
        return 1.0

    def terminal(self, state, rng, params=None):
        return True


class ActionReward(OneStep):
    """Action 1 pays what is observed, action 0 the opposite: the value depends on both."""

    def reward(self, state, action, next_state, rng, params=None):
        return state * jnp.where(action == 1, 1.0, -1.0)


class TwoSteps(OneStep):
    """From 0 to 1, which pays nothing, and on to the end, which pays 1: the value is discounted backwards."""

    def initial(self, rng, params=None):
        return jnp.zeros(())

    def transition(self, state, action, rng, params=None):
        return state + 1

    def reward(self, state, action, next_state, rng, params=None):
        return state

    def terminal(self, state, rng, params=None):
        return state > 1
