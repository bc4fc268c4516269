"""Checkpoints: a pytree on disk that is whole or absent, and read back as the bits that were written.

Orbax writes a step into a temporary folder and renames it when all of it is there, so a process killed at any moment
leaves the checkpoints before it and at most a leftover, which the next save removes. Beside the arrays lies a manifest:
the path, dtype, shape and SHA-256 of every leaf, what the caller wants to find again (`meta`), and a digest of itself.
Reading checks all of it, because Orbax restores a flipped byte without complaint and casts a wrong dtype in silence.
Nothing is unpickled.

    FOLDER/<step>/arrays/                   every leaf that has elements, by number (Orbax, OCDBT)
    FOLDER/<step>/manifest/manifest.json
    FOLDER/<step>.parts/<process>/N.npy     of leaf N, which several processes share, the rows of each but the first

The manifest is written when all processes have written their parts, with a digest of each: it makes them one checkpoint.

A step that is saved again goes to `<step>.1`, and only then is `<step>` removed: a whole one is there at every moment.
"""

import contextlib
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from jaxdl.core import processes
from jaxdl.core.errors import CheckpointError
from jaxdl.core.types import PyTree
from jaxdl.runtime import manifest
from jaxdl.runtime.checkpoint_format import Corrupt, read_arrays, read_part, reason, write, write_rows

_CHECKPOINT = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?")  # step, revision
_LEFTOVER = re.compile(r"\d+(\.\d+)?\.(orbax-checkpoint-tmp.*|old)")  # of a save or a removal that was interrupted


class DamagedError(CheckpointError):
    """A checkpoint does not hold what was written."""

    earlier: int | None = None
    """Step of the newest checkpoint before it that was read and found whole."""


def estimate_bytes(state: PyTree) -> int:
    """Bytes of all leaves (arrays or `jax.ShapeDtypeStruct`s). Orbax compresses: a checkpoint is seldom much larger."""
    specs = [manifest.stored_spec(x) for _, x in manifest.leaves_of(state)]
    return sum(math.prod(s.shape) * s.dtype.itemsize for s in specs)


def steps(folder: Path) -> list[int]:
    """The steps of which `folder` has a whole checkpoint, ascending; none where there is no folder.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    return list(_whole(Path(folder)))


def save(folder: Path, step: int, state: PyTree, *, meta: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint; then remove all but the newest `keep`, never this one.

    When it returns, all is on disk and nothing refers to `state`, which may be donated.

    Args:
        folder: of the checkpoints of one run; made if missing.
        step: names the checkpoint; one of the same step is replaced, without a moment in which neither is whole.
        state: pytree of JAX or NumPy arrays, numbers and typed random keys.
        meta: configs and what JSON can hold; `restore` compares it, `read_meta` returns it.
        keep: how many checkpoints stay, at least 1.

    Returns:
        The folder of the checkpoint.

    Raises:
        CheckpointError: it cannot be written (the disk is full, the folder is read-only ...), or a leaf is no array.
            The checkpoints that were there stay.
    """
    folder = Path(folder).absolute()
    leaves, arrays, cut = _contents(state)
    if processes.is_first():
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        _clean(folder)
    processes.wait(f"checkpoint {step}")
    revisions = [revision for s, revision, _ in _entries(folder) if s == step]
    path = folder / (f"{step}.{max(revisions) + 1}" if revisions else str(step))
    processes.wait(f"names of {step}")
    if processes.count() > 1:
        for i, digests in _write_parts(path, cut).items():
            leaves[i] = msgspec.structs.replace(leaves[i], sha256="", parts=digests)
        if not processes.is_first():
            processes.wait(f"written {step}")
            return path
    sealed = manifest.seal(step, meta, leaves)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path, manifest.PATH.name, sealed, arrays)
    except Exception as e:  # Orbax and TensorStore wrap what the system said in errors of many types
        _clean(folder)
        raise CheckpointError(f"the checkpoint of step {step} cannot be written into {folder}: {reason(e)}") from e
    others = [p for s, p in reversed(_whole(folder).items()) if s != step]
    kept = {path, *others[: keep - 1]}
    for _, _, old in _entries(folder):
        if old not in kept and os.path.isfile(old / manifest.PATH):
            _remove(old)
    processes.wait(f"written {step}")
    return path


