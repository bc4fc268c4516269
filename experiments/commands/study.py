"""study [NAME]: a small experiment that shows one thing, as a table and a picture; without a name, a list of them"""

import dataclasses
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import tyro

from jaxdl.core.config import suggest
from jaxdl.core.errors import UserError
from jaxdl.experiments import cli, studies
from jaxdl.experiments.commands import common

_FOLDER = Path(studies.__file__).parent


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """The command without a study."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """A study ('jaxdl study' lists them); 'jaxdl study NAME --help' shows its flags."""


def Args(argv: Sequence[str]) -> type:
    """The flags, which depend on the study."""
    if not argv or argv[0].startswith("-"):
        return _Listing
    module = _load(argv[0])
    named = ("name", Annotated[str, tyro.conf.Positional], dataclasses.field(default=argv[0]))
    more = {"__doc__": module.Args.__doc__, "__module__": __name__, "of": f"the study {argv[0]}", "about": known()[argv[0]]}
    return dataclasses.make_dataclass("Args", [named], bases=(module.Args,), frozen=True, kw_only=True, namespace=more)


def run(args: Any) -> dict[str, Any]:
    """Run a study, or list them."""
    if args.name is None:
        for name, summary in known().items():
            print(f"  {name:<20} {summary}")
        return {"studies": known()}
    common.check_seed(args.seed)
    return _load(args.name).run(args)


def known() -> dict[str, str]:
    """The studies, and what each shows."""
    lines = {path.stem: cli.summary_of(path) for path in sorted(_FOLDER.glob("*.py"))}
    return {name: line[1] for name, line in lines.items() if line}


def _load(name: str) -> ModuleType:
    if name not in known():
        raise UserError(f"there is no study '{name}'{suggest(name, known())}")
    return importlib.import_module(f"jaxdl.experiments.studies.{name}")
