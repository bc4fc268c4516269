"""texture [RUN]: a picture with the texture of a photograph, made from noise by statistics of layers or of random filters

Shapes: `H W C` a picture.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxdl.analysis import texture
from jaxdl.core import streams
from jaxdl.core.streams import Purpose
from jaxdl.experiments import makings
from jaxdl.experiments.commands import common


@dataclass(frozen=True, kw_only=True)
class Args(makings.OptionalRunArgs):
    """Flags of the command."""

    picture: str = "gravel"
    """A PNG or JPEG file, or china, flower, brick, grass or gravel; the square in its middle counts."""
    side: int = 128
    """Pixels of a side, of what counts and of what is made."""
    variation: float | None = None
    """Weight of the total variation, how much smoother pictures are preferred; if not given 0.3 with a run's network, whose
    pools let fine noise through, and none with random filters."""
    steps: int = 300
    """Steps of Adam."""
    beside: bool = False
    """Write the photograph beside what is made."""


def run(args: Args) -> dict[str, Any]:
    """Make a texture."""
    makings.check(args, args.steps)
    variation = args.variation if args.variation is not None else 0.3 if args.run else 0.0
    common.check_between("variation", variation, 0, 1000)
    (of,), features, names = makings.photographs_and_features(args, [args.picture], args.side, square=True)
    make = jax.jit(lambda of, key: texture.synthesize(features, of, of.shape[1:3], key, variation, args.steps,
                                                              0.02 if args.run else 0.05))
    made = make(of, streams.key(args.seed, Purpose.SAMPLES))
    before, after = float(made.losses[0, 0]), float(made.losses[-1, 0])
    print(f"loss of the texture: {before:.4g} before, {after:.4g} after")
    gap = jnp.ones((1, of.shape[1], 4, of.shape[-1]))
    makings.save(args.out, jnp.concatenate([of, gap, made.x], 2) if args.beside else made.x)
    return {"layers": names, "before": before, "after": after, "out": str(args.out)}
