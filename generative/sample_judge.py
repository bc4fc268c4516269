"""Generated images judged without anyone's network: in-domain features of a classifier trained here on the same data.

The classifier is trained once for each dataset, with a fixed seed, and kept in the user's cache under a digest of the data
and of its settings; its accuracy and a digest of its weights go with every figure. Its figures are those of this dataset's own
features: they are never to be compared with what an Inception network gives. A second classifier of another kind
and seed judges too: a model that was tuned to please the first has not seen it.

Figures are against the test images: all of them, or as many as there are samples. What a figure can be at best is known:
`_floor` is the same figure of as many training images, and `_floor_train` is theirs against as many other training images.
Where only some images of a split are taken, which is a draw by their bytes (`data.drawn`), and no order of a file matters.

Shapes: `N` images, `H W C` an image, `F` features.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data
from jaxdl.core import files, stdio
from jaxdl.core.config import to_dict
from jaxdl.core.errors import CheckpointError, UserError
from jaxdl.data import augment
from jaxdl.metrics import sample_quality
from jaxdl.runtime import checkpoint, fit
from jaxdl.runtime.dataset_task import in_blocks
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import classifier

MOVED = augment.Config(max_shift=2)
JUDGES = {  # the first is the one whose figures have plain names
    "conv": (classifier.Config(total_steps=3600, batch_size=100, augment=MOVED), 0),
    "mlp": (classifier.Config(total_steps=3600, batch_size=100, augment=MOVED, network="mlp", hidden_sizes=(256, 128)), 1),
}
FIGURES = ("classifier_accuracy", "fid", *(f"fid_{name}" for name in JUDGES), "kid", "precision", "recall", "density",
           "coverage", "histogram_kl")  # what `figures` reports as fractions and distances
_BLOCK = 1000  # images at a time
_FEWEST = 6  # images of a split: one and its five nearest neighbours


class Judge(NamedTuple):
    """A trained classifier."""

    features: Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, C] -> [N, F]
    classes: Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, C] -> int [N]
    accuracy: float  # on the test images
    sha256: str  # of its weights


def check(splits: dict[str, data.Dataset]) -> None:
    """Refuse a dataset of which samples cannot be judged.

    Raises:
        UserError: it has no labels, one class only, or a split of fewer images than a neighbourhood has.
    """
    train = splits["train"]
    if train.target is None:
        raise UserError(f"samples are judged by the features of a classifier, and the dataset {train.name} has no labels to "
                        "train one; choose a dataset with labels")
    if len(np.unique(train.labels)) < 2:
        raise UserError(f"samples are judged by the features of a classifier, and the training images of {train.name} are of "
                        "one class, which teaches it nothing; choose a dataset with two classes or more")
    for name, split in splits.items():
        if split.spec.num_examples < _FEWEST:
            raise UserError(f"samples are judged by neighbours of images, and the {name} split of {train.name} has "
                            f"{split.spec.num_examples}; it needs {_FEWEST} or more")


def judge(name: str, train_data: data.Dataset, test: data.Dataset, folder: Path | None = None) -> Judge:
    """The judge called `name` of a dataset, trained where it is not in the cache yet, or where that cannot be used.

    Args:
        folder: of the cache; the user's if not given. A classifier that cannot be kept there is said, and trained anew.

    Raises:
        UserError: as `check`.
    """
    check({"train": train_data})
    config, seed = JUDGES[name]
    spec = train_data.spec
    config = replace(config, batch_size=min(config.batch_size, spec.num_examples))
    model = classifier.make(config, spec)
    meta = {"judge": name, "config": config, "seed": seed, "data": train_data.fingerprint()}
    digest = _sha256(json.dumps(meta | {"config": to_dict(config)}).encode())[:16]
    folder = folder or files.cache_folder()
    folder = folder and folder / "judges" / f"{name}-{digest}"
    like = jax.eval_shape(lambda: model.learner.params(model.learner.init(jax.random.key(0))))
    params = folder and _cached(folder, meta, like)
    if params is None:
        print(f"training the {name} classifier that judges images of {spec.name}, once", flush=True)
        driver = make_device_driver(lambda c: classifier.make_run(c, spec), [config], train_data.on_device(), [seed])
        result = fit.fit(driver, fit.Config(seed=seed), classifier.total_steps(config, spec))
        if result.ended == "interrupted":  # half a judge is none
            raise KeyboardInterrupt
        params = jax.device_get(result.params)
        _keep(name, folder, result.step, params, meta)
    logits, features = jax.jit(model.logits), jax.jit(model.features)
    learned = np.bincount(train_data.labels, minlength=spec.num_classes) > 0  # others it could only guess

    def classes(images: np.ndarray) -> np.ndarray:
        return in_blocks(lambda block: jnp.where(learned, logits(params, block), -jnp.inf).argmax(-1), _BLOCK, images)

    accuracy = float((classes(test.images) == test.labels).mean())
    weights = b"".join(np.ascontiguousarray(x).tobytes() for x in jax.tree.leaves(params))
    return Judge(lambda images: in_blocks(lambda block: features(params, block), _BLOCK, images), classes, accuracy,
                 _sha256(weights))


def figures(images: np.ndarray, train_data: data.Dataset, test: data.Dataset, judges: dict[str, Judge],
            at_best: dict[str, float] | None = None) -> dict[str, Any]:
    """How like the test images N generated ones are, and how like them as many training images are.

    Args:
        images: uint8 [N, H, W, C], N at most the number of test images.
        judges: by name; the first gives all figures, the others a Frechet distance.
        at_best: the floors, where they are known (or not wanted).

    Returns:
        num, classifier_accuracy, classifier_sha256, and of the images: fid, kid, precision, recall, density, coverage, modes,
        histogram_kl; of the other judges fid_NAME; and `floors`.
    """
    first = next(iter(judges))
    found = {"num": len(images), "features": f"in-domain, classifier {first}", "classifier_accuracy": judges[first].accuracy,
             "classifier_sha256": judges[first].sha256}
    return (found | _compared(images, some(test, len(images)).images, train_data, test, judges)
            | (floors(len(images), train_data, test, judges) if at_best is None else at_best))


def floors(num: int, train_data: data.Dataset, test: data.Dataset, judges: dict[str, Judge]) -> dict[str, float]:
    """The figures of `num` training images: against test images (`fid_floor`), and against as many others that were trained on
    (`fid_floor_train`), where there are as many.
    """
    drawn = some(train_data, 2 * num).images
    found = {f"{name}_floor": x for name, x in _compared(
        drawn[:num], some(test, num).images, train_data, test, judges).items()}
    if len(drawn) < 2 * num:
        return found
    among = _compared(drawn[:num], drawn[num:], train_data, test, judges)
    return found | {f"{name}_floor_train": x for name, x in among.items()}


def some(dataset: data.Dataset, num: int) -> Any:
    """`num` of its examples, or all where it has not so many: drawn by their bytes, so that no order of a file matters."""
    return dataset.rows(data.drawn(dataset, "judging")[:num])


def _compared(images: np.ndarray, real: np.ndarray, train_data: data.Dataset, test: data.Dataset, judges: dict[str, Judge]
              ) -> dict[str, float]:
    """Figures of images against real ones; of their classes against those of the whole dataset, whatever a split lacks."""
    (first, *others), count = judges, train_data.spec.num_classes
    features, reference = (judges[first].features(x) for x in (images, real))
    near = sample_quality.precision_recall_density_coverage(reference, features)
    labels, known = judges[first].classes(images), np.concatenate([train_data.labels, test.labels])
    found = {"fid": sample_quality.frechet_distance(features, reference),
             "kid": sample_quality.kernel_distance(features, reference),
             **near._asdict(), "modes": sample_quality.mode_count(labels, known, count),
             "histogram_kl": sample_quality.histogram_kl(labels, known, count)}
    return found | {f"fid_{name}": sample_quality.frechet_distance(judges[name].features(images), judges[name].features(real))
                    for name in others}


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] as the uint8 images that a file would hold."""
    return np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)


def _cached(folder: Path, meta: dict[str, Any], like: Any) -> Any:
    """The weights that were kept, None where there are none, they are damaged or cannot be read."""
    try:
        return checkpoint.restore(folder, like, meta=meta)[1] if checkpoint.steps(folder) else None
    except (CheckpointError, OSError):
        return None


def _keep(name: str, folder: Path | None, step: int, params: Any, meta: dict[str, Any]) -> None:
    try:
        if folder is None:
            raise CheckpointError("the user's cache folder cannot be written")
        checkpoint.save(folder, step, params, meta=meta, keep=1)
    except (CheckpointError, OSError) as e:
        stdio.say(f"jaxdl: the {name} classifier is not kept, and will be trained again: {e}")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
