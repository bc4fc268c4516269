"""What the numbers of an observation are: vectors, pictures with their axes, or classes. Networks are told (`nn.Form`).

| space                                 | read as                                                                          |
|---------------------------------------|----------------------------------------------------------------------------------|
| Discrete, MultiDiscrete               | one-hot vectors, counted from the space's `start`                                |
| Box of 3 axes                         | pictures H, W, C or C, H, W (`axes`)                                             |
| Box of 2 axes, bytes from 0 to 255    | pictures without channels, where no side is below 8                              |
| other Box, MultiBinary                | vectors; bytes from 0 to 255 as numbers in [0, 1]                                |

In a stack of frames it is what each of them is.
"""

from typing import Literal

import gymnasium
import numpy as np

from jaxdl import nn
from jaxdl.rl.envs import composite_spaces
from jaxdl.rl.types import EnvSpec

SPACES = (gymnasium.spaces.Box, gymnasium.spaces.Discrete, gymnasium.spaces.MultiDiscrete, gymnasium.spaces.MultiBinary)

_SIDE = 8  # pixels of a picture without channels, at least: fewer may be a table of bytes
_LARGE = 32  # more channels than anyone has in the last of three axes that differ


def form(spec: EnvSpec) -> nn.Form:
    """How networks read the observations of an environment."""
    space, stacked = spec.observation_space, spec.stack is not None
    counts = composite_spaces.bounds_of_counts(space)
    if counts is not None:
        low, high = (np.ravel(x) for x in counts)
        return nn.Form(classes=tuple(int(n) for n in high - low + 1), starts=tuple(int(n) for n in low))
    frame = space.shape[1:] if stacked else space.shape
    whole = isinstance(space, gymnasium.spaces.Box) and space.dtype == np.uint8 and bool(
        (space.low == 0).all() and (space.high == 255).all())
    picture = None
    if len(frame) == 3:
        picture = axes(frame)[0]
    elif len(frame) == 2 and space.dtype == np.uint8 and (stacked or (whole and min(frame) >= _SIDE)):
        picture = "HW"
    return nn.Form(stacked=stacked, picture=picture, scaled=whole)


def axes(shape: tuple[int, ...]) -> tuple[Literal["HWC", "CHW"], bool]:
    """Which of the three axes of a picture are channels, and whether that is beyond doubt.

    The last ones, unless the first axis is the shortest and the others are equal or both long, as no number of channels is.
    """
    first, second, last = shape
    if first < min(second, last) and (second == last or min(second, last) >= _LARGE):
        return "CHW", True
    return "HWC", last <= min(first, second) or first == second or min(first, second) < 3  # below 3 pixels it is a vector


def doubt(spec: EnvSpec) -> str | None:
    """A sentence for the user where the axes of pictures are not beyond doubt."""
    space = spec.observation_space
    frame = space.shape[1:] if spec.stack is not None else space.shape
    if not isinstance(space, gymnasium.spaces.Box) or len(frame) != 3 or axes(frame)[1]:
        return None
    return (f"the observations of {spec.id}, {space.dtype}{list(frame)}, are read as pictures of {frame[0]} x {frame[1]} "
            f"pixels with {frame[2]} channels; where the axes are others, give them in the order height, width, channels")
