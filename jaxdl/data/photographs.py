"""Photographs to begin with: those that come with scikit-learn and scikit-image, without a download, and one's own files.

Shapes: `H W C` a picture, C is 1 (grey) or 3.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_image

from jaxdl.core.errors import UserError
from jaxdl.data.arrays import read_picture

NAMES = ("china", "flower", "brick", "grass", "gravel")  # the last three are scikit-image's, and grey
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601


def read(name: str) -> np.ndarray:
    """A picture uint8 [H, W, C]: one of `NAMES`, or a PNG or JPEG file.

    Raises:
        UserError: it is neither, or scikit-image is not installed.
    """
    if name in ("china", "flower"):
        return load_sample_image(f"{name}.jpg")
    if name in NAMES:
        try:
            from skimage import data  # slow to import
        except ImportError:
            raise UserError(f"{name} is a picture of scikit-image; install it with pip install 'jaxdl[proposals]', or use "
                            "china or flower") from None
        return getattr(data, name)()[..., None]
    if not Path(name).is_file():
        raise UserError(f"there is no picture '{name}': give a PNG or JPEG file, or one of {', '.join(NAMES)}")
    return read_picture(Path(name), 1)


def prepared(picture: np.ndarray, side: int, channels: int, square: bool = False) -> np.ndarray:
    """float32 [H, W, channels] in [0, 1], whose shorter side has so many pixels.

    Where it is to be a square, that is the one in its middle of twice as many pixels, if it has them: textures stay large.
    """
    from PIL import Image  # slow to import

    if square:
        low = min(*picture.shape[:2], 2 * side)
        top, left = ((s - low) // 2 for s in picture.shape[:2])
        picture = picture[top : top + low, left : left + low]
    scale = side / min(picture.shape[:2])
    size = [max(round(s * scale), side) for s in picture.shape[1::-1]]
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).resize(size, Image.Resampling.LANCZOS)
    x = np.asarray(image, np.float32) / 255
    x = x if x.ndim == 3 else x[..., None]
    if channels == 1 and x.shape[-1] == 3:
        return (x @ _GREY)[..., None]
    return np.broadcast_to(x, (*x.shape[:2], channels))
