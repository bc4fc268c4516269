"""Datasets by name: one table of readers, and what all of them have in common.

A reader is a module's record of where its data comes from and how a split is read. Its module is imported when the reader is
asked for, so the table costs nothing. `package.module:NAME` is a reader, or a function `(split) -> arrays`, of anyone's own.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxdl.core import imports
from jaxdl.core.config import suggest
from jaxdl.core.errors import DataError, JaxdlError, UserError, described
from jaxdl.core.types import DataSpec, Examples
from jaxdl.data.dataset import Dataset, from_arrays, from_tree

SPLITS = ("train", "test")
READERS = {
    "digits": "jaxdl.data.digits:READER",
    "diabetes": "jaxdl.data.diabetes:READER",
    "mnist": "jaxdl.data.mnist:MNIST",
    "fashion_mnist": "jaxdl.data.mnist:FASHION_MNIST",
    "idx": "jaxdl.data.idx:READER",
    "cifar10": "jaxdl.data.cifar:READER",
    "arrays": "jaxdl.data.arrays:READER",
    "tiny_shakespeare": "jaxdl.data.text:TINY_SHAKESPEARE",
    "text": "jaxdl.data.text:READER",
    "addition": "jaxdl.data.pairs:ADDITION",
    "reversal": "jaxdl.data.pairs:REVERSAL",
    "sorting": "jaxdl.data.pairs:SORTING",
    "pairs": "jaxdl.data.pairs:READER",
    "coco": "jaxdl.data.coco:READER",
    "scenes": "jaxdl.data.scenes:SCENES",
    "scenes_single": "jaxdl.data.scenes:SINGLE",
    "scenes_figures": "jaxdl.data.scenes:FIGURES",
}


class Reader(NamedTuple):
    """What a module says of a dataset that it reads."""

    summary: str  # a line of `jaxdl list`
    read: Callable[[Path | None, str], Any]  # (folder, split) -> Dataset, or arrays: see `as_dataset`
    folder: Literal["none", "fetched", "needed", "optional"] = "none"  # whether it reads a folder; "fetched": it downloads
    # without one
    contents: str = ""  # what the folder must hold, for the error where it is not given
    num_classes: int | Callable[[Path | None], int | None] | None = None  # of all splits, or a function of the folder that
    # counts them; None: counted in the labels of all splits
    class_names: tuple[str, ...] | None = None
    sha256: Mapping[str, str] = {}  # of files that are fetched, by name
    splits: tuple[str, ...] = SPLITS  # that it can read; of more than the two, each is held out
    sized: Callable[[int], Any] | None = None  # side of pictures -> the reader that has them so large


def names() -> list[str]:
    """The names that `load` knows."""
    return list(READERS)


def summaries() -> dict[str, str]:
    """A line on each dataset, by name."""
    return {name: reader(name).summary for name in READERS}


def load(name: str, data_dir: str | Path | None = None, split: str = "train", size: int | None = None) -> Dataset:
    """One split of the dataset called `name`.

    Args:
        name: one of `names()`, or `package.module:NAME`, a `Reader` or a function `(split) -> arrays`.
        data_dir: the folder with the files. Without it some datasets are fetched into the user's cache; some have no files.
        split: "train", "test", or another that the dataset has.
        size: side of its pictures, of datasets that can be had of any.

    Raises:
        DataError: an unknown name or split, files that are missing, damaged or cannot be fetched. It names the file.
    """
    known = reader(name)
    if split not in known.splits:
        raise DataError(f"split must be {' or '.join(map(repr, known.splits))}, got {split!r}")
    folder = _folder(name, data_dir)
    if size is not None:
        if known.sized is None:
            raise DataError(f"the dataset '{name}' has pictures of one size alone, got size={size}; leave size out")
        known = known.sized(size)
    dataset = _read(name, known, folder, split)
    if known.num_classes is None and dataset.spec.num_classes is not None:
        return _agreed([dataset, *(_read(name, known, folder, other) for other in SPLITS if other != split)])[0]
    return dataset


def load_splits(name: str, data_dir: str | Path | None = None) -> tuple[Dataset, Dataset]:
    """The training and the test split, each read once; arguments and errors are those of `load`."""
    known, folder = reader(name), _folder(name, data_dir)
    train, test = _agreed([_read(name, known, folder, split) for split in SPLITS])
    if [a._replace(name="") for a in train.spec.arrays] != [a._replace(name="") for a in test.spec.arrays]:
        raise DataError(f"the splits of the dataset {name} must hold arrays of the same shapes and dtypes, got "
                        f"{_described(train.spec)} to train and {_described(test.spec)} to test")
    return train, test


def reader(name: str) -> Reader:
    """The reader of the dataset called `name`.

    Raises:
        DataError: there is none; it names those that are near.
    """
    if not isinstance(name, str):
        raise DataError(f"a dataset is called by its name, got {name!r}; known are: {', '.join(READERS)}")
    if name in READERS:
        return imports.load_object(READERS[name], "dataset", DataError)
    if not imports.is_name(name):
        raise DataError(f"there is no dataset '{name}'{suggest(name, READERS)}")
    found = imports.load_object(name, "dataset", DataError)
    if isinstance(found, Reader):
        return found
    if not callable(found):
        raise DataError(f"the dataset '{name}' must be a jaxdl.data.Reader or a function (split) -> arrays, "
                        f"got {type(found).__name__}")
    return Reader(f"the function {name}", lambda folder, split: found(split))


def as_dataset(name: str, found: Any, num_classes: int | None = None, class_names: tuple[str, ...] | None = None) -> Dataset:
    """What a reader gave, as a dataset.

    Args:
        name: what to call it.
        found: a `Dataset` stays as it is; images come as an array, as `Examples` or as a dict of "images" and maybe "labels";
            of any other tree the first array is the input.
        num_classes: as in `from_tree`.
        class_names: as in `from_tree`.
    """
    if isinstance(found, Dataset):
        return Dataset(name, found.arrays, found.spec._replace(name=name))
    if isinstance(found, Mapping) and "images" in found and found.keys() <= {"images", "labels"}:
        found = Examples(**found)
    if hasattr(found, "ndim"):
        found = Examples(found)
    if isinstance(found, Examples):
        return from_arrays(*found, name, num_classes=num_classes, class_names=class_names)
    return from_tree(found, name, num_classes=num_classes, class_names=class_names)


def require_images(spec: DataSpec, who: str) -> None:
    """Refuse a dataset that is not one of images, for an algorithm that learns from nothing else.

    Raises:
        UserError: says what it holds.
    """
    if spec.input != "images" or len(spec.shape) != 3:
        raise UserError(f"{who} learns from images [N, H, W, C], and the dataset {spec.name} holds {_described(spec)}")


def _folder(name: str, data_dir: str | Path | None) -> Path | None:
    known = reader(name)
    if not isinstance(data_dir, str | Path | None):
        raise DataError(f"data_dir must be the path of a folder, got {data_dir!r}")
    if known.folder == "none" and data_dir is not None:
        raise DataError(f"the dataset '{name}' reads no folder, got {data_dir}; leave --data-dir (data_dir) out, or name the "
                        "dataset that lies there")
    if known.folder == "needed" and data_dir is None:
        raise DataError(f"the dataset '{name}' is read from a folder: pass --data-dir (data_dir) with {known.contents}")
    if data_dir is not None and not Path(data_dir).exists():
        raise DataError(f"the data folder {data_dir} does not exist")
    return None if data_dir is None else Path(data_dir)


def _read(name: str, known: Reader, folder: Path | None, split: str) -> Dataset:
    try:
        found = known.read(folder, split)
        classes = known.num_classes(folder) if callable(known.num_classes) else known.num_classes
    except JaxdlError:
        raise
    except Exception as e:
        raise DataError(f"the dataset '{name}' cannot be read: {described(e)}") from e
    return as_dataset(name, found, classes, known.class_names)


def _agreed(splits: list[Dataset]) -> list[Dataset]:
    """The splits with the number of classes of all of them, binary if all are."""
    counts = [d.spec.num_classes for d in splits if d.spec.num_classes is not None]
    binary = None if splits[0].spec.binary is None else all(d.spec.binary for d in splits)
    return [d._replace(spec=d.spec._replace(num_classes=max(counts, default=None), binary=binary)).counted() for d in splits]


def _described(spec: DataSpec) -> str:
    return ", ".join(f"{x.name} {x.dtype}{list(x.shape)}" for x in spec.arrays) or f"{spec.input} {list(spec.shape)}"
