"""Settings of environments, the same for all algorithms."""

from jaxdl.core.config import config, require, require_positive, require_unit


@config
class Config:
    """Settings of an environment beside its id. They hold in evaluation too, except `episodic_life`."""

    frame_stack: int = 1
    """Observations in one: the last few, the oldest first, an episode's first repeated before it. Atari has its own."""
    time_limit: int | None = None
    """Steps after which an episode is truncated, in place of the environment's own limit."""
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
