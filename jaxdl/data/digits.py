"""The digits in scikit-learn's wheel: 1,797 handwritten digits of 8x8 pixels, the dataset that is always there.

Alpaydin and Kaynak, "Optical recognition of handwritten digits" (UCI, 1998), its test part: each pixel counts the black
ones in a 4x4 block of the scan, 0 to 16. Here counts become bytes, `round(count * 255 / 16)`, so that 0 and 16 are 0
and 255. The split is fixed: in the file's order the first 1,437 (80 %) are to train, the last 360 to test; no class has
fewer than 33 in the test set.
"""

import numpy as np

from jaxdl.core.types import Examples
from jaxdl.data.registry import Reader

TRAIN = 1437


def read(split: str) -> Examples:
    """Images [N, 8, 8, 1] uint8 and labels [N] int32 of `split`: N = 1,437 for "train", 360 for "test"."""
    from sklearn.datasets import load_digits  # slow to import

    counts, labels = load_digits(return_X_y=True)
    part = slice(None, TRAIN) if split == "train" else slice(TRAIN, None)
    images = np.rint(counts[part] * (255 / 16)).astype(np.uint8)
    return Examples(images.reshape(-1, 8, 8, 1), labels[part].astype(np.int32))


READER = Reader("8x8 handwritten digits of scikit-learn, 1,437 to train and 360 to test; needs no download",
                lambda folder, split: read(split), num_classes=10)
