"""Gymnasium's CartPole-v1 as a `FuncEnv`: a pole on a cart, pushed left or right.

Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve difficult learning control problems" (1983), with
the constants and the explicit Euler step of Gymnasium. State and observation are (x, x_dot, theta, theta_dot) in m, m/s,
rad, rad/s. How this differs from Gymnasium: its state is float64 and rounded to float32 when it is observed, this one is
float32 throughout (or what `initial` was made to give: the dtype follows the state). Gymnasium's own functional
`phys2d/CartPole-v1` has another pole-mass length and so other dynamics.
"""

import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core.types import Array, Key

GRAVITY = 9.8
MASS_CART = 1.0
MASS_POLE = 0.1
TOTAL_MASS = MASS_CART + MASS_POLE
HALF_LENGTH = 0.5  # of the pole
FORCE = 10.0
TAU = 0.02  # seconds between two states
X_LIMIT = 2.4
THETA_LIMIT = 12 * 2 * math.pi / 360
START = 0.05  # every coordinate begins uniform in [-START, START)


class CartPole(FuncEnv):
    """State [4], action int () in {0, 1}; reward 1 a step, that of the fall included."""

    _high = np.array([2 * X_LIMIT, np.inf, 2 * THETA_LIMIT, np.inf], np.float32)
    observation_space = gymnasium.spaces.Box(-_high, _high, dtype=np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def initial(self, rng: Key, params: None = None) -> Array:
        """A state near the upright rest."""
        return jax.random.uniform(rng, (4,), jnp.float32, -START, START)

    def transition(self, state: Array, action: Array, rng: Key, params: None = None) -> Array:
        """One explicit Euler step."""
        x, x_dot, theta, theta_dot = state
        force = jnp.where(action == 1, FORCE, -FORCE).astype(state.dtype)
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        pushed = (force + MASS_POLE * HALF_LENGTH * theta_dot**2 * sin) / TOTAL_MASS
        theta_acc = (GRAVITY * sin - cos * pushed) / (HALF_LENGTH * (4.0 / 3.0 - MASS_POLE * cos**2 / TOTAL_MASS))
        x_acc = pushed - MASS_POLE * HALF_LENGTH * theta_acc * cos / TOTAL_MASS
        return jnp.stack([x + TAU * x_dot, x_dot + TAU * x_acc, theta + TAU * theta_dot, theta_dot + TAU * theta_acc])

    def observation(self, state: Array, rng: Key, params: None = None) -> Array:
        """The state."""
        return state

    def reward(self, state: Array, action: Array, next_state: Array, rng: Key, params: None = None) -> Array:
        """1."""
        return jnp.ones((), jnp.float32)

    def terminal(self, state: Array, rng: Key, params: None = None) -> Array:
        """The cart left the track, or the pole leans too far."""
        return (jnp.abs(state[0]) > X_LIMIT) | (jnp.abs(state[2]) > THETA_LIMIT)


class CartPolePositions(CartPole):
    """CartPole without its velocities, which a policy must keep in mind: observations (x, theta), episodes of 500 steps.

    Wierstra, Foerster, Peters and Schmidhuber, "Solving deep memory POMDPs with recurrent policy gradients" (2007). How this
    differs: their pole has other constants and goals, this is CartPole-v1. Its id: `jaxdl.rl.envs.cartpole:CartPolePositions`.
    """

    _high = CartPole._high[::2]
    observation_space = gymnasium.spaces.Box(-_high, _high, dtype=np.float32)
    max_episode_steps = 500

    def observation(self, state: Array, rng: Key, params: None = None) -> Array:
        """Position and angle [2]."""
        return state[::2]
