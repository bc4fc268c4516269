"""evaluate RUN: how good it is: returns of greedy episodes, bounds and predictions of held-out data, judged samples"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.core.task import Ensemble, Film, Options
from jaxdl.core.types import PyTree
from jaxdl.experiments import run_report, tasks
from jaxdl.experiments.commands import common
from jaxdl.experiments.population import in_words
from jaxdl.rl import video
from jaxdl.runtime import checkpoint, fit


@dataclass(frozen=True, kw_only=True)
class _Args(common.RunArgs):
    best: bool = False
    """The parameters of the best evaluation, in place of the newest."""
    out: Path | None = None
    """Also write the pictures and tables of a finished run into this folder."""


@dataclass(frozen=True, kw_only=True)
class _Filmed(_Args):
    video: Path | None = None
    """Also film one episode into this .gif."""


@dataclass(frozen=True, kw_only=True)
class _Together(_Args):
    ensemble: bool = False
    """Average what all members predict: seeds, swept values, folds; and those of --others."""
    others: tuple[Path, ...] = ()
    """More runs for the ensemble, of the same network and dataset."""
    snapshots: int | None = None
    """Average what the newest checkpoints predict, so many of them: a snapshot ensemble, of a cyclic schedule for instance."""


def Args(argv: Sequence[str]) -> type:
    """The flags, which depend on the run."""
    named = common.run_of(argv)
    if named is None:
        return common.args_with(_Args, None, "evaluation", Options())
    can = named.task.abilities
    return common.args_with(_Filmed if Film in can else _Together if Ensemble in can else _Args, named, "evaluation",
                            named.task.options)


def run(args: Any) -> dict[str, Any]:
    """Evaluate a run."""
    common.check_seed(args.evaluation.seed)
    filmed = getattr(args, "video", None)
    if filmed is not None:
        video.check_path(filmed)
    opened = tasks.load_run(args.run, best=args.best, step=args.step, data_dir=args.data_dir, task=args.task)
    members = fit.members_of(opened.params, opened.members)
    if args.out is not None and not opened.task.pictures:
        raise UserError(f"{args.run} is a run of {opened.settings.algo}, which leaves no pictures; leave --out out")
    if getattr(args, "ensemble", False) or getattr(args, "others", ()) or getattr(args, "snapshots", None) is not None:
        networks = _networks(args, opened, members)
        found = opened.task.abilities[Ensemble].evaluate(networks, args.evaluation)
        print(f"step {opened.step:,}: {opened.task.describe(found)}")
    else:
        found = run_report.of_members(opened.settings, [opened.task.evaluate(params, args.evaluation) for params in members])
        print(f"step {opened.step:,}: {run_report.summary_line(opened.settings, opened.task, found)}")
    if len(members) > 1 and (filmed or args.out):
        print(f"what is drawn is of {in_words(tasks.population(opened.settings), 0)}")
    if filmed is not None:
        opened.task.abilities[Film].record(members[0], args.evaluation.seed, filmed)
        print(filmed)
    if args.out is not None:
        files.make_folder(args.out)
        for name, draw in opened.task.pictures.items():
            draw(members[0], args.evaluation.seed, args.out / name)
            print(args.out / name)
    return found


def _networks(args: Any, opened: tasks.TrainedRun, members: list[PyTree]) -> list[PyTree]:
    """The parameters of all networks of an ensemble.

    Raises:
        UserError: there is one network, flags that choose differently, or networks that differ.
    """
    if args.snapshots is not None:
        if args.ensemble or args.others or args.best or args.step is not None:
            raise UserError("--snapshots averages checkpoints of one run; leave --ensemble, --others, --best and --step out")
        there = checkpoint.steps(args.run / "checkpoints")
        if not 2 <= args.snapshots <= len(there):
            raise UserError(f"snapshots must be between 2 and the {len(there)} checkpoints of {args.run}, got {args.snapshots}"
                            "; train with --keep-checkpoints")
        each = (tasks.load_run(args.run, step=step, task=opened.task) for step in there[-args.snapshots:])
        return [params for one in each for params in fit.members_of(one.params, one.members)]
    if not args.ensemble:
        raise UserError(f"others={' '.join(map(str, args.others))} are of an ensemble; give --ensemble too")
    shapes = jax.tree.map(lambda x: x.shape, members[0])
    for path in args.others:
        other = tasks.load_run(path, best=args.best, step=args.step)
        theirs = fit.members_of(other.params, other.members)
        if jax.tree.map(lambda x: x.shape, theirs[0]) != shapes or other.task.subject != opened.task.subject:
            raise UserError(f"an ensemble is of one network on one dataset, and {path} is a run of {other.settings.algo} on "
                            f"{other.task.subject} whose parameters or dataset are not those of {args.run}")
        members = [*members, *theirs]
    if len(members) < 2:
        raise UserError(f"an ensemble has two networks or more, and {args.run} is one; train with --num-seeds or --folds, or "
                        "give more runs with --others")
    return members
