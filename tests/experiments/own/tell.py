"""tell RUN: what a run has learned from"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxdl.experiments.run_folder import open_run


@dataclass(frozen=True)
class Args:
    run: Annotated[Path, tyro.conf.Positional]
    loud: bool = False


def run(args):
    subject = open_run(args.run).subject
    print(subject.upper() if args.loud else subject)
    return {"subject": subject}
