"""Datasets whose examples are made on the device where a batch needs them: nothing is read, and nothing is stored.

An example is a function of its index and of a recipe, arrays that many examples are made of. A `Made` takes the place of the
tree of arrays of a `Dataset`; sources ask `rows` for the examples of a batch, and know no difference.

Shapes: `N` examples, `B` batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax

from jaxdl.core.types import Array, PyTree


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Made:
    """Examples that are made."""

    index: Array  # int32 [N]
    recipe: PyTree  # arrays [G, ...]; devices that share a run have each its part of them
    make: Callable[[PyTree, Array], PyTree] = field(metadata={"static": True})  # (recipe, index [B]) -> examples [B, ...]

    def of(self, index: Array) -> "Made":
        """The examples of other indices."""
        return replace(self, index=index)


def rows(data: PyTree, index: Array) -> PyTree:
    """The examples that `index` [B] chooses of arrays [N, ...], or of what is made."""
    if isinstance(data, Made):
        return data.make(data.recipe, data.index.at[index].get(mode="promise_in_bounds"))
    return jax.tree.map(lambda x: x.at[index].get(mode="promise_in_bounds"), data)


def per_example(data: PyTree) -> PyTree:
    """What of a dataset has a row for each example: all of its arrays, or the numbers of those that are made."""
    return data.index if isinstance(data, Made) else data
