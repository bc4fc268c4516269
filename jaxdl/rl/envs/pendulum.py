"""Gymnasium's Pendulum-v1 as a `FuncEnv`: a rod on a motor, to be swung up and held there with little torque.

The task is that of Doya, "Reinforcement learning in continuous time and space" (2000), without friction and with Gymnasium's
constants, cost and one step of semi-implicit Euler; it has no end but its time limit. State is (theta, theta_dot) in rad and
rad/s, theta from upright. How this differs from Gymnasium: its state is float64 and rounded to float32 when it is observed,
this one is float32 throughout (or what `initial` was made to give: the dtype follows the state). Its angle counts the turns,
this one is kept within [-pi, pi], where float32 is finest; nobody sees the difference, as the observation and the cost do not.
"""

import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core.types import Array, Key

GRAVITY = 10.0
MASS = 1.0
LENGTH = 1.0
TAU = 0.05  # seconds between two states
MAX_SPEED = 8.0
MAX_TORQUE = 2.0
START = (math.pi, 1.0)  # coordinate i begins uniform in [-START[i], START[i])


class Pendulum(FuncEnv):
    """State [2], action float [1], a torque in N m clipped to [-2, 2]; reward -theta^2 - 0.1 theta_dot^2 - 0.001 torque^2."""

    _high = np.array([1, 1, MAX_SPEED], np.float32)
    observation_space = gymnasium.spaces.Box(-_high, _high, dtype=np.float32)
    action_space = gymnasium.spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,), np.float32)

    def initial(self, rng: Key, params: None = None) -> Array:
        """Any angle, turning slowly."""
        return jax.random.uniform(rng, (2,), jnp.float32, -1, 1) * jnp.array(START, jnp.float32)

    def transition(self, state: Array, action: Array, rng: Key, params: None = None) -> Array:
        """The velocity first, then the angle."""
        theta, theta_dot = state
        pull = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(theta)
        push = 3 / (MASS * LENGTH**2) * _torque(action).astype(state.dtype)
        theta_dot = jnp.clip(theta_dot + TAU * (pull + push), -MAX_SPEED, MAX_SPEED)
        return jnp.stack([_wrapped(theta + TAU * theta_dot), theta_dot])

    def observation(self, state: Array, rng: Key, params: None = None) -> Array:
        """Cosine and sine of theta, and theta_dot [3]."""
        return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])

    def reward(self, state: Array, action: Array, next_state: Array, rng: Key, params: None = None) -> Array:
        """What the state before the step and the clipped torque cost."""
        return -(_wrapped(state[0]) ** 2 + 0.1 * state[1] ** 2 + 0.001 * _torque(action) ** 2)

    def terminal(self, state: Array, rng: Key, params: None = None) -> Array:
        """Never."""
        return jnp.zeros((), bool)


def _torque(action: Array) -> Array:
    return jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)


def _wrapped(angle: Array) -> Array:
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))
