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
_COLUMNS = 6
_FPS = 1.25


class Shown(NamedTuple):
    """Images and how they were read."""

    images: Any  # [N, H, W, C] in [0, 1]
    places: Any  # [N, T, 2]
    probabilities: Any  # [N, T, Y]: what it says after each glimpse


def draw(shown: Shown, test: Dataset, size: int, num_scales: int, path: Path) -> None:
    """Images with the path of their glimpses, from light to dark, the finest scale of each as a frame."""
    rows = -(-len(shown.images) // _COLUMNS)
    figure = report.blank((1.5 * _COLUMNS, 1.7 * rows + 0.4))
    said = shown.probabilities[:, -1].argmax(-1)
    wrong = said != test.labels[: len(said)]
    figure.suptitle(f"{test.name}: {shown.places.shape[1]} glimpses of {size}x{size}, {_scales(num_scales)}, light to dark; "
                    f"{wrong.sum()} of {len(said)} wrong", fontsize=10)
    for i, axes in enumerate(figure.subplots(rows, _COLUMNS, squeeze=False).flat):
        axes.axis("off")
        if i < len(said):
            _show(axes, shown.images[i], shown.places[i], size, 1)
            axes.set_title(_name(test, said[i]) + (f", is {_name(test, test.labels[i])}" if wrong[i] else ""), fontsize=8, pad=2,
                           color="#D55E00" if wrong[i] else "black")
    files.write_bytes(path, report.png(figure))


def film(shown: Shown, test: Dataset, size: int, num_scales: int, path: Path) -> None:
    """A GIF with a picture a glimpse: where it is on a few images, what is seen there, and what is said after it."""
    seen = np.asarray(glimpses(shown.images, shown.places, size, num_scales))  # [N, T, S, G, G, C]
    frames = [_frame(shown, seen, test, t) for t in range(shown.places.shape[1])]
    files.write_bytes(path, pictures.gif([*frames, frames[-1], frames[-1]], _FPS, 700))


def _frame(shown: Shown, seen: np.ndarray, test: Dataset, t: int) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import

    num, size = len(shown.images), seen.shape[3]
    figure = report.blank((1.5 * num, 4.4))
    figure.suptitle(f"glimpse {t + 1} of {shown.places.shape[1]}: where it is, what is seen, what is said", fontsize=9)
    for i, (above, middle, below) in enumerate(figure.subplots(3, num, squeeze=False).T):
        _show(above, shown.images[i], shown.places[i, : t + 1], size, seen.shape[2])
        middle.imshow(_picture(np.concatenate(list(np.pad(seen[i, t], ((0, 0), (0, 0), (0, 1), (0, 0)), constant_values=1.0)), 1)
                               [:, :-1]), cmap="gray", vmin=0, vmax=1)
        p = shown.probabilities[i, t]
        most = np.argsort(-p, kind="stable")[:3]
        below.barh(range(len(most)), p[most], color=["#009E73" if c == test.labels[i] else "#999999" for c in most])
        below.set_yticks(range(len(most)), [_name(test, c) for c in most], fontsize=7)
        below.set_xlim(0, 1)
        below.set_xticks([])
        below.invert_yaxis()
        for axes in (above, middle):
            axes.axis("off")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _show(axes: Any, image: np.ndarray, places: np.ndarray, size: int, num_scales: int) -> None:
    """An image with the way to the last of some places [t, 2]: their frames at the finest scale, and all scales of the last."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    axes.imshow(_picture(image), cmap="gray", vmin=0, vmax=1)
    at = (places + 1) * np.array(image.shape[:2]) / 2 - 0.5
    shades = colormaps["YlOrRd"](np.linspace(0.25, 0.9, len(at)))
    for (y, x), shade in zip(at, shades, strict=True):
        axes.add_patch(Rectangle((x - size / 2, y - size / 2), size, size, fill=False, edgecolor=shade, linewidth=0.9))
    for side in size * 2 ** np.arange(1, num_scales):
        y, x = at[-1] - side / 2
        axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=shades[-1], linewidth=0.7, linestyle=":"))
    axes.plot(at[:, 1], at[:, 0], color="#56B4E9", linewidth=0.8)
    axes.scatter(at[:, 1], at[:, 0], color=shades, s=7, zorder=3)
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)


def _picture(image: np.ndarray) -> np.ndarray:
    return image[..., 0] if image.shape[-1] == 1 else np.clip(image[..., :3], 0, 1)


def _name(test: Dataset, index: int) -> str:
    return report.class_name(test.spec, index)[:10]


def _scales(num: int) -> str:
    return "one scale" if num == 1 else f"{num} scales"
