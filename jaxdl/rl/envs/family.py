"""Families of environments: each is recognized by its ids and made in one way. `jaxdl.rl.envs.FAMILIES` is their table."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from gymnasium.experimental.functional import FuncEnv

from jaxdl.rl.envs.config import Config
from jaxdl.rl.envs.host_envs import HostEnvs
from jaxdl.rl.types import Env, EnvSpec, Lives

Backend = Literal["device", "host"]
Vectorization = Literal["auto", "sync", "async", "native"]


class Family(NamedTuple):
    """How environments of one kind are recognized and made. All functions raise `EnvError` where that is impossible."""

    lives: Lives  # as in `EnvSpec`
    contains: Callable[[str], bool]  # (id)
    ids: Callable[[], list[str]]  # ids that can be made here, of the newest versions only
    backends: Callable[[str], tuple[Backend, ...]]  # (id) -> where it can run, the preferred one first
    spec: Callable[[str, Config], EnvSpec]
    make_device: Callable[[str, Config, int | None], Env] | None = None  # (id, settings, N)
    make_host: Callable[[str, int, Vectorization, Config], HostEnvs] | None = None
    load: Callable[[str, Config], FuncEnv] | None = None  # (id, settings): the environment itself, where it is a FuncEnv
