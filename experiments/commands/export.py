"""export RUN: one member of a population as a run of its own"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.core.stdio import command
from jaxdl.core.task import Task
from jaxdl.core.types import PyTree, RunState
from jaxdl.experiments import run_folder, tasks
from jaxdl.experiments.population import alone, in_words
from jaxdl.runtime import checkpoint
from jaxdl.runtime.run_log import read_metrics


@dataclass(frozen=True)
class Args:
    """Flags of the command."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the population's run."""
    member: int
    """Which member, from 0: the seeds of the first value that is swept come first."""
    out: Path
    """Folder of the new run."""
    overwrite: bool = False
    """Replace the run that is in --out."""


def run(args: Args) -> dict[str, Any]:
    """Make one member of a population a run that can be resumed and evaluated as if it had been trained alone."""
    settings = run_folder.open_run(args.run)
    of_each = tasks.population(settings)
    if len(of_each) == 1:
        raise UserError(f"{args.run} is no population: it has one member, which is the run itself")
    if not 0 <= args.member < len(of_each):
        raise UserError(f"member must lie between 0 and {len(of_each) - 1}, got {args.member}")
    run_folder.check_out(args.out, args.overwrite)
    task = tasks.reopen(settings)
    step, state = checkpoint.restore(args.run / "checkpoints", _shapes(task, settings, len(of_each)),
                                     meta=tasks.meta(settings))
    mine = jax.tree.map(lambda x: x[args.member], state._replace(t=None))._replace(t=state.t)
    rows = _rows(args.run / "metrics.jsonl", args.member, len(of_each))
    own = alone(settings, of_each[args.member])
    with run_folder.create(args.out, "", args.overwrite, task.pictures) as folder:
        run_folder.write_config(folder, own)
        files.write_bytes(folder / "metrics.jsonl", b"".join(files.to_json(row).encode() + b"\n" for row in rows))
        path = checkpoint.save(folder / "checkpoints", step, mine, keep=1, meta=tasks.meta(own) | {"devices": 1})
    print(f"{in_words(of_each, args.member)} at step {step:,} is the run {folder}\n  {path}")
    print(f"next: {command('evaluate', folder)}\n      {command('resume', folder)} --total-steps N")
    return {"run": str(folder), "member": args.member, "seed": of_each[args.member].seed, "steps": step
            } | of_each[args.member].values


def _shapes(task: Task, settings: run_folder.Settings, members: int) -> PyTree:
    """Shapes of the population's state."""
    one = jax.eval_shape(lambda: task.make_run(settings.config).init(jax.random.key(0), None))
    each = jax.tree.map(lambda x: jax.ShapeDtypeStruct((members, *x.shape), x.dtype), one)
    return RunState(each.learner, each.source, each.key, one.t)


def _rows(path: Path, member: int, members: int) -> list[dict[str, Any]]:
    """The rows of a log with one member's numbers."""
    rows = read_metrics(path, members) if path.exists() else []
    return [{name: value[member] if isinstance(value, list) else value for name, value in row.items()} for row in rows]
