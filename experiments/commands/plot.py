"""plot RUN...: learning curves of one or several runs in one picture"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxdl.core.errors import UserError
from jaxdl.experiments import plot


@dataclass(frozen=True)
class Args:
    """Flags of the command."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs; several of one algorithm and subject are drawn as one curve with its spread."""
    out: Path
    """The picture to write."""


def run(args: Args) -> dict[str, Any]:
    """Draw learning curves."""
    if not args.runs:
        raise UserError("plot needs at least one run folder")
    plot.plot_runs(args.runs, args.out)
    print(args.out)
    return {"runs": [str(run) for run in args.runs], "out": str(args.out)}
