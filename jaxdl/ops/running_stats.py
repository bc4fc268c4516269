"""Running mean and variance, to normalize observations and rewards.

Kept as (count, mean, sum of squared deviations) and merged: Chan, Golub & LeVeque, "Updating formulae and a pairwise
algorithm for computing sample variances" (1979). Neither a mean of variances nor E[x^2] - E[x]^2, which cancels in float32.

They hold for any length of run: float32 counts whole numbers up to 2**24 alone, and beyond a sum of deviations that grew on
would be divided by a count that does not. So the count stays at a limit, and what is older weighs less with every batch.

Shapes: `B` batch, `...` of one example.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array

_EXACT = 2**24  # float32 has every whole number up to here
_MOST_BATCHES = 2**18  # of small batches: a smaller share of the sums would be lost in their rounding


class Moments(NamedTuple):
    """Statistics of `count` examples, element by element."""

    count: Array  # float32 (), at most 2**24
    mean: Array  # float32 [...]
    deviations: Array  # float32 [...] sum of squared deviations from the mean

    @staticmethod
    def init(shape: tuple[int, ...]) -> "Moments":
        """Statistics of zero examples."""
        return Moments(jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape))

    def add(self, x: Array, axis_name: str | None = None, where: Array | None = None) -> "Moments":
        """Statistics after adding a batch [B, ...], or only its rows where `where`, bool [B], is true.

        Under a mapped axis the batches of all shards are added. Statistics of more than min(2**24, 2**18 B) examples are
        those of so many, which decay exponentially.
        """
        x = x.astype(jnp.float32)
        counts = jnp.ones(x.shape[0]) if where is None else where.astype(jnp.float32)
        counts = counts.reshape(-1, *[1] * (x.ndim - 1))
        count, total = counts.sum(), (counts * x).sum(0)
        if axis_name is not None:
            count, total = jax.lax.psum((count, total), axis_name)
        mean = total / jnp.maximum(count, 1)
        deviations = (counts * jnp.square(x - mean)).sum(0)
        if axis_name is not None:
            deviations = jax.lax.psum(deviations, axis_name)
        both, apart = self.count + count, mean - self.mean
        share = count / jnp.maximum(both, 1)
        shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        kept = jnp.minimum(both, float(min(_EXACT, _MOST_BATCHES * len(x) * shards)))
        deviations = self.deviations + deviations + jnp.square(apart) * (self.count * share)
        return Moments(kept, self.mean + apart * share, deviations * (kept / jnp.maximum(both, 1)))

    def inverse_deviation(self) -> Array:
        """1 / standard deviation, [...]; 1 before there were two examples."""
        variance = jnp.where(self.count > 1, self.deviations / jnp.maximum(self.count, 1), 1)
        return jax.lax.rsqrt(variance + 1e-8)

    def normalize(self, x: Array, limit: float = 10.0) -> Array:
        """`(x - mean) / standard deviation`, clipped to +- `limit`; before there were two examples x, clipped."""
        return jnp.clip((x - jnp.where(self.count > 1, self.mean, 0)) * self.inverse_deviation(), -limit, limit)
