"""IDX files, the format of MNIST: written, and read by a reader that trusts no byte of them.

    00 00 08 ndim | ndim sizes, big-endian uint32 | the items, one unsigned byte each, last axis fastest

(LeCun, Cortes and Burges, "The MNIST database of handwritten digits".) The header is read first and what it promises is held
against what can be there; then at most one byte more than promised is read, so neither a lying header nor a gzip bomb takes
memory.
"""

import math
from pathlib import Path

import numpy as np

from jaxdl.core import files
from jaxdl.core.errors import DataError
from jaxdl.data.gzip_file import MAX_DEFLATE_RATIO, MAX_UNPACKED, opened

PREFIX = {"train": "train", "test": "t10k"}
NUM_CLASSES = 10


def read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, H, W, 1] uint8 and labels [N] int32, 0 to 9, of `split` ("train" or "test") in `folder`.

    Raises:
        DataError: a file is missing or damaged, images and labels differ in number, a label is out of range.
    """
    if not folder.is_dir():
        raise DataError(f"the data folder {folder} does not exist or is not a folder")
    images_path = find(folder, f"{PREFIX[split]}-images-idx3-ubyte")
    labels_path = find(folder, f"{PREFIX[split]}-labels-idx1-ubyte")
    labels = read(labels_path, 1)
    images = read(images_path, 3)
    if len(images) != len(labels):
        raise DataError(f"{images_path} has {len(images)} images, but {labels_path} has {len(labels)} labels")
    if labels.max() >= NUM_CLASSES:
        first = int(np.argmax(labels >= NUM_CLASSES))
        raise DataError(f"{labels_path} gives example {first} label {labels[first]}, expected 0 to {NUM_CLASSES - 1}")
    return images[..., None], labels.astype(np.int32)


def write_split(folder: Path, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images [N, H, W] uint8 and labels [N], 0 to 9, as the files that `read_split` reads.

    Raises:
        UserError: a file cannot be written.
    """
    for name, array in (("images-idx3", images), ("labels-idx1", labels.astype(np.uint8))):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        files.write_bytes(folder / f"{PREFIX[split]}-{name}-ubyte", header + array.tobytes())


def find(folder: Path, name: str) -> Path:
    """The file `name` in `folder`, or its twin with a '.' before 'idx', or either with '.gz'; the first that is there.

    Raises:
        DataError: none is there; it names them all.
    """
    candidates = [stem + end for end in ("", ".gz") for stem in (name, name.replace("-idx", ".idx"))]
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(f"{folder} has none of the files {', '.join(candidates)}")


def read(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of `ndim` dimensions, none of size 0, in an IDX file, raw or gzip. The array is read-only.

    Raises:
        DataError: not such a file, shorter or longer than its header says, damaged or unreadable; it names the file.
    """
    with opened(path) as (file, size, packed):
        shape = _header(path, file.read(4 + 4 * ndim), ndim)
        promised = math.prod(shape)
        _check_promise(path, shape, promised, size if packed else size - 4 - 4 * ndim, packed)
        items = file.read(promised + 1)  # one more shows what should not be there, and makes gzip check its sum
    if len(items) != promised:
        _refuse_length(path, shape, promised, "more" if len(items) > promised else str(len(items)))
    return np.frombuffer(items, np.uint8).reshape(shape)


def _header(path: Path, head: bytes, ndim: int) -> tuple[int, ...]:
    expected = bytes([0, 0, 8, ndim])
    if head[:4] != expected[:len(head)] or not head:
        raise DataError(f"{path} is not an IDX file of unsigned bytes in {ndim} dimension{'s' * (ndim > 1)}: it begins "
                        f"with {head[:4].hex(' ') or 'nothing'}, expected {expected.hex(' ')}")
    if len(head) < 4 + 4 * ndim:
        raise DataError(f"{path} is truncated: it ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(head, ">u4", ndim, 4))
    if 0 in shape:
        raise DataError(f"{path} is empty: its header gives the shape {list(shape)}")
    return shape


def _check_promise(path: Path, shape: tuple[int, ...], promised: int, there: int, packed: bool) -> None:
    if not packed and promised != there:
        _refuse_length(path, shape, promised, str(there))
    if packed and promised > there * MAX_DEFLATE_RATIO:
        _refuse_length(path, shape, promised, f"at most {there * MAX_DEFLATE_RATIO}")
    if packed and promised > MAX_UNPACKED:
        raise DataError(f"{path} would unpack to {promised} bytes, above the limit of {MAX_UNPACKED} for compressed "
                        "files; unpack it first if it is what you want")


def _refuse_length(path: Path, shape: tuple[int, ...], promised: int, there: str) -> None:
    raise DataError(f"{path} is truncated or damaged: its header gives the shape {list(shape)}, which takes {promised} "
                    f"bytes after it, and there are {there}")
