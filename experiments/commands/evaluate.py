"""evaluate RUN: how good it is: returns of greedy episodes, bounds on held-out data, judged samples"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxdl.core.task import Film, Options
from jaxdl.experiments import run_report, tasks
from jaxdl.experiments.commands import common
from jaxdl.experiments.population import in_words
from jaxdl.rl import video
from jaxdl.runtime import fit


@dataclass(frozen=True, kw_only=True)
class _Args(common.RunArgs):
    best: bool = False
    """The parameters of the best evaluation, in place of the newest."""


@dataclass(frozen=True, kw_only=True)
class _Filmed(_Args):
    video: Path | None = None
    """Also film one episode into this .gif."""


def Args(argv: Sequence[str]) -> type:
    """The flags, which depend on the run."""
    named = common.run_of(argv)
    if named is None:
        return common.args_with(_Args, None, "evaluation", Options())
    return common.args_with(_Filmed if Film in named.task.abilities else _Args, named, "evaluation", named.task.options)


def run(args: Any) -> dict[str, Any]:
    """Evaluate a run."""
    common.check_seed(args.evaluation.seed)
    filmed = getattr(args, "video", None)
    if filmed is not None:
        video.check_path(filmed)
    opened = tasks.load_run(args.run, best=args.best, step=args.step, data_dir=args.data_dir, task=args.task)
    members = fit.members_of(opened.params, opened.members)
    found = run_report.of_members(opened.settings, [opened.task.evaluate(params, args.evaluation) for params in members])
    print(f"step {opened.step:,}: {run_report.summary_line(opened.task, found)}")
    if filmed is not None:
        if len(members) > 1:
            print(f"the film is of {in_words(tasks.population(opened.settings), 0)}")
        opened.task.abilities[Film].record(members[0], args.evaluation.seed, filmed)
        print(filmed)
    return found
