"""Opening files that may be gzip, by their first bytes and not by their names."""

import contextlib
import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxdl.core.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
MAX_DEFLATE_RATIO = 1032  # zlib's limit: 258 bytes from 2 bits ("zlib technical details")
MAX_UNPACKED = 2**31  # bytes that a compressed file may promise: 45 times MNIST


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int, bool]]:
    """The unpacked bytes of a file, its size on disk, and whether it is packed.

    Raises:
        DataError: it is damaged or cannot be read, also while it is read within; it names the file.
    """
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            with gzip.GzipFile(fileobj=raw) if packed else contextlib.nullcontext(raw) as file:
                yield file, size, packed
    except EOFError:
        raise DataError(f"{path} is truncated: its gzip stream ends too early") from None
    except (gzip.BadGzipFile, zlib.error) as e:
        raise DataError(f"{path} is damaged: its gzip stream cannot be unpacked ({e})") from None
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror or e}") from None
