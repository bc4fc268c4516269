"""A picture of what a detector finds: boxes, classes and scores, masks and joints, drawn over held-out pictures."""

import io
from pathlib import Path

import numpy as np

from jaxdl.core import files
from jaxdl.core.task import Detections

PICTURES = 15
_COLUMNS = 5
_LEAST = 0.3  # the score of what is drawn
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")  # Okabe & Ito (2008)


def write(path: Path, images: np.ndarray, found: Detections, class_names: tuple[str, ...]) -> None:
    """Write a PNG of pictures [N, H, W, C] uint8 and of what is found in them."""
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.patches import Rectangle

    rows = -(-len(images) // _COLUMNS)
    figure = Figure(figsize=(2.4 * _COLUMNS, 2.5 * rows), dpi=110)
    figure.set_layout_engine("constrained")
    for n, axes in enumerate(figure.subplots(rows, _COLUMNS, squeeze=False).flat):
        axes.axis("off")
        if n >= len(images):
            continue
        axes.imshow(images[n] if images.shape[-1] == 3 else images[n, ..., 0], cmap="gray", vmin=0, vmax=255,
                    extent=(0, images.shape[2], images.shape[1], 0))
        for d in np.flatnonzero((found.labels[n] > 0) & (found.scores[n] >= _LEAST)):
            label, (x0, y0, x1, y1) = int(found.labels[n, d]), found.boxes[n, d].tolist()
            colour = _COLOURS[label % len(_COLOURS)]
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.4))
            axes.text(x0, y0 - 0.6, f"{class_names[label][:10]} {found.scores[n, d]:.2f}", color=colour, fontsize=7,
                      va="bottom")
            if found.masks is not None:
                axes.imshow(_veil(found.masks[n, d], colour), extent=(0, images.shape[2], images.shape[1], 0))
            if found.joints is not None:
                sure = found.joints[n, d, :, 2] >= _LEAST
                axes.plot(*found.joints[n, d, sure, :2].T, ".", color=colour, markersize=4)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    files.write_bytes(path, buffer.getvalue())


def _veil(mask: np.ndarray, colour: str) -> np.ndarray:
    """A mask [H, W] as a picture that lets one see through, [H, W, 4]."""
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.concatenate([np.broadcast_to(rgb, (*mask.shape, 3)), 0.45 * mask[..., None]], -1)
