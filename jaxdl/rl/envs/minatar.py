"""MinAtar on the device: Atari-like games on 10 x 10 cells, through gymnax.

Young and Tian, "MinAtar: An Atari-inspired testbed for thorough and reproducible reinforcement learning experiments"
(2019), as Lange's gymnax has it (its extra `jaxdl[gymnax]`), with the actions that do something in each game. How this
differs from gymnax: its time limit ends an episode like any other end, here it truncates; observations are bool.
"""

import importlib.util
import warnings
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.experimental.functional import FuncEnv

from jaxdl.core.errors import EnvError, described
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.rl.envs import functional

GAMES = ("Asterix-MinAtar", "Breakout-MinAtar", "Freeway-MinAtar", "SpaceInvaders-MinAtar")
_ENDLESS = 2**31 - 1  # steps


class GameState(NamedTuple):
    """A game with the reward and the end of its last step."""

    game: PyTree
    reward: Array  # () float32
    terminal: Array  # () bool


class MinAtar(FuncEnv):
    """One of `GAMES`: observations bool [10, 10, channels], actions int () below `action_space.n`.

    Raises:
        EnvError: gymnax is not installed, or the game does not take `options`.
    """

    def __init__(self, game: str, **options: Any):
        try:
            import gymnax
        except ImportError as e:
            raise EnvError(f"{game} needs packages that are not installed: pip install 'jaxdl[gymnax]'") from e
        for message in ("scatter inputs have incompatible types", "Explicitly requested dtype int64"):
            warnings.filterwarnings("ignore", message)  # at every tracing, of gymnax's code
        try:
            self._game, defaults = gymnax.make(game, **options)
        except TypeError as e:
            raise EnvError(f"{game} cannot be made: {described(e)}") from e
        self._rules = defaults.replace(max_steps_in_episode=_ENDLESS)
        self.max_episode_steps = int(defaults.max_steps_in_episode)
        self.observation_space = gymnasium.spaces.Box(0, 1, self._game.obs_shape, np.bool_)
        self.action_space = gymnasium.spaces.Discrete(self._game.num_actions)
        state = jax.eval_shape(lambda key: self._reset(key), jax.random.key(0))
        self._like = jax.eval_shape(lambda key, state: self._step(key, state, 0)[0], jax.random.key(0), state)
        super().__init__()

    def initial(self, rng: Key, params: None = None) -> GameState:
        """A new game; its numbers have the dtypes that they keep."""
        game = jax.tree.map(lambda x, like: jax.lax.convert_element_type(x, like.dtype), self._reset(rng), self._like)
        return GameState(game, jnp.zeros(()), jnp.zeros((), jnp.bool_))

    def transition(self, state: GameState, action: Array, rng: Key, params: None = None) -> GameState:
        """One step."""
        game, reward, terminal = self._step(rng, state.game, action)
        return GameState(game, reward, terminal)

    def observation(self, state: GameState, rng: Key, params: None = None) -> Array:
        """A grid of cells with one channel for each kind of object."""
        return self._game.get_obs(state.game).astype(jnp.bool_)

    def reward(self, state: GameState, action: Array, next_state: GameState, rng: Key, params: None = None) -> Array:
        """The game's reward."""
        return next_state.reward

    def terminal(self, state: GameState, rng: Key, params: None = None) -> Array:
        """Whether the game is over."""
        return state.terminal

    def _reset(self, key: Key) -> PyTree:
        return self._game.reset_env(key, self._rules)[1]

    def _step(self, key: Key, game: PyTree, action: Any) -> tuple[PyTree, Array, Array]:
        _, game, reward, over, _ = self._game.step_env(key, game, action, self._rules)
        return game, reward.astype(jnp.float32), over.astype(jnp.bool_)


FAMILY = functional.family(lambda game, settings: MinAtar(game, **settings.kwargs), GAMES.__contains__,
                           lambda: list(GAMES) if importlib.util.find_spec("gymnax") else [])
