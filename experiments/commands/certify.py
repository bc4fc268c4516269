"""certify RUN: of how many held-out pictures no change of a size can make a classifier wrong, proved by bounds or by noise

Shapes: `N` pictures.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.adversarial import intervals, smoothing
from jaxdl.core import files, streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.experiments import looking
from jaxdl.experiments.commands import common
from jaxdl.runtime.dataset_task import in_blocks
from jaxdl.supervised import report

_AT_ONCE = 500
_POINTS = 11  # of a curve


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of the command."""

    method: Literal["interval", "smoothing"] = "interval"
    """Bounds on what any change of each pixel could do (linf; for runs with --defence interval), or the class that is said most
    often under noise (l2; for runs with --defence noise)."""
    epsilon: float | None = None
    """Largest size of the change that is asked about; 0.3 if not given, of smoothing four times sigma."""
    sigma: float = 0.25
    """Deviation of the noise (smoothing)."""
    draws: int = 1000
    """Draws of noise for each picture (smoothing)."""
    alpha: float = 0.001
    """Probability that a picture is wrongly called certain (smoothing)."""
    num: int | None = None
    """Held-out pictures; all if not given."""
    seed: int = 0
    """Seed of the pictures and of noise."""
    out: Path | None = None
    """Picture to write, .png: certified accuracy against the size of the change."""


def run(args: Args) -> dict[str, Any]:
    """Certify, count and draw."""
    linf = args.method == "interval"
    most = args.epsilon if args.epsilon is not None else 0.3 if linf else 4 * args.sigma
    if not 0 < most <= (1 if linf else np.inf):
        raise UserError(f"epsilon must be above 0{' and at most 1: pixels are from 0 to 1' if linf else ''}, got {most}")
    if not 0 < args.sigma < np.inf:
        raise UserError(f"sigma must be above 0, got {args.sigma}")
    if not 0 < args.alpha < 0.5:
        raise UserError(f"alpha must be above 0 and below 0.5, got {args.alpha}")
    common.check_between("draws", args.draws, 10, 10**6)
    if args.num is not None:
        common.check_between("num", args.num, 1, 10**9)
    common.check_seed(args.seed)
    if args.out is not None:
        common.check_picture(args.out, ".png")
    seen = looking.open_classifier(args, args.num, args.seed)
    sizes = np.linspace(0, most, _POINTS)
    if linf:
        program = jax.jit(lambda size, x, y: intervals.certified(seen.f, x, y, size))
        share = [float(in_blocks(partial(program, jnp.float32(size)), _AT_ONCE, seen.x, seen.labels).mean()) for size in sizes]
    else:
        found = smoothing.certify(seen.f, seen.x, args.sigma, streams.key(args.seed, Purpose.EVALUATION), args.draws,
                                  alpha=args.alpha)
        right = found.label == seen.labels
        share = [float(np.mean(right & (found.radius >= size))) for size in sizes]
    norm = "linf" if linf else "l2"
    for size, value in zip(sizes, share, strict=True):
        print(f"{norm} {size:.4g}: {value:.2%} certified")
    result = {"method": args.method, "norm": norm, "num": len(seen.x), "sizes": sizes.round(6).tolist(),
              "certified_accuracy": share} | ({} if linf else {"sigma": args.sigma, "draws": args.draws, "alpha": args.alpha})
    if args.out is not None:
        _draw(args.out, result)
        print(args.out)
        result["out"] = str(args.out)
    return result


def _draw(path: Path, result: dict[str, Any]) -> None:
    figure = report.blank((4.6, 3.2))
    axes = figure.subplots()
    axes.plot(result["sizes"], result["certified_accuracy"], "o-", color="#0072B2")
    axes.set_xlabel(f"size of the change ({result['norm']})")
    axes.set_ylabel("certified accuracy")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    files.write_bytes(path, report.png(figure))
