"""Run folders: what a run is, on disk.

RUN/config.json      everything that makes the run: it alone repeats it
metrics.jsonl    one object a row
tensorboard/     the same as TensorBoard events
checkpoints/     the newest states, whole
best/            parameters of the best evaluation, where the run evaluates as it trains
.lock            held by the process that writes into the folder (`core.lock`)
summary.json     what `train --json` prints
curve.png        and a picture or video of what was learned
"""

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from jaxdl.core import axis, files, lock
from jaxdl.core.config import check_lengths, from_dict, refuse_idle, to_dict, without_idle
from jaxdl.core.errors import UserError
from jaxdl.core.stdio import quoted
from jaxdl.core.task import Algorithm
from jaxdl.core.types import DataSpec
from jaxdl.experiments import algorithms
from jaxdl.experiments.population import members
from jaxdl.runtime import fit

_MAX_CONFIG_BYTES = 1 << 20
_MAX_SPEC_BYTES = 1 << 16  # a vocabulary may be long
_REPLACED = ".replaced-"  # as the lock, of the program: it makes no folder a run, nor one that is not empty
_OURS = ("config.json", "metrics.jsonl", "summary.json", "curve.png", "sweep.png", "policy.gif", "samples.png",
         "reconstructions.png", "tensorboard", "checkpoints", "best")


class Settings(NamedTuple):
    """All that makes a run: which algorithm, its settings, and how it is driven."""

    algo: str
    config: Any
    train: fit.Config
    spec: DataSpec | None = None  # of the dataset that the run learned from: what needs no data does without it

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
        for config in self._swept():
            validate(config)
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
        for config in (self.config, *self._swept()):
            refuse_idle(config)

    def _swept(self) -> list[Any]:
        """The settings with each combination of swept values, none where nothing is swept; seeds change nothing."""
        of_each = {tuple(member.values.items()): member for member in members(self.config, self.train)}
        return [member.config(self.config) for values, member in of_each.items() if values]


def write_config(folder: Path, settings: Settings) -> None:
    """Write `config.json`."""
    spec = {} if settings.spec is None else {"data": msgspec.to_builtins(settings.spec._asdict())}
    if len(files.to_json(spec)) > _MAX_SPEC_BYTES:
        spec = {}
    files.write_json(folder / "config.json", {
        "jaxdl": version("jaxdl"), "algo": settings.algo, "config": to_dict(settings.config),
        "train": to_dict(settings.train)} | spec)


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
                        from_dict(algorithm.TrainConfig or fit.Config, values["train"], f"{path}: train"),
                        _read_spec(path, values.get("data")))
    settings.validate()
    return settings


def _algorithm_of(path: Path, name: Any) -> Algorithm:
    try:
        return algorithms.load(name if isinstance(name, str) else repr(name))
    except UserError as e:
        raise UserError(f"{path} is of the algorithm {name!r}, which cannot be had here: {e}") from None


def _read_spec(path: Path, values: Any) -> DataSpec | None:
    """The spec of the run's dataset; None in a run of an environment, and in one of an earlier version."""
    if values is None:
        return None
    try:
        spec = msgspec.convert(list(DataSpec(**msgspec.convert(values, dict[str, Any]))), DataSpec)
    except (TypeError, UnicodeError, msgspec.ValidationError) as e:
        raise UserError(f"{path}: data is not the spec of a dataset: {e}") from None
    sizes = (spec.num_examples, *spec.shape, 1 if spec.num_classes is None else spec.num_classes)
    if min(sizes) < 1 or max(sizes) >= 2**31 or math.prod(spec.shape) >= 2**31:
        raise UserError(f"{path}: data has sizes that no dataset has: {spec.num_examples} examples of {list(spec.shape)}")
    return spec


def open_run(folder: Path) -> Settings:
    """The settings of an existing run.

    Raises:
        UserError: `folder` is not one, or cannot be read.
    """
    try:
        there = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise UserError(f"there is no run folder {folder}") from None
    except OSError as e:
        raise UserError(f"the run folder {folder} cannot be read: {e.strerror}") from None
    if "config.json" not in there or not os.path.isfile(folder / "config.json"):
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    return read_config(folder / "config.json")


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's."""
    return os.path.isfile(folder / "config.json")


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse a folder that a new run must not take.

    Raises:
        UserError: `out` is a file, cannot be made or written into, or holds something (with `overwrite`: something else than
            a run).
    """
    _check_name(out)
    if os.path.exists(out) and not os.path.isdir(out):
        raise UserError(f"{out} is a file; --out takes a folder")
    try:
        there = [name for name in os.listdir(out) if name != lock.NAME and not name.startswith(_REPLACED)]
    except OSError as e:
        if os.path.isdir(out):
            raise UserError(f"the run folder {out} cannot be read: {e.strerror}") from None
        there = []
    above = next((path for path in (out.absolute(), *out.absolute().parents) if os.path.isdir(path)), None)
    if above and not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"the run folder {out} cannot be made: nothing can be written into {above}")
    if not there:
        return
    if not is_run(out):
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


@contextlib.contextmanager
def create(out: Path | None, name: str, overwrite: bool, pictures: Iterable[str] = ()) -> Iterator[Path]:
    """The folder of a new run, locked while the context lasts: `out`, or a fresh one under `runs/`, `name-1`, `name-2`, ...

    Args:
        overwrite: remove the run that is in `out`; what a person put there stays.
        pictures: names of files that the run will leave.

    Raises:
        UserError: as `check_out` and `lock.hold`, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = _fresh(name) if out is None else out
            check_out(folder, overwrite)
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock.hold(folder))
            check_out(folder, overwrite)  # now that nobody else can change it
            _remove_run(folder, [*{*_OURS, *pictures} - {"config.json"}, "config.json"])
        except OSError as e:
            raise UserError(f"the run folder {e.filename or out} cannot be made: {e.strerror or e}") from None
        yield folder


def _fresh(name: str) -> Path:
    """Make a folder under `runs/` that was not there."""
    _check_name(Path("runs"))
    number = 1
    while True:
        folder = Path("runs") / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def _remove_run(folder: Path, names: Iterable[str]) -> None:
    """Remove what a run left: all of it, or nothing and an OSError. Of a link the link goes, and what it points to stays."""
    names = [name for name in names if os.path.lexists(folder / name)]
    leftovers = list(folder.glob(f"{_REPLACED}*"))
    if names:
        aside, moved = Path(tempfile.mkdtemp(prefix=_REPLACED, dir=folder)), []
        leftovers.append(aside)
        try:
            for name in names:
                (folder / name).rename(aside / name)
                moved.append(name)
        except OSError:
            for name in moved:
                (aside / name).rename(folder / name)
            aside.rmdir()
            raise
    for path in leftovers:
        shutil.rmtree(path, ignore_errors=True)
