"""Labels as conditional models take them: one-hot vectors `y` [N, Y] of Y classes, or None in a model of images alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, DataSpec


class Classes(NamedTuple):
    """The classes that a model is conditional on."""

    number: int | None  # Y; None if it is conditional on nothing

    @staticmethod
    def of(conditional: bool, spec: DataSpec) -> "Classes":
        """The classes of a dataset, if a model is conditional.

        Raises:
            UserError: a conditional model of a dataset without labels.
        """
        if conditional and spec.num_classes is None:
            raise UserError(f"conditional=True needs labels, and the dataset {spec.name} has none")
        return Classes(spec.num_classes if conditional else None)

    def one_hot(self, labels: Array | None) -> Array | None:
        """Labels [N] -> y [N, Y]; within a program, where none can be refused, y of a label that is no class is NaN.

        Raises:
            UserError: a label is no class.
        """
        if self.number is None:
            return None
        known = (labels >= 0) & (labels < self.number)
        if not isinstance(known, jax.core.Tracer) and not known.all():
            raise UserError(f"labels must lie between 0 and {self.number - 1}, got {labels.min()} to {labels.max()}")
        return jnp.where(known[:, None], jax.nn.one_hot(labels, self.number), jnp.nan)

    def in_turn(self, n: int, labels: Array | None = None) -> Array | None:
        """Return y of n images to draw: of their labels [N], or of all classes one after the other."""
        return self.one_hot(jnp.arange(n) % (self.number or 1) if labels is None else labels)

    def example(self) -> Array | None:
        """Return zeros [1, Y], of the shape with which parameters are made."""
        return None if self.number is None else jnp.zeros((1, self.number))
