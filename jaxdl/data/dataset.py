"""A dataset: a tree of numpy arrays whose first axis counts examples, and a spec of it.

`Examples(images, labels)` is the tree of a dataset of images. Any other tree of arrays is a dataset too (`from_tree`): tokens,
pairs of an image and a caption, scenes with boxes. Images stay uint8; the learner scales them on the device.

Shapes: `N` examples, `H W C` height, width, channels.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.errors import DataError
from jaxdl.core.types import ArraySpec, DataSpec, Examples, PyTree
from jaxdl.data.made import Made

_COUNTED = 1000  # classes whose examples are counted, at most
_AT_ONCE = 250  # examples that are made together
_SCALED = 64  # numbers of a target that have each a mean of their own, at most
HELD_OUT = 5  # without a test split of its own, a dataset's every fifth example is for testing


class Dataset(NamedTuple):
    """One split of a dataset, on the host."""

    name: str
    arrays: PyTree  # of numpy arrays [N, ...], or what makes them (`made.Made`)
    spec: DataSpec

    @property
    def is_made(self) -> bool:
        """Whether examples are made when they are asked for (`made.Made`)."""
        return isinstance(self.arrays, Made)

    @property
    def images(self) -> np.ndarray:
        """The images of a dataset of images, uint8 [N, H, W, C]."""
        return self.arrays.images

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of a dataset of images, int32 [N], or None."""
        return self.arrays.labels

    def rows(self, index: Any) -> PyTree:
        """The tree of the examples that `index` (a slice or integers) chooses."""
        if self.is_made:
            return jax.tree.map(np.asarray, _make(self.arrays.make, self.arrays.recipe, self.arrays.index[index]))
        return jax.tree.map(lambda x: x[index], self.arrays)

    @property
    def target(self) -> np.ndarray | None:
        """The array that is to be predicted [N, ...], or None."""
        return None if self.spec.target is None else pick(self.arrays, self.spec.target)

    def part(self, index: np.ndarray) -> "Dataset":
        """The dataset of the examples `index` [n]; its classes are those of the whole."""
        spec = self.spec._replace(num_examples=len(index))
        if self.is_made:
            return Dataset(self.name, self.arrays.of(self.arrays.index[index]), spec)
        return Dataset(self.name, self.rows(index), spec).counted()

    def complete(self) -> "Dataset":
        """The dataset with all examples made, where they are made when they are asked for."""
        if not self.is_made:
            return self
        parts = [self.rows(slice(i, i + _AT_ONCE)) for i in range(0, self.spec.num_examples, _AT_ONCE)]
        return self._replace(arrays=jax.tree.map(lambda *x: np.concatenate(x), *parts)).counted()

    def counted(self) -> "Dataset":
        """The dataset with what its spec has of its targets: how many are of each class, or their mean and deviation."""
        return self._replace(spec=self.spec._replace(**_of_target(self.target, self.spec.num_classes)))

    def on_device(self) -> PyTree:
        """The tree as arrays of JAX."""
        return jax.tree.map(jnp.asarray, self.arrays)

    def fingerprint(self) -> str:
        """Sha256 of the bytes of all arrays, in the tree's order."""
        digest = hashlib.sha256()
        for x in jax.tree.leaves(self.arrays):  # of what is made the indices and the recipe
            digest.update(np.ascontiguousarray(x))
        return digest.hexdigest()


_make = jax.jit(lambda make, recipe, index: make(recipe, index), static_argnums=0)


def pick(tree: PyTree, name: str) -> Any:
    """The array called `name` (its path: "scene.boxes") of a tree of arrays: of a dataset, or of a batch of one."""
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        if (jax.tree_util.keystr(path, simple=True, separator=".") or "values") == name:
            return x
    raise KeyError(name)


def from_arrays(images: Any, labels: Any = None, name: str = "custom", *, num_classes: int | None = None,
                class_names: Sequence[str] | None = None) -> Dataset:
    """A dataset of images from arrays of your own.

    Args:
        images: [N, H, W] or [N, H, W, C], none of them 0; the missing channel axis is added. uint8 are taken as they are,
            floats in [0, 1] become the nearest of the 256 bytes, round(255 * x), and booleans 0 and 255.
        labels: [N] integers from 0, or None.
        name: what to call it.
        num_classes: the labels of all splits are below it; the highest of these labels + 1 if not given.
        class_names: one for each class, in their order.

    Raises:
        DataError: says which array was expected and which was given.
    """
    images = _image_bytes(_as_array(images, "images"))
    if labels is not None:
        labels = _as_array(labels, "labels")
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
            raise DataError(f"labels must be integers of shape [{len(images)}], one an image, "
                            f"got {labels.dtype} of shape {list(labels.shape)}")
    return from_tree(Examples(images, labels), name, input="images", target=None if labels is None else "labels",
                     num_classes=num_classes, class_names=class_names)


