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
from jaxdl.core.errors import DataError, UserError
from jaxdl.core.types import Examples
from jaxdl.data.dataset import from_arrays
from jaxdl.data.gzip_file import MAX_DEFLATE_RATIO, MAX_UNPACKED, File, check_room, opened
from jaxdl.data.registry import Reader

PREFIX = {"train": "train", "test": "t10k"}


def read_split(folder: str | Path, split: str, num_classes: int | None = None) -> Examples:
    """Images [N, H, W, C] uint8 and labels [N] int32 of `split` ("train" or "test") in `folder`.

    Args:
        folder: with files that are named like MNIST's.
        split: "train" or "test".
        num_classes: labels are below it. None: they may be any byte, and the file of labels may be missing.

    Raises:
        DataError: a file is missing or damaged, images and labels differ in number, a label is out of range.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"the data folder {folder} does not exist or is not a folder")
    colour = f"{PREFIX[split]}-images-idx4-ubyte"
    images_path = find(folder, f"{PREFIX[split]}-images-idx3-ubyte", colour)
    labels_path = None if num_classes is None and not has_labels(folder, split) else find(folder, _labels(split))
    labels = None if labels_path is None else read(labels_path, 1)
    images = read(images_path, 3, 4)
    images = images if images.ndim == 4 else images[..., None]
    if labels is None:
        return Examples(images)
    if len(images) != len(labels):
        raise DataError(f"{images_path} has {len(images)} images, but {labels_path} has {len(labels)} labels")
    if num_classes is not None and labels.max() >= num_classes:
        first = int(np.argmax(labels >= num_classes))
        raise DataError(f"{labels_path} gives example {first} label {labels[first]}, expected 0 to {num_classes - 1}")
    return Examples(images, labels.astype(np.int32))


def count_classes(folder: Path) -> int | None:
    """One more than the highest label of all splits that are in `folder`; None where there are no labels."""
    found = [int(read(find(folder, _labels(split)), 1).max()) for split in PREFIX if has_labels(folder, split)]
    return max(found) + 1 if found else None


def has_labels(folder: Path, split: str) -> bool:
    """Whether a file of labels is there."""
    return any((folder / name).is_file() for name in _candidates(_labels(split)))


def write_split(folder: str | Path, split: str, images: np.ndarray, labels: np.ndarray | None) -> None:
    """Write images [N, H, W] or [N, H, W, C], and labels [N] below 256, if there are any, as the files that `read_split` reads.

    Raises:
        UserError: images or labels that `from_arrays` refuses, a label above 255, or a file that cannot be written.
    """
    if split not in PREFIX:
        raise UserError(f"split must be 'train' or 'test', got {split!r}")
    folder, whole = Path(folder), from_arrays(images, labels)
    images, labels = whole.images, whole.labels
    if labels is not None and labels.max() > 255:
        raise UserError(f"a file of labels has bytes, 0 to 255, and the highest label is {labels.max()}")
    arrays = {"images-idx3": images[..., 0]} if images.shape[-1] == 1 else {"images-idx4": images}
    arrays |= {} if labels is None else {"labels-idx1": labels.astype(np.uint8)}
    for name, array in arrays.items():
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        files.write_bytes(folder / f"{PREFIX[split]}-{name}-ubyte", header + array.tobytes())


def find(folder: Path, *names: str) -> Path:
    """The first file in `folder` that has one of the names, or one with a '.' before 'idx', or either with '.gz'.

    Raises:
        DataError: none is there; it names them all.
    """
    candidates = [candidate for name in names for candidate in _candidates(name)]
    for candidate in candidates:
        if (folder / candidate).is_file():
            return folder / candidate
    raise DataError(f"{folder} has none of the files {', '.join(candidates)}")


def read(path: Path, *ndims: int) -> np.ndarray:
    """The uint8 array of one of so many dimensions, none of size 0, in an IDX file, raw or gzip. The array is read-only.

    Raises:
        DataError: not such a file, shorter or longer than its header says, damaged or unreadable; it names the file.
    """
    with opened(path) as (file, size, packed):
        shape, header = _header(path, file, ndims)
        promised = math.prod(shape)
        _check_promise(path, shape, promised, size if packed else size - header, packed)
        check_room(path, promised)
        items = file.read(promised + 1)  # one more shows what should not be there, and makes gzip check its sum
    if len(items) != promised:
        _refuse_length(path, shape, promised, "more" if len(items) > promised else str(len(items)))
    return np.frombuffer(items, np.uint8).reshape(shape)


def _labels(split: str) -> str:
    return f"{PREFIX[split]}-labels-idx1-ubyte"


def _candidates(name: str) -> list[str]:
    return [stem + end for end in ("", ".gz") for stem in (name, name.replace("-idx", ".idx"))]


def _header(path: Path, file: File, ndims: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """The shape that the header promises, and the header's bytes."""
    head = file.read(4)
    expected = [bytes([0, 0, 8, ndim]) for ndim in ndims]
    if not head or not any(magic.startswith(head) for magic in expected):
        raise DataError(f"{path} is not an IDX file of unsigned bytes in {' or '.join(map(str, ndims))} "
                        f"dimension{'s' * (ndims[-1] > 1)}: it begins with {head.hex(' ') or 'nothing'}, "
                        f"expected {' or '.join(magic.hex(' ') for magic in expected)}")
    sizes = file.read(4 * head[-1]) if len(head) == 4 else b""
    if len(head) < 4 or len(sizes) < 4 * head[-1]:
        raise DataError(f"{path} is truncated: it ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
    if 0 in shape:
        raise DataError(f"{path} is empty: its header gives the shape {list(shape)}")
    return shape, 4 + 4 * len(shape)


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


READER = Reader("your own images, grey or in colour, and their labels if there are any, as IDX files in --data-dir, named like "
                "MNIST's", read_split, "needed", f"the folder where {PREFIX['train']}-images-idx3-ubyte lies",
                num_classes=count_classes)
