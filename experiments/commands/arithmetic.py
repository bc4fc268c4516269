"""arithmetic RUN: differences of mean latents (ink, slant, class) added to latents"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array
from jaxdl.experiments import latents
from jaxdl.experiments.commands import common
from jaxdl.generative import sample_judge
from jaxdl.runtime.dataset_task import in_blocks

_LABELLED = 10_000  # samples from which the directions of attributes are taken
_TRIED = 1_000  # samples on which their effect is measured
_ALIKE = 1e-6  # a standard deviation that is rounding
_ATTRIBUTES = {"ink": lambda images: images.mean((1, 2, 3)), "slant": latents.slant}


@dataclass(frozen=True, kw_only=True)
class Args(latents.Args):
    """Flags of the command."""

    num: int = 8
    """Images to change, one a row."""
    scale: float = 1.0
    """How much of each difference to add."""
    classes: tuple[int, ...] | None = None
    """Classes to change into; the first five if not given."""


def run(args: Args) -> dict[str, Any]:
    """Add differences of mean latents to latents: of more and less ink, of slant, of one class and another.

    The decoder of a conditional model is told the other class instead.
    """
    common.check_between("num", args.num, 1, 100)
    space, params, opened = latents.open_latents(args)
    train, test = opened.task.splits["train"], opened.task.splits["test"]
    if test.labels is None:
        raise UserError(f"attributes are learned from labelled samples, and the dataset {test.name} has no labels")
    count = test.spec.num_classes
    targets = tuple(range(min(5, count))) if args.classes is None else args.classes
    if any(not 0 <= c < count for c in targets):
        raise UserError(f"classes must lie between 0 and {count - 1}, got {list(targets)}")
    sample_judge.check(opened.task.splits)
    z, given = latents.latents_of(space, params, train, _LABELLED, args.seed)
    decode = jax.jit(space.decode)

    def images_of(z: Array, labels: Array | None) -> np.ndarray:
        return in_blocks(lambda z, labels: decode(params, z, labels), _TRIED, z, labels)

    judge = sample_judge.judge("conv", train, test)

    def classes_of(images: np.ndarray) -> np.ndarray:
        return judge.classes(sample_judge.as_bytes(images))

    images, z = images_of(z, given), np.asarray(z)
    labels = classes_of(images)
    directions = {name: latents.direction(z, labels, measure(images)) for name, measure in _ATTRIBUTES.items()}
    means = latents.class_means(z, labels, count)
    tried = slice(0, min(_TRIED, len(z)))
    alike = [name for name, measure in _ATTRIBUTES.items() if measure(images[tried]).std() < _ALIKE]
    if alike:
        raise UserError(f"images that {args.run} decodes do not differ in {' and '.join(alike)}, so that no direction of it "
                        "can be found: the model has collapsed, or has hardly been trained")
    changed = _changed(z[tried], labels[tried], directions, means, targets, args.scale)
    told = dict.fromkeys(changed, None if given is None else given[tried])
    if given is not None:  # a class is what the decoder is told, not a difference of latents
        changed |= {f"to {c}": z[tried] for c in targets}
        told |= {f"to {c}": jnp.full(len(z[tried]), c) for c in targets}
    after = {name: images_of(jnp.asarray(new), told[name]) for name, new in changed.items()}
    effect = {name: _moved(measure, after, name) for name, measure in _ATTRIBUTES.items()}
    effect |= {f"to {c}": float((classes_of(after[f"to {c}"]) == c).mean()) for c in targets}
    rows = latents.one_of_each(labels[tried], args.num)
    _save_table(args.out, np.stack([x[rows] for x in after.values()], 1), list(after))
    print(f"{args.out}: ink moved by {effect['ink']:.1f} and slant by {effect['slant']:.1f} standard deviations between - and "
          "+; " + ", ".join(f"{100 * effect[f'to {c}']:.0f} % became {c}" for c in targets))
    return {"effect": effect, "scale": args.scale, "out": str(args.out)}


def _changed(z: np.ndarray, labels: np.ndarray, directions: dict[str, np.ndarray], means: np.ndarray, targets: Sequence[int],
             scale: float) -> dict[str, np.ndarray]:
    """Latents [N, Z] after each change, by its name."""
    found = {"as it is": z}
    for name, direction in directions.items():
        found |= {f"- {name}": z - scale * direction, f"+ {name}": z + scale * direction}
    return found | {f"to {c}": z + scale * (means[c] - means[labels]) for c in targets}


def _moved(measure: Callable[[np.ndarray], np.ndarray], after: dict[str, np.ndarray], name: str) -> float:
    """How far an attribute is moved between - and +, in its standard deviations over images."""
    difference = measure(after[f"+ {name}"]) - measure(after[f"- {name}"])
    return float(difference.mean() / measure(after["as it is"]).std())


def _save_table(path: Path, images: np.ndarray, titles: Sequence[str]) -> None:
    """Images [rows, columns, H, W, C] with a title above each column."""
    from matplotlib.figure import Figure

    rows, columns = images.shape[:2]
    figure = Figure(figsize=(0.9 * columns, 0.9 * rows + 0.3), dpi=100)
    axes: Callable[..., Any] = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for i in range(rows):
        for j in range(columns):
            axes[i, j].imshow(np.clip(images[i, j], 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
            axes[i, j].set_axis_off()
            if i == 0:
                axes[i, j].set_title(titles[j], fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    files.write_bytes(path, buffer.getvalue())
