"""Typed settings: frozen dataclasses that are pytrees.

The rule: **fields of type `float` (and settings within settings) are leaves, every other field is static.** A number can so
be a tracer (a population over learning rates is one program, and a new value needs no new one), a size or a choice shapes
the program. When a config is made the types of its static fields are checked, and no values, since leaves may be traced:
`validate` functions do it, and whatever makes a run calls them (`validate_untraced`).

Of settings within settings what is not given stays what the outer class has: `ppo.Config(optim=optim.Config(eps=1e-8))` keeps
PPO's schedule and clipping.
"""

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import msgspec
import numpy as np

from jaxdl.core.errors import UserError

T = TypeVar("T")

_GIVEN = "_given"  # attribute of a config: the names of the fields that its maker gave
_MOST_ENTRIES = 100


def config(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree whose leaves are its float fields and its fields that are configs.

    Making one raises a UserError where a field is of another type than it is declared; lists become tuples, paths strings and
    whole floats integers where those are declared.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    cls.__init__ = _checked(cls)
    data = [name for name, hint in field_types(cls).items() if _is_leaf(hint)]
    meta = [f.name for f in dataclasses.fields(cls) if f.name not in data]
    return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=meta)


def _checked(cls: type) -> Callable[..., None]:
    """The `__init__` of a config, with checks; JAX calls it too, with anything in the place of leaves."""
    plain, hints = cls.__init__, field_types(cls)
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    for default in filter(dataclasses.is_dataclass, defaults.values()):
        object.__setattr__(default, _GIVEN, None)  # all of it is meant

    @functools.wraps(plain)
    def init(self: Any, *args: Any, **given: Any) -> None:
        plain(self, *args, **given)
        given = dict(zip(hints, args, strict=False)) | given
        for name, value in given.items():
            object.__setattr__(self, name, _as_field(name, hints[name], value, defaults[name]))
        object.__setattr__(self, _GIVEN, tuple(given))

    return init


def _as_field(name: str, hint: Any, value: Any, default: Any) -> Any:
    """The value of a field in its declared type."""
    if dataclasses.is_dataclass(hint):
        if isinstance(value, str | int | float | tuple | list | dict):
            raise UserError(f"{name} must be a {hint.__module__}.{hint.__name__}, got {value!r}")
        given = getattr(value, _GIVEN, None)
        known = given is not None and type(value) is type(default)
        return dataclasses.replace(default, **{n: getattr(value, n) for n in given}) if known else value
    if _is_leaf(hint):
        if isinstance(value, str | bytes | tuple | list | dict):
            raise UserError(f"{name} must be {in_words(hint)}, got {value!r}")
        return value
    value = value.item() if isinstance(value, np.generic) else os.fspath(value) if isinstance(value, os.PathLike) else value
    whole = isinstance(value, float) and value.is_integer()
    try:
        return msgspec.convert(int(value) if whole else value, hint)
    except msgspec.ValidationError:
        raise UserError(f"{name} must be {in_words(hint)}, got {value!r}") from None
    except TypeError:  # a type that is no JSON: a function
        return value


def in_words(hint: Any) -> str:
    """A type of a field in words: 'a whole number or None'."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if isinstance(hint, types.UnionType) or origin is typing.Union:
        return " or ".join(in_words(h) for h in inner)
    if origin is tuple:
        return f"several of: {in_words(inner[0])}"
    name = getattr(hint, "__name__", str(hint))
    return {int: "a whole number", float: "a number", str: "a word", bool: "True or False", type(None): "None"}.get(
        hint, "a path" if name == "Path" else name)


def validate_untraced(validate: Callable[[T], None], config: T) -> None:
    """Validate a config whose numbers are numbers; one with a tracer among them is left alone.

    Raises:
        UserError: as `validate`, or a field that must be a number is none.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(config)):
        return
    for name, path in names(type(config)).items():
        holder: Any = functools.reduce(getattr, path[:-1], config)
        value, hint = getattr(holder, path[-1]), field_types(type(holder))[path[-1]]
        if _is_leaf(hint) and not (isinstance(value, int | float | np.generic | np.ndarray | jax.Array) or
                                   (value is None and type(None) in typing.get_args(hint))):
            raise UserError(f"{name} must be {in_words(hint)}, got {value!r}")
    validate(config)


