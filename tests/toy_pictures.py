"""Small annotated pictures: boxes and discs of one colour each on a dark ground, with a joint in the middle of each."""

import numpy as np

from jaxdl.data.annotated import Annotated
from jaxdl.data.registry import Reader

SIDE, K, NAMES = 32, 3, ("ground", "box", "disc")


def pictures(num, seed=0):
    """Annotated pictures of one to three objects, which do not meet."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 40, (num, SIDE, SIDE, 3), dtype=np.uint8)
    instances, labels = np.zeros((num, SIDE, SIDE), np.uint8), np.zeros((num, K), np.uint8)
    boxes, joints = np.zeros((num, K, 4), np.float32), np.zeros((num, K, 1, 3), np.float32)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    for n in range(num):
        places = rng.permutation(4)
        for k in range(rng.integers(1, K + 1)):
            side = rng.integers(8, 15)
            x0, y0 = 16 * (places[k] % 2) + rng.integers(0, 17 - side), 16 * (places[k] // 2) + rng.integers(0, 17 - side)
            boxes[n, k], labels[n, k] = (x0, y0, x0 + side, y0 + side), rng.integers(1, 3)
            joints[n, k, 0] = x0 + side / 2, y0 + side / 2, 2
            inside = np.maximum(abs(x - joints[n, k, 0, 0]), abs(y - joints[n, k, 0, 1])) < side / 2
            if labels[n, k] == 2:
                inside = np.hypot(x - joints[n, k, 0, 0], y - joints[n, k, 0, 1]) < side / 2
            instances[n][inside] = k + 1
            images[n][inside] = rng.integers(120, 256, 3)
    semantic = np.take_along_axis(np.pad(labels, ((0, 0), (1, 0))), instances.reshape(num, -1), 1).reshape(instances.shape)
    return Annotated(images, semantic, instances, boxes, labels, joints)


READER = Reader("boxes and discs", lambda folder, split: pictures(*{"train": (40, 0), "test": (12, 1)}[split]),
                num_classes=len(NAMES), class_names=NAMES)
