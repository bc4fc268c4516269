"""`jaxdl evaluate`, `plot` and `list`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxdl.core.errors import UserError
from jaxdl.experiments import algorithms, arguments


def evaluate(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl evaluate RUN`."""

    @dataclass(frozen=True)
    class Args:
        run: Annotated[Path, tyro.conf.Positional]
        """Folder of the run."""
        best: bool = False
        """The parameters of the best evaluation, in place of the newest."""
        episodes: int | None = None
        """Episodes (agents); the run's eval_episodes if not given."""
        seed: int | None = None
        """Seed of the evaluation; the run's if not given."""
        data_dir: Path | None = None
        """Folder with the dataset's files, where it is not the one that the run was trained from."""
        importance_samples: int | None = None
        """Samples an image of the importance-weighted bound on log p(x), reported as nll (generative models)."""
        features: bool = False
        """Also judge samples by the features of a classifier of the same dataset (generative models; a GAN always is)."""
        video: Path | None = None
        """Also film one episode into this .gif (agents)."""

    args = arguments.parse(Args, argv, "jaxdl evaluate", "Evaluate a run.")
    from jaxdl.experiments import run_report, tasks
    from jaxdl.experiments.commands import train
    from jaxdl.rl import video
    from jaxdl.runtime import fit

    for name in ("episodes", "importance_samples"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"{name} must be above 0, got {value}")
    if args.seed is not None and not 0 <= args.seed < 2**32:
        raise UserError(f"seed must be between 0 and 2**32 - 1, got {args.seed}")
    loaded = tasks.load(args.run, best=args.best, data_dir=args.data_dir)
    settings = loaded.settings
    agent = settings.algorithm.kind == "agent"
    for name, only in (("episodes", True), ("video", True), ("importance_samples", False), ("data_dir", False)):
        if getattr(args, name) is not None and agent is not only:
            raise UserError(f"--{name.replace('_', '-')} is for {'agents' if only else 'generative models'}, "
                            f"and {args.run} is a run of {settings.algo}")
    if args.video is not None:
        video.check_path(args.video)
    if args.features and agent:
        raise UserError(f"--features is for generative models, and {args.run} is a run of {settings.algo}")
    options = {name: getattr(args, name) for name in ("episodes", "seed", "importance_samples")}
    options = {name: value for name, value in options.items() if value is not None}
    options |= {"features": True} if args.features else {}
    members = fit.members_of(loaded.params, len(tasks.population(settings)))
    found = train.evaluated(settings, [loaded.job.evaluate(p, **options) for p in members])
    print(f"step {loaded.step:,}: {run_report.line_of(settings, found)}")
    if args.video is not None:
        video.record(loaded.job.model.greedy, members[0], settings.config.env_id, args.video,
                     seed=settings.train.seed if args.seed is None else args.seed, settings=settings.config.env)
        print(args.video)
    return found


def plot(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl plot RUN... --out FILE.png`."""

    @dataclass(frozen=True)
    class Args:
        runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
        """Folders of runs; several of one algorithm and task are drawn as one curve with its spread."""
        out: Path
        """The picture to write."""

    args = arguments.parse(Args, argv, "jaxdl plot", "Draw learning curves.")
    from jaxdl.experiments import plot as plots

    if not args.runs:
        raise UserError("plot needs at least one run folder")
    plots.plot_runs(args.runs, args.out)
    print(args.out)
    return {"runs": [str(run) for run in args.runs], "out": str(args.out)}


def list(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl list`."""

    @dataclass(frozen=True)
    class Args:
        pass

    arguments.parse(Args, argv, "jaxdl list", "What can be used here.")
    from jaxdl import data
    from jaxdl.rl import envs

    tables = {
        "algorithms": {name: a.summary for name, a in algorithms.ALGORITHMS.items()},
        "presets": {name: p.summary for name, p in algorithms.PRESETS.items()},
        "environments": {name: ", ".join(backends) for name, backends in envs.listing()},
        "datasets": data.summaries(),
    }
    for title, table in tables.items():
        print(f"{title}:")
        for name, text in table.items():
            print(f"  {name:<32} {text}")
    return tables
