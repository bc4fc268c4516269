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
import dataclasses
import hashlib
import itertools
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from jaxdl.core import processes
from jaxdl.core.config import from_dict, to_dict
from jaxdl.core.errors import CheckpointError, UserError
from jaxdl.core.types import PyTree
from jaxdl.runtime.checkpoint_format import Corrupt, read_arrays, read_part, reason, write, write_rows

_FORMAT = 1
_MANIFEST = Path("manifest", "manifest.json")
_MANIFEST_BYTES = 2**26  # no manifest is larger: 100,000 leaves take 20 MB
_CHECKPOINT = re.compile(r"(\d{1,18})(?:\.(\d{1,9}))?")  # step, revision
_LEFTOVER = re.compile(r"\d+(\.\d+)?\.(orbax-checkpoint-tmp.*|old)")  # of a save or a removal that was interrupted


class DamagedError(CheckpointError):
    """A checkpoint does not hold what was written."""

    earlier: int | None = None
    """Step of the newest checkpoint before it that was read and found whole."""


class _Leaf(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    path: str  # jax.tree_util.keystr
    dtype: str  # 'key<...>' is a typed random key; its data is what is stored
    shape: tuple[int, ...]
    sha256: str  # of the elements in C order
    parts: tuple[str, ...] = ()  # of the rows of each process, where they share it: the digests

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    step: int
    meta: dict[str, Any]
    leaves: list[_Leaf]


def estimate_bytes(state: PyTree) -> int:
    """Bytes of all leaves (arrays or `jax.ShapeDtypeStruct`s). Orbax compresses: a checkpoint is seldom much larger."""
    specs = [_stored(x) for _, x in _leaves(state)]
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
        folder: where the checkpoints of one run lie; made if missing.
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
    leaves, arrays, cut = [], {}, {}
    for i, (name, x) in enumerate(_leaves(state)):
        stored = jax.random.key_data(x) if _is_key(x) else x
        values = processes.own_rows(stored)
        if processes.is_cut(stored):
            cut[i] = values
        leaves.append(_Leaf(name, str(_dtype(x)), tuple(np.shape(x)), _sha256(values)))
        if values.size:  # Orbax refuses arrays without elements
            arrays[str(i)] = values
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
    manifest = msgspec.to_builtins(_Manifest(_FORMAT, step, _plain(meta), leaves))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path, _MANIFEST.name, {"sha256": _sha256_of_json(manifest), "manifest": manifest}, arrays)
    except Exception as e:  # Orbax and TensorStore wrap what the system said in errors of many types
        _clean(folder)
        raise CheckpointError(f"the checkpoint of step {step} cannot be written into {folder}: {reason(e)}") from e
    others = [p for s, p in reversed(_whole(folder).items()) if s != step]
    kept = {path, *others[: keep - 1]}
    for _, _, old in _entries(folder):
        if old not in kept and (old / _MANIFEST).is_file():
            _remove(old)
    processes.wait(f"written {step}")
    return path


def _parts(path: Path) -> Path:
    """Where the parts of other processes lie."""
    return path.with_name(path.name + ".parts")


def _write_parts(path: Path, cut: dict[int, np.ndarray]) -> dict[int, tuple[str, ...]]:
    """Write the rows that this process has of the leaves that are shared. Returns the digests of all processes' rows.

    The first's go with what it writes of the others.

    Raises:
        CheckpointError: a process could not write its part.
    """
    wrong = ""
    if not processes.is_first() and cut:
        try:
            write_rows(_parts(path) / str(jax.process_index()), cut)
        except OSError as e:
            wrong = reason(e)
    digests = np.array([list(bytes.fromhex(_sha256(x))) for x in cut.values()], np.uint8).reshape(-1, 32)
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
    found = _whole(folder)
    path = _pick(found, folder, step)
    step = step if step is not None else max(found)
    try:
        return step, _read(path, step, like, meta, partial)
    except Corrupt as e:
        earlier = next((s for s in reversed(found) if s < step and _readable(found[s], s, like, partial)), None)
        hint = ("there is no whole one before it" if earlier is None
                else f"the newest whole one before it, step {earlier}, can be read with step={earlier}, or goes on when "
                     f"{path} is removed")
        error = DamagedError(f"checkpoint {path} is damaged ({e}); {hint}")
        error.earlier = earlier
        raise error from e.__cause__


