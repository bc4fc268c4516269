"""The processes that train one run together, each with its own devices. A run that joined no others is one process.

All run the same program with the same settings, and agree on chunk lengths and on stopping: a process that enters a collective
alone would hang. The first process writes the run's files; each writes its own devices' part of a checkpoint.
"""

import ipaddress
import os
import socket
import time

import jax
import numpy as np

from jaxdl.core.errors import JaxdlError, UserError
from jaxdl.core.types import Array

WAIT_S = 120  # that processes wait for each other at the start
HEARTBEAT_S = 10  # a process without a heartbeat for so long is lost, and the others end


class LostError(JaxdlError):
    """Another process of the run ended, or cannot be reached."""


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Join the other processes. It must run before anything else of JAX.

    Args:
        coordinator: address HOST:PORT of the first process; without it, SLURM, Open MPI, Kubernetes or a TPU pod announces it.
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
    listens = None if coordinator is None else _meet(coordinator, process_id == 0)
    if os.environ.get("JAX_PLATFORMS", "") in ("", "cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, coordinator_bind_address=listens, heartbeat_timeout_seconds=HEARTBEAT_S,
            initialization_timeout=WAIT_S, shutdown_timeout_seconds=HEARTBEAT_S)
    except ValueError as e:
        raise UserError(f"no cluster announces the processes of this run ({e}); give coordinator, num_processes and process_id"
                        ) from e
    except RuntimeError as e:
        raise LostError(f"the processes of the run did not come together: {e}") from e


def _meet(coordinator: str, first: bool) -> str | None:
    """See that the processes can meet at an address, before C++ tries it and ends this one without a word.

    Returns:
        Where the first process is to listen: on this machine alone where the address is its own loopback, else None, which is
        on all its addresses.

    Raises:
        UserError: it is no address, or the first process cannot listen there.
        LostError: the first process was not there in time.
    """
    host, _, port = coordinator.rpartition(":")
    host, bare = host.removeprefix("[").removesuffix("]"), host
    if not host or (":" in host and bare == host) or not (port.isdecimal() and port.isascii() and 0 < int(port) < 2**16):
        raise UserError(f"coordinator must be HOST:PORT ([IPV6]:PORT), the port between 1 and 65535, got {coordinator!r}")
    ip = _answering(coordinator, host, int(port), first)
    loopback = ipaddress.ip_address(ip.partition("%")[0]).is_loopback
    if first:
        try:
            socket.create_server((ip if loopback else "", int(port)),
                                 family=socket.AF_INET6 if ":" in ip else socket.AF_INET).close()
        except OSError as e:
            raise UserError(f"coordinator={coordinator}: process 0 cannot listen on port {port} "
                            f"({os.strerror(e.errno)}); choose another") from None
    return (f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}") if loopback else None


def _answering(coordinator: str, host: str, port: int, first: bool) -> str:
    """The IP address of a host, when it is known and, unless this is the first process, somebody listens there."""
    end, ip = time.monotonic() + WAIT_S, None
    while True:
        try:
            ip = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]
            if not first:
                socket.create_connection((ip, port), timeout=max(1, end - time.monotonic())).close()
            return ip
        except (OSError, UnicodeError) as e:
            if time.monotonic() > end:
                what = "its host is not known" if ip is None else "nobody listens there"
                raise LostError(f"coordinator={coordinator}: {what} ({getattr(e, 'strerror', None) or e}), tried for {WAIT_S} "
                                "seconds; it must be the address of the process with process_id 0, which must run") from None
            time.sleep(0.2)


def count() -> int:
    """The number of processes."""
    return jax.process_count()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_first() -> bool:
    """Whether this process writes the run's files."""
    return jax.process_index() == 0


def agree(*numbers: int) -> np.ndarray:
    """Gather numbers of each process: [processes, numbers]. All wait for the last process."""
    if count() == 1:
        return np.array([numbers])
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.array(numbers, np.int64).astype(np.int32)))


def wait(what: str) -> None:
    """Wait until all processes have come here."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)


def gathered(values: np.ndarray) -> np.ndarray:
    """Gather an array of each process, all of one shape: [processes, ...]."""
    if count() == 1:
        return values[None]
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(values))


def own_rows(x: Array) -> np.ndarray:
    """The rows of an array, sharded along its first axis, that are on this process' devices."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    shards = {s.index[0].start or 0: s.data for s in x.addressable_shards}
    return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def is_cut(x: Array) -> bool:
    """Whether other processes have rows of the array that this one does not have."""
    return isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated


def whole(x: Array) -> np.ndarray:
    """All rows of an array, gathered where each process has some."""
    return gathered(own_rows(x)).reshape(x.shape) if is_cut(x) else np.asarray(x)
