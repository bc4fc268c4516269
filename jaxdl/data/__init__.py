"""Real data by name, as arrays of bytes.

`load("digits")` needs no download; `load("mnist", data_dir)` reads the files of a folder, and without a folder fetches
them once, checked by hash, into the user's cache. Images stay uint8: the learner scales them on the device.

Shapes: `N` examples, `H W C` height, width, channels.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl.core.errors import DataError

DESCRIPTIONS = {
    "digits": "8x8 handwritten digits of scikit-learn, 1,437 to train and 360 to test; needs no download",
    "mnist": "28x28 handwritten digits, 60,000 to train and 10,000 to test; IDX files",
    "fashion_mnist": "28x28 pictures of clothes, 60,000 to train and 10,000 to test; IDX files",
    "idx": "your own grey images and their labels, 0 to 9, as IDX files in --data-dir, named like MNIST's",
    "cifar10": "32x32 colour pictures of ten things, 50,000 to train and 10,000 to test; its binary files in --data-dir",
}
SPLITS = ("train", "test")


class Dataset(NamedTuple):
    """Images and, where there are any, their labels."""

    images: np.ndarray  # [N, H, W, C] uint8
    labels: np.ndarray | None  # [N] int32
    name: str


def names() -> list[str]:
    """The names that `load` knows; `DESCRIPTIONS` has a line on each."""
    return list(DESCRIPTIONS)


def load(name: str, data_dir: str | Path | None = None, split: str = "train") -> Dataset:
    """The dataset called `name`.

    Args:
        name: one of `names()`.
        data_dir: the folder with the files; None fetches them into the user's cache. `digits` has no files, and `cifar10`
            and `idx` need a folder.
        split: "train" or "test".

    Raises:
        DataError: an unknown name or split, files that are missing, damaged or cannot be fetched. It names the file.
    """
    if name not in DESCRIPTIONS:
        from jaxdl.core.config import suggest  # imports jax

        raise DataError(f"there is no dataset '{name}'{suggest(name, DESCRIPTIONS)}")
    if split not in SPLITS:
        raise DataError(f"split must be 'train' or 'test', got '{split}'")
    if name == "digits":
        from jaxdl.data import digits

        if data_dir is not None:
            raise DataError(f"the dataset 'digits' comes with scikit-learn and reads no folder, got {data_dir}; "
                            "leave --data-dir out, or name the dataset that lies there")
        return Dataset(*digits.read(split), name)

    if name == "cifar10":
        from jaxdl.data import cifar

        if data_dir is None:
            raise DataError(f"the dataset 'cifar10' is read from a folder: unpack {cifar.SOURCE} "
                            "and pass --data-dir (data_dir) with the folder where its data_batch_1.bin lies")
        return Dataset(*cifar.read_split(Path(data_dir), split), name)

    from jaxdl.data import fetch, idx

    if name == "idx" and data_dir is None:
        raise DataError("the dataset 'idx' is read from a folder: pass --data-dir (data_dir) with the folder where "
                        f"{idx.PREFIX[split]}-images-idx3-ubyte lies")
    folder = fetch.fetch(name, split) if data_dir is None else Path(data_dir)
    return Dataset(*idx.read_split(folder, split), name)


def from_arrays(images: np.ndarray, labels: np.ndarray | None = None, name: str = "custom") -> Dataset:
    """A dataset from arrays of your own.

    Args:
        images: [N, H, W] or [N, H, W, C] uint8, none of them 0; the missing channel axis is added.
        labels: [N] integers from 0, or None.
        name: what to call it.

    Raises:
        DataError: says which array was expected and which was given.
    """
    images = _as_array(images, "images")
    if images.dtype != np.uint8:
        raise DataError(f"images must be uint8 (0 to 255), got {images.dtype}; scale and round them first")
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(f"images must have shape [N, H, W] or [N, H, W, C] with no size 0, got {list(images.shape)}")
    images = images if images.ndim == 4 else images[..., None]
    if labels is None:
        return Dataset(images, None, name)

    labels = _as_array(labels, "labels")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise DataError(f"labels must be integers of shape [{len(images)}], one an image, "
                        f"got {labels.dtype} of shape {list(labels.shape)}")
    if labels.min() < 0 or labels.max() > np.iinfo(np.int32).max:
        raise DataError(f"labels must lie between 0 and {np.iinfo(np.int32).max}, "
                        f"got values from {labels.min()} to {labels.max()}")
    return Dataset(images, labels.astype(np.int32), name)


def _as_array(values: object, what: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as e:
        raise DataError(f"{what} cannot be made an array: {e}") from None
