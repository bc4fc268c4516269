"""The processes that train one run together, each with devices of its own; one, where nobody joined others.

All run the same program on the same settings, and what they decide (how many steps a chunk has, whether to stop) they decide
together, or one would wait for ever in a reduction that another never enters. The first writes the run's files; of a checkpoint
each writes its own devices' part.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np

from jaxdl.core.errors import JaxdlError, UserError
from jaxdl.core.types import Array

HEARTBEAT_S = 10  # a process that says nothing for so long is lost, and the others end


class LostError(JaxdlError):
    """Another process of the run ended, or cannot be reached."""


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the other processes; before anything else of JAX runs.

    Args:
        coordinator: address HOST:PORT of the first process; without it, what SLURM, Open MPI, Kubernetes or a TPU pod says.
        num_processes: how many there are; goes with `coordinator`.
        process_id: which this is, from 0; goes with `coordinator`.

    Raises:
        UserError: only some of the three are given, or nothing announces them.
        LostError: the others did not come.
    """
    given = (coordinator, num_processes, process_id)
    if any(x is not None for x in given) and None in given:
        raise UserError("coordinator, num_processes and process_id go together; a cluster that announces them needs none")
    if coordinator is not None and not (num_processes >= 1 and 0 <= process_id < num_processes):
        raise UserError(f"process_id must lie between 0 and num_processes - 1, got {process_id} of {num_processes}")
    if os.environ.get("JAX_PLATFORMS", "") in ("", "cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_S,
                                   initialization_timeout=120, shutdown_timeout_seconds=HEARTBEAT_S)
    except ValueError as e:
        raise UserError(f"no cluster announces the processes of this run ({e}); give coordinator, num_processes and process_id"
                        ) from e
    except RuntimeError as e:
        raise LostError(f"the processes of the run did not come together: {e}") from e


def count() -> int:
    """How many there are."""
    return jax.process_count()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_first() -> bool:
    """Whether this one writes the run's files."""
    return jax.process_index() == 0


def agree(*numbers: int) -> np.ndarray:
    """Numbers of each process: [processes, numbers]; all wait for the last."""
    if count() == 1:
        return np.array([numbers])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.array(numbers, np.int64).astype(np.int32)))


def wait(what: str) -> None:
    """Until all are here."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def gathered(values: np.ndarray) -> np.ndarray:
    """An array of each process, all of one shape: [processes, ...]."""
    if count() == 1:
        return values[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values))


def own_rows(x: Array) -> np.ndarray:
    """The rows of an array, cut along its first axis, that lie on this process' devices."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    shards = {s.index[0].start or 0: s.data for s in x.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def is_cut(x: Array) -> bool:
    """Whether other processes have rows of it that this one has not."""
    return isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated


def whole(x: Array) -> np.ndarray:
    """An array of which each process has rows, or all of it."""
    return gathered(own_rows(x)).reshape(x.shape) if is_cut(x) else np.asarray(x)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """The first SIGINT or SIGTERM asks to stop at the end of the chunk; a second SIGINT stops at once."""
    caught = []

    def handle(number, frame):
        del frame
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        old = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are somebody else's
        old = {}
    try:
        yield lambda: bool(caught)
    finally:
        for s, h in old.items():
            signal.signal(s, h)
