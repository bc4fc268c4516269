"""Opening files of data, which may be gzip, by their first bytes and not by their names.

No byte is trusted: a gzip file is unpacked no further than its reader asks, and its members, each of which costs time whatever
it holds, must hold something; a file is not read whose size is a hole on the disk, or is more than the memory that is free.
"""

import contextlib
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from jaxdl.core import memory
from jaxdl.core.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
MAX_DEFLATE_RATIO = 1032  # zlib's limit: 258 bytes from 2 bits ("zlib technical details")
MAX_UNPACKED = 2**31  # bytes that a compressed file may promise: 45 times MNIST
_CHUNK = 1 << 16  # bytes
_FEW = 1_000  # members that may hold nothing
_MEMBER = 1 << 14  # bytes that each member beyond them must hold, as a mean; bgzip's hold four times as many
_SMALL = 2**28  # bytes: a file that is read in a moment, whatever it is


class File(Protocol):
    """What can be read from its beginning on."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; fewer only at the end."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[File, int, bool]]:
    """The unpacked bytes of a file, its size on disk, and whether it is packed.

    Raises:
        DataError: it is damaged or cannot be read, also while it is read within; it names the file.
    """
    try:
        with open_file(path) as raw:
            size = os.fstat(raw.fileno()).st_size
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            yield (_Unpacked(raw, path) if packed else raw), size, packed
    except EOFError:
        raise DataError(f"{path} is truncated: its gzip stream ends too early") from None
    except zlib.error as e:
        raise DataError(f"{path} is damaged: its gzip stream cannot be unpacked ({e})") from None
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror or e}") from None


def open_file(path: Path) -> BinaryIO:
    """A file, opened to be read: no pipe, which would wait, and no hole, which would be read as zeros for minutes.

    Raises:
        DataError: it is one of these.
        OSError: it cannot be opened.
    """
    found = os.stat(path)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise DataError(f"{path} is a pipe or a device and no file that can be read from start to end")
    there = getattr(found, "st_blocks", found.st_size) * 512
    if found.st_size > max(_SMALL, there * MAX_DEFLATE_RATIO):
        raise DataError(f"{path} is a hole: of its {found.st_size} bytes {there} are on the disk; copy or download it again")
    return open(path, "rb")


def check_room(path: Path | str, num_bytes: int) -> None:
    """Refuse data that would not fit into memory, where it lies twice: as it was read, and on the device.

    Raises:
        DataError: says how much it takes and how much is free.
    """
    free = memory.available_bytes()
    if num_bytes > _SMALL and free is not None and 2 * num_bytes > free:
        raise DataError(f"{path} holds {num_bytes / 1e9:.1f} GB, which lie in memory twice while they are learned from, and "
                        f"{free / 1e9:.1f} GB are free; give fewer examples or smaller ones")


class _Unpacked:
    """The bytes of a gzip file."""

    def __init__(self, raw: BinaryIO, path: Path) -> None:
        self._parts, self._left = _unpacked(raw, path), b""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        parts, there = [self._left], len(self._left)
        while there < size and (part := next(self._parts, None)) is not None:
            parts.append(part)
            there += len(part)
        cut = len(parts[-1]) - max(there - size, 0)
        parts[-1], self._left = parts[-1][:cut], parts[-1][cut:]
        return b"".join(parts)


def _unpacked(raw: BinaryIO, path: Path) -> Iterator[bytes]:
    """What the members of a gzip file hold, one after the other; zeros between them are padding (gzip's manual)."""
    members = held = 0
    data = raw.read(_CHUNK)
    while data:
        members += 1
        if members > _FEW + held // _MEMBER:
            raise DataError(f"{path} is damaged, or packed in pieces that are too small: {members - 1} gzip members hold "
                            f"{held} bytes; unpack it, and pack it as a whole")
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)  # with the header and the sums of gzip
        while not stream.eof:
            data = data or raw.read(_CHUNK)
            if not data:
                raise EOFError
            part = stream.decompress(data, _CHUNK)
            data = stream.unconsumed_tail
            held += len(part)
            yield part
        data = stream.unused_data.lstrip(b"\0")
        while not data and (more := raw.read(_CHUNK)):
            data = more.lstrip(b"\0")