def read_meta(folder: Path, step: int) -> dict[str, Any]:
    """The `meta` of a checkpoint, without reading its arrays.

    Raises:
        CheckpointError: there is no such checkpoint.
        DamagedError: its manifest cannot be read.
    """
    folder = Path(folder).absolute()
    path = _pick(_whole(folder), folder, step)
    try:
        return _read_manifest(path, step).meta
    except Corrupt as e:
        raise DamagedError(f"checkpoint {path} is damaged ({e})") from e.__cause__


# Leaves


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Path and value of each leaf; what is not an array or a number is refused."""
    leaves = [(jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]
    for name, x in leaves:
        if not (_is_key(x) or jnp.issubdtype(_dtype(x), np.number) or _dtype(x) == np.bool_):
            raise CheckpointError(f"leaf {name} is a {type(x).__name__} ({_dtype(x)}), "
                                  "but a checkpoint holds only arrays, numbers and random keys")
    return leaves


def _dtype(x: Any) -> Any:
    return x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(_dtype(x), jax.dtypes.prng_key)


def _stored(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of what is on disk for a leaf."""
    if _is_key(x):
        return jax.eval_shape(jax.random.key_data, x)
    return jax.ShapeDtypeStruct(np.shape(x), _dtype(x))


def _sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8)).hexdigest()


def _place(values: np.ndarray, like: Any) -> Any:
    """A leaf as it was saved: a random key, a JAX array, or NumPy's where JAX has no room for the dtype."""
    if _is_key(like):
        impl = jax.random.key_impl(jnp.empty((), like.dtype))
        return jax.random.wrap_key_data(jnp.array(values), impl=impl)
    return jnp.array(values) if jax.dtypes.canonicalize_dtype(values.dtype) == values.dtype else values


# Folders


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
    return {step: path for step, _, path in _entries(folder) if (path / _MANIFEST).is_file()}


def _pick(found: dict[int, Path], folder: Path, step: int | None) -> Path:
    if not found:
        raise CheckpointError(f"there is no checkpoint in {folder}")
    if step is not None and step not in found:
        raise CheckpointError(f"there is no checkpoint of step {step} in {folder}; there are: "
                              f"{', '.join(map(str, found))}")
    return found[max(found) if step is None else step]


