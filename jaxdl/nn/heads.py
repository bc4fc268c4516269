"""Heads: from features to action values or the parameters of a distribution.

They compute in float32 whatever the torso's features are in: a bfloat16 log-variance has two digits.
"""

from flax import linen

from jaxdl.nn.initializers import lecun_uniform
from jaxdl.types import Array


class QHead(linen.Module):
    """Action values [B, F] -> [B, A].

    Dueling (Wang et al. 2016, eq. 9): Q = V + A - mean(A), with V and A linear in the features.
    """

    num_actions: int
    dueling: bool = False
    kernel_init: linen.initializers.Initializer = lecun_uniform

    @linen.compact
    def __call__(self, x: Array) -> Array:
        advantage = linen.Dense(self.num_actions, kernel_init=self.kernel_init)(x)
        if not self.dueling:
            return advantage
        value = linen.Dense(1, kernel_init=self.kernel_init)(x)
        return value + advantage - advantage.mean(-1, keepdims=True)


class GaussianHead(linen.Module):
    """Mean and log-variance of a diagonal Gaussian: [..., F] -> two of [..., size]."""

    size: int
    kernel_init: linen.initializers.Initializer = lecun_uniform

    @linen.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        return (linen.Dense(self.size, kernel_init=self.kernel_init, name="mean")(x),
                linen.Dense(self.size, kernel_init=self.kernel_init, name="log_var")(x))


class CategoricalHead(linen.Module):
    """Logits of a categorical distribution: [..., F] -> [..., size]."""

    size: int
    kernel_init: linen.initializers.Initializer = lecun_uniform

    @linen.compact
    def __call__(self, x: Array) -> Array:
        return linen.Dense(self.size, kernel_init=self.kernel_init)(x)
