"""The members of a population: every seed, and in a cross-validation every fold, with every value of the settings that are
swept, `learning_rate=1e-4,3e-4`.

Only numbers can be swept (fields of type float): a size or a choice makes another program. Of several sweeps it is the product.
A number within is called as on the command line, `learning_rate` or `actor_optim.learning_rate`, or by its whole path.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxdl.core.config import is_leaf, names, suggest
from jaxdl.core.errors import UserError
from jaxdl.experiments.algorithms import replaced
from jaxdl.runtime import fit

MAX_MEMBERS = 10_000  # of one program


class Member(NamedTuple):
    """One run of a population."""

    seed: int
    values: dict[str, float]  # of the swept fields, and its fold

    def config(self, config: Any) -> Any:
        """The settings of the algorithm, with its values."""
        numbers = _numbers(config)
        for field, value in self.values.items():
            for part in reversed(numbers.get(field, (field,))):
                value = {part: value}
            config = replaced(config, value)
        return config


def in_words(of_each: Sequence[Member], index: int) -> str:
    """Which of the members of a population one is: 'member 0 of 4 (seed 3, learning_rate=0.001)'."""
    values = "".join(f", {name}={value:g}" for name, value in of_each[index].values.items())
    return f"member {index} of {len(of_each)} (seed {of_each[index].seed}{values})"


def members(config: Any, driven: fit.Config) -> list[Member]:
    """All of them: of the first values first, then of the first fold, seed by seed.

    Raises:
        UserError: a sweep is not written as one, its field cannot be swept (says which can), or there are too many members.
    """
    sweeps, numbers = parse(driven.sweep), _numbers(config)
    for field in sweeps:
        if field not in numbers:
            raise UserError(f"sweep takes fields that are numbers and no sizes, and '{field}' is none{suggest(field, numbers)}")
    folds = num_folds(config)
    count(sweeps, driven.num_seeds, folds)
    each_fold = [{"fold": float(fold)} for fold in range(folds)] if folds > 1 else [{}]
    return [Member(driven.seed + k, dict(zip(sweeps, values, strict=True)) | fold)
            for values in itertools.product(*sweeps.values()) for fold in each_fold for k in range(driven.num_seeds)]


def num_folds(config: Any) -> int:
    """Folds that are trained side by side: those of a cross-validation, 1 where there is none or one fold was asked for."""
    folds = getattr(config, "folds", None) if getattr(config, "fold", None) is None else None
    return folds if type(folds) is int and folds > 1 else 1


def count(sweeps: dict[str, list[float]], num_seeds: Any, folds: int = 1) -> int:
    """The number of members, before they are made.

    Raises:
        UserError: there are none, or too many for one program.
    """
    found = math.prod(map(len, sweeps.values())) * folds * (num_seeds if type(num_seeds) is int else 0)
    if not 1 <= found <= MAX_MEMBERS:
        parts = [f"num_seeds={num_seeds!r}"] + ([f"folds={folds}"] if folds > 1 else [])
        of_each = " times ".join([*parts, *(f"{len(v)} of {name}" for name, v in sweeps.items())])
        raise UserError(f"a population has 1 to {MAX_MEMBERS:,} members, got {of_each}")
    return found


def alone(settings: Any, member: Member) -> Any:
    """The settings of a run with those of one of its members, by itself."""
    return settings._replace(config=member.config(settings.config), train=dataclasses.replace(
        settings.train, num_seeds=1, sweep=(), seed=member.seed, devices=1))


def parse(sweep: Sequence[str]) -> dict[str, list[float]]:
    """The values of each field of a sweep.

    Raises:
        UserError: it is not written as one.
    """
    if not isinstance(sweep, list | tuple) or not all(isinstance(text, str) for text in sweep):
        raise UserError(f"sweep must be texts, FIELD=VALUE,VALUE,..., got {type(sweep).__name__}")
    found: dict[str, list[float]] = {}
    for text in sweep:
        field, equals, values = text.partition("=")
        field = field.replace("-", "_")
        if not equals:
            raise UserError(f"sweep must be written FIELD=VALUE,VALUE,..., got '{text}'")
        if field in found:
            raise UserError(f"sweep has '{field}' twice; give all its values at once")
        try:
            found[field] = [float(value) for value in values.split(",")]
        except ValueError:
            raise UserError(f"sweep needs numbers with commas between them, got '{text}'") from None
        if len(found[field]) < 2:
            raise UserError(f"sweep needs several values, got '{text}'; of one, set {field} itself")
        if not all(map(math.isfinite, found[field])) or len(set(found[field])) < len(found[field]):
            raise UserError(f"sweep needs finite numbers that differ, got '{text}'")
    return found


def _numbers(config: Any) -> dict[str, tuple[str, ...]]:
    """The numbers that can be swept -> the path to each. One that is None cannot: it is another program."""
    found = {}
    for name, path in names(type(config)).items():
        if path[0] != "env" and _is_number(config, path):  # environments are made once, for all members
            found |= {".".join(path): path, name: path}
    return found


def _is_number(config: Any, path: tuple[str, ...]) -> bool:
    for part in path[:-1]:
        config = getattr(config, part)
    return is_leaf(type(config), path[-1]) and getattr(config, path[-1]) is not None
