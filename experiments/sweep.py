"""How a sweep is written: `learning_rate=1e-4,3e-4`."""

import math
from collections.abc import Sequence

from jaxdl.core.errors import UserError


def parse(sweep: Sequence[str]) -> dict[str, list[float]]:
    """The values of each field of a sweep.

    Raises:
        UserError: it is not written as one.
    """
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
