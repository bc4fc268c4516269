"""The arrays of a checkpoint on disk: Orbax made quiet and whole, and the parts that other processes wrote.

What is read here is untrusted: sizes are checked before anything is read, and nothing is unpickled. `jaxdl.checkpoint` holds
what is read to its digests.
"""

import asyncio
import functools
import logging
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.core import processes


class Damage(Exception):
    """What is wrong with a checkpoint, as it goes between brackets."""


@functools.cache
def _orbax() -> Any:
    """Orbax (half a second to import), made quiet: its warnings are of its own layout, and its errors are raised."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").addFilter(lambda record: "orbax" not in Path(record.pathname).parts)
    return ocp


@functools.cache
def _numpy_handler() -> type:
    """Orbax's handler, which lets all reads or writes end before the first error is raised.

    Orbax raises at once and closes its event loop; the others then print a traceback each, and write on where the
    interrupted checkpoint was just removed.
    """

    class Handler(_orbax().type_handlers.NumpyHandler):
        async def _open_and_write(self, *args):
            try:
                await super()._open_and_write(*args)
            except Exception as e:
                self.errors.append(e)

        async def _background_serialize(self, *args):
            self.errors = []
            await super()._background_serialize(*args)
            if self.errors:
                raise self.errors[0]

        async def deserialize(self, infos, args):
            reads = [super(Handler, self).deserialize([i], [a]) for i, a in zip(infos, args, strict=True)]
            results = await asyncio.gather(*reads, return_exceptions=True)
            errors = [r for r in results if isinstance(r, BaseException)]
            if errors:
                raise errors[0]
            return [values for values, in results]

    return Handler


def _alone() -> dict[str, Any]:
    """Orbax would wait for all processes of the run; what it writes here is this one's."""
    me, ocp = jax.process_index(), _orbax()
    return {"multiprocessing_options": ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process-{me}")} if processes.count() > 1 else {}


def _array_handler() -> Any:
    ocp = _orbax()
    numpy_handler = _numpy_handler()(deepcopy_host_arrays=False)  # a copy of a memory can be gigabytes
    registry = ocp.type_handlers.create_type_handler_registry((np.ndarray, numpy_handler))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry, **_alone())


def write(path: Path, manifest_name: str, manifest: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write a checkpoint's own folder: into a temporary one, which is renamed when all of it is there."""
    ocp = _orbax()
    items = {"manifest": ocp.args.JsonSave(manifest)}
    if arrays:
        items["arrays"] = ocp.args.PyTreeSave(arrays)
    options = {"composite_options": ocp.CompositeOptions(**_alone())} if _alone() else {}
    handler = ocp.CompositeCheckpointHandler(
        arrays=_array_handler(), manifest=ocp.JsonCheckpointHandler(manifest_name, **_alone()), **options)
    with ocp.Checkpointer(handler, **_alone()) as checkpointer:
        checkpointer.save(path, args=ocp.args.Composite(**items))


def read_arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """The arrays of these names.

    Raises:
        Damage: they are not there, or cannot be read.
    """
    if not names:
        return {}
    ocp = _orbax()
    args = ocp.args.PyTreeRestore(
        item=dict.fromkeys(names, 0), partial_restore=True,
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names})
    try:
        with ocp.Checkpointer(_array_handler(), **_alone()) as checkpointer:
            arrays = checkpointer.restore(path / "arrays", args=args)
    except MemoryError:
        raise
    except Exception as e:
        raise Damage(f"its arrays cannot be read: {reason(e)}") from e
    if sorted(arrays) != sorted(names) or not all(isinstance(x, np.ndarray) for x in arrays.values()):
        raise Damage("its arrays are not those of its manifest")
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
        Damage: it is not what it must be.
    """
    try:
        if path.stat().st_size > like.nbytes + 1024:
            raise ValueError(f"{path} is too large")
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise Damage(f"its part {path} cannot be read: {reason(e)}") from e
    if (values.shape, values.dtype) != (like.shape, like.dtype):
        raise Damage(f"its part {path} is {values.dtype}{list(values.shape)}, not {like.dtype}{list(like.shape)}")
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
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
