"""Annotated pictures in COCO's form, by a reader that trusts no byte of them: `--dataset coco --data-dir FOLDER`.

    FOLDER/annotations.json   {"images": [...], "categories": [...], "annotations": [...]}, or the only JSON file in FOLDER
    FOLDER/images/NAME        the pictures, PNG or JPEG; without a folder images they lie in FOLDER

There may be FOLDER/train and FOLDER/test of this form; else every fifth picture is held out to test. An annotation has a box
(`bbox`: x, y, width, height), a mask (`segmentation`: polygons, or run lengths `counts` of a `size`, column by column, which
begin with those that are 0) and joints (`keypoints`: x, y, v one after the other). Without a mask its box is its mask; where
masks meet, that of the smaller box is seen. Crowds (`iscrowd`) are left out. Classes are numbered from 1 in the order of the
ids of categories.

All pictures have one size, or are scaled into a square by `reader(size=...)`, with black bars, and all that is in them too. Lin
et al., "Microsoft COCO: common objects in context" (2014).

Shapes: `N` pictures, `H W C` a picture, `K` objects of a picture at most, `J` joints of an object.
"""

import functools
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jaxdl.core import files
from jaxdl.core.errors import DataError
from jaxdl.core.types import DataSpec
from jaxdl.data.annotated import Annotated
from jaxdl.data.arrays import PICTURES, read_picture, together
from jaxdl.data.dataset import Dataset, from_tree, held_out
from jaxdl.data.gzip_file import check_room
from jaxdl.data.pictures import save_png
from jaxdl.data.registry import SPLITS, Reader

ANNOTATIONS, IMAGES = "annotations.json", "images"
MOST_OBJECTS = 100  # of a picture
_WRITTEN = Annotated._fields[:6]  # what is written: all but words
_MOST_CLASSES = 254  # with the ground they fit a byte
_MOST_JOINTS = 1000  # of an object
_MOST_BYTES = 2**29  # of a file of annotations: COCO's own has 448 MB
_UNPACKED = 5  # bytes of objects of Python for one of the file
_MOST_PIXELS = 2**26  # of a picture
_MOST_POINTS = 10_000  # of the polygons of an object
_BEYOND = 1.0  # pixels by which a box, a polygon or a joint may leave the picture: they are rounded, and clipped
_AT_ONCE = 250  # pictures that are written together


class _Object(NamedTuple):
    """An annotation."""

    id: int
    label: int
    box: tuple[float, float, float, float]  # x0 y0 x1 y1
    segmentation: Any  # as it is in the file
    joints: np.ndarray  # [j, 3]


class _Picture(NamedTuple):
    """An entry of `images`, with its annotations."""

    path: Path
    width: int
    height: int
    objects: list[_Object]


class _Part(NamedTuple):
    """What a file of annotations says."""

    path: Path
    names: tuple[str, ...]
    pictures: list[_Picture]
    joints: int


def read(folder: Path, split: str, size: int | None = None) -> Dataset:
    """A split of the dataset in `folder`.

    Args:
        folder: as above.
        split: "train" or "test".
        size: side of the square that pictures are scaled into; they must have one size if it is not given.

    Raises:
        DataError: something is missing, damaged, too large, or not what the file of annotations says; it names the file, the
            annotation and the field.
    """
    roots = {name: folder / name for name in SPLITS if (folder / name).is_dir()}
    if roots and roots.keys() != set(SPLITS):
        raise DataError(f"{folder} has a folder {next(iter(roots))} alone; give train and test, or neither of them")
    parts = {name: _parsed(root) for name, root in (roots or {"train": folder}).items()}
    first, *others = parts.values()
    for other in others:
        if other.names != first.names:
            raise DataError(f"{other.path} must have the categories of {first.path}, got {', '.join(other.names)[:200]} and "
                            f"{', '.join(first.names)[:200]}")
    every = [picture for part in parts.values() for picture in part.pictures]
    if size is None:
        _check_one_size(every)
    chosen = parts[split].pictures if roots else [every[i] for i in held_out(len(every), split)]
    most = max(1, *(len(picture.objects) for picture in every))
    arrays = _arrays(chosen, most, max(part.joints for part in parts.values()), size)
    return from_tree(arrays, "coco", class_names=("ground", *first.names))


