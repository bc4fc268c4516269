"""train ALGO: an algorithm, a preset, or one of your own as package.module:NAME; 'jaxdl train ALGO --help' shows its flags"""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from jaxdl.core import lock, processes
from jaxdl.core.errors import UserError
from jaxdl.experiments import algorithms, arguments, run_folder, tasks
from jaxdl.experiments.commands import common
from jaxdl.runtime import fit, mesh


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


JOINED = Joined()


@dataclass(frozen=True, kw_only=True)
class _Algo:
    """Flags of the command, without those of an algorithm."""

    algo: Annotated[str, tyro.conf.Positional]
    """An algorithm or a preset ('jaxdl list' shows them), or package.module:NAME."""


def Args(argv: Sequence[str]) -> type:
    """The flags, which depend on the algorithm."""
    if not argv or argv[0].startswith("-"):
        if not {"--help", "-h"} & set(argv):
            raise UserError(f"an algorithm or a preset is needed: {', '.join([*algorithms.ALGORITHMS, *algorithms.PRESETS])}")
        return _Algo
    return args_of(argv[0], common.value_of(argv, "--config"))


def args_of(name: str, config_file: str | None = None) -> type:
    """The flags of an algorithm or a preset.

    Args:
        config_file: a run's config.json that the defaults are taken from.

    Raises:
        UserError: there is no such algorithm, or the file is of another one.
    """
    algo, preset = algorithms.find(name)
    found = algorithms.load(algo)
    train_config = found.TrainConfig or fit.Config
    settings, driven = found.Config(), train_config()
    if config_file is not None:
        given = run_folder.read_config(Path(config_file))
        if given.algo != algo:
            raise UserError(f"{config_file} is of the algorithm '{given.algo}', not '{algo}'")
        settings, driven = given.config, given.train
    if preset:
        settings, driven = algorithms.replaced(settings, preset.config), algorithms.replaced(driven, preset.train)

    @dataclass(frozen=True, kw_only=True)
    class Flags(_Algo):
        algorithm: found.Config = settings
        """Settings of the algorithm."""
        run: train_config = driven
        """How the run is driven."""
        config: Path | None = None
        """The config.json of a run, whose settings are the defaults of all others."""
        out: Path | None = None
        """Folder of the run; a fresh one under runs/ if not given."""
        overwrite: bool = False
        """Replace the run that is in --out."""
        joined: Joined = JOINED
        """The processes of the run."""

    Flags.about = f"{preset.summary if preset else found.summary}. --config RUN/config.json starts from a run's settings."
    return Flags


def settings_of(args: Any) -> run_folder.Settings:
    """The settings that flags ask for."""
    return run_folder.Settings(algorithms.find(args.algo)[0], args.algorithm, args.run)


def settings_from(words: Sequence[str]) -> run_folder.Settings:
    """The settings that a command line asks for: ["ppo", "--num-envs", "8"].

    Raises:
        UserError: it makes no sense.
    """
    settings = settings_of(arguments.parse(Args(words), words, "jaxdl train", ""))
    settings.validate()
    settings.refuse_idle()
    return settings


def run(args: Any) -> dict[str, Any]:
    """Train. Returns the summary."""
    if args.joined.distributed and args.out is None:
        raise UserError("distributed needs out: the folder that all processes of the run see")
    settings = with_devices(settings_of(args), args.joined)
    settings.validate()
    settings.refuse_idle()
    with contextlib.ExitStack() as stack:
        if args.out is not None and processes.is_first():
            run_folder.check_out(args.out, args.overwrite)
            if run_folder.is_run(args.out):
                stack.enter_context(lock.hold(args.out))
        task = tasks.open_task(settings)
        settings = settings._replace(spec=task.spec)
        name = f"{settings.algo}-{task.subject}".translate(str.maketrans("/:", "--"))
        driver = stack.enter_context(contextlib.closing(tasks.driver(task, settings)))
        if not settings.train.checkpoint_memory and driver.without_memory is None:
            raise UserError(f"checkpoint_memory=False leaves the replay memory out of checkpoints, and {settings.algo} has "
                            "none; leave the flag out")
        folder = args.out
        if processes.is_first():
            fit.check_disk_space(args.out or Path("runs", name), settings.train, driver)
            folder = stack.enter_context(run_folder.create(args.out, name, args.overwrite, task.pictures))
            try:
                run_folder.write_config(folder, settings)
            except UserError:
                with contextlib.suppress(OSError):
                    (folder / lock.NAME).unlink()
                    folder.rmdir()  # not where a person keeps something there
                raise
        processes.wait("the run folder")
        print(f"training {settings.algo} on {task.subject} in {folder}", flush=True)
        return tasks.train(folder, settings, task, driver)


def with_devices(settings: run_folder.Settings, joined: Joined) -> run_folder.Settings:
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
