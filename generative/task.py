"""Generative models as algorithms of the command line: held-out examples, judged samples, pictures of both.

    ALGORITHM = model_algorithm("vae", "variational autoencoder ...", Config, validate, make, make_run, total_steps,
                                score, curves, abilities)

Shapes: `N` images, `H W C` an image.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from jaxdl import data
from jaxdl.core import streams, task
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.task import Algorithm, Density, Reconstructor, Sampler
from jaxdl.core.types import DataSpec, PyTree
from jaxdl.data import pictures
from jaxdl.generative import sample_judge
from jaxdl.runtime.dataset_task import Evaluation, blocks, dataset_algorithm

_JUDGED = 10_000  # samples that are compared with test images, where there are as many of those
_AT_ONCE = 1_000  # of them drawn in one call
_CHUNK = 50  # importance samples in one pass
_DRAWN, _REBUILT = 64, 32  # images in the pictures of a finished run


@dataclass(frozen=True)
class SampleOptions(task.Options):
    """Settings of the evaluation of a model that samples."""

    renamed: ClassVar = {"features": "sample_quality"}
    sample_quality: bool = False
    """Also judge samples by the features of a classifier of the same dataset."""


@dataclass(frozen=True)
class BoundOptions(SampleOptions):
    """Settings of the evaluation of a model whose density is an integral."""

    importance_samples: int | None = None
    """Samples an image of the importance-weighted bound on log p(x), reported as nll."""

    def validate(self) -> None:
        """Refuse a number of samples that is none."""
        if self.importance_samples is not None and self.importance_samples < 1:
            raise UserError(f"importance_samples must be above 0, got {self.importance_samples}")


def model_algorithm(name: str, summary: str, config: type, validate: Callable[[Any], None],
                    make: Callable[[Any, DataSpec], Any], *rest: Any) -> Algorithm:
    """The algorithm of a generative model of images; arguments are those of `dataset_algorithm`, up to `abilities`.

    A model without `measure` is evaluated by its samples alone, which needs what the judges need (`sample_judge.check`).
    """

    def of_images(config: Any, spec: DataSpec) -> Any:
        data.require_images(spec, f"the algorithm {name}")
        return make(config, spec)

    return dataset_algorithm(name, summary, config, validate, of_images, *rest, examples="images", evaluation=_evaluation)


def _evaluation(config: Any, train: Any, splits: dict[str, data.Dataset], model: Any, can: dict[type, Any]) -> Evaluation:
    judged_alone = not hasattr(model, "measure")
    if judged_alone or Sampler not in can:
        options: task.Options = task.Options(train.seed)
    elif Density in can and not can[Density].exact:
        options = BoundOptions(train.seed)
    else:
        options = SampleOptions(train.seed)
    density = jax.jit(can[Density].log_prob, static_argnums=(3, 4)) if Density in can else None

    @functools.cache
    def judges() -> dict[str, sample_judge.Judge]:
        return {name: sample_judge.judge(name, splits["train"], splits["test"]) for name in sample_judge.JUDGES}

    @functools.cache
    def floors(num: int) -> dict[str, float]:
        return sample_judge.floors(num, splits["train"], splits["test"], judges())

    def more(params: PyTree, options: Any, held: data.Dataset) -> dict[str, Any]:
        found = {}
        if num := getattr(options, "importance_samples", None):
            found["nll"] = _nll(density, params, held, options.seed, num)
        if judged_alone or getattr(options, "sample_quality", False):
            sample_judge.check(splits)
            num = min(_JUDGED, splits["train"].spec.num_examples, held.spec.num_examples)
            labels = None if can[Sampler].num_classes is None else sample_judge.some(splits["train"], num).labels
            images = sample_judge.as_bytes(drawn(can[Sampler], params, num, options.seed, labels))
            at_best = floors(num) if held is splits["test"] else {}
            found |= sample_judge.figures(images, splits["train"], held, judges(), at_best)
        return found

    def check() -> None:
        if judged_alone:
            sample_judge.check(splits)

    return Evaluation(options, more, _pictures(can, splits), lambda found: _in_words(config.dataset, found), check)


def _nll(density: Callable, params: PyTree, held: data.Dataset, seed: int, num: int) -> float:
    """Minus the bound by `num` importance samples on log p(x), the mean over held-out images in nats."""
    total = sum(float(-density(params, batch, key, num, min(num, _CHUNK)).sum()) for key, batch in blocks(held, seed))
    return total / held.spec.num_examples


def drawn(sampler: Sampler, params: PyTree, num: int, seed: int, labels: np.ndarray | None) -> np.ndarray:
    """`num` samples [N, H, W, C] of a model, of the classes `labels` [N] where it is told any."""
    draw = jax.jit(sampler.draw, static_argnums=2)
    keys = jax.random.split(streams.key(seed, Purpose.SAMPLES), -(-num // _AT_ONCE))
    parts = [slice(i, min(i + _AT_ONCE, num)) for i in range(0, num, _AT_ONCE)]
    return np.concatenate([np.asarray(draw(params, key, part.stop - part.start, *(() if labels is None else (labels[part],))))
                           for key, part in zip(keys, parts, strict=True)])


def _pictures(can: dict[type, Any], splits: dict[str, data.Dataset]) -> dict[str, Callable[[PyTree, int, Path], None]]:
    def samples(params: PyTree, seed: int, path: Path) -> None:
        key = jax.random.split(streams.key(seed, Purpose.SAMPLES), 1)[0]
        draw = jax.jit(can[Sampler].draw, static_argnums=2)
        pictures.save_png(path, pictures.grid(np.asarray(draw(params, key, _DRAWN))))

    def reconstructions(params: PyTree, seed: int, path: Path) -> None:
        examples = splits["test"].rows(data.drawn(splits["test"], "pictures")[:_REBUILT])
        again = jax.jit(can[Reconstructor].reconstruct)(params, examples, streams.key(seed, Purpose.SAMPLES))
        pictures.save_png(path, pictures.pairs(examples.images, np.asarray(again)))

    found = {"samples.png": samples} if Sampler in can else {}
    return found | ({"reconstructions.png": reconstructions} if Reconstructor in can else {})


def _in_words(dataset: str, found: dict[str, Any]) -> str:
    words = []
    if "elbo" in found:
        nll = "".join(f", {name} {found[name]:.2f}" for name in ("iwae", "nll") if name in found)
        words.append(f"test images of {dataset}: elbo {found['elbo']:.2f} nats (reconstruction {found['reconstruction']:.2f}, "
                     f"kl {found['kl']:.2f}){nll}")
    elif "fid" not in found or "nll" in found:
        judged = () if "fid" not in found else sample_judge.FIGURES
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in found.items()
                            if isinstance(value, float) and name.partition("_floor")[0] not in judged)
        words.append(f"test images of {dataset}: {numbers}")
    if "fid" in found:
        among = f", {found['fid_floor_train']:.2f} against others of training" if "fid_floor_train" in found else ""
        words.append(
            f"in-domain features of {found['num']:,} samples (classifier of {100 * found['classifier_accuracy']:.1f} %): "
            f"fid {found['fid']:.2f} (training images {found['fid_floor']:.2f}{among}), kid {found['kid']:.4f}, precision "
            f"{found['precision']:.3f}, recall {found['recall']:.3f}, {found['modes']} modes, histogram kl "
            f"{found['histogram_kl']:.4f}")
    return "; ".join(words)
