"""Small files that are whole or absent, and strict JSON.

A file is written under another name in its folder, flushed to the disk and then renamed: whoever reads it, and whenever
the process dies, finds the old content or the new. JSON has no NaN and no infinity; they are written as `null`.
"""

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from jaxdl.core.errors import UserError


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file atomically, replacing the one that is there.

    Raises:
        UserError: it cannot be written (no such folder, read-only, disk full ...). What was there before stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        raise cannot_write(path, e) from e
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_json(path: str | Path, obj: Any) -> None:
    """Write `obj` as indented JSON, atomically. See `to_json` for what it may hold, and `write_bytes` for errors."""
    write_bytes(path, (to_json(obj, indent=2) + "\n").encode())


def to_json(obj: Any, indent: int | None = None) -> str:
    """`obj` as strict JSON; arrays of NumPy or JAX become (nested) lists, NaN and infinity `null`."""
    return json.dumps(_plain(obj), allow_nan=False, indent=indent)


def parse_json(text: str | bytes) -> Any:
    """The value of a strict JSON text.

    Raises:
        ValueError: it is none (NaN and Infinity, which Python would take, are not); says what is wrong.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: str | Path, max_bytes: int) -> dict[str, Any]:
    """The JSON object in a file that is not trusted.

    Raises:
        UserError: it is missing, no file, larger than `max_bytes`, no JSON, or JSON but not an object.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise UserError(f"{path} is not a file")
        with open(path, "rb") as f:
            data = f.read(max_bytes + 1)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from e
    if len(data) > max_bytes:
        raise UserError(f"{path} is larger than the {max_bytes:,} bytes it may have")
    try:
        value = parse_json(data)
    except ValueError as e:
        raise UserError(f"{path} is not valid JSON: {e}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, and holds a {type(value).__name__}")
    return value


def cannot_write(path: Path, e: OSError) -> UserError:
    """What the system said about a file that could not be written, as an error of one sentence."""
    if isinstance(e, FileNotFoundError):
        return UserError(f"{path} cannot be written: there is no folder {path.parent}")
    return UserError(f"{path} cannot be written: {e.strerror or e}")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
