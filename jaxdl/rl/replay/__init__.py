"""Replay: the source whose batches are transitions drawn from a memory."""

from jaxdl.rl.replay.source import (
    HostReplayState,
    ReplayState,
    Settings,
    check_sizes,
    host_replay,
    make_memory,
    replay,
)

__all__ = ["HostReplayState", "ReplayState", "Settings", "check_sizes", "host_replay", "make_memory", "replay"]
