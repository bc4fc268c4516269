"""Normalization over the batch, whose running statistics are a collection beside the parameters."""

from typing import Any

from flax import linen

from jaxdl.core.types import Array


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
