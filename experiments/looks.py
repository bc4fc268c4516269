"""Pictures of what is inside of a network: rows of small pictures with names, and pictures laid out on a plane.

Shapes: `N` pictures, `H W C` a picture, `R P` rows of pictures.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from jaxdl.analysis import layers, units
from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array
from jaxdl.data import pictures
from jaxdl.experiments import looking
from jaxdl.supervised import report

_COMPONENTS = 50  # that t-SNE begins with
_SIDE = 1100  # pixels of a plane
_FRAME = 2  # pixels around a picture in colour


def map_layers(seen: looking.Seen) -> dict[str, tuple[int, ...]]:
    """The layers that give maps, and the shape [h, w, K] of these."""
    found = layers.of(seen.f, seen.x[:1])
    return {name: out.shape[1:] for name, out in found.items() if len(out.shape) == 4 and out.shape[1] * out.shape[2] > 1}


def map_layer(seen: looking.Seen, layer: str | None, instead: str, share: float = 0.5) -> str:
    """A layer with maps: the one that is named, or the last whose maps have this share of the picture's rows or more.

    Args:
        instead: what does without maps, for the sentence of the error.

    Raises:
        UserError: there is no such layer, or it has no maps.
    """
    found = map_layers(seen)
    if not found:
        raise UserError(f"this network of {seen.algo} has no convolutions, and so no layer with maps; {instead}")
    if layer is None:
        large = [name for name, (height, *_) in found.items() if height >= share * seen.x.shape[1]]
        return large[-1] if large else next(iter(found))
    layers.check(layer, layers.of(seen.f, seen.x[:1]))
    if layer not in found:
        raise UserError(f"{layer} has no maps; layers with maps are {', '.join(found)}, and without any: {instead}")
    return layer


def feature_layer(seen: looking.Seen, layer: str | None) -> str:
    """The layer that is named, or the last one before the outputs.

    Raises:
        UserError: there is no such layer.
    """
    found = list(layers.of(seen.f, seen.x[:1]))
    if layer is None:
        return found[max(len(found) - 2, 0)]
    layers.check(layer, found)
    return layer


def laid_out(features: Array, by: str, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    """Places [N, 2] of features [N, F], by "pca" or "tsne" (van der Maaten & Hinton 2008), and how good they are."""
    found, share = units.pca(features, 2 if by == "pca" else _COMPONENTS)
    if by == "pca":
        return np.asarray(found), {"variance": float(share[:2].sum())}
    from sklearn.manifold import TSNE  # slow to import

    tsne = TSNE(init="pca", perplexity=min(30.0, (len(features) - 1) / 3), random_state=seed)
    return tsne.fit_transform(np.asarray(found)), {"divergence": float(tsne.kl_divergence_)}


def check_unit(unit: int, layer: str, num: int) -> None:
    """Refuse a unit that a layer has not.

    Raises:
        UserError: says how many there are.
    """
    if not 0 <= unit < num:
        raise UserError(f"unit must be between 0 and {num - 1}, of which {layer} has {num}, got {unit}")


def as_colours(values: np.ndarray) -> np.ndarray:
    """Signed numbers [..., H, W] as colours [..., H, W, 3]: red above zero, blue below, white zero; each map by its largest."""
    from matplotlib import colormaps  # slow to import

    most = np.maximum(np.abs(values).max((-2, -1), keepdims=True), 1e-12)
    return colormaps["RdBu_r"](0.5 + values / most / 2)[..., :3].astype(np.float32)


def draw_rows(path: Path, rows: np.ndarray, names: Sequence[str], titles: Sequence[str] = ()) -> None:
    """Write rows of pictures [R, P, H, W, C] in [0, 1], each row with its name, columns with titles if there are any."""
    num, across, height, width, channels = rows.shape
    mosaic = pictures.table(np.clip(rows, 0, 1).reshape(-1, height, width, channels), across)
    inches = mosaic.shape[1] / 90, mosaic.shape[0] / 90
    figure = report.blank((inches[0] + 0.2 + 0.075 * max(map(len, names), default=0), inches[1] + 0.3 * bool(titles)))
    axes = figure.add_subplot()
    axes.imshow(report.as_picture(mosaic), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_yticks((np.arange(num) + 0.5) * mosaic.shape[0] / num, names, fontsize=8)
    axes.set_xticks((np.arange(len(titles)) + 0.5) * mosaic.shape[1] / max(len(titles), 1), titles, fontsize=8)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    for side in axes.spines.values():
        side.set_visible(False)
    files.write_bytes(path, report.png(figure))


def on_grid(places: np.ndarray) -> np.ndarray:
    """Places [N, 2] moved onto a grid about square, one a cell, by the least sum of squares; int [N, 2], row and column."""
    across = int(np.ceil(len(places) ** 0.5))
    down = -(-len(places) // across)
    unit = (places - places.min(0)) / np.maximum(np.ptp(places, 0), 1e-12)
    cells = np.stack(np.meshgrid(np.arange(down), np.arange(across), indexing="ij"), -1).reshape(-1, 2)
    centres = (cells[:, ::-1] + 0.5) / (across, down)  # x and y
    chosen = linear_sum_assignment(((unit[:, None] - centres) ** 2).sum(-1))[1]
    return cells[chosen]


def draw_plane(path: Path, places: np.ndarray, images: np.ndarray, labels: np.ndarray, grid: bool) -> None:
    """Write pictures [N, H, W, C] in [0, 1] at their places [N, 2], or on a grid near them, their class as a colour.

    Grey pictures are ink of that colour on white, and where they overlap both are seen; others have a frame.
    """
    from matplotlib import colormaps  # slow to import

    num, height, width, channels = images.shape
    colours = np.asarray(colormaps["tab10"].colors)[labels % 10][:, None, None]
    if channels == 1:
        shown = 1 - images * (1 - colours)
    else:
        shown = np.broadcast_to(colours, (num, height + 2 * _FRAME, width + 2 * _FRAME, 3)).copy()
        shown[:, _FRAME:-_FRAME, _FRAME:-_FRAME] = images
    high, wide = shown.shape[1:3]
    if grid:
        at = on_grid(places) * (high, wide)
        size = (at[:, 0].max() + high, at[:, 1].max() + wide)
    else:
        unit = (places - places.min(0)) / np.maximum(np.ptp(places, 0), 1e-12)
        at = np.round(unit[:, ::-1] * (_SIDE - high, _SIDE - wide)).astype(int)
        size = (_SIDE, _SIDE)
    canvas = np.ones((*size, 3), np.float32)
    for (top, left), picture in zip(at, shown, strict=True):
        part = canvas[top : top + high, left : left + wide]
        part[:] = np.minimum(part, picture) if channels == 1 else picture
    pictures.save_png(path, np.round(255 * canvas).astype(np.uint8))
