"""Heads: from features to action values or the parameters of a distribution, in float32 whatever the layers before them
multiply in (`precision`).
"""

import math

from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.dense import Dense
from jaxdl.nn.initializers import lecun_uniform
from jaxdl.nn.noisy import NoisyDense


class QHead(linen.Module):
    """Action values [B, F] -> [B, A], or with `atoms` their distributions [B, F] -> [B, A, Z].

    Dueling (Wang et al. 2016, eq. 9): Q = V + A - mean(A), with V and A linear in the features; of distributions atom by
    atom (Hessel et al. 2018).
    """

    num_actions: int
    dueling: bool = False
    atoms: int | None = None
    kernel_init: linen.initializers.Initializer = lecun_uniform
    noisy: float | Array | None = None  # the sigma of noisy layers

    @linen.compact
    def __call__(self, x: Array) -> Array:
        def layer(size: int) -> Array:
            size = (size,) if self.atoms is None else (size, self.atoms)
            dense = (Dense(math.prod(size), kernel_init=self.kernel_init) if self.noisy is None else
                     NoisyDense(math.prod(size), self.noisy))
            return dense(x).reshape(*x.shape[:-1], *size)

        advantage = layer(self.num_actions)
        if not self.dueling:
            return advantage
        return layer(1) + advantage - advantage.mean(x.ndim - 1, keepdims=True)


class GaussianHead(linen.Module):
    """Mean and log-variance of a diagonal Gaussian: [..., F] -> two of [..., size]."""

    size: int
    kernel_init: linen.initializers.Initializer = lecun_uniform

    @linen.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        return (Dense(self.size, kernel_init=self.kernel_init, name="mean")(x),
                Dense(self.size, kernel_init=self.kernel_init, name="log_var")(x))


class CategoricalHead(linen.Module):
    """Logits of a categorical distribution: [..., F] -> [..., size]."""

    size: int
    kernel_init: linen.initializers.Initializer = lecun_uniform

    @linen.compact
    def __call__(self, x: Array) -> Array:
        return Dense(self.size, kernel_init=self.kernel_init)(x)
