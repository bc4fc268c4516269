"""Generated images judged without anyone's network: in-domain features of a classifier trained here on the same data.

The classifier is trained once for each dataset, with a fixed seed, and kept in the user's cache under a digest of the data
and of its settings; its accuracy and a digest of its weights go with every figure. Its figures are those of this dataset's own
features: they are never to be compared with what an Inception network gives. A second classifier of another kind
and seed judges too: a model that was tuned to please the first has not seen it.

What a figure can be at best is known: `floor` is the same figure of as many training images. All are against the test images.

Shapes: `N` images, `H W C` an image, `F` features.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import data
from jaxdl.core import files, stdio
from jaxdl.core.config import to_dict
from jaxdl.core.errors import CheckpointError, UserError
from jaxdl.metrics import sample_quality
from jaxdl.runtime import checkpoint, fit
from jaxdl.runtime.dataset_task import in_blocks
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import classifier

JUDGES = {  # the first is the one whose figures have plain names
    "conv": (classifier.Config(total_steps=3600), 0),
    "mlp": (classifier.Config(total_steps=3600, network="mlp", hidden_sizes=(256, 128)), 1),
}
FIGURES = ("classifier_accuracy", "fid", *(f"fid_{name}" for name in JUDGES), "kid", "precision", "recall", "density",
           "coverage", "histogram_kl")  # what `figures` reports as fractions and distances; `_floor` is of training images
_BLOCK = 1000  # images at a time


class Judge(NamedTuple):
    """A trained classifier."""

    features: Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, C] -> [N, F]
    classes: Callable[[np.ndarray], np.ndarray]  # uint8 [N, H, W, C] -> int [N]
    accuracy: float  # on the test images
    sha256: str  # of its weights


def judge(name: str, train_data: data.Dataset, test: data.Dataset, folder: Path | None = None) -> Judge:
    """The judge called `name` of a dataset, trained where it is not in the cache yet.

    Args:
        folder: of the cache; the user's if not given. A classifier that cannot be kept there is said, and trained anew.

    Raises:
        UserError: the dataset has no labels.
    """
    config, seed = JUDGES[name]
    spec = train_data.spec
    if spec.num_classes is None:
        raise UserError(f"features come from a classifier, and the dataset {spec.name} has no labels to train one")
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
        params = jax.device_get(result.params)
        try:
            if folder is None:
                raise CheckpointError("the user's cache folder cannot be written")
            checkpoint.save(folder, result.step, params, meta=meta, keep=1)
        except CheckpointError as e:
            stdio.say(f"jaxdl: the {name} classifier is not kept: {e}")
    logits, features = jax.jit(model.logits), jax.jit(model.features)

    def classes(images: np.ndarray) -> np.ndarray:
        return in_blocks(lambda block: logits(params, block).argmax(-1), _BLOCK, images)

    accuracy = float((classes(test.images) == test.labels).mean())
    weights = b"".join(np.ascontiguousarray(x).tobytes() for x in jax.tree.leaves(params))
    return Judge(lambda images: in_blocks(lambda block: features(params, block), _BLOCK, images), classes, accuracy,
                 _sha256(weights))


def figures(images: np.ndarray, train_data: data.Dataset, test: data.Dataset, judges: dict[str, Judge]) -> dict[str, Any]:
    """How like the test images N generated ones are, and how like them as many training images are.

    Args:
        images: uint8 [N, H, W, C], N at most the number of test images.
        judges: by name; the first gives all figures, the others a Frechet distance.

    Returns:
        num, classifier_accuracy, classifier_sha256, and of the images, with `_floor` of training images: fid, kid, precision,
        recall, density, coverage, modes, histogram_kl; of the other judges fid_NAME and its floor.
    """
    num, classes = len(images), train_data.spec.num_classes
    real, floor = test.images[:num], train_data.images[:num]
    (first, *others) = judges
    found: dict[str, Any] = {"num": num, "features": f"in-domain, classifier {first}",
                             "classifier_accuracy": judges[first].accuracy, "classifier_sha256": judges[first].sha256}
    for name, judge in judges.items():
        reference = judge.features(real)
        for end, candidates in (("", images), ("_floor", floor)):
            features = judge.features(candidates)
            if name in others:
                found[f"fid_{name}{end}"] = sample_quality.frechet_distance(features, reference)
                continue
            near = sample_quality.precision_recall_density_coverage(reference, features)
            labels = judge.classes(candidates)
            found |= {f"{figure}{end}": value for figure, value in {
                "fid": sample_quality.frechet_distance(features, reference),
                "kid": sample_quality.kernel_distance(features, reference),
                **near._asdict(), "modes": sample_quality.mode_count(labels, test.labels, classes),
                "histogram_kl": sample_quality.histogram_kl(labels, test.labels, classes)}.items()}
    return found


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] as the uint8 images that a file would hold."""
    return np.round(255 * np.clip(images, 0, 1)).astype(np.uint8)


def _cached(folder: Path, meta: dict[str, Any], like: Any) -> Any:
    """The weights that were kept, None where there are none or they are damaged."""
    try:
        return checkpoint.restore(folder, like, meta=meta)[1] if checkpoint.steps(folder) else None
    except CheckpointError:
        return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
