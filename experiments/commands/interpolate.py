"""interpolate RUN: pictures between images, through a generative model's latents

Shapes: `N` pairs, `S` steps, `Z` latent.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.data import pictures
from jaxdl.experiments import latents
from jaxdl.experiments.commands import common


@dataclass(frozen=True, kw_only=True)
class Args(latents.Args):
    """Flags of the command."""

    num: int = 8
    """Pairs of images, one a row."""
    steps: int = 10
    """Images in a row, with both ends."""
    path: Literal["spherical", "linear"] | None = None
    """How to go from one latent to the other; if not given, spherical between draws and linear between encodings."""


def run(args: Args) -> dict[str, Any]:
    """Pictures between pairs of images: of test images where the model encodes, of draws where it does not.

    A row of a conditional model is of one class: that of both test images, or the classes in turn.
    """
    common.check_between("num", args.num, 1, 100)
    common.check_between("steps", args.steps, 2, 100)
    space, params, opened = latents.open_latents(args)
    first, second, classes = latents.pairs_of(space, params, opened.task.splits["test"], args.num, args.seed)
    path = args.path or ("linear" if space.encode else "spherical")
    t = jnp.linspace(0, 1, args.steps)
    between = {"linear": latents.linear, "spherical": latents.spherical}[path]
    line = jax.vmap(lambda a, b: jax.vmap(lambda t: between(a, b, t))(t))(first, second)  # [N, S, Z]
    labels = None if classes is None else jnp.repeat(classes, args.steps)
    images = jax.jit(space.decode)(params, line.reshape(-1, *line.shape[2:]), labels)
    pictures.save_png(args.out, pictures.table(np.asarray(images), args.steps))
    told = {} if classes is None else {"classes": np.asarray(classes).tolist()}
    print(args.out, *(f"classes of the rows: {', '.join(map(str, each))}" for each in told.values()), sep="; ")
    return {"num": args.num, "steps": args.steps, "path": path, "out": str(args.out)} | told