def require_annotated(spec: DataSpec) -> None:
    """Refuse a dataset that is not one of annotated pictures.

    Raises:
        DataError: says so.
    """
    if not set(_WRITTEN) <= {x.name for x in spec.arrays}:
        raise DataError(f"the dataset {spec.name} holds no annotated pictures, and COCO's form is of nothing else; use scenes, "
                        "or coco with your own")


def write(folder: str | Path, dataset: Dataset) -> None:
    """Write annotated pictures into a folder, which `read` reads: a split of a dataset into a folder called as it.

    Raises:
        UserError: there are annotations already, the dataset has no annotated pictures, or a file cannot be written.
    """
    folder = Path(folder)
    require_annotated(dataset.spec)
    if (folder / ANNOTATIONS).exists():
        raise DataError(f"{folder / ANNOTATIONS} is there already; name another folder, or remove it")
    files.make_folder(folder / IMAGES)
    images, annotations = [], []
    for i in range(0, dataset.spec.num_examples, _AT_ONCE):
        rows = dataset.rows(slice(i, i + _AT_ONCE))
        for n, image in enumerate(rows.images, start=i):
            name = f"{n:06d}.png"
            save_png(folder / IMAGES / name, image)
            images.append({"id": n, "file_name": name, "height": image.shape[0], "width": image.shape[1]})
            annotations += _annotations(rows, n - i, n, len(annotations))
    names = dataset.spec.class_names or tuple(map(str, range(1 + int(dataset.spec.num_classes or 1))))
    joints = [f"joint {j}" for j in range(rows.joints.shape[2])]
    categories = [{"id": c, "name": name, "keypoints": joints} for c, name in enumerate(names) if c]
    files.write_json(folder / ANNOTATIONS, {"images": images, "categories": categories, "annotations": annotations})


def _annotations(rows: Annotated, row: int, image_id: int, first: int) -> Iterator[dict[str, Any]]:
    """What COCO has of the objects of a picture; `first` is their first id."""
    for number, k in enumerate(np.flatnonzero(rows.labels[row])):
        mask = rows.instances[row] == k + 1
        x0, y0, x1, y1 = rows.boxes[row, k].tolist()
        joints = rows.joints[row, k]
        yield {"id": first + number, "image_id": image_id, "category_id": int(rows.labels[row, k]), "iscrowd": 0,
               "bbox": [x0, y0, x1 - x0, y1 - y0], "area": int(mask.sum()),
               "segmentation": {"size": list(mask.shape), "counts": run_lengths(mask)},
               "keypoints": joints.ravel().tolist(), "num_keypoints": int((joints[:, 2] > 0).sum())}


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a mask [H, W], column by column, which begin with the pixels that are 0."""
    flat = mask.astype(bool).ravel(order="F")
    ends = np.flatnonzero(np.diff(flat, prepend=False, append=~flat[-1:]))
    return np.diff(ends, prepend=0).tolist()


def _parsed(root: Path) -> _Part:
    found = [root / ANNOTATIONS] if (root / ANNOTATIONS).is_file() else sorted(root.glob("*.json"))
    if len(found) != 1:
        raise DataError(f"{root} must have a file {ANNOTATIONS}, or one JSON file alone, and has {len(found)}")
    path = found[0]
    check_room(path, _UNPACKED * path.stat().st_size)
    content = files.read_json(path, _MOST_BYTES)
    images, categories, annotations = (_entries(path, content, name) for name in ("images", "categories", "annotations"))
    numbers = _classes(path, categories)
    folder = root / IMAGES if (root / IMAGES).is_dir() else root
    pictures = _pictures(path, images, folder)
    joints, seen = 0, set()
    for where, entry in _each(path, "annotation", annotations):
        if entry["id"] in seen:
            raise DataError(f"{where} comes twice; each annotation has an id of its own")
        seen.add(entry["id"])
        picture = pictures.get(_whole(where, entry, "image_id"))
        if picture is None:
            raise DataError(f"{where} must have an image_id of images, got {entry['image_id']}")
        if entry.get("iscrowd", 0) not in (0, 1):
            raise DataError(f"{where} must have iscrowd 0 or 1, got {_short(entry['iscrowd'])}")
        if entry.get("iscrowd", 0):
            continue
        if len(picture.objects) == MOST_OBJECTS:
            raise DataError(f"{where} is one of more than {MOST_OBJECTS} of the picture {picture.path.name}, the most that a "
                            "picture may have; cut the picture, or leave some out")
        picture.objects.append(_object(where, entry, picture, numbers))
        joints = max(joints, len(picture.objects[-1].joints))
    joints = max([joints, *(len(c["keypoints"]) for c in categories if isinstance(c.get("keypoints"), list))])
    if joints > _MOST_JOINTS:
        raise DataError(f"{path} has objects of {joints} keypoints, more than the {_MOST_JOINTS} that one may have")
    names = tuple(c["name"] for c in sorted(categories, key=lambda c: c["id"]))
    return _Part(path, names, list(pictures.values()), joints)


def _entries(path: Path, content: dict[str, Any], name: str) -> list[Any]:
    entries = content.get(name)
    if not isinstance(entries, list) or (not entries and name != "annotations"):
        raise DataError(f"{path} must have a list {name}{'' if name == 'annotations' else ', which is not empty'}, got "
                        f"{_short(entries)}")
    return entries


def _each(path: Path, what: str, entries: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a list with words for each, all of them objects with an id."""
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: entry {i} of {what}s must be an object, got {_short(entry)}")
        yield f"{path}: {what} {_whole(f'{path}: entry {i} of {what}s', entry, 'id')}", entry


