"""Real data by name, as trees of arrays.

`load("digits")` needs no download; `load("mnist", data_dir)` reads the files of a folder, and without a folder fetches
them once, checked by hash, into the user's cache. `from_arrays` and `from_tree` make datasets of arrays of your own.
"""

from jaxdl.data.dataset import Dataset, drawn, from_arrays, from_tree, pick, split_off
from jaxdl.data.registry import SPLITS, Reader, load, load_splits, names, reader, require_images, summaries

__all__ = ["SPLITS", "Dataset", "Reader", "drawn", "from_arrays", "from_tree", "load", "load_splits", "names",
           "pick", "reader", "require_images", "split_off", "summaries"]
