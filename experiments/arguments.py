"""Command lines from typed classes (tyro), with errors of one sentence.

A field of a class within a class is a flag of its own name, `--learning-rate`; where two classes of one kind are within, as two
optimizers are, their fields keep the path, `--actor-optim.learning-rate` (`core.config.names`).
"""

import contextlib
import dataclasses
import decimal
import io
import os
import re
import shutil
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from jaxdl.core import stdio
from jaxdl.core.config import field_types, in_words, names, renamed, repeated, suggest
from jaxdl.core.errors import UserError

T = TypeVar("T")

_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE]\+?\d{1,2}")
_MOST_DIGITS = 100
_FEWEST_COLUMNS = 40  # of help


def parse(cls: type[T], argv: Sequence[str], prog: str, description: str) -> T:
    """An instance of `cls` from `argv`. Where its flags depend on something, its attribute `of` says on what.

    Raises:
        UserError: what was wrong with the command line, in one sentence.
        SystemExit: after --help.
    """
    argv = _in_digits(cls, _with_new_names(cls, list(argv)))
    named = argv[0] if argv and not argv[0].startswith("-") else ""
    asks = f"(see '{' '.join([prog, named]).strip()} --help')"
    helps = "--help" in argv or "-h" in argv
    if not helps:
        _refuse_unknown(cls, argv, prog, asks)
    how = {"args": argv, "prog": prog, "description": description}
    try:
        with contextlib.redirect_stderr(io.StringIO()), _wide_enough():
            if repeated(cls):
                return _built(cls, tyro.cli(_with_paths(cls), **how))
            return tyro.cli(cls, config=(tyro.conf.OmitArgPrefixes,), **how)
    except SystemExit as e:
        if e.code in (0, None):
            raise
        raise UserError(f"{_what_is_wrong(cls, argv)} {asks}") from None