def _remove(path: Path) -> None:
    """First the name goes, so that an interrupted removal leaves no half checkpoint. What cannot be removed stays."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path.rename(path.with_name(path.name + ".old")))
        shutil.rmtree(_parts(path), ignore_errors=True)


def _clean(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if _LEFTOVER.fullmatch(path.name) or (path.suffix == ".parts" and not path.with_suffix("").is_dir()):
                shutil.rmtree(path, ignore_errors=True)


# Reading


def _read(path: Path, step: int, like: PyTree, meta: dict[str, Any] | None, partial: bool) -> PyTree:
    manifest = _read_manifest(path, step)
    expected = _leaves(like)
    wanted = {name for name, _ in expected}
    found = {leaf.path: (str(i), leaf) for i, leaf in enumerate(manifest.leaves) if not partial or leaf.path in wanted}
    _check_meta(path, manifest.meta, meta or {})
    _check_leaves(path, [leaf for _, leaf in found.values()], expected)

    arrays = read_arrays(path, [i for i, leaf in found.values() if math.prod(leaf.shape)])
    placed = []
    for name, x in expected:
        i, leaf = found[name]
        stored = _stored(x)
        values = arrays.pop(i) if i in arrays else np.zeros(stored.shape, stored.dtype)
        if leaf.parts:
            values = np.concatenate([values, *(read_part(_parts(path) / str(p) / f"{i}.npy", values)
                                               for p in range(1, len(leaf.parts)))])
            digests = tuple(_sha256(rows) for rows in np.split(values, len(leaf.parts)))
            leaf = msgspec.structs.replace(leaf, sha256=_sha256(values) if digests == leaf.parts else "")
        if (values.shape, values.dtype) != (stored.shape, stored.dtype):
            raise Corrupt(f"leaf {name} is {values.dtype}{list(values.shape)} on disk and {leaf} in the manifest")
        if _sha256(values) != leaf.sha256:
            raise Corrupt(f"leaf {name} has other bits than were written")
        placed.append(_place(values, x))
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def _readable(path: Path, step: int, like: PyTree, partial: bool) -> bool:
    try:
        _read(path, step, like, None, partial)
    except (Corrupt, CheckpointError):
        return False
    return True


def _read_manifest(path: Path, step: int) -> _Manifest:
    """The manifest is untrusted: bounded in size, read as JSON, held to its own digest and to its types."""
    try:
        with (path / _MANIFEST).open("rb") as f:
            data = f.read(_MANIFEST_BYTES + 1)
        if len(data) > _MANIFEST_BYTES:
            raise ValueError(f"it is larger than {_MANIFEST_BYTES} bytes")
        sealed = msgspec.convert(json.loads(data), dict[str, Any])
        manifest = msgspec.convert(sealed.get("manifest"), dict[str, Any])
        if sealed.get("sha256") != _sha256_of_json(manifest):
            raise ValueError("it is not what was written")
        if manifest.get("format") != _FORMAT:
            raise CheckpointError(f"checkpoint {path} has format {manifest.get('format')}; this version of jaxdl reads "
                                  f"format {_FORMAT}")
        manifest = msgspec.convert(manifest, _Manifest)
        if manifest.step != step:
            raise ValueError(f"it is of step {manifest.step}")
        if len({leaf.path for leaf in manifest.leaves}) != len(manifest.leaves):
            raise ValueError("it names a leaf twice")
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as e:
        raise Corrupt(f"its manifest cannot be read: {reason(e)}") from e
    return manifest


def _plain(values: Any) -> Any:
    """As JSON gives it back: configs are dicts, tuples are lists, keys are strings."""
    return json.loads(json.dumps(values, default=to_dict))


def _sha256_of_json(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_meta(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    wrong = [d for key, value in expected.items()
             for d in _differences(key, _read_as(value, found.get(key, "absent")), _plain(value))]
    if wrong:
        raise CheckpointError(f"checkpoint {path} is of another run: {_some(wrong)}")


def _read_as(expected: Any, found: Any) -> Any:
    """What was found, as `_plain(expected)` would be: a config with the names that its fields have now."""
    if dataclasses.is_dataclass(expected):
        with contextlib.suppress(UserError):  # else the differences say what is wrong with it
            return _plain(from_dict(type(expected), found))
    return found


def _differences(name: str, found: Any, expected: Any) -> list[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        return [d for key in sorted(found.keys() | expected.keys())
                for d in _differences(f"{name}.{key}", found.get(key, "absent"), expected.get(key, "absent"))]
    return [] if found == expected else [f"{name} is {found} there, {expected} here"]


def _check_leaves(path: Path, found: list[_Leaf], expected: list[tuple[str, Any]]) -> None:
    there = {leaf.path: str(leaf) for leaf in found}
    here = {name: str(_Leaf(name, str(_dtype(x)), tuple(np.shape(x)), "")) for name, x in expected}
    wrong = [f"leaf {name} is {there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
             for name in here | there if there.get(name) != here.get(name)]
    if wrong:
        raise CheckpointError(f"checkpoint {path} is of a run with other settings: {_some(wrong)}")


def _some(sentences: list[str], most: int = 4) -> str:
    more = [f"and {len(sentences) - most} more"] if len(sentences) > most else []
    return "; ".join(itertools.chain(sentences[:most], more))


