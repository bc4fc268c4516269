"""Pictures of what learners see in pictures: masks, boxes and joints over images.

Shapes: `N` pictures, `H W C` a picture.
"""

import colorsys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.core import files
from jaxdl.core.types import PyTree
from jaxdl.data.dataset import Dataset
from jaxdl.data.scene_drawing import JOINTS, LIMBS
from jaxdl.supervised import report

_PICTURES = 8  # shown side by side


def colours(num: int) -> np.ndarray:
    """Colours of classes, uint8 [num, 3]; the first is black."""
    hues = (np.arange(num - 1) * 0.618) % 1  # neighbours far apart
    bright = [colorsys.hsv_to_rgb(h, 0.75, 1.0 - 0.3 * (i % 2)) for i, h in enumerate(hues)]
    return np.rint(255 * np.array([(0, 0, 0), *bright])).astype(np.uint8)


def masks_picture(splits: Mapping[str, Dataset], predicted: Callable[[PyTree, np.ndarray], np.ndarray]
                  ) -> Callable[[PyTree, int, Path], None]:
    """(params, seed, path): write test pictures, their maps of classes and the predicted ones, and what differs."""
    def draw(params: PyTree, seed: int, path: Path) -> None:
        test = splits["test"]
        at = report.some(test, _PICTURES, seed)
        images, truth = test.arrays.images[at], test.arrays.semantic[at]
        said = predicted(params, images)
        shades = colours(len(test.spec.class_names))
        rows = [("picture", [report.as_picture(x) for x in images]), ("truth", shades[truth]), ("predicted", shades[said]),
                ("wrong", np.where((said != truth)[..., None], shades[said], np.uint8(70)))]
        figure = report.blank((1.4 * len(at), 1.4 * len(rows) + 0.2))
        for row, axes in zip(rows, figure.subplots(len(rows), len(at), squeeze=False), strict=True):
            for i, one in enumerate(axes):
                one.imshow(row[1][i], cmap="gray", vmin=0, vmax=255)
                one.set_xticks([])
                one.set_yticks([])
            axes[0].set_ylabel(row[0], fontsize=9)
        files.write_bytes(path, report.png(figure))

    return draw


def places_picture(splits: Mapping[str, Dataset], found: Callable[[PyTree, np.ndarray], Any]
                   ) -> Callable[[PyTree, int, Path], None]:
    """(params, seed, path): write test pictures with the boxes or joints that are found (orange), true boxes white."""
    def draw(params: PyTree, seed: int, path: Path) -> None:
        test = splits["test"]
        at = report.some(test, 2 * _PICTURES, seed)
        of, names = test.rows(at), test.spec.class_names
        logits, places = found(params, of.images)
        figure = report.blank((1.5 * _PICTURES, 2 * 1.65))
        for i, axes in enumerate(figure.subplots(2, _PICTURES, squeeze=False).flat):
            axes.axis("off")
            if i >= len(at):
                continue
            axes.imshow(report.as_picture(of.images[i]), cmap="gray", vmin=0, vmax=255)
            if logits is None:
                draw_joints(axes, places[i])
                continue
            for label, box in zip(of.labels[i], of.boxes[i], strict=True):
                if label:
                    draw_box(axes, box, "white")
            draw_box(axes, places[i].ravel(), "#E69F00")
            axes.set_title(names[logits[i].argmax()][:14], fontsize=8, pad=2)
        files.write_bytes(path, report.png(figure))

    return draw


def draw_box(axes: Any, box: np.ndarray, colour: str) -> None:
    """A box x0 y0 x1 y1 on the axes of a picture, whose pixels have whole numbers as their centres."""
    x0, y0, x1, y1 = box - 0.5
    axes.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, linewidth=1.2)


def draw_joints(axes: Any, joints: np.ndarray) -> None:
    """Joints [J, 2] as points, and the limbs between them where they are those of scenes."""
    x, y = joints.T - 0.5
    if len(joints) == len(JOINTS):
        for a, b in LIMBS:
            axes.plot(x[[a, b]], y[[a, b]], color="#E69F00", linewidth=1.2)
    axes.plot(x, y, ".", color="#56B4E9", markersize=4)
