"""What several commands share: a run named on the command line, opened, and what is asked of its flags.

Not a command.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.core.task import Task
from jaxdl.experiments import run_folder, tasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunArgs:
    """A run that learns from a dataset."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    data_dir: Path | None = None
    """Folder with the dataset's files, where it is not the one that the run was trained from."""
    step: int | None = None
    """The parameters of the checkpoint of this step, in place of the newest."""


class Named(NamedTuple):
    """The run that a command line names, opened before its flags are read."""

    algo: str
    task: Task


def run_of(argv: Sequence[str]) -> Named | None:
    """The run that a command line names, for flags that depend on it; None where it names none."""
    folders = [(i, Path(word)) for i, word in enumerate(argv) if run_folder.is_run(Path(word))]
    if not folders:
        return None
    # a run may also be the value of a flag, as in --decoder RUN
    folder = next((path for i, path in folders if i == 0 or not argv[i - 1].startswith("--") or "=" in argv[i - 1]),
                  folders[0][1])
    settings, data_dir = run_folder.open_run(folder), value_of(argv, "--data-dir")
    settings = settings if data_dir is None else tasks.with_data_dir(settings, data_dir)
    return Named(settings.algo, tasks.reopen(settings))


def args_with(base: type, named: Named | None, field: str, options: Any) -> type:
    """As `with_run`, with one more field, a class of flags: the options of an ability of the run, with their defaults."""
    return with_run(base, named, (field, type(options), dataclasses.field(default=options)))


def with_run(base: type, named: Named | None, *fields: tuple[str, type, Any]) -> type:
    """`base` with more fields and the attribute `task`, the task of the run that a command line names, for `tasks.load_run`."""
    more = {"of": f"a run of {named.algo}", "task": named.task} if named else {"task": None}
    return dataclasses.make_dataclass(base.__name__, fields, bases=(base,), frozen=True, kw_only=True,
                                      namespace={"__doc__": base.__doc__, "__module__": base.__module__} | more)


def open_run(args: RunArgs, ability: type, cannot: str) -> tasks.TrainedRun:
    """The run that `args` name, its first member where it is a population.

    Args:
        ability: what it must be able to do.
        cannot: the rest of the sentence "RUN is a run of ALGO, ..." where it cannot.

    Raises:
        UserError: no run is there, or it has not the ability.
    """
    opened = tasks.load_first(args.run, step=args.step, data_dir=args.data_dir)
    if ability not in opened.task.abilities:
        raise UserError(f"{args.run} is a run of {opened.settings.algo}, {cannot}")
    return opened


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number outside of [low, high].

    Raises:
        UserError: '`name` must be between ..., got ...'.
    """
    if not low <= value <= high:
        most = "2**32 - 1" if high == 2**32 - 1 else f"{high}"
        raise UserError(f"{name} must be between {low} and {most}, got {value}")


def check_seed(seed: int) -> None:
    """Refuse what is no seed."""
    check_between("seed", seed, 0, 2**32 - 1)


def check_picture(out: Path, *suffixes: str) -> None:
    """Refuse a file that a picture cannot be written into.

    Raises:
        UserError: another suffix, or no such folder.
    """
    if out.suffix.lower() not in suffixes:
        raise UserError(f"out must end in {' or '.join(suffixes)}, got {out}")
    check_parent(out)


def check_parent(out: Path) -> None:
    """Refuse a file in a folder that is not there."""
    if not out.absolute().parent.is_dir():
        raise files.cannot_write(out, FileNotFoundError())


def value_of(argv: Sequence[str], flag: str) -> str | None:
    """The value of a flag on a command line, None where it is not given.

    Raises:
        UserError: the value is missing.
    """
    for i, word in enumerate(argv):
        if word == flag:
            if i + 1 == len(argv):
                raise UserError(f"{flag} needs a value")
            return argv[i + 1]
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
    return None
