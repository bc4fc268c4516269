"""Normalization by name: over the batch, with running statistics as a collection beside the parameters, or in each example."""

import math
from typing import Any, Literal

from flax import linen

from jaxdl.core.types import Array

Kind = Literal["batch", "layer", "group"]
GROUPS = 32  # of channels, at most (Wu & He 2018)


class BatchNorm(linen.Module):
    """Ioffe & Szegedy, "Batch normalization" (2015): [B, ..., C] -> the same shape.

    While it learns, by the mean and variance of the batch of all shards of `axis_name`, which also move the running ones
    (collection "batch_stats"); afterwards by those. The variance is the mean of squared deviations: E[x^2] - E[x]^2 cancels.
    """

    train: bool
    axis_name: str | None = None
    momentum: float = 0.9
    scale_init: Any = linen.initializers.ones

    @linen.compact
    def __call__(self, x: Array) -> Array:
        axis_name = None if self.is_initializing() else self.axis_name
        return linen.BatchNorm(not self.train, momentum=self.momentum, axis_name=axis_name, use_fast_variance=False,
                               scale_init=self.scale_init)(x)


def normalized(x: Array, kind: Kind, train: bool, axis_name: str | None = None, scale_init: Any = linen.initializers.ones
               ) -> Array:
    """`x` [B, ..., C] normalized, called within a module that is `compact`; what follows is a scale and a shift a channel.

    batch: `BatchNorm`. layer: each example, over all but B (Ba et al. 2016). group: each example, in groups of channels (Wu &
    He 2018), as many as divide them, 32 at most.
    """
    if kind == "batch":
        return BatchNorm(train, axis_name, scale_init=scale_init)(x)
    if kind == "layer":
        axes = tuple(range(1, x.ndim))
        return linen.LayerNorm(reduction_axes=axes, use_fast_variance=False, scale_init=scale_init)(x)
    groups = math.gcd(x.shape[-1], GROUPS)
    return linen.GroupNorm(groups, use_fast_variance=False, scale_init=scale_init)(x)