def _classes(path: Path, categories: list[Any]) -> dict[int, int]:
    """Ids of categories -> classes from 1."""
    names: dict[int, str] = {}
    for where, entry in _each(path, "category", categories):
        name = entry.get("name")
        if not isinstance(name, str) or not name or len(name) > 100:
            raise DataError(f"{where} must have a name of 1 to 100 characters, got {_short(name)}")
        if entry["id"] in names or name in names.values():
            raise DataError(f"{where} ({name}) comes twice; each category has an id and a name of its own")
        names[entry["id"]] = name
        if len(names) > _MOST_CLASSES:
            raise DataError(f"{path} has more than {_MOST_CLASSES} categories, the most that there may be")
    return {id: n for n, id in enumerate(sorted(names), start=1)}


def _pictures(path: Path, images: list[Any], folder: Path) -> dict[int, _Picture]:
    found: dict[int, _Picture] = {}
    names, root = set(), folder.resolve()
    for where, entry in _each(path, "image", images):
        name = entry.get("file_name")
        inside = isinstance(name, str) and "\\" not in name and not PurePosixPath(name).is_absolute()
        if not inside or ".." in PurePosixPath(name).parts or not name.lower().endswith(PICTURES):
            raise DataError(f"{where} must have the file_name of a picture ({', '.join(PICTURES)}) in {folder}, got "
                            f"{_short(name)}")
        if not (folder / name).resolve().is_relative_to(root):
            raise DataError(f"{where} has the file_name {_short(name)}, which leads out of {folder}")
        if entry["id"] in found or name in names:
            raise DataError(f"{where} ({name}) comes twice; each image has an id and a file_name of its own")
        names.add(name)
        width, height = (_whole(where, entry, side) for side in ("width", "height"))
        if min(width, height) < 1 or width * height > _MOST_PIXELS:
            raise DataError(f"{where} must have a width and a height above 0, and {_MOST_PIXELS:,} pixels at most, got {width} "
                            f"and {height}")
        found[entry["id"]] = _Picture(folder / name, width, height, [])
    return found


def _object(where: str, entry: dict[str, Any], picture: _Picture, numbers: dict[int, int]) -> _Object:
    category = _whole(where, entry, "category_id")
    if category not in numbers:
        raise DataError(f"{where} must have a category_id of categories, got {category}")
    box = _numbers(where, "bbox", entry.get("bbox"))
    if len(box) != 4 or min(box[2:]) <= 0:
        raise DataError(f"{where} must have a bbox of x, y and a width and a height above 0, got {_short(entry.get('bbox'))}")
    x0, y0, x1, y1 = box[0], box[1], box[0] + box[2], box[1] + box[3]
    _check_inside(where, "bbox", np.array([[x0, y0], [x1, y1]]), picture)
    box = (max(x0, 0.0), max(y0, 0.0), min(x1, float(picture.width)), min(y1, float(picture.height)))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise DataError(f"{where} must have a bbox within the picture, got {_short(entry['bbox'])}")
    joints = _numbers(where, "keypoints", entry.get("keypoints", []))
    if len(joints) % 3 or not all(v in (0, 1, 2) for v in joints[2::3]):
        raise DataError(f"{where} must have keypoints of x, y and v (0, 1 or 2) each, got {_short(entry['keypoints'])}")
    joints = np.array(joints, np.float64).reshape(-1, 3)
    joints[joints[:, 2] == 0] = 0
    _check_inside(where, "keypoints", joints[joints[:, 2] > 0, :2], picture)
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list):
        polygons = [_numbers(where, "segmentation", polygon) for polygon in segmentation]
        if any(len(p) < 6 or len(p) % 2 for p in polygons):
            raise DataError(f"{where} must have a segmentation of polygons of x and y of three points or more")
        if sum(map(len, polygons)) > 2 * _MOST_POINTS:
            raise DataError(f"{where} must have a segmentation of {_MOST_POINTS:,} points at most; give run lengths")
        for polygon in polygons:
            _check_inside(where, "segmentation", np.reshape(polygon, (-1, 2)), picture)
    elif segmentation is not None:
        _check_runs(where, segmentation, picture)
    return _Object(entry["id"], numbers[category], box, segmentation, joints)


