"""The arrays of a checkpoint on disk: written and read by Orbax, and the parts that other processes wrote.

Orbax is used by its public interface alone. Writing costs what its own handler of NumPy arrays costs: 60 arrays of 1 kB 0.1 s
(45 ms of a core), 200 MB 0.5 s on two cores; its default, which copies the arrays first, takes 1 s for 200 MB.

What is read here is untrusted: sizes are checked before anything is read, and nothing is unpickled. `runtime.checkpoint`
compares what is read with its digests.
"""

import asyncio
import functools
import logging
import os
import re
import stat
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.core import processes
from jaxdl.core.errors import CheckpointError, first_line

_FILES = 16  # that Orbax has open at once, and some more


_OVERHEAD = 1 << 26  # bytes on disk beside the arrays' own, at most

_MAX_INDEX_BYTES = 2**24  # of Orbax's own JSON: 10,000 leaves take 3 MB


class Corrupt(Exception):
    """A checkpoint is not what was written. The message says what is wrong: it follows "checkpoint X is damaged"."""


@functools.cache
def _orbax() -> Any:
    """Orbax (half a second to import), made quiet: its warnings are of its own layout, and its errors are raised."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").addFilter(lambda record: "orbax" not in Path(record.pathname).parts)
    return ocp


@functools.cache
def _array_type() -> type:
    """How Orbax writes and reads NumPy arrays here: all writes or reads end before the first error is raised.

    Orbax's own raise at once and close their event loop. What is still under way then prints a traceback for each array, and
    writes on in the folder that is being removed.
    """
    import tensorstore

    handlers, future = _orbax().type_handlers, _orbax().future

    class Arrays(handlers.NumpyHandler):
        async def serialize(self, values, infos, args=None):
            async def write(value, info, arg):
                await info.await_path_creation()
                spec = handlers.get_json_tspec_write(info, info.is_ocdbt_checkpoint, value.shape, value.shape, value.dtype,
                                                     process_index=jax.process_index(), arg=arg)
                array = await tensorstore.open(tensorstore.Spec(spec), create=True, open=True, context=info.ts_context)
                await array.write(value, can_reference_source_data_indefinitely=True)  # a copy could be gigabytes

            args = args or [handlers.SaveArgs()] * len(values)
            return [future.CommitFutureAwaitingContractedSignals(_all(map(write, values, infos, args)))]

        async def deserialize(self, infos, args=None):
            args = args or [handlers.RestoreArgs()] * len(infos)
            own = super()
            return [values for values, in await _all(own.deserialize([i], [a]) for i, a in zip(infos, args, strict=True))]

    return Arrays


async def _all(tasks: Iterable[Coroutine]) -> list[Any]:
    """The results of all tasks, when each has ended; raises the first error."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _alone() -> dict[str, Any]:
    """Options without which Orbax would wait for all processes of the run: what it writes here is this process' own."""
    me, ocp = jax.process_index(), _orbax()
    return {"multiprocessing_options": ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process-{me}")} if processes.count() > 1 else {}


def _array_handler() -> Any:
    ocp = _orbax()
    registry = ocp.type_handlers.create_type_handler_registry((np.ndarray, _array_type()()))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry, **_alone())


def check_open_files() -> None:
    """Find out whether this process may open as many files as a checkpoint takes: midway Orbax prints tracebacks.

    Raises:
        OSError: it may not.
    """
    opened = []
    try:
        for _ in range(_FILES):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for file in opened:
            os.close(file)


def write(path: Path, manifest_name: str, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a checkpoint's folder: first under another name, which is changed when all of it is there."""
    check_open_files()
    ocp = _orbax()
    items = {"manifest": ocp.args.JsonSave(manifest)}
    if arrays:
        items["arrays"] = ocp.args.PyTreeSave(arrays)
    options = {"composite_options": ocp.CompositeOptions(**_alone())} if _alone() else {}
    handler = ocp.CompositeCheckpointHandler(
        arrays=_array_handler(), manifest=ocp.JsonCheckpointHandler(manifest_name, **_alone()), **options)
    with ocp.Checkpointer(handler, **_alone()) as checkpointer:
        checkpointer.save(path, args=ocp.args.Composite(**items))


def _check_files(path: Path, most: int) -> None:
    """Refuse what would be waited for or fill the memory: TensorStore opens whatever lies there and reads all of it.

    Raises:
        Corrupt: names the file.
    """
    total = 0
    for at, _, names in os.walk(path):
        for name in names:
            file = Path(at, name)
            found = file.stat()
            if not stat.S_ISREG(found.st_mode):
                raise Corrupt(f"its {file.relative_to(path.parent)} is no file")
            if name.startswith("_") and found.st_size > _MAX_INDEX_BYTES:
                raise Corrupt(f"its {file.relative_to(path.parent)} is larger than the {_MAX_INDEX_BYTES:,} bytes it may have")
            total += found.st_size
    if total > most:
        raise Corrupt(f"its arrays take {total:,} bytes on disk, where {most:,} are the most")


def read_arrays(path: Path, names: list[str], num_bytes: int) -> dict[str, np.ndarray]:
    """The arrays of these names.

    Args:
        num_bytes: of all arrays of the checkpoint, these and others.

    Raises:
        Corrupt: they are not there, or cannot be read.
        CheckpointError: this process may not open as many files as reading takes.
    """
    if not names:
        return {}
    try:
        check_open_files()
    except OSError as e:
        raise CheckpointError(f"checkpoint {path} cannot be read: {e.strerror}; raise the limit (ulimit -n)") from e
    ocp = _orbax()
    args = ocp.args.PyTreeRestore(
        item=dict.fromkeys(names, 0), partial_restore=True,
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names})
    try:
        _check_files(path / "arrays", 2 * num_bytes + _OVERHEAD)  # Orbax compresses
        with ocp.Checkpointer(_array_handler(), **_alone()) as checkpointer:
            arrays = checkpointer.restore(path / "arrays", args=args)
    except (MemoryError, Corrupt):
        raise
    except Exception as e:
        raise Corrupt(f"its arrays cannot be read: {reason(e)}") from e
    if sorted(arrays) != sorted(names) or not all(isinstance(x, np.ndarray) for x in arrays.values()):
        raise Corrupt("its arrays are not those of its manifest")
    return arrays


def write_rows(folder: Path, rows: dict[int, np.ndarray]) -> None:
    """Write the rows that this process has of some leaves, each as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, values in rows.items():
        with (folder / f"{i}.npy").open("wb") as f:
            np.save(f, values, allow_pickle=False)
            os.fsync(f.fileno())


def read_part(path: Path, like: np.ndarray) -> np.ndarray:
    """The rows that another process wrote, as many as `like`; untrusted: no larger than they must be, and no pickle.

    Raises:
        Corrupt: it is not what it must be.
    """
    try:
        if not path.is_file():
            raise ValueError(f"{path} is not a file")
        if path.stat().st_size > like.nbytes + 1024:
            raise ValueError(f"{path} is too large")
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise Corrupt(f"its part {path} cannot be read: {reason(e)}") from e
    if (values.shape, values.dtype) != (like.shape, like.dtype):
        raise Corrupt(f"its part {path} is {values.dtype}{list(values.shape)}, not {like.dtype}{list(like.shape)}")
    return values


def reason(error: BaseException) -> str:
    """What the system said, also where it is wrapped in TensorStore's text; else the first line of the error."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"{error} is missing"
    code = re.search(r"os_error_code='(\d+)'", str(error))
    if code:
        return os.strerror(int(code[1]))
    return first_line(error)[:200]
