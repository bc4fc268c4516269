"""Gymnasium's MountainCar-v0 and MountainCarContinuous-v0 as `FuncEnv`s: a car too weak for its hill must swing up to it.

Moore, "Efficient memory-based learning for robot control" (1990), with the constants of Sutton's code that
Gymnasium took over: a valley whose height is sin(3 x), one step of semi-implicit Euler, and a wall on the left that stops
the car (the one on the right does not). State and observation are (x, x_dot) in m and m per step. How these differ from
Gymnasium: MountainCar's state is float64 there and rounded to float32 when it is observed, this one is float32 throughout
(or what `initial` was made to give: the dtype follows the state). MountainCarContinuous' is float32 there too.
"""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core.types import Array, Key

GRAVITY = 0.0025
FORCE = 0.001  # of the car of discrete actions
POWER = 0.0015  # that of the other one at an action of 1
X_MIN = -1.2
X_MAX = 0.6
MAX_SPEED = 0.07
GOAL = 0.5
GOAL_CONTINUOUS = 0.45
START = (-0.6, -0.4)  # x begins uniform in [START[0], START[1]), at rest

_OBSERVATIONS = gymnasium.spaces.Box(np.array([X_MIN, -MAX_SPEED], np.float32), np.array([X_MAX, MAX_SPEED], np.float32))


class MountainCar(FuncEnv):
    """State [2], action int () in {0, 1, 2}: push left, not at all, right; reward -1 a step, that of the arrival included."""

    observation_space = _OBSERVATIONS
    action_space = gymnasium.spaces.Discrete(3)

    def initial(self, rng: Key, params: None = None) -> Array:
        """At rest near the bottom of the valley."""
        return _start(rng)

    def transition(self, state: Array, action: Array, rng: Key, params: None = None) -> Array:
        """The velocity first, then the position."""
        return _moved(state, FORCE * (action.astype(state.dtype) - 1))

    def observation(self, state: Array, rng: Key, params: None = None) -> Array:
        """The state."""
        return state

    def reward(self, state: Array, action: Array, next_state: Array, rng: Key, params: None = None) -> Array:
        """-1."""
        return -jnp.ones((), jnp.float32)

    def terminal(self, state: Array, rng: Key, params: None = None) -> Array:
        """At the goal or past it, and not on the way back."""
        return (state[0] >= GOAL) & (state[1] >= 0)


class MountainCarContinuous(FuncEnv):
    """State [2], action float [1], a push clipped to [-1, 1]; reward -0.1 action^2 and 100 at the arrival.

    The action that is paid for is the one given, not the one clipped, as in Gymnasium.
    """

    observation_space = _OBSERVATIONS
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def initial(self, rng: Key, params: None = None) -> Array:
        """At rest near the bottom of the valley."""
        return _start(rng)

    def transition(self, state: Array, action: Array, rng: Key, params: None = None) -> Array:
        """The velocity first, then the position."""
        return _moved(state, POWER * jnp.clip(action[0], -1, 1).astype(state.dtype))

    def observation(self, state: Array, rng: Key, params: None = None) -> Array:
        """The state."""
        return state

    def reward(self, state: Array, action: Array, next_state: Array, rng: Key, params: None = None) -> Array:
        """100 where the step arrives, less what the action cost."""
        return jnp.where(self.terminal(next_state, rng), 100.0, 0.0) - 0.1 * action[0] ** 2

    def terminal(self, state: Array, rng: Key, params: None = None) -> Array:
        """At the goal or past it, and not on the way back."""
        return (state[0] >= GOAL_CONTINUOUS) & (state[1] >= 0)


def _start(rng: Key) -> Array:
    return jnp.stack([jax.random.uniform(rng, (), jnp.float32, *START), jnp.zeros((), jnp.float32)])


def _moved(state: Array, push: Array) -> Array:
    x, x_dot = state
    x_dot = jnp.clip(x_dot + push - GRAVITY * jnp.cos(3 * x), -MAX_SPEED, MAX_SPEED)
    x = jnp.clip(x + x_dot, X_MIN, X_MAX)
    return jnp.stack([x, jnp.where(x == X_MIN, jnp.maximum(x_dot, 0), x_dot)])
