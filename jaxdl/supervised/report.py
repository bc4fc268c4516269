"""Pictures and tables of what a trained classifier or regressor does on held-out examples.

Shapes: `N` examples, `Y` classes.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.core import files
from jaxdl.core.types import DataSpec, PyTree
from jaxdl.data.dataset import Dataset, pick
from jaxdl.metrics import classification

_MANY = 20  # classes: of more, the confusion matrix has no numbers
_MISTAKES = (4, 8)  # rows and columns
_WORST = 3  # classes that a sentence names


def class_name(spec: DataSpec, index: int) -> str:
    """What a class is called."""
    return spec.class_names[index] if spec.class_names else str(index)


def class_words(spec: DataSpec, classes: Sequence[int]) -> str:
    """Some classes in a sentence: 'class 3 (cat)', 'the classes 3, 5, 7 and 12 more'."""
    named = [f"{c} ({spec.class_names[c]})" if spec.class_names else str(c) for c in classes[:_WORST]]
    more = f" and {len(classes) - _WORST} more" if len(classes) > _WORST else ""
    return f"class {named[0]}" if len(classes) == 1 else f"the classes {', '.join(named)}{more}"


def pictures(config: Any, splits: Mapping[str, Dataset], score: Callable[..., np.ndarray], of_numbers: bool = False
             ) -> dict[str, Callable[[PyTree, int, Path], None]]:
    """File name -> (params, seed, path): write it.

    Args:
        config: of the learner; pictures are of its test split.
        splits: of the dataset.
        score: `learner.Scorer`: probabilities or margins of classes, or predicted numbers.
        of_numbers: it is a regressor.
    """
    seen: list[Any] = [None, None]

    def scores(params: PyTree) -> np.ndarray:
        """Of the test split; the same parameters are asked for by each picture in turn."""
        if seen[0] is not params:
            test = splits["test"]
            seen[:] = params, score(params, pick(test.arrays, test.spec.input))
        return seen[1]

    def drawn(draw: Callable[[np.ndarray, Dataset], bytes]) -> Callable[[PyTree, int, Path], None]:
        return lambda params, seed, path: files.write_bytes(path, draw(scores(params), splits["test"]))

    if of_numbers:
        return {"predictions.png": drawn(draw_predictions)}
    found = {"confusion.png": drawn(draw_confusion), "classes.csv": drawn(class_table), "mistakes.png": drawn(draw_mistakes)}
    return found if config.loss == "hinge" else found | {"reliability.png": drawn(draw_reliability)}


def class_table(scores: np.ndarray, test: Dataset) -> bytes:
    """A row a class: precision, recall, F1 and examples, as CSV; a ratio with nothing below it is empty."""
    rows = classification.per_class(classification.confusion(scores.argmax(-1), test.target, scores.shape[1]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", *classification.ClassRow._fields])
    for c, row in enumerate(rows):
        writer.writerow([class_name(test.spec, c), *("" if np.isnan(x) else f"{x:.4f}" for x in row[:3]), row.num])
    return text.getvalue().encode()


def draw_confusion(scores: np.ndarray, test: Dataset) -> bytes:
    """The confusion matrix, shares of each class; numbers of examples where there are few classes."""
    num = scores.shape[1]
    confused = classification.confusion(scores.argmax(-1), test.target, num)
    share = confused / np.maximum(confused.sum(1, keepdims=True), 1)
    figure, axes = _figure((1.8 + 0.45 * min(num, _MANY) * 1.2, 1.4 + 0.45 * min(num, _MANY)))
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if num <= _MANY:
        names = [class_name(test.spec, c)[:12] for c in range(num)]
        axes.set_xticks(range(num), names, rotation=0 if max(map(len, names)) < 3 else 60)
        axes.set_yticks(range(num), names)
        for (i, j), n in np.ndenumerate(confused):
            if n:
                axes.text(j, i, f"{n}", ha="center", va="center", fontsize=8, color="white" if share[i, j] > 0.5 else "black")
    axes.set_title(f"{test.name}: {len(scores):,} test examples, {100 * np.trace(confused) / len(scores):.2f} % right")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    figure.colorbar(image, label="share of the class", fraction=0.046, pad=0.03)
    return png(figure)


def draw_reliability(scores: np.ndarray, test: Dataset) -> bytes:
    """Accuracy against confidence in bins, with the share of the examples in each (Guo et al. 2017)."""
    found = classification.calibration(scores, test.target)
    bins = len(found.num)
    centre = (np.arange(bins) + 0.5) / bins
    figure, axes = _figure((6, 5.4))
    axes.plot([0, 1], [0, 1], ":", color="black", linewidth=1.2, label="calibrated")
    there = found.num > 0
    axes.bar(centre[there], found.accuracy[there], 0.94 / bins, color="#0072B2", label="accuracy")
    axes.plot(found.confidence[there], found.accuracy[there], "o", color="#D55E00", markersize=4, label="mean confidence")
    axes.step(centre, found.num / len(scores), where="mid", color="#999999", linewidth=1.2, label="share of the examples")
    axes.set_title(f"{test.name}: expected calibration error {found.error:.4f}")
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="upper left")
    return png(_plain(figure, axes))


def draw_mistakes(scores: np.ndarray, test: Dataset) -> bytes:
    """The test images that are wrong by most: those whose own class got the least beside the one that was said."""
    rows, columns = _MISTAKES
    said, labels = scores.argmax(-1), test.target
    margin = scores[np.arange(len(labels)), said] - scores[np.arange(len(labels)), labels]
    wrong = np.argsort(-margin, kind="stable")[: rows * columns]
    wrong = wrong[said[wrong] != labels[wrong]]
    figure = blank((columns * 1.25, rows * 1.55 + 0.3))
    figure.suptitle(f"{test.name}: the {len(wrong)} worst of {(said != labels).sum():,} mistakes among {len(labels):,} "
                    "examples", fontsize=10)
    pictured = len(test.spec.shape) == 3
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if i >= len(wrong):
            continue
        at = wrong[i]
        if pictured:
            axes.imshow(as_picture(pick(test.arrays, test.spec.input)[at]), cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"{class_name(test.spec, said[at])[:10]}, is {class_name(test.spec, labels[at])[:10]}", fontsize=7,
                       pad=2)
    return png(figure)


def draw_predictions(predicted: np.ndarray, test: Dataset) -> bytes:
    """Predictions against targets, the numbers of a target in colours of their own."""
    targets = test.target.reshape(len(predicted), -1)
    predicted = predicted.reshape(len(predicted), -1)
    figure, axes = _figure((6, 5.6))
    low, high = min(targets.min(), predicted.min()), max(targets.max(), predicted.max())
    axes.plot([low, high], [low, high], ":", color="black", linewidth=1.2)
    for k in range(min(targets.shape[1], 10)):
        axes.plot(targets[:, k], predicted[:, k], ".", markersize=4, alpha=0.6, label=f"number {k}")
    if targets.shape[1] > 1:
        axes.legend(frameon=False)
    axes.set_title(f"{test.name}: R2 {classification.r2(predicted, targets):.4f} of {len(targets):,} test examples")
    axes.set_xlabel("target")
    axes.set_ylabel("prediction")
    return png(_plain(figure, axes))


def some(test: Dataset, num: int, seed: int) -> np.ndarray:
    """Which examples are shown, at most `num` of them, drawn by a seed."""
    return np.random.default_rng(seed).permutation(test.spec.num_examples)[:num]


def as_picture(image: np.ndarray) -> np.ndarray:
    """A picture [H, W, C] of bytes or of numbers in [0, 1] as matplotlib draws it."""
    image = image if image.dtype == np.uint8 else np.clip(255 * image, 0, 255).astype(np.uint8)
    return image if image.shape[-1] == 3 else image[..., 0]


def blank(size: tuple[float, float]) -> Any:
    """A figure without axes; its size in inches."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=size, dpi=110)
    figure.set_layout_engine("constrained")
    return figure


def _figure(size: tuple[float, float]) -> tuple[Any, Any]:
    figure = blank(size)
    return figure, figure.add_subplot()


def _plain(figure: Any, axes: Any) -> Any:
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def png(figure: Any) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
