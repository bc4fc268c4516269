"""Pictures of images: a mosaic of samples, originals above their reconstructions, PNG files and GIFs.

Shapes: `N` images, `H W C` height, width and channels (1 grey, 3 colours) of each.
"""

import io
import math
from pathlib import Path

import numpy as np

from jaxdl.core import files
from jaxdl.core.errors import UserError

_GAP = 2  # pixels between neighbours
_GREY = 96  # of the gaps: seen beside black and beside white
_SIDE = 56  # pixels: smaller images are enlarged until their longer side has as many
_COLORS = 32  # of a GIF
_LARGEST = 4096  # pixels: of a mosaic of enlarged images


def grid(images: np.ndarray) -> np.ndarray:
    """A mosaic of images, row by row, about as wide as it is high (`table` says how wide).

    Args:
        images: [N, H, W, C] uint8, or floats in [0, 1]. Small ones are enlarged by a whole factor.

    Returns:
        uint8 [H', W', C].

    Raises:
        UserError: another shape, type or range.
    """
    return _mosaic(_bytes(images)[:, None])


def table(images: np.ndarray, columns: int) -> np.ndarray:
    """As `grid`, with so many images a row."""
    return _mosaic(_bytes(images)[:, None], columns)


def pairs(originals: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """A mosaic in which each original stands above its reconstruction.

    Args:
        originals: [N, H, W, C] uint8, or floats in [0, 1].
        reconstructions: the same shape, either type.

    Returns:
        uint8 [H', W', C].

    Raises:
        UserError: another shape, type or range, or shapes that differ.
    """
    above, below = _bytes(originals), _bytes(reconstructions)
    if above.shape != below.shape:
        raise UserError(f"originals {list(above.shape)} and reconstructions {list(below.shape)} must have one shape")
    return _mosaic(np.stack([above, below], axis=1))


def save_png(path: str | Path, array: np.ndarray) -> None:
    """Write a picture, uint8 [H, W, C] with one channel or three, as a PNG file, atomically.

    Raises:
        UserError: not a .png, or it cannot be written.
    """
    from PIL import Image

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"{path} must end in .png")
    buffer = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(buffer, format="png")
    files.write_bytes(path, buffer.getvalue())


def gif(frames: list[np.ndarray], fps: float, widest: int = 300) -> bytes:
    """An endless GIF of frames uint8 [H, W, 3]; wider ones are scaled down to so many pixels."""
    from PIL import Image

    height, width = frames[0].shape[:2]
    size = (min(width, widest), max(1, round(height * min(1.0, widest / width))))
    images = [Image.fromarray(f).resize(size, reducing_gap=1.0).quantize(_COLORS) for f in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, format="gif", save_all=True, append_images=images[1:], loop=0,
                   duration=max(20, 10 * round(100 / fps)))  # hundredths of a second; below two browsers slow down
    return buffer.getvalue()


def _bytes(images: np.ndarray) -> np.ndarray:
    """The images as uint8."""
    images = np.asarray(images)
    if images.ndim != 4 or 0 in images.shape or images.shape[-1] not in (1, 3):
        raise UserError(f"images must be [N, H, W, C] with C 1 or 3 and none of them 0, got {list(images.shape)}")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise UserError(f"images must be uint8, or floats in [0, 1], got {images.dtype}")
    low, high = images.min(), images.max()
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # less is rounded away; NaN is neither
        raise UserError(f"images of floats must lie in [0, 1], got values from {low:.4g} to {high:.4g}")
    return np.round(images * 255).astype(np.uint8)


def _mosaic(cells: np.ndarray, columns: int | None = None) -> np.ndarray:
    """[N, P, H, W, C] -> [H', W', C]: cells of P images one below the other, wider gaps between rows of cells."""
    n, p, height, width, channels = cells.shape
    columns = columns or min(n, max(1, math.ceil(math.sqrt(n * p * height / width))))
    rows = math.ceil(n / columns)
    factor = max(1, min(math.ceil(_SIDE / max(height, width)), _LARGEST // max(columns * width, rows * p * height)))
    cells = cells.repeat(factor, axis=2).repeat(factor, axis=3)
    height, width = height * factor, width * factor
    space = _GAP * (1 if p == 1 else 4)  # between rows of cells
    step = p * (height + _GAP) - _GAP + space
    out = np.full((rows * step - space + 2 * _GAP, columns * (width + _GAP) + _GAP, channels), _GREY, np.uint8)
    for i in range(n * p):
        top = _GAP + i // p // columns * step + i % p * (height + _GAP)
        left = _GAP + i // p % columns * (width + _GAP)
        out[top : top + height, left : left + width] = cells[i // p, i % p]
    return out
