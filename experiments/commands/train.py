"""`jaxdl train` and `jaxdl resume`."""

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from jaxdl.core import files, processes
from jaxdl.core.errors import UserError
from jaxdl.experiments import algorithms, arguments, run_folder, tasks
from jaxdl.experiments.run_report import leave_pictures, line_of
from jaxdl.runtime import checkpoint, mesh
from jaxdl.runtime import fit as training
from jaxdl.runtime.device_driver import Driver


def train(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl train ALGO [flags]`. Returns the summary."""
    settings, out, overwrite, joined = parse_train(argv)
    if joined.distributed and out is None:
        raise UserError("distributed needs out: the folder that all processes of the run see")
    settings = _provided(settings, joined)
    settings.validate()
    if out is not None and processes.is_first():
        run_folder.check_out(out, overwrite)
    job = tasks.open_job(settings)
    (what,) = job.what.values()
    name = f"{settings.algo}-{what}".replace("/", "-")
    with contextlib.closing(job.driver()) as driver:
        folder = out
        if processes.is_first():
            training.check_disk_space(out or Path("runs", name), settings.train, driver)
            folder = run_folder.create(out, name, overwrite)
            try:
                run_folder.write_config(folder, settings)
            except UserError:
                with contextlib.suppress(OSError):
                    folder.rmdir()  # not where a person keeps something there
                raise
        processes.wait("the run folder")
        return _run(folder, settings, job, driver, resume=False)


def resume(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl resume RUN [--total-steps N] [--devices N]`. Returns the summary."""

    @dataclass(frozen=True)
    class Args:
        run: Annotated[Path, tyro.conf.Positional]
        """Folder of the run."""
        total_steps: int | None = None
        """Go on to this step, past the planned end; schedules keep their horizon and hold their end value."""
        devices: int | None = None
        """Go on with so many devices in place of those that it had; the environments and their memory are dealt out anew."""
        joined: Annotated[Joined, tyro.conf.OmitArgPrefixes] = Joined()
        """The processes of the run."""

    args = arguments.parse(Args, argv, "jaxdl resume", "Continue a run from its newest checkpoint.")
    settings = run_folder.open_run(args.run)
    if args.devices is not None:
        settings = settings._replace(train=dataclasses.replace(settings.train, devices=args.devices))
    settings = _provided(settings, args.joined)
    settings.validate()
    job = tasks.open_job(settings)
    steps = checkpoint.steps(args.run / "checkpoints")
    if not steps:
        raise UserError(f"{args.run} has no checkpoint to resume from; train it again with "
                        f"'jaxdl train {settings.algo} --config {args.run / 'config.json'}'")
    if args.total_steps is not None:
        if args.total_steps >= 2**31:
            raise UserError(f"total_steps must be below 2**31, got {args.total_steps}")
        if args.total_steps < steps[-1]:
            raise UserError(f"total_steps={args.total_steps} is before step {steps[-1]}, where the run is")
        settings = settings._replace(train=dataclasses.replace(settings.train, stop_step=args.total_steps))
    summary = args.run / "summary.json"
    if args.total_steps is None and summary.is_file():
        done = files.read_json(summary, 1 << 20)
        if done.get("ended") in ("finished", "reached"):
            if type(done.get("steps")) is not int:
                raise UserError(f"{summary} is damaged: it has no number of steps; remove it to resume the run")
            print(f"{args.run} is finished ({done['steps']:,} steps); give --total-steps to go on")
            return done
    written_by = checkpoint.read_meta(args.run / "checkpoints", steps[-1]).get("devices", 1)
    with contextlib.closing(job.driver(written_by)) as driver:
        return _run(args.run, settings, job, driver, resume=True, written_by=written_by)


@dataclass(frozen=True)
class Joined:
    """Several processes that train one run."""

    distributed: bool = False
    """Join the other processes of the run: those that SLURM, Open MPI, Kubernetes or a TPU pod announces, or as given below."""
    coordinator: str | None = None
    """Address of the first process, HOST:PORT."""
    num_processes: int | None = None
    """How many there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""


def _provided(settings: run_folder.Settings, joined: Joined) -> run_folder.Settings:
    """The settings with the devices that there are, which are made or joined first."""
    devices = settings.train.devices
    if not joined.distributed:
        if any(x is not None for x in (joined.coordinator, joined.num_processes, joined.process_id)):
            raise UserError("coordinator, num_processes and process_id are for --distributed")
        mesh.provide(devices)
        return settings
    mesh.provide(max(1, devices // (joined.num_processes or 1)))
    processes.join(joined.coordinator, joined.num_processes, joined.process_id)
    return settings._replace(train=dataclasses.replace(settings.train, devices=jax.device_count() if devices == 1 else devices))


def parse_train(argv: Sequence[str]) -> tuple[run_folder.Settings, Path | None, bool, Joined]:
    """The settings, the run's folder, whether it may be replaced, and the processes, from the words after `jaxdl train`.

    Raises:
        UserError: they name no algorithm, or are wrong.
    """
    known = ", ".join([*algorithms.ALGORITHMS, *algorithms.PRESETS])
    if not argv or argv[0] in ("-h", "--help"):
        text = f"usage: jaxdl train ALGO [flags]\n\nALGO is one of: {known}\n'jaxdl train ALGO --help' shows its flags."
        if argv:
            print(text)
            sys.exit(0)
        raise UserError(f"train needs an algorithm or a preset: {known}")
    algo, algorithm, preset = algorithms.find(argv[0])
    module = algorithm.load()
    rest, path = take(list(argv[1:]), "--config")
    config, drive = module.Config(), training.Config()
    if path is not None:
        given = run_folder.read_config(Path(path))
        if given.algo != algo:
            raise UserError(f"{path} is of the algorithm '{given.algo}', not '{algo}'")
        config, drive = given.config, given.train
    if preset:
        config, drive = algorithms.replaced(config, preset.config), algorithms.replaced(drive, preset.train)

    @dataclass(frozen=True)
    class Args:
        algorithm: module.Config = config
        """Settings of the algorithm."""
        run: training.Config = drive
        """How the run is driven."""
        out: Path | None = None
        """Folder of the run; a fresh one under runs/ if not given."""
        overwrite: bool = False
        """Replace the run that is in --out."""
        joined: Joined = Joined()
        """The processes of the run."""

    about = f"{preset.summary if preset else algorithm.summary}. --config RUN/config.json starts from the settings of a run."
    args = arguments.parse(Args, rest, f"jaxdl train {argv[0]}", about)
    return run_folder.Settings(algo, args.algorithm, args.run), args.out, args.overwrite, args.joined


def take(argv: list[str], flag: str) -> tuple[list[str], str | None]:
    """`argv` without `flag VALUE` or `flag=VALUE`, and the value.

    Raises:
        UserError: the value is missing.
    """
    for i, word in enumerate(argv):
        if word == flag:
            if i + 1 == len(argv):
                raise UserError(f"{flag} needs a value")
            return argv[:i] + argv[i + 2 :], argv[i + 1]
        if word.startswith(f"{flag}="):
            return argv[:i] + argv[i + 1 :], word.removeprefix(f"{flag}=")
    return argv, None


def _run(folder: Path, settings: run_folder.Settings, job: tasks.Job, driver: Driver, resume: bool,
         written_by: int | None = None) -> dict[str, Any]:
    (kind, what), = job.what.items()
    print(f"{'resuming' if resume else 'training'} {settings.algo} on {what} in {folder}", flush=True)
    if resume and not driver.exact:
        print("environments on the host cannot be saved: they begin new episodes, so this is not bit for bit the run "
              "that was interrupted")
    if resume and not settings.train.checkpoint_memory and driver.without_memory is not None:
        print("checkpoints of this run leave the replay memory out: it is filled anew with random steps, so this is not "
              "bit for bit the run that was interrupted")

    if resume and written_by != driver.devices and driver.members == 1:
        print(f"dealt out anew over {driver.devices} devices in place of {written_by}: the learner goes on as it was, so do "
              "environments and their memory; what is drawn from them, or from the dataset, comes in another order")

    def goes_on() -> None:
        if resume and processes.is_first():
            run_folder.write_config(folder, settings)
            (folder / "summary.json").unlink(missing_ok=True)  # was of the run up to here

    result = training.fit(
        driver, settings.train, job.total_steps, folder=folder, meta=tasks.meta(settings), resume=resume,
        evaluate=job.evaluate, score=job.score,
        callbacks=training.Callbacks(ready=goes_on, warn=job.doubt, show_progress=sys.stderr.isatty()))
    summary = {
        "algo": settings.algo, kind: what, "seed": settings.train.seed, "steps": result.step, "updates": result.updates,
        "compile_s": round(result.compile_s, 3), "train_s": round(result.train_s, 3),
        "steps_per_s": round(result.steps_per_s * driver.members, 1), "ended": result.ended,
        "eval": evaluated(settings, result.eval), "run": str(folder)}
    if not processes.is_first():
        return summary
    files.write_json(folder / "summary.json", summary)
    if result.ended == "interrupted":
        print(f"interrupted at step {result.step:,}; the checkpoint is written; continue with: jaxdl resume {folder}")
    else:
        pictures = leave_pictures(folder, settings, job, result.params)
        print("\n".join(_last_lines(folder, settings, summary, pictures)))
    members = (summary["eval"] or {}).get("members")
    return summary | ({"members": members} if members else {})  # where `evaluate` has them too


def evaluated(settings: run_folder.Settings, found: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """What `evaluate --json` prints: of a population the mean over members, and each member's own numbers."""
    if found is None or len(found) == 1:
        return found and found[0]
    members = [{"seed": member.seed} | member.values | numbers
               for member, numbers in zip(tasks.population(settings), found, strict=True)]
    counts = {name: found[0][name] for name in ("episodes", "num") if name in found[0]}
    means = {name: sum(m[name] for m in found) / len(found) for name, value in found[0].items() if not isinstance(value, str)}
    return means | counts | {"members": members}


def _last_lines(folder: Path, settings: run_folder.Settings, summary: dict[str, Any], pictures: list[Path]) -> list[str]:
    lines = [f"{summary['steps']:,} steps in {summary['train_s']:.1f} s after {summary['compile_s']:.1f} s of compiling "
             f"({summary['steps_per_s']:,.0f} steps/s)", line_of(settings, summary["eval"])]
    lines += [f"  {path}" for path in [folder / "checkpoints", folder / "metrics.jsonl", *pictures]]
    sampled = settings.algorithm.kind == "generative" and (folder / "samples.png").exists()
    more = f"jaxdl sample {folder} --num 64 --out samples.png" if sampled else f"jaxdl evaluate {folder}"
    return [*lines, f"next: {more}", f"      tensorboard --logdir {folder}",
            f"      jaxdl train {settings.algo} --help"]
