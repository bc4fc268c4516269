"""Small environments of Gymnasium's usual kind, for tests."""

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

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
