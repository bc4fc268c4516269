"""resume RUN: a run goes on from its newest checkpoint"""

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxdl import optim
from jaxdl.core import files, lock, processes
from jaxdl.core.config import of_kind
from jaxdl.core.errors import CheckpointError, UserError
from jaxdl.core.stdio import command, quoted
from jaxdl.experiments import run_folder, tasks
from jaxdl.experiments.commands.train import JOINED, Joined, with_devices
from jaxdl.runtime import checkpoint, mesh


@dataclass(frozen=True)
class Args:
    """Flags of the command."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    total_steps: int | None = None
    """Go on to this step, past the planned end; schedules keep their horizon and hold their end value, which may be 0."""
    devices: int | None = None
    """Go on with so many devices in place of those that it had; environments and their memory are resharded."""
    data_dir: Path | None = None
    """Folder with the dataset's files, where they are no longer in the one that the run was trained from."""
    joined: Joined = JOINED
    """The processes of the run."""


def run(args: Args) -> dict[str, Any]:
    """Go on with a run. Returns the summary."""
    settings = run_folder.open_run(args.run)
    if args.devices is not None:
        settings = settings._replace(train=dataclasses.replace(settings.train, devices=args.devices))
    if args.data_dir is not None:
        settings = tasks.with_data_dir(settings, args.data_dir)
    settings = with_devices(settings, args.joined)
    settings.validate()
    with contextlib.ExitStack() as stack:
        if processes.is_first():
            stack.enter_context(lock.hold(args.run))
        steps = checkpoint.steps(args.run / "checkpoints")
        if not steps:
            raise UserError(f"{args.run} has no checkpoint to resume from; train it again with "
                            f"{quoted('train', settings.algo, '--config', args.run / 'config.json')}")
        if args.total_steps is not None:
            if args.total_steps >= 2**31:
                raise UserError(f"total_steps must be below 2**31, got {args.total_steps}")
            if args.total_steps < steps[-1]:
                raise UserError(f"total_steps={args.total_steps} is before step {steps[-1]}, where the run is")
            settings = settings._replace(train=dataclasses.replace(settings.train, stop_step=args.total_steps))
        elif (done := _finished(args.run / "summary.json")) is not None:
            print(f"{args.run} is finished ({done['steps']:,} steps); give --total-steps to go on")
            return done
        task = tasks.open_task(settings)
        written_by = _devices(args.run / "checkpoints", steps[-1])
        driver = stack.enter_context(contextlib.closing(tasks.driver(task, settings, written_by)))
        print(f"resuming {settings.algo} on {task.subject} in {args.run}", flush=True)
        for line in _differences(settings, driver, written_by):
            print(line)
        if (line := _past_schedules(args.run, settings, task.total_steps)) is not None:
            print(line)
        return tasks.train(args.run, settings._replace(spec=task.spec), task, driver, resume=True)


def _devices(folder: Path, step: int) -> int:
    """How many devices wrote a checkpoint."""
    found = checkpoint.read_meta(folder, step).get("devices", 1)
    if type(found) is not int or not 1 <= found <= mesh.MOST_DEVICES:
        raise CheckpointError(f"checkpoint {folder / str(step)} is damaged: the devices that wrote it are {str(found)[:40]!r}")
    return found


def _finished(summary: Path) -> dict[str, Any] | None:
    """The summary of a run that is finished, and was evaluated where it should be."""
    done = files.read_json(summary, 1 << 20) if os.path.lexists(summary) else {}
    if done.get("ended") not in ("finished", "reached") or "evaluation_failed" in done:
        return None
    if type(done.get("steps")) is not int:
        raise UserError(f"{summary} is damaged: it has no number of steps; remove it to resume the run")
    return done


def _past_schedules(run: Path, settings: run_folder.Settings, planned: int) -> str | None:
    """What becomes of learning rates where a run goes on past its planned end; None where none has fallen."""
    to = settings.train.stop_step or planned
    left = {f"{x.learning_rate * x.final_fraction:g}" for x in of_kind(settings.config, optim.Config)
            if x.schedule != "constant"}
    if to <= planned or not left:
        return None
    nothing = ", so nothing more is learned" if left == {"0"} else ""
    epochs = () if getattr(settings.config, "epochs", None) is None else ("--epochs", None)
    again = command("train", settings.algo, "--config", run / "config.json", *epochs, "--total-steps", to)
    return (f"the learning rate's schedule ended at step {planned:,}, and from there to step {to:,} the rate stays at "
            f"{' and '.join(sorted(left))}{nothing}; for a schedule over all of it, train a new run: {again}")


def _differences(settings: run_folder.Settings, driver: Any, written_by: int) -> list[str]:
    """Why a resumed run is not bit for bit the one that was interrupted."""
    lines = []
    if not driver.exact:
        lines.append("environments on the host cannot be saved: they begin new episodes, so this is not bit for bit the run "
                     "that was interrupted")
    if not settings.train.checkpoint_memory and driver.without_memory is not None:
        lines.append("checkpoints of this run leave the replay memory out: it is filled with new random steps, so this is not "
                     "bit for bit the run that was interrupted")
    if written_by != driver.devices and driver.members == 1:
        lines.append(f"resharded from {written_by} to {driver.devices} devices: the learner, the environments and the replay "
                     "memory are unchanged, but samples are drawn in a different order")
    return lines