def _contents(state: PyTree) -> tuple[list[manifest.Leaf], dict[str, np.ndarray], dict[int, np.ndarray]]:
    """The leaves; the arrays of those with elements, by number; and of these the ones that other processes have rows of."""
    leaves, arrays, cut = [], {}, {}
    for i, (name, x) in enumerate(manifest.leaves_of(state)):
        stored = jax.random.key_data(x) if manifest.is_key(x) else x
        values = processes.own_rows(stored)
        if processes.is_cut(stored):
            cut[i] = values
        leaves.append(manifest.Leaf.of(name, x, manifest.sha256_of(values)))
        if values.size:  # Orbax refuses arrays without elements
            arrays[str(i)] = values
    return leaves, arrays, cut


def _parts(path: Path) -> Path:
    """The folder of the parts that other processes wrote."""
    return path.with_name(path.name + ".parts")


def _write_parts(path: Path, cut: dict[int, np.ndarray]) -> dict[int, tuple[str, ...]]:
    """Write the rows that this process has of the leaves that are shared. Returns the digests of all processes' rows.

    The first process writes its rows with the other leaves.

    Raises:
        CheckpointError: a process could not write its part.
    """
    wrong = ""
    if not processes.is_first() and cut:
        try:
            write_rows(_parts(path) / str(jax.process_index()), cut)
        except OSError as e:
            wrong = reason(e)
    digests = np.array([list(bytes.fromhex(manifest.sha256_of(x))) for x in cut.values()], np.uint8).reshape(-1, 32)
    if processes.agree(bool(wrong)).any():
        raise CheckpointError(f"a part of the checkpoint {path} cannot be written: {wrong or 'another process says why'}")
    return {i: tuple(bytes(x).hex() for x in of_each)
            for i, of_each in zip(cut, processes.gathered(digests).swapaxes(0, 1), strict=True)}


def restore(
    folder: Path, like: PyTree, *, step: int | None = None, meta: dict[str, Any] | None = None, partial: bool = False
) -> tuple[int, PyTree]:
    """Read a checkpoint and check every leaf of it.

    Args:
        folder: where `save` wrote it.
        like: pytree of arrays or `jax.ShapeDtypeStruct`s: the structure, shapes and dtypes that must be found.
        step: which one; the newest if not given.
        meta: each of these entries must have been saved with the same value; others are not looked at. A config may have
            been saved by an earlier version, whose fields had other names or were not there: these had today's default.
        partial: leaves on disk that `like` does not have are left there (a memory, where only parameters are wanted).

    Returns:
        Its step, and the state as JAX arrays that are not committed to a device (so that a program compiled for a fresh
        state takes them as they are); a 64-bit leaf that JAX would round is a NumPy array.

    Raises:
        DamagedError: it does not hold what was written; names the leaf and the newest whole checkpoint before it.
        CheckpointError: there is none, or it is of another run: names the settings or leaves that differ.
    """
    folder = Path(folder).absolute()
    wanted = step
    while True:
        found = _whole(folder)
        path = _pick(found, folder, wanted)
        step = max(found) if wanted is None else wanted
        try:
            return step, _read(path, step, like, meta, partial)
        except Corrupt as e:
            if _whole(folder).get(step) == path:
                raise _damaged(path, step, found, like, partial, e) from e.__cause__
            # it was removed while it was read: a run that goes on has written a newer one, one that was overwritten has none


def _damaged(path: Path, step: int, found: dict[int, Path], like: PyTree, partial: bool, why: Corrupt) -> DamagedError:
    earlier = next((s for s in reversed(found) if s < step and _readable(found[s], s, like, partial)), None)
    hint = ("there is no whole one before it" if earlier is None
            else f"the newest whole one before it, step {earlier}, is read with --step {earlier} (step={earlier}), and resume "
                 f"goes on from it when {path} is removed")
    error = DamagedError(f"checkpoint {path} is damaged ({why}); {hint}")
    error.earlier = earlier
    return error


