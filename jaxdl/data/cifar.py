"""Reader of CIFAR-10's binary files, that trusts no byte of them.

    label (1 byte, 0 to 9) | 1024 red, 1024 green, 1024 blue (32 x 32, row by row), again and again

(Krizhevsky, "Learning multiple layers of features from tiny images", 2009.) data_batch_1.bin, 2, ... to train, as many as
are there without a gap, and test_batch.bin; each as it is or gzip, with `.gz` at the end of its name or without.
"""

from pathlib import Path

import numpy as np

from jaxdl.core.errors import DataError
from jaxdl.core.types import Examples
from jaxdl.data.gzip_file import MAX_UNPACKED, opened
from jaxdl.data.registry import Reader

SHAPE = (32, 32, 3)
NUM_CLASSES = 10
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_RECORD = 1 + 3 * 32 * 32
_BATCHES = 5
_MOST = min(MAX_UNPACKED, 50_000 * _RECORD)  # bytes of one file: all that was published


def read_split(folder: Path, split: str) -> Examples:
    """Images [N, 32, 32, 3] uint8 and labels [N] int32, 0 to 9, of `split` ("train" or "test") in `folder`.

    Raises:
        DataError: a file is missing, damaged or of another size than whole records, or a label is out of range.
    """
    if not folder.is_dir():
        raise DataError(f"the data folder {folder} does not exist or is not a folder")
    if split == "test":
        paths = [_find(folder, "test_batch.bin")]
    else:
        found = [_find(folder, f"data_batch_{i}.bin", needed=i == 1) for i in range(1, _BATCHES + 1)]
        gap = found.index(None) if None in found else _BATCHES
        if any(found[gap:]):
            raise DataError(f"{folder} has {next(p for p in found[gap:] if p).name}, but no data_batch_{gap + 1}.bin before it")
        paths = found[:gap]
    records = np.concatenate([read(path) for path in paths])
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Examples(np.ascontiguousarray(images), records[:, 0].astype(np.int32))


def read(path: Path) -> np.ndarray:
    """The records in a file, uint8 [N, 3073].

    Raises:
        DataError: not whole records, none, too many, or a label out of range; it names the file.
    """
    with opened(path) as (file, size, packed):
        data = file.read((_MOST if packed else min(size, _MOST)) + 1)  # as much memory is taken at once
    if len(data) > _MOST:
        raise DataError(f"{path} has more than the {_MOST // _RECORD} records of {_RECORD} bytes that CIFAR-10 has")
    if not data or len(data) % _RECORD:
        raise DataError(f"{path} is truncated or no CIFAR-10 binary file: it has {len(data)} bytes, expected one or more "
                        f"records of {_RECORD}")
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
    wrong = records[:, 0] >= NUM_CLASSES
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(f"{path} gives example {first} label {records[first, 0]}, expected 0 to {NUM_CLASSES - 1}")
    return records


def _find(folder: Path, name: str, needed: bool = True) -> Path | None:
    for candidate in (name, f"{name}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    if needed:
        raise DataError(f"{folder} has none of the files {name}, {name}.gz; CIFAR-10's binary version is at {SOURCE}")
    return None


READER = Reader("32x32 colour pictures of ten things, 50,000 to train and 10,000 to test; its binary files in --data-dir",
                read_split, "needed", f"the folder where data_batch_1.bin lies, which unpacking {SOURCE} gives",
                num_classes=NUM_CLASSES, class_names=CLASS_NAMES)
