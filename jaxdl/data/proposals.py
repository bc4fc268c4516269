"""Regions of a picture in which there may be an object, found without learning: selective search, on the host.

A picture is cut into segments of like pixels (Felzenszwalb & Huttenlocher, "Efficient graph-based image segmentation", 2004, by
scikit-image). Then the two neighbours that are most alike become one, again and again until one is left; every segment that
there ever is proposes the box around it. Uijlings et al., "Selective search for object recognition" (2013), with three of their
four terms of likeness, each between 0 and 1:

    the overlap of the colours + the share of the picture that both leave + how well both fill the box around them

Larger segments come first: those that were put together last.

Shapes: `N` pictures, `H W C` a picture, `R` regions, `S` segments.
"""

from collections.abc import Callable

import numpy as np

from jaxdl.core.errors import UserError

_BINS = 8  # of a channel, in histograms of colours
_SCALES = (30.0, 100.0)  # of the first segments: larger ones are larger
_SMALLEST = 20  # pixels of a first segment
_LEAST = 4  # pixels along a side of a region


def of_pictures(images: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Regions float32 [N, num, 4] of pictures [N, H, W, C] uint8, and which there are, bool [N, num]. Raises as `require`."""
    boxes, valid = np.zeros((len(images), num, 4), np.float32), np.zeros((len(images), num), bool)
    for n, image in enumerate(images):
        found = selective_search(image)[:num]
        boxes[n, : len(found)], valid[n, : len(found)] = found, True
    return boxes, valid


def require() -> Callable[..., np.ndarray]:
    """What cuts a picture into segments.

    Raises:
        UserError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import felzenszwalb  # slow to import
    except ImportError:
        raise UserError("regions of segments need scikit-image; install it with pip install 'jaxdl[proposals]', or use "
                        "method=faster_rcnn") from None
    return felzenszwalb


def selective_search(image: np.ndarray) -> np.ndarray:
    """Boxes float32 [R, 4] of a picture [H, W, C] uint8, none twice. Raises as `require`."""
    cut, found = require(), []
    for scale in _SCALES:
        segments = cut(image, scale=scale, sigma=0.8, min_size=_SMALLEST, channel_axis=-1)
        found.append(merged_boxes(image, segments))
    boxes = np.concatenate(found)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).min(1) >= _LEAST]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)].astype(np.float32)


def merged_boxes(image: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Boxes [2 S - 1, 4] of S segments [H, W] of a picture and of all that they become, the last first."""
    num = int(segments.max()) + 1
    size, colours, boxes = _described(image, segments, num)
    size, colours, boxes, alive = list(size), list(colours), list(boxes), set(range(num))
    near = {i: set() for i in range(num)}
    for a, b in (segments[:, :-1], segments[:, 1:]), (segments[:-1], segments[1:]):
        for i, j in np.unique(np.stack([a[a != b], b[a != b]], 1), axis=0):
            near[int(i)].add(int(j))
            near[int(j)].add(int(i))

    def alike(i: int, j: int) -> float:
        box = _around(boxes[i], boxes[j])
        both = size[i] + size[j]
        fill = 1 - ((box[2] - box[0]) * (box[3] - box[1]) - both) / segments.size
        return float(np.minimum(colours[i], colours[j]).sum()) + 1 - both / segments.size + fill

    pairs = {(i, j): alike(i, j) for i in near for j in near[i] if i < j}
    while pairs:
        i, j = max(pairs, key=pairs.__getitem__)
        new, both = len(boxes), size[i] + size[j]
        boxes.append(_around(boxes[i], boxes[j]))
        colours.append((colours[i] * size[i] + colours[j] * size[j]) / both)
        size.append(both)
        near[new] = (near.pop(i) | near.pop(j)) - {i, j}
        alive -= {i, j}
        pairs = {pair: value for pair, value in pairs.items() if i not in pair and j not in pair}
        for k in near[new]:
            near[k] = near[k] - {i, j} | {new}
            pairs[k, new] = alike(k, new)
    return np.array(boxes[::-1])


def _described(image: np.ndarray, segments: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each segment its pixels [S], its histogram of colours [S, C * bins], which sums to 1, and its box [S, 4]."""
    of, channels = segments.ravel(), image.shape[-1]
    size = np.bincount(of, minlength=num).astype(float)
    bins = (image.reshape(-1, channels).astype(int) * _BINS) // 256 + np.arange(channels) * _BINS
    colours = np.zeros((num, channels * _BINS))
    np.add.at(colours, (of[:, None], bins), 1)
    y, x = (v.ravel() for v in np.indices(segments.shape))
    boxes = np.tile([np.inf, np.inf, -np.inf, -np.inf], (num, 1))
    for column, (way, value) in enumerate([(np.minimum, x), (np.minimum, y), (np.maximum, x + 1), (np.maximum, y + 1)]):
        way.at(boxes[:, column], of, value)
    return size, colours / (channels * size[:, None]), boxes


def _around(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The box around two."""
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])
