"""Small files that are whole or absent, and strict JSON.

A file is written under another name in its folder, flushed to the disk and then renamed: whoever reads it, and whenever
the process dies, finds the old content or the new. JSON has no NaN and no infinity; they are written as `null`.
"""

import contextlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from jaxdl.core.errors import UserError


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where it is not there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise cannot_write(folder, e) from e


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
    """The value of a strict JSON text. Whole numbers fit 64 bits, others are finite.

    Raises:
        ValueError: it is none (NaN and Infinity, which Python would take, are not); says what is wrong.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_int=_whole, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: str | Path, max_bytes: int) -> dict[str, Any]:
    """The JSON object in a file that is not trusted. Its texts are Unicode, or the name of a file.

    Raises:
        UserError: as `read_bytes`, no JSON, or JSON but not an object.
    """
    data = read_bytes(path, max_bytes)
    try:
        value = parse_json(data)
        _check_texts(value)
    except ValueError as e:
        raise UserError(f"{path} is not valid JSON: {e}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object, and holds a {type(value).__name__}")
    return value


def read_bytes(path: str | Path, max_bytes: int) -> bytes:
    """The content of a file that is not trusted: its size is known before it is read, and a pipe is not waited for.

    Raises:
        UserError: it is missing, no file, larger than `max_bytes`, or cannot be read.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as f:
            there = os.fstat(f.fileno())
            if not stat.S_ISREG(there.st_mode):
                raise UserError(f"{path} is not a file")
            data = f.read(max_bytes + 1) if there.st_size <= max_bytes else b""
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is not a file") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror}") from e
    if max(there.st_size, len(data)) > max_bytes:
        raise UserError(f"{path} is larger than the {max_bytes:,} bytes it may have")
    return data


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


def _whole(text: str) -> int:
    value = int(text) if len(text) < 21 else 2**64
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"it has a whole number of {len(text)} digits, which does not fit 64 bits")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is beyond all numbers")
    return value


def _check_texts(value: Any) -> None:
    """Refuse a text that is neither Unicode nor the name of a file whose bytes are none."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str):
            try:
                bad = b"\0" in os.fsencode(value)
            except UnicodeEncodeError:
                bad = True
            if bad:
                raise ValueError(f"it has the text {value[:40]!a}, which is no Unicode or holds a zero byte")


def cache_folder() -> Path | None:
    """The folder of what can be made again, made if missing; None where the user has none that can be written."""
    import platformdirs

    try:
        folder = platformdirs.user_cache_path("jaxdl")
    except RuntimeError:  # no home
        return None
    return folder if can_be_written(folder) else None


def can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
