"""Run folders: what a run is, on disk.

RUN/config.json      everything that makes the run: it alone repeats it
metrics.jsonl    one object a row
tensorboard/     the same as TensorBoard events
checkpoints/     the newest states, whole
best/            parameters of the best evaluation, where the run evaluates as it trains
summary.json     what `train --json` prints
curve.png        and a picture or video of what was learned
"""

import os
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.core import axis, files
from jaxdl.core.config import check_lengths, from_dict, refuse_idle, to_dict, without_idle
from jaxdl.core.errors import UserError
from jaxdl.core.stdio import quoted
from jaxdl.core.task import Algorithm
from jaxdl.experiments import algorithms
from jaxdl.experiments.population import members
from jaxdl.runtime import fit

_MAX_CONFIG_BYTES = 1 << 20
_OURS = ("config.json", "metrics.jsonl", "summary.json", "curve.png", "sweep.png", "policy.gif", "samples.png",
         "reconstructions.png", "tensorboard", "checkpoints", "best")


class Settings(NamedTuple):
    """All that makes a run: which algorithm, its settings, and how it is driven."""

    algo: str
    config: Any
    train: fit.Config

    @property
    def algorithm(self) -> Algorithm:
        """What the algorithm says of itself."""
        return algorithms.load(self.algo)

    @property
    def subject(self) -> str:
        """The environment or the dataset."""
        return getattr(self.config, self.algorithm.subject)

    def validate(self) -> None:
        """Refuse settings that make no sense; those that do nothing are let pass, as an earlier version did."""
        def validate(config: Any) -> None:
            self.algorithm.validate(without_idle(config))

        check_lengths(self.config)
        check_lengths(self.train)
        validate(self.config)
        fit.validate(self.train)
        of_each = members(self.config, self.train)
        for member in of_each:
            validate(member.config(self.config))
        if self.train.devices > 1 and len(of_each) == 1:
            share = axis.share(self.config, self.train.devices)
            try:
                validate(share)
            except UserError as e:
                raise UserError(f"on each of {self.train.devices} devices: {e}") from None
        elif self.train.devices > 1:
            axis.check_share("the number of members", len(of_each), self.train.devices)

    def refuse_idle(self) -> None:
        """Refuse settings of a new run that do nothing."""
        refuse_idle(self.train)
        for config in (self.config, *(member.config(self.config) for member in members(self.config, self.train))):
            refuse_idle(config)


def write_config(folder: Path, settings: Settings) -> None:
    """Write `config.json`."""
    files.write_json(folder / "config.json", {
        "jaxdl": version("jaxdl"), "algo": settings.algo, "config": to_dict(settings.config),
        "train": to_dict(settings.train)})


def read_config(path: Path) -> Settings:
    """Read and check a `config.json`.

    Raises:
        UserError: not there, too large, no JSON, of an unknown algorithm, or with fields that it must not have.
    """
    values = files.read_json(path, _MAX_CONFIG_BYTES)
    for field in ("algo", "config", "train"):
        if field not in values:
            raise UserError(f"{path} is no run's config.json: it has no field '{field}'")
    algorithm = _algorithm_of(path, values["algo"])
    settings = Settings(values["algo"], from_dict(algorithm.Config, values["config"], f"{path}: config"),
                        from_dict(algorithm.TrainConfig or fit.Config, values["train"], f"{path}: train"))
    settings.validate()
    return settings


def _algorithm_of(path: Path, name: Any) -> Algorithm:
    try:
        return algorithms.load(name if isinstance(name, str) else repr(name))
    except UserError as e:
        raise UserError(f"{path} is of the algorithm {name!r}, which cannot be had here: {e}") from None


def open_run(folder: Path) -> Settings:
    """The settings of an existing run.

    Raises:
        UserError: `folder` is not one.
    """
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    return read_config(folder / "config.json")


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse a folder that a new run must not take.

    Raises:
        UserError: `out` is a file, or holds something (with `overwrite`: something else than a run).
    """
    _check_name(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out takes a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / "config.json").is_file():
        raise UserError(f"{out} is not empty and not a run folder; choose another --out")
    if not overwrite:
        raise UserError(f"{out} already holds a run; choose another --out, continue it with {quoted('resume', out)}, or "
                        "replace it with --overwrite")


def _check_name(folder: Path) -> None:
    """Refuse a path that TensorStore, which writes the checkpoints, cannot name."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        try:
            os.fsencode(folder.absolute()).decode()
        except UnicodeDecodeError:
            raise UserError(f"the run folder {folder.absolute()} has a name that is not UTF-8, and no checkpoint can be "
                            "written into it") from None
        raise UserError(f"the name of the run folder {folder.absolute()} cannot be read in this locale; PYTHONUTF8=1 would do"
                        ) from None


def create(out: Path | None, name: str, overwrite: bool, pictures: Iterable[str] = ()) -> Path:
    """Make the folder of a new run: `out`, or a fresh one under `runs/` called `name-1`, `name-2`, ...

    Args:
        overwrite: remove the run that is in `out`; what a person put there stays.
        pictures: names of files that the run will leave.

    Raises:
        UserError: as `check_out`, or it cannot be made.
    """
    try:
        if out is None:
            _check_name(Path("runs"))
            number = 1
            while True:
                folder = Path("runs") / f"{name}-{number}"
                try:
                    folder.mkdir(parents=True)
                    return folder
                except FileExistsError:
                    number += 1
        check_out(out, overwrite)
        for name in {*_OURS, *pictures} if out.is_dir() else ():
            path = out / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        return out
    except OSError as e:
        raise UserError(f"the run folder {e.filename or out} cannot be made: {e.strerror}") from None
