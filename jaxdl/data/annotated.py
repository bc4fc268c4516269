"""Pictures with what is in them: the tree of datasets for segmentation, localization and detection.

Boxes are x0 y0 x1 y1 in pixels, of the edges of pixels: that of the pixels 3 to 5 goes from 3 to 6. Masks are of what is seen
of an object, so that a pixel belongs to one object at most, and one map holds all masks of a picture.

Shapes: `N` pictures, `H W C` a picture, `K` objects of a picture at most, `J` joints of an object.
"""

from typing import NamedTuple

from jaxdl.core.types import Array, PyTree


class Annotated(NamedTuple):
    """The tree of a dataset of annotated pictures, on the host or the device, or a batch of one."""

    images: Array  # [N, H, W, C] uint8
    semantic: Array  # [N, H, W] uint8: the class of each pixel, 0 is ground
    instances: Array  # [N, H, W] uint8: which object is seen, 1 to K; 0 is none
    boxes: Array  # [N, K, 4] float32, zeros where there is no object
    labels: Array  # [N, K] uint8: the class, from 1; 0 where there is no object
    joints: Array  # [N, K, J, 3] float32: x, y and v: 0 there is none, 1 it is hidden, 2 it is seen
    words: PyTree = None  # captions and questions (`scene_words.Words`), or None
