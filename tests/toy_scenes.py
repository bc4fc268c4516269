"""Small scenes for tests: a few of 32x32 that are made for training, fewer that are held out."""

import functools

import numpy as np

from jaxdl.data import scenes
from jaxdl.data.made import Made
from jaxdl.data.registry import Reader
from jaxdl.data.scenes import FIRST, Maker

SIZE, NUM = 32, {"train": 64, "test": 24, "hard": 24}


@functools.cache
def read(content, split, size=SIZE):
    made = Made(np.arange(FIRST[split], FIRST[split] + NUM[split], dtype=np.int32), scenes.recipe(None, split),
                Maker(content, size, split == "hard"))
    whole = scenes.from_made(made, content)
    return whole if split == "train" else whole.complete()


def reader(content):
    return Reader(f"small {content}", lambda folder, split: read(content, split), splits=("train", "test", "hard"))


SCENES, SINGLE, FIGURES = reader("scenes"), reader("scenes_single"), reader("scenes_figures")
LAID_OUT = Reader("scenes_figures that lie on the device", lambda folder, split: read("scenes_figures", split).complete(),
                  splits=("train", "test", "hard"))
