"""dream RUN: a photograph in which a run's network sees more of what it sees

Shapes: `H W C` a picture.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxdl.analysis import ascent
from jaxdl.analysis.ascent import Priors
from jaxdl.core import streams
from jaxdl.core.streams import Purpose
from jaxdl.experiments import looking, looks, makings
from jaxdl.experiments.commands import common

_KEEP = Priors(jitter=8, variation=0.1)
_SCALE = 1.4  # of a size to the one before


@dataclass(frozen=True, kw_only=True)
class Args(makings.Args):
    """Flags of the command."""

    picture: str = "flower"
    """A PNG or JPEG file, or china, flower, brick, grass or gravel."""
    layer: str | None = None
    """The layer of which there is to be more ('jaxdl layers RUN' lists them); the last whose maps have an eighth of
    the picture's side if not given."""
    side: int = 192
    """Pixels of the picture's shorter side."""
    octaves: int = 4
    """Sizes at which the picture is dreamt of, each 1.4 times the one before."""
    steps: int = 15
    """Steps at each size."""
    rate: float = 0.02
    """How far the first step goes."""


def run(args: Args) -> dict[str, Any]:
    """Dream, and write what is dreamt."""
    makings.check(args, args.steps)
    common.check_between("octaves", args.octaves, 1, 10)
    common.check_between("rate", args.rate, 0, 10)
    seen = looking.open_classifier(args, 1)
    layer = looks.map_layer(seen, args.layer, "dreams need a run of convolutions", 1 / 8)
    x = makings.photograph(args.picture, args.side, seen.x.shape[-1])
    most = 1 + int(max(np.log(2 * args.side / seen.x.shape[1]) / np.log(_SCALE), 0))  # half the size it learned from, or more
    common.check_between("octaves", args.octaves, 1, most)
    made = ascent.dream(ascent.of_layer(seen.f, layer), x, streams.key(args.seed, Purpose.SAMPLES), _KEEP, args.octaves,
                        scale=_SCALE, steps=args.steps, rate=args.rate)
    before, after = (float(value) for value in made.values[:, 0])
    print(f"mean square of {layer}: {before:.4g} before, {after:.4g} after")
    makings.save(args.out, made.x)
    return {"layer": layer, "before": before, "after": after, "out": str(args.out)}