def read_meta(folder: Path, step: int) -> dict[str, Any]:
    """The `meta` of a checkpoint, without reading its arrays.

    Raises:
        CheckpointError: there is no such checkpoint.
        DamagedError: its manifest cannot be read.
    """
    folder = Path(folder).absolute()
    path = _pick(_whole(folder), folder, step)
    try:
        return manifest.read(path, step).meta
    except Corrupt as e:
        raise DamagedError(f"checkpoint {path} is damaged ({e})") from e.__cause__


def _place(values: np.ndarray, like: Any) -> Any:
    """A leaf as it was saved: a random key, a JAX array, or NumPy's where JAX has no room for the dtype."""
    if manifest.is_key(like):
        impl = jax.random.key_impl(jnp.empty((), like.dtype))
        return jax.random.wrap_key_data(jnp.array(values), impl=impl)
    return jnp.array(values) if jax.dtypes.canonicalize_dtype(values.dtype) == values.dtype else values


def _entries(folder: Path) -> list[tuple[int, int, Path]]:
    """(step, revision, path) of everything named like a checkpoint, ascending."""
    try:
        paths = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as e:
        raise CheckpointError(f"{folder} cannot be read: {reason(e)}") from e
    matches = [(_CHECKPOINT.fullmatch(p.name), p) for p in paths]
    return sorted((int(m[1]), int(m[2] or 0), p) for m, p in matches if m)


def _whole(folder: Path) -> dict[int, Path]:
    """The newest whole checkpoint of each step, ascending."""
    return {step: path for step, _, path in _entries(folder) if os.path.isfile(path / manifest.PATH)}


def _pick(found: dict[int, Path], folder: Path, step: int | None) -> Path:
    if not found:
        raise CheckpointError(f"there is no checkpoint in {folder}")
    if step is not None and step not in found:
        raise CheckpointError(f"there is no checkpoint of step {step} in {folder}; there are: "
                              f"{', '.join(map(str, found))}")
    return found[max(found) if step is None else step]


def _remove(path: Path) -> None:
    """Remove a checkpoint, its name first, so that an interrupted removal leaves no half one. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        _delete(path.rename(path.with_name(path.name + ".old")))
        _delete(_parts(path))


def _clean(folder: Path) -> None:
    """Remove what interrupted saves and removals left."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if _LEFTOVER.fullmatch(path.name) or (path.suffix == ".parts" and not path.with_suffix("").is_dir()):
                _delete(path)


def _delete(path: Path) -> None:
    """Remove a folder; of a link the link. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)


def _read(path: Path, step: int, like: PyTree, meta: dict[str, Any] | None, partial: bool) -> PyTree:
    written, expected = manifest.read(path, step), manifest.leaves_of(like)
    wanted = {name for name, _ in expected}
    found = {leaf.path: (str(i), leaf) for i, leaf in enumerate(written.leaves) if not partial or leaf.path in wanted}
    manifest.check_meta(path, written.meta, meta or {})
    manifest.check_leaves(path, [leaf for _, leaf in found.values()], expected)

    num_bytes = sum(16 * math.prod(leaf.shape) for leaf in written.leaves)  # no dtype has more
    arrays = read_arrays(path, [i for i, leaf in found.values() if math.prod(leaf.shape)], num_bytes)
    placed = []
    for name, x in expected:
        i, leaf = found[name]
        stored = manifest.stored_spec(x)
        values = arrays.pop(i) if i in arrays else np.zeros(stored.shape, stored.dtype)
        if leaf.parts:
            values = np.concatenate([values, *(read_part(_parts(path) / str(p) / f"{i}.npy", values)
                                               for p in range(1, len(leaf.parts)))])
            digests = tuple(manifest.sha256_of(rows) for rows in np.split(values, len(leaf.parts)))
            leaf = msgspec.structs.replace(leaf, sha256=manifest.sha256_of(values) if digests == leaf.parts else "")
        if (values.shape, values.dtype) != (stored.shape, stored.dtype):
            raise Corrupt(f"leaf {name} is {values.dtype}{list(values.shape)} on disk and {leaf} in the manifest")
        if manifest.sha256_of(values) != leaf.sha256:
            raise Corrupt(f"leaf {name} has other bits than were written")
        placed.append(_place(values, x))
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def _readable(path: Path, step: int, like: PyTree, partial: bool) -> bool:
    try:
        _read(path, step, like, None, partial)
    except (Corrupt, CheckpointError):
        return False
    return True


