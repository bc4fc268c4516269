"""The diabetes data in scikit-learn's wheel: ten measured numbers of a patient, and how the disease went on within a year.

Efron et al., "Least angle regression" (2004): 442 patients; age, sex, body mass index, blood pressure and six blood serum
measurements, each with mean 0 and length 1 over all patients; here times sqrt(442), so that deviations are 1. The target is a
number from 25 to 346. Every fifth patient, in the file's order, is to test.
"""

import numpy as np

from jaxdl.data.dataset import Dataset, from_tree, hold_out
from jaxdl.data.registry import Reader


def read(split: str) -> Dataset:
    """The arrays x [N, 10] and y [N], float32, of `split`: N = 354 for "train", 88 for "test"."""
    from sklearn.datasets import load_diabetes  # slow to import

    x, y = load_diabetes(return_X_y=True)
    x = (x * np.sqrt(len(x))).astype(np.float32)
    return hold_out(from_tree({"x": x, "y": y.astype(np.float32)}, "diabetes", input="x", target="y"), split)


READER = Reader("ten numbers of 442 patients and the progress of their disease, 354 to train and 88 to test; no download",
                lambda folder, split: read(split))
