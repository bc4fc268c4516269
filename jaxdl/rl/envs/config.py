"""Settings of environments, the same for all algorithms."""

import ast
from typing import Any

from jaxdl.core.config import config, require, require_positive, require_unit
from jaxdl.core.errors import UserError

_WORDS = {"true": True, "false": False, "null": None, "none": None}
_OURS = {"render_mode": "it is the film's", "max_episode_steps": "use time_limit", "num_envs": "use num_envs",
         "vectorization_mode": "use vectorization"} | dict.fromkeys(("id", "disable_env_checker", "vector_kwargs", "wrappers"),
                                                                    "it is Gymnasium's")


@config
class Config:
    """Settings of an environment beside its id. They hold in evaluation too, except `episodic_life`."""

    frame_stack: int = 1
    """Observations in one: the last few, the oldest first, an episode's first repeated before it. Atari has its own."""
    time_limit: int | None = None
    """Steps after which an episode is truncated, in place of the environment's own limit."""
    env_kwargs: tuple[str, ...] = ()
    """Settings of the environment itself, name=value ..., as its constructor takes them: is_slippery=False map_name=8x8."""
    env_timeout: int = 120
    """Seconds after which a host environment that does not answer ends the run; 0 waits for ever."""
    atari_stack: int = 4
    """Atari: frames in one observation (Mnih et al. 2015)."""
    frame_skip: int = 4
    """Atari: frames for which an action is repeated; the last two are joined by their maximum (Mnih et al. 2015)."""
    noop_max: int = 30
    """Atari: an episode begins with up to so many actions that do nothing (Mnih et al. 2015)."""
    sticky_actions: float = 0.0
    """Atari: probability that the previous action is repeated in place of the one chosen; Machado et al. (2018) have 0.25
    and no noop_max."""
    episodic_life: bool = True
    """Atari: in training a lost life ends the episode's value, not the game (Mnih et al. 2015). Never in evaluation."""
    full_action_space: bool = False
    """Atari: all 18 actions in place of those that do something."""
    max_frames: int = 108_000
    """Atari: frames after which a game is truncated, 30 minutes (Machado et al. 2018)."""

    @property
    def kwargs(self) -> dict[str, Any]:
        """`env_kwargs` by name: numbers, true, false, None, lists as Python writes them, and words.

        Raises:
            UserError: one is no name=value, stands twice, or is not the environment's.
        """
        found: dict[str, Any] = {}
        for pair in self.env_kwargs:
            name, equals, text = pair.partition("=")
            if not equals or not name.isidentifier():
                raise UserError(f"env_kwargs must be name=value ..., as in is_slippery=False, got {pair!r}")
            if name in _OURS or name in found:
                raise UserError(f"env_kwargs cannot set {name}: {_OURS.get(name, 'it is given twice')}")
            try:
                found[name] = _WORDS[text.lower()] if text.lower() in _WORDS else ast.literal_eval(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                found[name] = text
        return found


def validate(config: Config) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "frame_stack", "time_limit", "atari_stack", "frame_skip", "max_frames")
    for field in ("frame_stack", "atari_stack", "frame_skip"):
        require(config, field, getattr(config, field) <= 1_000, "at most 1000")
    require(config, "max_frames", config.max_frames <= 10**9, "at most 10**9")
    require(config, "env_timeout", config.env_timeout >= 0, "0 or above")
    require(config, "noop_max", 0 <= config.noop_max < 2**31, "0 or above")
    require_unit(config, "sticky_actions")
    config.kwargs  # noqa: B018  # refuses what it cannot read
