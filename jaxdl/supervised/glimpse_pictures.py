"""Pictures of how images are read by glimpses: their paths over images, and a film of what is seen and said.

Shapes: `N` images, `H W C` an image, `T` glimpses, `S` scales, `G` cells of a glimpse, `Y` classes.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdl.core import files
from jaxdl.data import pictures
from jaxdl.data.dataset import Dataset
from jaxdl.ops.glimpses import glimpses
from jaxdl.supervised import report

MANY, FEW = 24, 5  # images of the picture, and of the film
_COLUMNS = 8
_SECONDS = 0.8  # a glimpse
_INCHES = 1.35  # an image
_GAP = 0.28  # between rows, in widths of an image
_RIGHT, _WRONG = "black", "#D55E00"


class Shown(NamedTuple):
    """Images and how they were read."""

    images: Any  # [N, H, W, C] in [0, 1]
    places: Any  # [N, T, 2]
    probabilities: Any  # [N, T, Y]: what it says after each glimpse


def draw(shown: Shown, test: Dataset, size: int, num_scales: int, path: Path) -> None:
    """Images with the path of their glimpses, from light to dark, the finest scale of each as a frame."""
    num = len(shown.images)
    figure, axes = _sheet(min(num, _COLUMNS), -(-num // _COLUMNS), shown.images.shape[1:3])
    said = shown.probabilities[:, -1].argmax(-1)
    wrong = said != test.labels[:num]
    scales = "" if num_scales == 1 else f" at {num_scales} scales, of which the finest is framed"
    axes.set_title(f"{test.name}: {shown.places.shape[1]} glimpses of {size}x{size}{scales}, light to dark; {wrong.sum()} of "
                   f"{num} wrong", fontsize=9)
    for i in range(num):
        column, row = i % _COLUMNS, i // _COLUMNS
        words = _name(test, said[i]) + (f", is {_name(test, test.labels[i])}" if wrong[i] else "")
        _place(axes, shown.images[i], column, row, words, _WRONG if wrong[i] else _RIGHT)
        _path(axes, shown.images[i].shape, shown.places[i], size, 1, column, row)
    files.write_bytes(path, report.png(figure))


def film(shown: Shown, test: Dataset, size: int, num_scales: int, path: Path) -> None:
    """A GIF with a picture a glimpse: where it is on a few images, what is seen there, and what is said after it."""
    seen = np.asarray(glimpses(shown.images, shown.places, size, num_scales))  # [N, T, S, G, G, C]
    frames = [_frame(shown, seen, test, t) for t in range(shown.places.shape[1])]
    files.write_bytes(path, pictures.gif([*frames, frames[-1]], 1 / _SECONDS, 800))


def _frame(shown: Shown, seen: np.ndarray, test: Dataset, t: int) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import

    num_scales, size = seen.shape[2:4]
    figure, axes = _sheet(len(shown.images), 1 + num_scales, shown.images.shape[1:3])
    axes.set_title(f"glimpse {t + 1} of {shown.places.shape[1]}: where it is and what is said; below, what is seen", fontsize=9)
    for i, image in enumerate(shown.images):
        said = shown.probabilities[i, t].argmax()
        words = f"{_name(test, said)}, {100 * shown.probabilities[i, t, said]:.0f} %"
        _place(axes, image, i, 0, words, _RIGHT if said == test.labels[i] else _WRONG)
        _path(axes, image.shape, shown.places[i, : t + 1], size, num_scales, i, 0)
        for scale in range(num_scales):
            _place(axes, seen[i, t, scale], i, 1 + scale, "" if num_scales == 1 else f"x {2**scale}", "#666666")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _sheet(columns: int, rows: int, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Axes on which the image of a column and a row is one wide; one pair of axes is drawn ten times as fast as dozens."""
    high = shape[0] / shape[1] + _GAP
    figure = report.blank((_INCHES * columns, _INCHES * rows * high + 0.3))
    axes = figure.add_subplot()
    axes.set(xlim=(-0.05, columns * 1.08), ylim=(rows * high - _GAP + 0.02, -_GAP), aspect="equal", autoscale_on=False)
    axes.axis("off")
    axes.high = high
    return figure, axes


def _place(axes: Any, image: np.ndarray, column: int, row: int, words: str, color: str) -> None:
    left, top = 1.08 * column, axes.high * row
    picture = image[..., 0] if image.shape[-1] == 1 else np.clip(image[..., :3], 0, 1)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=(left, left + 1, top + axes.high - _GAP, top), aspect="equal")
    axes.text(left + 0.5, top - 0.04, words, fontsize=7, ha="center", va="bottom", color=color)


def _path(axes: Any, shape: tuple[int, ...], places: np.ndarray, size: int, num_scales: int, column: int, row: int) -> None:
    """The way to the last of some places [t, 2] over an image: their frames at the finest scale, and all scales of the last."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    corner, width = np.array([axes.high * row, 1.08 * column]), shape[1]
    at = corner + (places + 1) * np.array(shape[:2]) / (2 * width)
    shades = colormaps["YlOrRd"](np.linspace(0.25, 0.9, len(at)))
    inside = Rectangle(corner[::-1], 1, axes.high - _GAP, transform=axes.transData)
    frames = [(place, size / width, shade, "-") for place, shade in zip(at, shades, strict=True)]
    frames += [(at[-1], size * 2**scale / width, shades[-1], ":") for scale in range(1, num_scales)]
    for (y, x), side, shade, style in frames:
        frame = Rectangle((x - side / 2, y - side / 2), side, side, fill=False, edgecolor=shade, linewidth=0.9, linestyle=style)
        axes.add_patch(frame)
        frame.set_clip_path(inside)
    (line,) = axes.plot(at[:, 1], at[:, 0], color="#56B4E9", linewidth=0.8)
    dots = axes.scatter(at[:, 1], at[:, 0], color=shades, s=6, zorder=3)
    for drawn in (line, dots):
        drawn.set_clip_path(inside)


def _name(test: Dataset, index: int) -> str:
    return report.class_name(test.spec, index)[:10]
