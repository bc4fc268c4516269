"""traverse RUN: one latent number at a time from low to high, the others as an image has them

Of a latent of two numbers it is the plane.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxdl.core.errors import UserError
from jaxdl.data import pictures
from jaxdl.experiments import latents
from jaxdl.experiments.commands import common


@dataclass(frozen=True, kw_only=True)
class Args(latents.Args):
    """Flags of the command."""

    num: int = 10
    """Latent numbers, one a row: those that vary most over the test images where the model encodes."""
    steps: int = 11
    """Images in a row; of a latent of two numbers, in a row and in a column."""
    span: float = 2.5
    """How far to go either way, in standard deviations of the prior."""


def run(args: Args) -> dict[str, Any]:
    """Draw what each number of a latent changes; a conditional model is told one class throughout, the first image's."""
    common.check_between("num", args.num, 1, 100)
    common.check_between("steps", args.steps, 2, 100)
    if not 0 < args.span < 10:
        raise UserError(f"span must be above 0 and below 10, got {args.span}")
    space, params, opened = latents.open_latents(args)
    if space.prior is None:
        raise UserError(f"{args.run} has no prior over its latents, whose standard deviation a step could be measured in")
    z, labels = latents.latents_of(space, params, opened.task.splits["test"], 1000, args.seed)
    z = np.asarray(z)
    if z.shape[1] == 2:
        at = stats.norm.ppf(np.linspace(*stats.norm.cdf([-args.span, args.span]), args.steps))
        across, down = np.meshgrid(at, -at)
        at_z, numbers = np.stack([across, down], -1).reshape(-1, 2), [0, 1]
    else:
        numbers = np.argsort(-z.var(0))[: args.num] if space.encode else np.arange(min(args.num, z.shape[1]))
        at_z = np.repeat(z[:1], len(numbers) * args.steps, 0)
        at_z[np.arange(len(at_z)), np.repeat(numbers, args.steps)] = np.tile(
            np.linspace(-args.span, args.span, args.steps), len(numbers))
    images = jax.jit(space.decode)(params, jnp.asarray(at_z, jnp.float32),
                                   None if labels is None else jnp.full(len(at_z), labels[0]))
    pictures.save_png(args.out, pictures.table(np.asarray(images), args.steps))
    told = {} if labels is None else {"class": int(labels[0])}
    print(args.out, *(f"all of class {c}" for c in told.values()), sep="; ")
    return {"numbers": [int(i) for i in numbers], "steps": args.steps, "out": str(args.out)} | told
