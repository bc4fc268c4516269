"""The members of a population: every seed with every value of the settings that are swept.

Only numbers can be swept (fields of type float): a size or a choice makes another program. Of several sweeps it is the product.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from jaxdl.core.config import is_leaf, suggest
from jaxdl.core.errors import UserError
from jaxdl.experiments.algorithms import replaced
from jaxdl.experiments.sweep import parse
from jaxdl.runtime import fit


class Member(NamedTuple):
    """One run of a population."""

    seed: int
    values: dict[str, float]  # of the swept fields

    def config(self, config: Any) -> Any:
        """The settings of the algorithm, with its values."""
        places = _numbers(config)
        for field, value in self.values.items():
            for part in reversed(places[field]):
                value = {part: value}
            config = replaced(config, value)
        return config


def members(config: Any, driven: fit.Config) -> list[Member]:
    """All of them, the seeds of the first value first.

    Raises:
        UserError: a sweep is not written as one, or its field is none that can be swept; says which can.
    """
    sweeps = _sweeps(config, driven.sweep)
    return [Member(driven.seed + k, dict(zip(sweeps, values, strict=True)))
            for values in itertools.product(*sweeps.values()) for k in range(driven.num_seeds)]


def _sweeps(config: Any, sweep: tuple[str, ...]) -> dict[str, list[float]]:
    found, places = parse(sweep), _numbers(config)
    for field in found:
        if field not in places:
            raise UserError(f"sweep takes fields that are numbers and no sizes, and '{field}' is none{suggest(field, places)}")
    return found


def _numbers(config: Any) -> dict[str, tuple[str, ...]]:
    """Where the numbers lie: field -> the path to it. One that is None is left out: it is another program."""
    return {path[-1]: path for path in _paths(config)}


def _paths(config: Any) -> Iterator[tuple[str, ...]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "env":  # is made once, for all members
            continue
        if dataclasses.is_dataclass(value):
            yield from ((field.name, *path) for path in _paths(value))
        elif value is not None and is_leaf(type(config), field.name):
            yield (field.name,)


def alone(settings: Any, member: Member) -> Any:
    """The settings of a run with those of one of its members, by itself."""
    return settings._replace(config=member.config(settings.config), train=dataclasses.replace(
        settings.train, num_seeds=1, sweep=(), seed=member.seed, devices=1))