def from_images(images: Any, targets: Any = None, name: str = "custom") -> Dataset:
    """As `from_arrays`, with targets [N, ...] of any kind: labels, several labels an image (0 and 1 [N, Y]), numbers.

    Raises:
        DataError: as `from_arrays` and `from_tree`.
    """
    targets = None if targets is None else _as_array(targets, "labels")
    if targets is None or (targets.ndim < 2 and targets.dtype.kind != "f"):
        return from_arrays(images, targets, name)
    return from_tree(Examples(_image_bytes(_as_array(images, "images")), targets), name, input="images", target="labels")


def from_tree(arrays: PyTree, name: str = "custom", *, input: str | None = None, target: str | None = None,
              num_classes: int | None = None, class_names: Sequence[str] | None = None,
              vocabulary: Sequence[str] | None = None) -> Dataset:
    """A dataset from any tree (dicts, tuples, NamedTuples) of arrays [N, ...] of numbers; numbers of 64 bits become 32.

    Args:
        arrays: the tree.
        name: what to call it.
        input: the array that goes in, by its path in the tree ("images", "scene.boxes"); the first if not given.
        target: the array that is to be predicted, or None.
        num_classes: the labels of all splits are below it. If not given, and the target is one integer an example, the highest
            of these labels + 1.
        class_names: one for each class, in their order.
        vocabulary: what each token of the input stands for, token 0 first.

    Raises:
        DataError: says which array was expected and which was given.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(arrays)
    if not leaves:
        raise DataError(f"the dataset {name} has no arrays; give a tree of arrays [N, ...]")
    found = {jax.tree_util.keystr(path, simple=True, separator=".") or "values": x for path, x in leaves}
    found = {path: _canonical(_as_array(x, path), path) for path, x in found.items()}
    sizes = {path: len(x) if x.ndim else 0 for path, x in found.items()}
    (num, *others) = set(sizes.values())
    if others or not num:
        raise DataError(f"every array of the dataset {name} must have as many examples, one or more, on its first axis, got "
                        + ", ".join(f"{path} {list(x.shape)}" for path, x in found.items()))
    input = input or next(iter(found))
    for field, value in (("input", input), ("target", target)):
        if value is not None and value not in found:
            raise DataError(f"{field}={value!r} is no array of the dataset {name}; its arrays are {', '.join(found)}")
    spec = DataSpec(name, num, found[input].shape[1:], _num_classes(name, found.get(target), target, num_classes, class_names),
                    None if class_names is None else tuple(class_names), None if vocabulary is None else tuple(vocabulary),
                    tuple(ArraySpec(path, x.shape[1:], str(x.dtype)) for path, x in found.items()), input, target,
                    binary=_is_binary(found[input]))
    if vocabulary is not None:
        _check_below(found[input], len(vocabulary), input, f"the vocabulary of {name} has {len(vocabulary)} tokens")
    return Dataset(name, jax.tree.unflatten(structure, found.values()), spec).counted()


def held_out(num: int, split: str) -> np.ndarray:
    """Which of `num` examples are of `split`, where a dataset has no split of its own: every fifth is to test.

    Raises:
        DataError: there are too few for both.
    """
    if num < HELD_OUT:
        raise DataError(f"{num} examples are too few to hold every fifth out for testing; give a test split of its own")
    index = np.arange(num)
    to_test = index % HELD_OUT == HELD_OUT - 1
    return index[to_test if split == "test" else ~to_test]


def hold_out(whole: Dataset, split: str) -> Dataset:
    """The split of a dataset that has none of its own; the number of classes is that of the whole. Raises as `held_out`."""
    return whole.part(held_out(whole.spec.num_examples, split))


def drawn(dataset: Dataset, purpose: str) -> np.ndarray:
    """All rows [N] in an order that is random and depends on the examples' bytes alone, not on where the file has them.

    Args:
        purpose: what the draw is for; each has an order of its own.
    """
    parts = [np.ascontiguousarray(x).reshape(len(x), -1).view(np.uint8) for x in jax.tree.leaves(dataset.arrays)]
    salt = hashlib.blake2b(purpose.encode(), digest_size=16).digest()
    found = [hashlib.blake2b(b"".join(part[i].tobytes() for part in parts), digest_size=8, key=salt).digest()
             for i in range(dataset.spec.num_examples)]
    return np.argsort(np.frombuffer(b"".join(found), ">u8"), kind="stable")


def split_off(dataset: Dataset, num: int, purpose: str) -> tuple[Dataset, Dataset]:
    """A dataset without `num` of its examples (1 to N - 1), and these: the first as `drawn`, or the last ones of a stream,
    whose examples are single numbers, and of what is made.
    """
    whole = np.arange(dataset.spec.num_examples)
    in_order = dataset.is_made or not dataset.spec.shape
    index = whole[-num:] if in_order else np.sort(drawn(dataset, purpose)[:num])
    return dataset.part(np.delete(whole, index)), dataset.part(index).complete()


def _num_classes(name: str, labels: np.ndarray | None, target: str | None, num_classes: int | None,
                 class_names: Sequence[str] | None) -> int | None:
    if num_classes is None and class_names is not None:
        num_classes = len(class_names)
    if class_names is not None and len(class_names) != num_classes:
        raise DataError(f"class_names must have one for each of num_classes={num_classes} of {name}, got {len(class_names)}")
    if labels is None or not np.issubdtype(labels.dtype, np.integer):
        return num_classes
    if num_classes is None and labels.ndim > 1:
        return None
    most = np.iinfo(np.int32).max
    _check_below(labels, most if num_classes is None else num_classes, target,
                 f"{target} must lie between 0 and {(most if num_classes is None else num_classes) - 1}")
    return int(labels.max()) + 1 if num_classes is None else num_classes


def _of_target(target: np.ndarray | None, num_classes: int | None) -> dict[str, Any]:
    if target is None or not len(target):
        return {}
    if target.dtype.kind in "iu" and target.ndim == 1 and num_classes is not None and num_classes <= _COUNTED:
        return {"class_counts": tuple(np.bincount(target, minlength=num_classes).tolist())}
    if target.dtype.kind != "f":
        return {}
    flat = target.reshape(len(target), -1).astype(np.float64)
    flat = flat if flat.shape[1] <= _SCALED else flat.reshape(-1, 1)
    return {"target_scale": (tuple(flat.mean(0).tolist()), tuple(flat.std(0).tolist()))}


def _is_binary(x: np.ndarray) -> bool | None:
    """Whether bytes are 0 and 1 or 0 and 255 alone; None of other numbers."""
    if x.dtype != np.uint8:
        return None
    top = x.max(initial=0)
    parts = (x[i : i + 1000] for i in range(0, len(x), 1000))  # grey images show in the first
    return bool(top in (0, 1, 255)) and all(((part == 0) | (part == top)).all() for part in parts)


def _check_below(x: np.ndarray, limit: int, path: str, rule: str) -> None:
    if not np.issubdtype(x.dtype, np.integer):
        raise DataError(f"{path} must be integers, got {x.dtype}")
    if x.size and (x.min() < 0 or x.max() >= limit):
        raise DataError(f"{rule}, got {path} from {x.min()} to {x.max()}")


def _image_bytes(images: np.ndarray) -> np.ndarray:
    """Images in any of the forms that `from_arrays` takes as uint8 [N, H, W, C]."""
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise DataError(f"images must have shape [N, H, W] or [N, H, W, C] with no size 0, got {list(images.shape)}")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise DataError(f"images must have their channels last, [N, H, W, C], and {list(images.shape)} looks like "
                        "[N, C, H, W]; transpose them with np.moveaxis(images, 1, -1)")
    images = images if images.ndim == 4 else images[..., None]
    if images.dtype == bool:
        return images * np.uint8(255)
    if np.issubdtype(images.dtype, np.floating):
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):  # false of NaN too
            raise DataError(f"images of {images.dtype} must lie in [0, 1], got values from {low} to {high}; divide them by "
                            "their range, or make them uint8 (0 to 255)")
        return np.rint(images * images.dtype.type(255)).astype(np.uint8)
    if images.dtype != np.uint8:
        raise DataError(f"images must be uint8 (0 to 255) or floats in [0, 1], got {images.dtype}; scale and round them first")
    return images


def _canonical(x: np.ndarray, path: str) -> np.ndarray:
    """`x` in the dtype that it has on a device: 64 bits become 32."""
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path} must hold numbers, got {x.dtype}")
    if x.dtype.itemsize <= 4 and x.dtype.isnative:
        return x
    dtype = np.dtype(f"{x.dtype.kind}{min(x.dtype.itemsize, 4)}")
    if dtype.kind in "iu" and x.size and (x.min() < np.iinfo(dtype).min or x.max() > np.iinfo(dtype).max):
        raise DataError(f"{path} must lie between {np.iinfo(dtype).min} and {np.iinfo(dtype).max} ({dtype}), "
                        f"got values from {x.min()} to {x.max()}")
    return x.astype(dtype)


def _as_array(values: Any, path: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as e:
        raise DataError(f"{path} cannot be made an array: {e}") from None
