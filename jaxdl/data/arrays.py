"""Anyone's own arrays and pictures, by a reader that trusts no byte of them: `--dataset arrays --data-dir PATH`.

PATH is one of:

    FILE.npz, or a folder of one   arrays by name
    a folder of NAME.npy           arrays by name
    a folder of pictures           train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png; PNG or JPEG; without folders of
                                   classes there are no labels

Arrays of a split are called train_NAME or NAME_train (test_NAME, NAME_test), for any NAME; x and y are the names images and
labels too, where x has the shape of images. Where there is no test split, every fifth example is held out for it, in the order
of the file, or of the names of pictures. All pictures have one size; they are grey if all of them are.

Shapes: `N` examples, `H W C` height, width, channels.
"""

import contextlib
import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jaxdl.core.errors import DataError, described
from jaxdl.data.dataset import Dataset, from_arrays, from_images, from_tree, held_out, hold_out
from jaxdl.data.gzip_file import MAX_DEFLATE_RATIO, MAX_UNPACKED, check_room, open_file
from jaxdl.data.registry import SPLITS, Reader

PICTURES = (".png", ".jpg", ".jpeg")
_LONGEST = 1 << 14  # bytes of the header of an NPY file; NumPy takes 10,000 characters
_LONGEST_LIST = 1 << 20  # bytes of the list of members of an archive: more than 10,000 arrays
_MOST_AXES = 32  # of an array
_UNSEEN = ("thumbs.db", "desktop.ini")  # what systems leave in folders of pictures; also all that begins with a dot


def read_split(path: Path, split: str) -> Dataset:
    """The dataset in `path`, see above.

    Raises:
        DataError: nothing of the kind is there, a file is damaged or too large, or pictures differ in size; it names the file.
    """
    files = _array_files(path)
    if not files:
        return read_pictures(path, split)
    arrays, tested = _of_split(path, files, split)
    tree = {name: files[key]() for name, key in arrays.items()}
    if "x" in tree and tree["x"].ndim in (3, 4):
        tree = {{"x": "images", "y": "labels"}.get(name, name): x for name, x in tree.items()}
    label = next((name for name in ("labels", "y") if name in tree), None)
    if label and tree[label].ndim == 2 and tree[label].shape[1] == 1:
        tree[label] = tree[label][:, 0]  # Keras' form
    if "images" in tree and tree.keys() <= {"images", "labels"}:
        dataset = from_images(tree["images"], tree.get("labels"), "arrays")
    else:
        first = next((name for name in ("images", "x") if name in tree), None)
        dataset = from_tree(tree, "arrays", input=first, target=label)
    return dataset if tested else hold_out(dataset, split)


def read_npy(file: BinaryIO, size: int, path: Path | str) -> np.ndarray:
    """The array in an NPY file of `size` bytes. Its header is held against them before memory is taken.

    Raises:
        DataError: no such file, one of objects, or one that is shorter or longer than its header says.
    """
    try:
        begins = io.BytesIO(file.read(_LONGEST))  # of a longer one NumPy would read all, however long it says to be
        version = np.lib.format.read_magic(begins)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read_header(begins)
    except (DataError, OSError, zipfile.BadZipFile, zlib.error):
        raise
    except Exception as e:  # it evaluates a literal of Python, and makes a dtype of it
        raise DataError(f"{path} is no NPY file, or a damaged one: {described(e)}") from None
    if dtype.kind not in "biuf":
        raise DataError(f"{path} must hold numbers, got {dtype}; objects are never unpickled")
    if len(shape) > _MOST_AXES:
        raise DataError(f"{path} must have at most {_MOST_AXES} axes, got {len(shape)}")
    promised = math.prod(shape) * dtype.itemsize
    there = size - begins.tell()
    if promised != there or min(shape, default=0) < 0:
        raise DataError(f"{path} is truncated or damaged: its header gives {dtype}{list(shape)}, which takes {promised} bytes "
                        f"after it, and there are {there}")
    check_room(path, promised)
    file.seek(begins.tell())
    items = file.read(promised)
    if len(items) != promised:
        raise DataError(f"{path} is truncated: it ends after {len(items)} of {promised} bytes")
    flat = np.frombuffer(items, dtype)
    return np.ascontiguousarray(flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape))


