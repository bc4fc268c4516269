"""Settings that all agents share: the environment, the length of the run, the discount."""

from typing import ClassVar, Literal

from jaxdl.core import config as configs
from jaxdl.core.config import require_positive, require_unit
from jaxdl.rl.envs import config as env_config


@configs.config
class Config:
    """Settings of an agent. The config of an algorithm inherits these and adds its own."""

    shared_sizes: ClassVar[tuple[str, ...]] = ("num_envs",)  # devices share these: `axis.share`

    env_id: str = "CartPole-v1"
    """Gymnasium id of the environment."""
    backend: Literal["auto", "device", "host"] = "auto"
    """Where it runs: device (a twin in JAX), host (Gymnasium's own), auto (device where there is a twin)."""
    vectorization: Literal["auto", "sync", "async", "native"] = "auto"
    """Host only: how Gymnasium steps several environments; auto is native where the environment has it, else sync."""
    num_envs: int = 8
    """Environments stepped side by side."""
    total_steps: int = 250_000
    """Environment steps of the planned run, over all environments; schedules run over it."""
    gamma: float = 0.99
    """Discount per step."""
    clip_reward: bool = False
    """Learn from rewards clipped to [-1, 1]."""
    env: env_config.Config = env_config.Config()
    """How the environment is made."""


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the environment.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "num_envs", "total_steps")
    require_unit(config, "gamma")
    env_config.validate(config.env)
