"""Gymnasium's Acrobot-v1 as a `FuncEnv`: two hanging links, swung up by a torque at the joint between them.

Sutton, "Generalization in reinforcement learning: successful examples using sparse coarse coding" (1996), with the dynamics
of Sutton and Barto's book (Gymnasium's default; the paper's lacks a term) and one Runge-Kutta step of 0.2 s under a constant
torque. State is (theta1, theta2, theta1_dot, theta2_dot) in rad and rad/s: theta1 from hanging straight down, theta2
relative to the first link. Both links have a mass of 1 kg in their middle, a length of 1 m and a moment of inertia of 1,
which leaves few of the book's terms. How this differs from Gymnasium: its state is float64 after the first step and rounded
to float32 when it is observed, this one is float32 throughout (or what `initial` was made to give: the dtype follows the
state). cos(x - pi / 2) is written sin(x) here, and an angle is wrapped by one rounding; the two may differ in which of
pi and -pi they call the same angle.
"""

import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core.types import Array, Key

GRAVITY = 9.8
TAU = 0.2  # seconds between two states
MAX_SPEED_1 = 4 * math.pi
MAX_SPEED_2 = 9 * math.pi
HEIGHT = 1.0  # of the free end above the fixed one, in m, past which it has arrived
START = 0.1  # every coordinate begins uniform in [-START, START)


class Acrobot(FuncEnv):
    """State [4], action int () in {0, 1, 2}: a torque of -1, 0 or 1 N m; reward -1 a step, 0 that of the arrival."""

    _high = np.array([1, 1, 1, 1, MAX_SPEED_1, MAX_SPEED_2], np.float32)
    observation_space = gymnasium.spaces.Box(-_high, _high, dtype=np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def initial(self, rng: Key, params: None = None) -> Array:
        """A state near the rest."""
        return jax.random.uniform(rng, (4,), jnp.float32, -START, START)

    def transition(self, state: Array, action: Array, rng: Key, params: None = None) -> Array:
        """One step of the classical Runge-Kutta method, then angles wrapped and speeds clipped."""
        torque = action.astype(state.dtype) - 1
        a, b, u, v = state
        u1, v1 = _accelerations(a, b, u, v, torque)
        u2, v2 = u + TAU / 2 * u1, v + TAU / 2 * v1  # velocities at the second stage, and so on
        u3, v3 = _accelerations(a + TAU / 2 * u, b + TAU / 2 * v, u2, v2, torque)
        u4, v4 = u + TAU / 2 * u3, v + TAU / 2 * v3
        u5, v5 = _accelerations(a + TAU / 2 * u2, b + TAU / 2 * v2, u4, v4, torque)
        u6, v6 = u + TAU * u5, v + TAU * v5
        u7, v7 = _accelerations(a + TAU * u4, b + TAU * v4, u6, v6, torque)
        a = a + TAU / 6 * (u + 2 * u2 + 2 * u4 + u6)
        b = b + TAU / 6 * (v + 2 * v2 + 2 * v4 + v6)
        u = u + TAU / 6 * (u1 + 2 * u3 + 2 * u5 + u7)
        v = v + TAU / 6 * (v1 + 2 * v3 + 2 * v5 + v7)
        u, v = jnp.clip(u, -MAX_SPEED_1, MAX_SPEED_1), jnp.clip(v, -MAX_SPEED_2, MAX_SPEED_2)
        return jnp.stack([_wrapped(a), _wrapped(b), u, v])

    def observation(self, state: Array, rng: Key, params: None = None) -> Array:
        """Cosine and sine of theta1, of theta2, and both velocities [6]."""
        cos, sin = jnp.cos(state[:2]), jnp.sin(state[:2])
        return jnp.stack([cos[0], sin[0], cos[1], sin[1], state[2], state[3]])

    def reward(self, state: Array, action: Array, next_state: Array, rng: Key, params: None = None) -> Array:
        """-1, or 0 where the step arrives."""
        return jnp.where(self.terminal(next_state, rng), 0.0, -1.0)

    def terminal(self, state: Array, rng: Key, params: None = None) -> Array:
        """The free end is higher than one link above the fixed one."""
        return -jnp.cos(state[0]) - jnp.cos(state[0] + state[1]) > HEIGHT


def _accelerations(theta1: Array, theta2: Array, dtheta1: Array, dtheta2: Array, torque: Array) -> tuple[Array, Array]:
    sin1, cos1, sin2, cos2 = jnp.sin(theta1), jnp.cos(theta1), jnp.sin(theta2), jnp.cos(theta2)
    d1, d2 = 3.5 + cos2, 1.25 + 0.5 * cos2
    phi2 = 0.5 * GRAVITY * (sin1 * cos2 + cos1 * sin2)  # a sine of the sum costs more than the cosine beside a sine
    phi1 = phi2 + 1.5 * GRAVITY * sin1 - (0.5 * dtheta2 + dtheta1) * dtheta2 * sin2
    ratio = d2 / d1
    ddtheta2 = (torque + ratio * phi1 - 0.5 * dtheta1**2 * sin2 - phi2) / (1.25 - d2 * ratio)
    return -(ratio * ddtheta2 + phi1 / d1), ddtheta2


def _wrapped(angle: Array) -> Array:
    return angle - 2 * math.pi * jnp.round(angle / (2 * math.pi))
