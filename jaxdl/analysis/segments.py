"""Masks of objects from attributions: no mask was learned from, only what class a picture is of.

Pixels whose attribution is among the smallest are of the ground. Those among the largest are of the object, if their colour is
not one of the ground's: further from its mean, by its covariance, than nearly all of the ground is. The picture decides about
the rest: a random walk from each of them, which rarely crosses edges, meets the one kind or the other first (Grady 2006, by
scikit-image). Of the object the largest connected part is kept. Simonyan, Vedaldi & Zisserman (2014), section 3.2, have
mixtures of colours on both sides, and a graph cut in the place of the walk.

Shapes: `N` pictures, `H W C` a picture.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from jaxdl.core.errors import UserError

_NEARLY_ALL = 0.99
_LEAST_SPREAD = 1e-4  # variance of a colour where the ground has one alone


def require() -> Callable[..., np.ndarray]:
    """The random walk.

    Raises:
        UserError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import random_walker  # slow to import
    except ImportError:
        raise UserError("random walks need scikit-image; install it with pip install 'jaxdl[proposals]'") from None
    return random_walker


def segmented(picture: np.ndarray, attribution: np.ndarray, high: float = 0.95, low: float = 0.3, edges: float = 130.0
              ) -> np.ndarray:
    """The mask of the object, bool [H, W].

    Args:
        picture: [H, W, C] in [0, 1].
        attribution: [H, W], how much each pixel has to do with the class.
        high: share of the pixels that are below those of the object.
        low: share of the pixels that are of the ground; those without any attribution are too.
        edges: how rarely a walk crosses an edge.

    Raises:
        UserError: scikit-image is not installed.
    """
    walk = require()
    least, most = np.quantile(attribution, [low, high])
    ground = attribution <= least
    strong = (attribution > most) & ~ground
    if not strong.any():
        return np.zeros(attribution.shape, bool)
    far = distance(picture, ground)
    other = strong & (far > np.quantile(far[ground], _NEARLY_ALL))
    seeds = np.where(ground, 2, np.where(other if other.any() else strong, 1, 0))
    if not (seeds == 0).any():
        return largest_part(seeds == 1)
    return largest_part(walk(picture.astype(np.float64), seeds, beta=edges, mode="bf", channel_axis=-1) == 1)


def distance(picture: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Of each pixel's colour the squared distance from the mean of the ground's by its covariance, [H, W]."""
    colours = picture[ground].astype(np.float64)
    spread = np.cov(colours.T).reshape(picture.shape[-1], -1) + _LEAST_SPREAD * np.eye(picture.shape[-1])
    away = picture - colours.mean(0)
    return np.einsum("hwa,ab,hwb->hw", away, np.linalg.inv(spread), away)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a mask, bool [H, W]."""
    parts, num = ndimage.label(mask)
    if num < 2:
        return mask
    return parts == 1 + np.bincount(parts.ravel())[1:].argmax()


def overlap(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Intersection over union of masks [N, H, W], [N]; 1 where both are empty."""
    union = (found | truth).sum((1, 2))
    return np.where(union > 0, (found & truth).sum((1, 2)) / np.maximum(union, 1), 1.0)