def _check_runs(where: str, segmentation: Any, picture: _Picture) -> None:
    size, counts = (segmentation.get(k) for k in ("size", "counts")) if isinstance(segmentation, dict) else (None, None)
    if isinstance(counts, str):
        raise DataError(f"{where} has a segmentation whose counts are packed into a text; unpack them into a list of numbers")
    if size != [picture.height, picture.width]:
        raise DataError(f"{where} must have a segmentation of the size of its picture, {[picture.height, picture.width]}, got "
                        f"{_short(size)}")
    whole = isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts)
    if not whole or sum(counts) != picture.height * picture.width:
        raise DataError(f"{where} must have a segmentation with counts of 0 or more that add up to "
                        f"{picture.height * picture.width}, got {_short(counts)}")


def _check_inside(where: str, field: str, points: np.ndarray, picture: _Picture) -> None:
    """Points [n, 2] lie in the picture, or hardly outside."""
    wrong = (points < -_BEYOND) | (points > np.array([picture.width, picture.height]) + _BEYOND)
    if wrong.any():
        x, y = points[wrong.any(1)][0]
        raise DataError(f"{where} must have a {field} within the {picture.width} x {picture.height} pixels of its picture, got "
                        f"the point {x:g}, {y:g}")


def _numbers(where: str, field: str, value: Any) -> list[float]:
    if not isinstance(value, list) or not all(type(x) in (int, float) for x in value):
        raise DataError(f"{where} must have a {field} that is a list of numbers, got {_short(value)}")
    return value


def _whole(where: str, entry: dict[str, Any], field: str) -> int:
    if type(entry.get(field)) is not int:
        raise DataError(f"{where} must have {'an' if field[0] in 'aeiou' else 'a'} {field} that is a whole number, got "
                        f"{_short(entry.get(field))}")
    return entry[field]


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{type(value).__name__} of {len(value)}" if len(value) > 8 else f"{str(value)[:80]}"
    return "nothing" if value is None else repr(value)[:80]


def _check_one_size(pictures: list[_Picture]) -> None:
    first = pictures[0]
    for other in pictures:
        if (other.width, other.height) != (first.width, first.height):
            raise DataError(f"{other.path} has {other.width} x {other.height} pixels, and {first.path} has {first.width} x "
                            f"{first.height}; resize all pictures to one size, or read them with "
                            "jaxdl.data.coco.reader(size=...), which scales them into a square")


def _arrays(pictures: list[_Picture], most: int, joints: int, size: int | None) -> Annotated:
    num, (height, width) = len(pictures), (pictures[0].height, pictures[0].width) if size is None else (size, size)
    check_room(pictures[0].path.parent, num * (height * width * 5 + most * (joints * 12 + 17)))
    images, instances = [], np.zeros((num, height, width), np.uint8)
    boxes, labels = np.zeros((num, most, 4), np.float32), np.zeros((num, most), np.uint8)
    points = np.zeros((num, most, joints, 3), np.float32)
    for n, picture in enumerate(pictures):
        pixels = _pixels(picture, num if size is None else 1)
        place = _Place.of(picture, size)
        images.append(place.scaled(pixels))
        instances[n] = place.scaled(_instances(picture)[..., None], mixed=False)[..., 0]
        for k, found in enumerate(picture.objects):
            boxes[n, k] = place.moved(np.reshape(found.box, (2, 2))).ravel()
            labels[n, k] = found.label
            seen = found.joints[:, 2] > 0
            points[n, k, : len(seen)][seen, :2] = place.moved(found.joints[seen, :2])
            points[n, k, : len(seen), 2] = found.joints[:, 2]
    classes = np.concatenate([np.zeros((num, 1), np.uint8), labels], 1)
    semantic = np.take_along_axis(classes, instances.reshape(num, -1), 1).reshape(instances.shape)
    return Annotated(together(images), semantic, instances, boxes, labels, points)