def read_pictures(folder: Path, split: str) -> Dataset:
    """The pictures in a folder: images [N, H, W, 1 or 3], and labels where they lie in folders of classes.

    Raises:
        DataError: there are none, one is damaged or no picture, or their sizes differ; it names the file.
    """
    roots = {name: folder / name for name in SPLITS if (folder / name).is_dir()}
    if roots.keys() == {"test"}:
        raise DataError(f"{folder} has a folder test, but no folder train beside it")
    root = roots.get("train", folder) if split == "train" else roots.get("test", roots.get("train", folder))
    every = [_classes(r) for r in roots.values()] or [_classes(folder)]
    if len({bool(c) for c in every}) > 1:
        raise DataError(f"{folder} has folders of classes in one of train and test, and pictures without in the other")
    names = sorted(set().union(*every))
    found = [(path, c) for c, name in enumerate(names) for path in _pictures(root / name)] if names else [
        (path, None) for path in _pictures(root)]
    if not found:
        raise DataError(f"{root} has no arrays (.npz, .npy) and no pictures ({', '.join(PICTURES)}), neither in it nor in "
                        "folders of classes")
    if "test" not in roots:
        found = [found[i] for i in held_out(len(found), split)]
    images = _decoded([path for path, _ in found])
    if not names:
        return from_arrays(images, name="arrays")
    return from_arrays(images, np.array([c for _, c in found]), "arrays", class_names=names)


def _array_files(path: Path) -> Mapping[str, "_Stored"]:
    """The arrays of a path by their names, not yet read; none where it is a folder of pictures."""
    if path.is_file():
        if path.suffix != ".npz":
            raise DataError(f"{path} is no .npz file and no folder")
        return dict(_members(path))
    packed, single = (sorted(path.glob(f"*{end}")) for end in (".npz", ".npy"))
    if packed and (single or len(packed) > 1):
        raise DataError(f"{path} has {len(packed)} .npz files and {len(single)} .npy files; pass one .npz file, or a folder of "
                        ".npy files alone")
    return dict(_members(packed[0])) if packed else {p.stem: _Stored(p) for p in single}


class _Stored:
    """An array in a file, read when it is called."""

    def __init__(self, path: Path, member: str | None = None) -> None:
        self.path, self.member = path, member

    def __call__(self) -> np.ndarray:
        if self.member is None:
            try:
                with open_file(self.path) as file:
                    return read_npy(file, os.fstat(file.fileno()).st_size, self.path)
            except OSError as e:
                raise DataError(f"{self.path} cannot be read: {e.strerror or e}") from None
        where = f"{self.member} in {self.path}"
        try:
            with _opened_zip(self.path) as packed, packed.open(self.member) as file:
                info = packed.getinfo(self.member)
                return read_npy(file, info.file_size, where)
        except DataError:
            raise
        except OSError as e:
            raise DataError(f"{self.path} cannot be read: {e.strerror or e}") from None
        except Exception as e:  # a damaged archive raises anything
            raise DataError(f"{where} is damaged, or packed in another way than NumPy packs: {described(e)}") from None


