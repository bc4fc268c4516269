"""Typed settings: frozen dataclasses that are pytrees.

The rule: **fields of type `float` (and settings within settings) are leaves, every other field is static.** A number can so
be a tracer (a population over learning rates is one program, and a new value needs no new one), a size or a choice shapes
the program. Nothing is checked when a config is made, since that would break under tracing: `validate` functions do it.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import msgspec
import numpy as np

from jaxdl.core.errors import UserError

T = TypeVar("T")

_MOST_ENTRIES = 100


def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree whose leaves are its float fields and its fields that are configs."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    data = [name for name, hint in field_types(cls).items() if _is_leaf(hint)]
    meta = [f.name for f in dataclasses.fields(cls) if f.name not in data]
    return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=meta)


def field_types(cls: type) -> dict[str, Any]:
    """The type of each field of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def is_leaf(cls: type, field: str) -> bool:
    """Whether a field of a config is a leaf: a number, or settings within."""
    return _is_leaf(field_types(cls)[field])


def _is_leaf(hint: Any) -> bool:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return any(o is float or dataclasses.is_dataclass(o) for o in options)


def leaves_as_arrays(config: T) -> T:
    """The same config with float32 scalars as leaves: what programs take, so that no value of a leaf retraces them."""
    return jax.tree.map(lambda x: x.astype(np.float32) if isinstance(x, jax.Array) else np.float32(x), config)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain numbers, strings, lists and dicts, ready for JSON."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}  # msgspec leaves out defaults
    return msgspec.to_builtins({name: to_dict(v) if dataclasses.is_dataclass(v) else v for name, v in values.items()})


def from_dict(cls: type[T], values: Any, where: str = "config") -> T:
    """The config that `to_dict` wrote. `values` is untrusted: unknown fields and wrong types are refused by name.

    Fields that had another name in an earlier version are read by `cls.renamed` (`renamed`).

    Raises:
        UserError: names the field, what was found and what was expected.
    """
    values = with_new_names(cls, values)
    _refuse_unknown(cls, values, where)
    try:
        return msgspec.convert(values, cls)
    except (msgspec.ValidationError, UnicodeError) as e:  # of a text that is no Unicode
        raise UserError(f"{where}: {str(e).replace('`$.', '`').replace('`$`', 'the top level')}") from None


def renamed(cls: type) -> dict[str, str | Callable[[Any], dict[str, Any]]]:
    """Fields of a config that had another name: old name -> the new one, or a function from the old value to new fields.

    A config says so in its class attribute `renamed`; those of its bases count too, but for fields that it has itself.
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        own = vars(base).get("__annotations__", {})
        found = {old: new for old, new in found.items() if old not in own} | vars(base).get("renamed", {})
    return found


def with_new_names(cls: type, values: Any) -> Any:
    """What `to_dict` of an earlier version wrote, under the names of today (`renamed`); what is no dict stays."""
    if not isinstance(values, dict):
        return values
    values = dict(values)
    for old, new in renamed(cls).items():
        if old in values:
            value = values.pop(old)
            values = (new(value) if callable(new) else {new: value}) | values
    for field, hint in field_types(cls).items():
        if dataclasses.is_dataclass(hint) and field in values:
            values[field] = with_new_names(hint, values[field])
    return values


def _refuse_unknown(cls: type, values: Any, where: str) -> None:
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected an object with the fields of {cls.__module__}.{cls.__name__}, "
                        f"got {type(values).__name__}")
    hints = field_types(cls)
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"{where}: unknown field '{name}'{suggest(name, hints)}")
        if dataclasses.is_dataclass(hints[name]):
            _refuse_unknown(hints[name], value, f"{where}.{name}")


def suggest(word: str, known: typing.Iterable[str]) -> str:
    """'; did you mean ...?' where something known is close to `word`, else the known ones."""
    import difflib

    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known are: {', '.join(known)}"


def require(config: Any, field: str, holds: bool, expected: str) -> None:
    """Refuse a config whose `field` is not as `expected` says.

    Raises:
        UserError: '`field` must be `expected`, got `value`'.
    """
    if not holds:
        raise UserError(f"{field} must be {expected}, got {getattr(config, field)!r}")


def require_positive(config: Any, *fields: str) -> None:
    """Each field is a finite number above zero, and fits 32 bits where it is whole (a None is left alone)."""
    for field in fields:
        value = getattr(config, field)
        require(config, field, value is None or (value > 0 and value < math.inf), "above 0")
        require(config, field, not isinstance(value, int) or value < 2**31, "below 2**31")


def check_lengths(config: Any) -> None:
    """Refuse lists of sizes that no network has, in a config and the settings within it: each is a layer of the program.

    Raises:
        UserError: names the field.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_lengths(value)
        elif isinstance(value, tuple) and len(value) > _MOST_ENTRIES:
            raise UserError(f"{field.name} must have at most {_MOST_ENTRIES} entries, got {len(value):,}")


def require_unit(config: Any, *fields: str) -> None:
    """Each field lies in [0, 1]."""
    for field in fields:
        require(config, field, 0.0 <= getattr(config, field) <= 1.0, "between 0 and 1")


def repeated(cls: type) -> set[type]:
    """The kinds of settings that are within `cls` more than once: two optimizers."""
    found: list[type] = list(_within(cls))
    return {kind for kind in found if found.count(kind) > 1}


def _within(cls: type) -> Iterator[type]:
    for hint in field_types(cls).values():
        if dataclasses.is_dataclass(hint):
            yield hint
            yield from _within(hint)


def names(cls: type) -> dict[str, tuple[str, ...]]:
    """The name of each field of `cls` and of the settings within it -> the path to it.

    A field within is called as it is, `learning_rate`; where settings of one kind are within more than once, by its path from
    there, `actor_optim.learning_rate`.
    """
    return dict(_names(cls, "", (), repeated(cls)))


def _names(cls: type, prefix: str, path: tuple[str, ...], twice: set[type]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for field, hint in field_types(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _names(hint, f"{prefix}{field}." if hint in twice else prefix, (*path, field), twice)
        else:
            yield prefix + field, (*path, field)
