"""attack RUN: small changes of held-out pictures that change what a classifier says, and how many pictures withstand them

Shapes: `N` pictures, `H W C` a picture, `Y` classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.core import files
from jaxdl.experiments import attacking, looking
from jaxdl.experiments.commands import common
from jaxdl.supervised import report

_SHOWN = 8
_TAUGHT = 5000  # training pictures that one change for all is made on, at most


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs, attacking.Settings):
    """Flags of the command."""

    num: int | None = None
    """Held-out pictures; all if not given."""
    out: Path | None = None
    """Picture to write, .png: pictures that withstood least, their changes amplified, and what is said of them."""


def run(args: Args) -> dict[str, Any]:
    """Attack, count and draw."""
    attacking.validate(args)
    if args.num is not None:
        common.check_between("num", args.num, 1, 10**9)
    if args.out is not None:
        common.check_picture(args.out, ".png")
    seen = looking.open_classifier(args, args.num, args.seed)
    attacking.check_fits(args, seen.x.shape[1:], len(seen.names))
    if args.attack == "universal":
        taught = looking.open_classifier(args, _TAUGHT, args.seed, "train")
        result = attacking.by_one_change(seen.f, seen.x, seen.labels, (taught.x, taught.labels), args)
    else:
        result = attacking.attacked(seen.f, seen.x, seen.labels, args)
    found = attacking.figures(result, seen.x, seen.labels, args)
    print(attacking.in_words(found))
    if args.out is not None:
        draw(args.out, seen, result.moved, result.said)
        print(args.out)
        found["out"] = str(args.out)
    return found


def draw(path: Path, seen: looking.Seen, moved: np.ndarray, said: np.ndarray) -> None:
    """Pictures, what was made of them, and the change, amplified so that the largest is white or black."""
    wrong = np.flatnonzero(said != seen.labels)[:_SHOWN]
    chosen = wrong if len(wrong) else np.arange(min(_SHOWN, len(moved)))
    figure = report.blank((1.3 * len(chosen), 4.4))
    rows = figure.subplots(3, len(chosen), squeeze=False)
    for column, i in zip(rows.T, chosen, strict=True):
        x, y = np.asarray(seen.x[i]), moved[i]
        change = 0.5 + (y - x) / max(2 * np.abs(y - x).max(), 1e-9)
        titles = seen.names[seen.labels[i]], seen.names[said[i]], "change"
        for axes, picture, title in zip(column, (x, y, change), titles, strict=True):
            axes.axis("off")
            axes.imshow(report.as_picture(picture), cmap="gray", vmin=0, vmax=255)
            axes.set_title(title[:12], fontsize=8, pad=2)
    files.write_bytes(path, report.png(figure))