@contextlib.contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive whose arrays are not longer than it can hold, all of them together."""
    with open_file(path) as raw:
        size = os.fstat(raw.fileno()).st_size
        listed = _Listed(raw, path)
        with zipfile.ZipFile(listed) as packed:
            listed.most = math.inf
            arrays = [info for info in packed.infolist() if info.filename.endswith(".npy")]
            for info in arrays:
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataError(f"{info.filename} in {path} is packed in another way than NumPy packs; use "
                                    "np.savez")
            unpacked = sum(info.file_size for info in arrays)
            plain = sum(info.file_size for info in arrays if info.compress_type == zipfile.ZIP_STORED)
            if plain > size or unpacked - plain > min(MAX_UNPACKED, size * MAX_DEFLATE_RATIO):
                raise DataError(f"{path} would unpack to {unpacked} bytes, more than its {size} can hold or than the limit of "
                                f"{MAX_UNPACKED}; save it with np.savez, not compressed")
            yield packed


class _Listed:
    """The file of an archive. Its list of members, of which `zipfile` reads every one, must not be long."""

    def __init__(self, raw: BinaryIO, path: Path) -> None:
        self.raw, self.path, self.most = raw, path, float(_LONGEST_LIST)

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        if size > self.most:
            raise DataError(f"{self.path} is damaged, or has too many members: their list takes {size} bytes; save one array "
                            "for all examples")
        return self.raw.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def _members(path: Path) -> Iterator[tuple[str, _Stored]]:
    try:
        with _opened_zip(path) as packed:
            names = packed.namelist()
    except DataError:
        raise
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror or e}") from None
    except Exception as e:  # a damaged archive raises anything
        raise DataError(f"{path} is no .npz file, or a damaged one: {described(e)}") from None
    for name in names:
        if name.endswith(".npy"):
            yield name.removesuffix(".npy"), _Stored(path, name)


def _of_split(path: Path, files: Mapping[str, _Stored], split: str) -> tuple[dict[str, str], bool]:
    """The names of the arrays of a split with those of the file, and whether the file has splits of its own."""
    splits = {s: {k.lower().removeprefix(f"{s}_").removesuffix(f"_{s}"): k for k in files
                  if k.lower().startswith(f"{s}_") or k.lower().endswith(f"_{s}")} for s in SPLITS}
    if splits["train"] and splits["test"]:
        if splits["train"].keys() != splits["test"].keys():
            raise DataError(f"{path} must have the same arrays for both splits, got {', '.join(sorted(files))}")
        return splits[split], True
    if splits["test"]:
        raise DataError(f"{path} has arrays to test, but none to train: {', '.join(sorted(files))}")
    return splits["train"] or {k.lower(): k for k in files}, False


def _classes(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []  # a class that a split has not
    found = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _UNSEEN)
    for path in found:
        if path.suffix.lower() not in PICTURES or not path.is_file():
            raise DataError(f"{path} is no picture ({', '.join(PICTURES)}); move it out of the folder of the dataset")
    return found


def _decoded(paths: list[Path]) -> np.ndarray:
    """Pictures as uint8 [N, H, W, C]: C is 1 if all are grey, else 3."""
    images: list[np.ndarray] = []
    for path in paths:
        pixels = read_picture(path, len(paths))
        if images and pixels.shape[:2] != images[0].shape[:2]:
            raise DataError(f"{path} has {pixels.shape[1]} x {pixels.shape[0]} pixels, and {paths[0]} has "
                            f"{images[0].shape[1]} x {images[0].shape[0]}; resize all pictures to one size first")
        images.append(pixels)
    return together(images)


def read_picture(path: Path, num: int) -> np.ndarray:
    """A picture of 8 bits, uint8 [H, W, C]: C is 1 if it is grey, else 3.

    Args:
        path: a PNG or JPEG file.
        num: pictures of its size that are to fit into memory.

    Raises:
        DataError: it is damaged or no picture, or too large.
    """
    from PIL import Image, ImageOps  # slow to import

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            picture.verify()  # the checksums of a PNG, which decoding leaves alone
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            if picture.width * picture.height * 3 * num > MAX_UNPACKED:
                raise DataError(f"{path} has {picture.width} x {picture.height} pixels, and {num} such pictures take more than "
                                f"{MAX_UNPACKED} bytes; make them smaller, or save them as a .npy file")
            clear = picture.getchannel("A").getextrema()[0] < 255 if picture.mode in ("LA", "RGBA") else (
                "transparency" in picture.info)
            if clear or picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
                raise DataError(f"{path} is transparent or has other pixels ({picture.mode}) than 8 bits of grey or "
                                "colour; convert it")
            grey = picture.mode in ("1", "L", "LA")
            pixels = np.asarray(ImageOps.exif_transpose(picture).convert("L" if grey else "RGB"))
    except DataError:
        raise
    except Exception as e:  # a decoder of what anyone wrote raises anything
        raise DataError(f"{path} is no PNG or JPEG picture, or a damaged one: {described(e)}") from None
    return pixels if pixels.ndim == 3 else pixels[..., None]


def together(images: list[np.ndarray]) -> np.ndarray:
    """Pictures of one size as [N, H, W, C]: C is 1 if all are grey, else 3."""
    channels = max(x.shape[-1] for x in images)
    return np.stack([np.broadcast_to(x, (*x.shape[:2], channels)) for x in images])


READER = Reader(
    "your own arrays (.npz, .npy) or pictures (PNG, JPEG, a folder for each class) in --data-dir", read_split, "needed",
    "a .npz file, a folder of .npy files, or one of pictures: train/CLASS/*.png and test/CLASS/*.png, or CLASS/*.png")
