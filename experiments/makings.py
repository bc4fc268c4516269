"""What commands that make pictures share: a photograph to begin with, the layers that they see it by, and what they write.

Shapes: `H W C` a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import tyro

from jaxdl.analysis import layers, texture
from jaxdl.core import streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array
from jaxdl.data import photographs, pictures
from jaxdl.experiments import looking, looks
from jaxdl.experiments.commands import common

LARGEST = 1024  # pixels of a side
_LARGE = 4  # maps have this part of a picture's side or more: what deeper layers see is larger than a texture
CONTENT = "scale 1"  # of random filters: what stays


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of what makes pictures with a run's network."""

    seed: int = 0
    """Seed of where it begins."""
    out: Path = Path("made.png")
    """The picture to write, .png."""


@dataclass(frozen=True, kw_only=True)
class OptionalRunArgs(Args):
    """The same with a run, or without one."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the run; without one its place is taken by one layer of random filters at several scales, which nobody
    trained."""
    layers: tuple[str, ...] = ()
    """Layers of the run's network whose statistics count; if not given the last one of each size of large maps."""


def check(args: Args, steps: int) -> None:
    """Refuse what no command can do.

    Raises:
        UserError: a flag is out of range.
    """
    common.check_between("steps", steps, 1, 100_000)
    common.check_seed(args.seed)
    common.check_picture(args.out, ".png")


def photograph(name: str, side: int, channels: int | None, square: bool = False) -> Array:
    """A picture of one's own or by name, [1, H, W, channels]; its own channels if None. See `photographs.prepared`.

    Raises:
        UserError: it is none, or sides are out of range.
    """
    common.check_between("side", side, 16, LARGEST)
    picture = photographs.read(name)
    height, width = picture.shape[:2]
    if max(height, width) > 8 * min(height, width):
        raise UserError(f"{name} has {width} x {height} pixels, and its longer side may be 8 times the shorter one; cut it")
    return jnp.asarray(photographs.prepared(picture, side, channels or picture.shape[-1], square))[None]


def photographs_and_features(args: OptionalRunArgs, names: Sequence[str], side: int, square: bool = False
                             ) -> tuple[list[Array], texture.Features, list[str]]:
    """Pictures by name, [1, H, W, C] each, the maps whose statistics count, and the layers of a run that they are.

    Raises:
        UserError: a picture is none, or a layer is not there or gives no maps.
    """
    if args.run is None:
        if args.layers:
            raise UserError(f"layers={' '.join(args.layers)} are of a run's network, and no run is given; name one")
        own = [photograph(name, side, None, square) for name in names]
        channels = max(x.shape[-1] for x in own)
        found = texture.of_random_filters(streams.key(args.seed, Purpose.EVALUATION), channels)
        return [jnp.broadcast_to(x, (*x.shape[:3], channels)) for x in own], found, []
    seen = looking.open_classifier(args, 1)
    for name in args.layers or [None]:
        looks.map_layer(seen, name, "leave RUN out: random filters take its place")
    large = {shape[:2]: name for name, shape in looks.map_layers(seen).items() if _LARGE * shape[0] >= seen.x.shape[1]}
    chosen = list(args.layers) or list(large.values())
    return [photograph(name, side, seen.x.shape[-1], square) for name in names], texture.of_network(seen.f, chosen), chosen


def inner_layers(seen: looking.Seen, chosen: Sequence[str]) -> list[str]:
    """Layers at every depth: those that are named, or all that have a kernel.

    Raises:
        UserError: there is no such layer.
    """
    found = layers.of(seen.f, seen.x[:1])
    for name in chosen:
        layers.check(name, found)
    return list(chosen) or [name for name in found if "Norm" not in name]


def save(out: Path, x: Array) -> None:
    """Write one picture [1, H, W, C] as it is."""
    pictures.save_png(out, np.round(255 * np.asarray(x[0])).astype(np.uint8))
    print(out)