def _pixels(picture: _Picture, num: int) -> np.ndarray:
    if not picture.path.is_file():
        raise DataError(f"there is no picture {picture.path}, which the annotations name")
    pixels = read_picture(picture.path, num)
    if pixels.shape[:2] != (picture.height, picture.width):
        raise DataError(f"{picture.path} has {pixels.shape[1]} x {pixels.shape[0]} pixels, and its annotations say width "
                        f"{picture.width} and height {picture.height}")
    return pixels


def _instances(picture: _Picture) -> np.ndarray:
    """Which object is seen at each pixel, uint8 [H, W]."""
    out = np.zeros((picture.height, picture.width), np.uint8)
    for k, found in sorted(enumerate(picture.objects), key=lambda entry: -_area(entry[1].box)):
        out[_mask(found, picture)] = k + 1
    return out


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _mask(found: _Object, picture: _Picture) -> np.ndarray:
    """Bool [H, W]."""
    shape = picture.height, picture.width
    if isinstance(found.segmentation, dict):
        counts = np.array(found.segmentation["counts"], np.int64)
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(shape, order="F")
    if found.segmentation:
        return functools.reduce(np.logical_or, (filled(np.reshape(p, (-1, 2)), *shape) for p in found.segmentation))
    x, y = np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5
    return ((y > found.box[1]) & (y < found.box[3]))[:, None] & (x > found.box[0]) & (x < found.box[2])


def filled(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels whose centres lie within a polygon [n, 2] of x and y, by the even-odd rule, bool [H, W]."""
    crossed = np.zeros((height, width + 1), bool)  # an edge lies between this pixel's centre and that to the left
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        first, last = (min(max(int(np.ceil(y - 0.5)), 0), height) for y in (min(y0, y1), max(y0, y1)))
        rows = np.arange(first, last)
        x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0 or 1)
        crossed[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)] ^= True
    return np.logical_xor.accumulate(crossed, 1)[:, :-1]


class _Place(NamedTuple):
    """Where a picture lies in that which it is scaled into; as it is without a size."""

    size: int | None = None
    sides: tuple[int, int] = (0, 0)  # height and width that it gets
    offset: tuple[int, int] = (0, 0)  # rows and columns before it
    scale: tuple[float, float] = (1.0, 1.0)  # of x and y

    @staticmethod
    def of(picture: _Picture, size: int | None) -> "_Place":
        if size is None:
            return _Place()
        longer = max(picture.height, picture.width)
        height, width = (max(1, round(side * size / longer)) for side in (picture.height, picture.width))
        return _Place(size, (height, width), ((size - height) // 2, (size - width) // 2),
                      (width / picture.width, height / picture.height))

    def scaled(self, pixels: np.ndarray, mixed: bool = True) -> np.ndarray:
        """A picture [H, W, C], its pixels mixed where they meet or not."""
        from PIL import Image

        if self.size is None:
            return pixels
        how = Image.Resampling.BILINEAR if mixed else Image.Resampling.NEAREST
        parts = [np.asarray(Image.fromarray(part).resize(self.sides[::-1], how)) for part in np.moveaxis(pixels, -1, 0)]
        out = np.zeros((self.size, self.size, len(parts)), np.uint8)
        (top, left), (height, width) = self.offset, self.sides
        out[top : top + height, left : left + width] = np.stack(parts, -1)
        return out

    def moved(self, points: np.ndarray) -> np.ndarray:
        """Points [n, 2]."""
        return points * np.array(self.scale) + np.array(self.offset[::-1])


def reader(size: int | None = None) -> Reader:
    """A reader of annotated pictures, scaled into a square of a size if one is given."""
    return Reader("your own annotated pictures in COCO's form in --data-dir", functools.partial(read, size=size), "needed",
                  f"{ANNOTATIONS} and a folder {IMAGES}, or folders train and test of them", sized=reader)


READER = reader()