@contextlib.contextmanager
def _wide_enough() -> Iterator[None]:
    """A terminal of a few columns is taken for a wider one: help would be laid out for as long as it does not fit."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(max(_FEWEST_COLUMNS, shutil.get_terminal_size().columns))
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def flag(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def _flags(cls: type) -> dict[str, Any]:
    """All flags of a class -> their types."""
    found = {}
    for name, path in names(cls).items():
        hint: Any = cls
        for part in path:
            hint = field_types(hint)[part]
        found[flag(name)] = hint
    return {name: hint for name, hint in found.items() if name not in map(flag, _positionals(cls))}


def _positionals(cls: type) -> set[str]:
    """The fields that are words without a flag."""
    hints = typing.get_type_hints(cls, include_extras=True)
    mark = tyro.conf.Positional[int].__metadata__[0]
    return {field.name for field in dataclasses.fields(cls) if mark in getattr(hints[field.name], "__metadata__", ())}


def _classes(cls: type) -> Iterator[type]:
    yield cls
    for hint in field_types(cls).values():
        if dataclasses.is_dataclass(hint):
            yield from _classes(hint)


def _in_digits(cls: type, argv: Sequence[str]) -> list[str]:
    """The command line with whole numbers in scientific notation, `1e5`, written out."""
    known, given, of_integers, words = _flags(cls), "", False, []
    for word in argv:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if name:
            given = name.replace("_", "-")
            hint = known.get(given)
            of_integers = any(int in (h, *typing.get_args(h)) for h in (hint, *typing.get_args(hint)))
        if of_integers and _SCIENTIFIC.fullmatch(value):
            number = decimal.Decimal(value)
            value = str(int(number)) if number == number.to_integral_value() else value
        if of_integers and len(value) > _MOST_DIGITS and value.lstrip("+-").replace("_", "").isdigit():
            raise UserError(f"{given} takes whole numbers of at most {_MOST_DIGITS} digits, got one of {len(value)}")
        words.append(f"{name}{equals}{value}")
    return words


def _with_new_names(cls: type, argv: list[str]) -> list[str]:
    """The command line with flags of an earlier version under their new names, which is said on stderr, and those that have a
    second name (`also` of a config) under their first.
    """
    known = {flag(old): new for within in _classes(cls) for old, new in renamed(within).items()}
    also = {flag(other): flag(name) for within in _classes(cls) for other, name in getattr(within, "also", {}).items()}
    out: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        new = known.get(name)
        if name in also:
            out.append(also[name] + equals + value)
        elif new is None:
            out.append(word)
        elif isinstance(new, str):
            stdio.say(f"jaxdl: {name} is called {flag(new)} now; the old name goes with the next version")
            out.append(flag(new) + equals + value)
        else:
            out += _new_words(name, new, word, words, value if equals else None)
    return out


def _new_words(name: str, new: Any, word: str, words: Iterator[str], value: str | None) -> list[str]:
    """A flag whose values were others, by the function that reads old config files."""
    follows = next(words, None) if value is None else value
    if follows is None or follows.startswith("--"):  # as it is written today: a switch
        return [word] if follows is None else [word, follows]
    try:
        fields = new(follows)
    except KeyError:  # no value that it ever had
        return [word, follows]
    if any(isinstance(v, dict) for v in fields.values()):  # it moved into settings within, and is called the same
        return [word, follows] if value is None else [word]
    as_flags = [flag(n) if v is True else flag(f"no_{n}") if v is False else f"{flag(n)}={v}" for n, v in fields.items()]
    stdio.say(f"jaxdl: {name} {follows} is written {' '.join(as_flags)} now; the old way goes with the next version")
    return as_flags


def _refuse_unknown(cls: type, argv: Sequence[str], prog: str, asks: str) -> None:
    known = _flags(cls)
    switches = {f"--no-{name[2:]}" for name, hint in known.items() if hint is bool}
    for word in argv:
        name = word.partition("=")[0].replace("_", "-")
        if word.startswith("--") and name not in known and name not in switches:
            near = suggest(name, known)
            near = near.replace("'", "") if "did you mean" in near else ""
            of = f" for {cls.of}" if getattr(cls, "of", "") else ""
            raise UserError(f"{name} is no flag of '{prog}'{of}{near} {asks}")


def _with_paths(cls: type) -> type:
    """`cls` for tyro, with a class within whose kind is there once without its path."""
    changed: dict[str, Any] = {}
    for name, hint in field_types(cls).items():
        if not dataclasses.is_dataclass(hint):
            continue
        inner = _with_paths(hint)
        if repeated(hint):
            changed[name] = Annotated[inner, tyro.conf.arg(name="")]
        elif hint not in repeated(cls):
            changed[name] = Annotated[inner, tyro.conf.OmitArgPrefixes]
    if not changed:
        return cls
    defaults = {f.name: _built(typing.get_args(changed[f.name])[0], f.default)  # of the class that tyro is given
                for f in dataclasses.fields(cls) if f.name in changed}
    own = {"__annotations__": changed, "__doc__": cls.__doc__, "__module__": cls.__module__}
    made = type(cls.__name__, (cls,), own | defaults)
    return dataclasses.dataclass(frozen=True, kw_only=True)(made)


def _built(cls: type[T], value: Any) -> T:
    """An instance of `cls` from one of a class with the same fields."""
    return cls(**{name: _built(hint, getattr(value, name)) if dataclasses.is_dataclass(hint) else getattr(value, name)
                  for name, hint in field_types(cls).items()})


def _what_is_wrong(cls: type, argv: Sequence[str]) -> str:
    """Which flag tyro did not take, found by giving it each alone."""
    given = _given(argv)
    known = _flags(cls)
    for name, values in given:
        hint = known.get(name)
        if hint is None:
            continue
        if not values and hint is not bool and typing.get_origin(hint) is not tuple:
            return f"{name} needs a value: {in_words(hint)}"
        if not _takes(hint, values):
            return f"{name} takes {in_words(hint)}, got {' '.join(values)!r}"
    for name in (f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING
                 and f.default_factory is dataclasses.MISSING):
        if name in _positionals(cls):
            if not argv or argv[0].startswith("-"):
                return f"{name.upper()} is missing"
        elif flag(name) not in [n for n, _ in given]:
            return f"{flag(name)} is missing"
    return f"'{' '.join(argv)}' cannot be read"


def _given(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Flags and the words after each; words before the first flag are left out."""
    found: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found.append((name.replace("_", "-"), [value] if equals else []))
        elif found:
            found[-1][1].append(word)
    return found


def _takes(hint: Any, words: Sequence[str]) -> bool:
    if hint is bool:
        return True
    many = typing.get_origin(hint) is tuple or any(typing.get_origin(h) is tuple for h in typing.get_args(hint))
    words = list(words) if many else list(words[:1])  # what follows may be a positional
    box = dataclasses.make_dataclass("Box", [("value", hint)])
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            tyro.cli(box, args=["--value", *words])
    except SystemExit:
        return False
    return True
