"""restyle [RUN]: a photograph in the manner of another, by statistics of layers or of random filters

Shapes: `H W C` a picture.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxdl.analysis import texture
from jaxdl.experiments import makings
from jaxdl.experiments.commands import common


@dataclass(frozen=True, kw_only=True)
class Args(makings.OptionalRunArgs):
    """Flags of the command."""

    picture: str = "china"
    """What is to be seen: a PNG or JPEG file, or china, flower, brick, grass or gravel."""
    style: str = "flower"
    """In which manner: the same."""
    weight: float = 10.0
    """Of the manner beside what is to be seen."""
    variation: float = 0.1
    """Weight of the total variation: how much smoother pictures are preferred."""
    side: int = 160
    """Pixels of the shorter side of both."""
    steps: int = 300
    """Steps of Adam."""


def run(args: Args) -> dict[str, Any]:
    """Make a picture of two."""
    makings.check(args, args.steps)
    for name in ("weight", "variation"):
        common.check_between(name, getattr(args, name), 0, 1e6)
    (x, style), features, names = makings.photographs_and_features(args, [args.picture, args.style], args.side)
    content = [names[len(names) // 2]] if names else [makings.CONTENT]
    made, losses = jax.jit(lambda x, style: texture.restyle(features, x, style, content, args.weight, args.variation,
                                                            args.steps))(x, style)
    found = {name: np.asarray(value).tolist() for name, value in losses.items()}
    print(*(f"loss of the {name}: {before:.4g} before, {after:.4g} after" for name, (before, after) in found.items()), sep="\n")
    makings.save(args.out, made.x)
    return {"layers": names, "content": content} | found | {"out": str(args.out)}
