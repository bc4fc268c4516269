"""A picture of what a detector finds: boxes, classes and scores, masks and joints, drawn over held-out pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.core import files
from jaxdl.core.task import Detections
from jaxdl.supervised import report, vision_report

PICTURES = 15
_COLUMNS = 5
_LEAST = 0.3  # the score of what is drawn


def write(path: Path, images: np.ndarray, found: Detections, class_names: tuple[str, ...], jointed: np.ndarray) -> None:
    """Write a PNG of pictures [N, H, W, C] uint8 and of what is found in them; `jointed` are the classes that have joints."""
    rows, shades = -(-len(images) // _COLUMNS), vision_report.colours(len(class_names)) / 255
    figure = report.blank((2.4 * _COLUMNS, 2.5 * rows))
    for n, axes in enumerate(figure.subplots(rows, _COLUMNS, squeeze=False).flat):
        axes.axis("off")
        if n >= len(images):
            continue
        axes.imshow(report.as_picture(images[n]), cmap="gray", vmin=0, vmax=255)
        for d in np.flatnonzero((found.labels[n] > 0) & (found.scores[n] >= _LEAST)):
            label, box = int(found.labels[n, d]), found.boxes[n, d]
            vision_report.draw_box(axes, box, shades[label])
            axes.text(box[0], box[1] - 1, f"{class_names[label][:10]} {found.scores[n, d]:.2f}", color=shades[label],
                      fontsize=7, va="bottom")
            if found.masks is not None:
                _draw_mask(axes, found.masks[n, d], shades[label])
            if found.joints is not None and label in jointed:
                sure = found.joints[n, d, :, 2] >= _LEAST
                axes.plot(*found.joints[n, d, sure, :2].T - 0.5, ".", color="white", markersize=3)
    files.write_bytes(path, report.png(figure))


def _draw_mask(axes: Any, mask: np.ndarray, colour: np.ndarray) -> None:
    """A mask [H, W] that lets one see through."""
    axes.imshow(np.concatenate([np.broadcast_to(colour, (*mask.shape, 3)), 0.45 * mask[..., None]], -1))