@functools.cache  # to evaluate annotations takes a third of a millisecond a class
def field_types(cls: type) -> Mapping[str, Any]:
    """The type of each field of a dataclass."""
    hints = typing.get_type_hints(cls)
    return types.MappingProxyType({field.name: hints[field.name] for field in dataclasses.fields(cls)})


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
    """What `to_dict` of an earlier version wrote, under the names of today (`renamed`); what is no dict stays.

    A config says in its class attribute `earlier` what versions without a field went by, where that is not its default.
    """
    if not isinstance(values, dict):
        return values
    values = getattr(cls, "earlier", {}) | values
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
        value = getattr(config, field)
        raise UserError(f"{field} must be {expected}, got {value.item() if isinstance(value, np.generic) else value!r}")


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


def refuse_idle(config: Any) -> None:
    """Refuse a setting that is not as usual and does nothing beside the others.

    A config says in its class attribute `applies` what a setting is for: {"variance": ("likelihood", "gaussian")} is for the
    values of another, {"second_hidden_sizes": ("second_latent_size",)} for any value of it but None and False.

    Raises:
        UserError: '`field`=`value` is of `other`=`values`, and `other` is `value`'.
    """
    _refuse_idle(config, type(config)())


def _refuse_idle(config: Any, usual: Any) -> None:
    for _, sentence in _idle(config, usual):
        raise UserError(sentence)
    for name in _nested(config):
        _refuse_idle(getattr(config, name), getattr(usual, name))


def without_idle(config: T) -> T:
    """The config with every setting that does nothing (`refuse_idle`) as usual: runs of earlier versions have such."""
    return _without_idle(config, type(config)())


def _without_idle(config: T, usual: T) -> T:
    values = {field: getattr(usual, field) for field, _ in _idle(config, usual)}
    within = {name: _without_idle(getattr(config, name), getattr(usual, name)) for name in _nested(config)}
    return dataclasses.replace(config, **(within | values))


def _idle(config: Any, usual: Any) -> Iterator[tuple[str, str]]:
    """Each setting that does nothing, and what is to be said of it; those as `usual` or as their class has them are none."""
    own = type(config)()
    bases = reversed(type(config).__mro__)
    for field, (other, *values) in {k: v for base in bases for k, v in vars(base).get("applies", {}).items()}.items():
        value, now = getattr(config, field), getattr(config, other)
        if now in values or (not values and now not in (None, False)):
            continue
        if value not in (getattr(usual, field), getattr(own, field)):
            needed = f"{other}={' or '.join(map(str, values))}" if values else other
            yield field, f"{field}={value} is of {needed}, and {other} is {now}; leave {field} out, or set {needed}"


def _nested(config: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(config) if dataclasses.is_dataclass(getattr(config, field.name))]


def repeated(cls: type) -> set[type]:
    """The kinds of settings that are within `cls` more than once: two optimizers."""
    found: list[type] = list(_within(cls))
    return {kind for kind in found if found.count(kind) > 1}


def _within(cls: type) -> Iterator[type]:
    for hint in field_types(cls).values():
        if dataclasses.is_dataclass(hint):
            yield hint
            yield from _within(hint)


def of_kind(config: Any, kind: type[T]) -> Iterator[T]:
    """The settings of a kind within a config: of an actor-critic with two optimizers, both."""
    for value in (getattr(config, name) for name in _nested(config)):
        yield from [value] if isinstance(value, kind) else of_kind(value, kind)


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
