"""The manifest of a checkpoint: what every leaf must be, and what the caller wants to find again.

    {"sha256": of the manifest, "manifest": {"format": 1, "step": ..., "meta": {...}, "leaves": [{"path": ..., ...}, ...]}}

It is untrusted when it is read: bounded in size, read as JSON, held to its own digest and to its types.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np

from jaxdl.core import files
from jaxdl.core.config import from_dict, to_dict
from jaxdl.core.errors import CheckpointError, UserError
from jaxdl.core.types import PyTree
from jaxdl.runtime.checkpoint_format import Corrupt, reason

PATH = Path("manifest", "manifest.json")  # in the folder of a checkpoint
_FORMAT = 1
_MAX_BYTES = 2**26  # no manifest is larger: 100,000 leaves take 20 MB
_MAX_META_BYTES = 2**21  # of settings


class Leaf(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One leaf of the state."""

    path: str  # jax.tree_util.keystr
    dtype: str  # 'key<...>' is a typed random key; its data is what is stored
    shape: tuple[int, ...]
    sha256: str  # of the elements in C order
    parts: tuple[str, ...] = ()  # of the rows of each process, where they share it: the digests

    @staticmethod
    def of(path: str, x: Any, sha256: str = "") -> "Leaf":
        """The entry of an array, or of its shape and dtype."""
        return Leaf(path, str(dtype_of(x)), tuple(np.shape(x)), sha256)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Manifest(msgspec.Struct, forbid_unknown_fields=True):
    """All that is known of a checkpoint."""

    format: int
    step: int
    meta: dict[str, Any]
    leaves: list[Leaf]


class _Sealed(msgspec.Struct, forbid_unknown_fields=True):
    """The file: a manifest that is not read yet, and its digest."""

    sha256: str
    manifest: msgspec.Raw


class _Form(msgspec.Struct):
    """What every version's manifest says first."""

    format: int | None = None


class _Unread(msgspec.Struct, forbid_unknown_fields=True):
    """A manifest whose meta is not read yet."""

    format: int
    step: int
    meta: msgspec.Raw
    leaves: list[Leaf]


def leaves_of(tree: PyTree) -> list[tuple[str, Any]]:
    """Path and value of each leaf; what is not an array or a number is refused."""
    leaves = [(jax.tree_util.keystr(path), x) for path, x in jax.tree_util.tree_leaves_with_path(tree)]
    for name, x in leaves:
        if not (is_key(x) or jnp.issubdtype(dtype_of(x), np.number) or dtype_of(x) == np.bool_):
            raise CheckpointError(f"leaf {name} is a {type(x).__name__} ({dtype_of(x)}), "
                                  "but a checkpoint holds only arrays, numbers and random keys")
    return leaves


def dtype_of(x: Any) -> Any:
    """The dtype of an array, a number, or a shape with a dtype."""
    return x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype


def is_key(x: Any) -> bool:
    """Whether a leaf is a typed random key, or several."""
    return jnp.issubdtype(dtype_of(x), jax.dtypes.prng_key)


def stored_spec(x: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of what is on disk for a leaf."""
    if is_key(x):
        return jax.eval_shape(jax.random.key_data, x)
    return jax.ShapeDtypeStruct(np.shape(x), dtype_of(x))


def sha256_of(values: np.ndarray) -> str:
    """The digest of the elements in C order."""
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8)).hexdigest()


def seal(step: int, meta: dict[str, Any], leaves: list[Leaf]) -> dict[str, Any]:
    """A manifest with its own digest, as JSON has it."""
    manifest = msgspec.to_builtins(Manifest(_FORMAT, step, _plain(meta), leaves))
    return {"sha256": _sha256_of_json(manifest), "manifest": manifest}


def read(path: Path, step: int) -> Manifest:
    """The manifest of the checkpoint in the folder `path`, which must be of `step`.

    Raises:
        Corrupt: it is not what was written.
        CheckpointError: another version of jaxdl wrote it.
    """
    try:
        sealed = msgspec.json.decode(files.read_bytes(path / PATH, _MAX_BYTES), type=_Sealed)
        form = msgspec.json.decode(sealed.manifest, type=_Form).format
        if form != _FORMAT:
            raise CheckpointError(f"checkpoint {path} has format {form}; this version of jaxdl reads format {_FORMAT}")
        unread = msgspec.json.decode(sealed.manifest, type=_Unread)  # its form holds: it is as large as it says
        if len(bytes(unread.meta)) > _MAX_META_BYTES:
            raise ValueError(f"its meta is larger than {_MAX_META_BYTES:,} bytes")
        values = files.parse_json(bytes(sealed.manifest))
        if sealed.sha256 != _sha256_of_json(values):
            raise ValueError("it is not what was written")
        manifest = Manifest(unread.format, unread.step, msgspec.convert(values["meta"], dict[str, Any]), unread.leaves)
        if manifest.step != step:
            raise ValueError(f"it is of step {manifest.step}")
        if len({leaf.path for leaf in manifest.leaves}) != len(manifest.leaves):
            raise ValueError("it names a leaf twice")
    except CheckpointError:
        raise
    except (UserError, ValueError, RecursionError, msgspec.MsgspecError) as e:
        raise Corrupt(f"its manifest cannot be read: {reason(e)}") from e
    return manifest


def _plain(values: Any) -> Any:
    """Values as JSON gives them back: configs are dicts, tuples are lists, keys are strings."""
    return json.loads(json.dumps(values, default=to_dict))


def _sha256_of_json(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def check_meta(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Refuse a checkpoint whose meta has other values for the keys that are expected.

    Raises:
        CheckpointError: names the settings that differ.
    """
    wrong = [d for key, value in expected.items()
             for d in _differences(key, _read_as(value, found.get(key, "absent")), _plain(value))]
    if wrong:
        raise CheckpointError(f"checkpoint {path} is of another run: {_some(wrong)}")


def _read_as(expected: Any, found: Any) -> Any:
    """What was found, read as the config that is expected: with the names and the defaults that its fields have now."""
    if dataclasses.is_dataclass(expected):
        with contextlib.suppress(UserError):  # else the differences say what is wrong with it
            return _plain(from_dict(type(expected), found))
    return found


def _differences(name: str, found: Any, expected: Any) -> list[str]:
    if name == "config.data_dir":  # where data lies changes nothing
        return []
    if isinstance(found, dict) and isinstance(expected, dict):
        return [d for key in sorted(found.keys() | expected.keys())
                for d in _differences(f"{name}.{key}", found.get(key, "absent"), expected.get(key, "absent"))]
    return [] if found == expected else [f"{name} is {found} there, {expected} here"]


def check_leaves(path: Path, found: list[Leaf], expected: list[tuple[str, Any]]) -> None:
    """Refuse a checkpoint whose leaves are not those that are expected.

    Raises:
        CheckpointError: names the leaves that differ.
    """
    there = {leaf.path: str(leaf) for leaf in found}
    here = {name: str(Leaf.of(name, x)) for name, x in expected}
    wrong = [f"leaf {name} is {there.get(name, 'absent')} there, {here.get(name, 'absent')} here"
             for name in here | there if there.get(name) != here.get(name)]
    if wrong:
        raise CheckpointError(f"checkpoint {path} is of a run with other settings: {_some(wrong)}")


def _some(sentences: list[str], most: int = 4) -> str:
    more = [f"and {len(sentences) - most} more"] if len(sentences) > most else []
    return "; ".join(itertools.chain(sentences[:most], more))
