"""Losses of maps of classes.

Shapes: `B` batch, `H W` a map, `Y` classes.
"""

import jax
import jax.numpy as jnp

from jaxdl.core import axis
from jaxdl.core.types import Array


def class_weights(semantic: Array, num_classes: int, balance: float | Array, axis_name: str | None = None) -> Array:
    """Weights [Y] of the pixels of each class, (pixels of it)^-balance, of which the mean over all pixels is 1.

    0 weighs pixels alike, 1 weighs classes alike. Pixels are those of a batch [B, H, W], on all shards of `axis_name`.
    """
    num = axis.sum_over((semantic[..., None] == jnp.arange(num_classes)).sum((0, 1, 2), dtype=jnp.float32), axis_name)
    weights = jnp.where(num > 0, jnp.maximum(num, 1) ** -jnp.asarray(balance, jnp.float32), 0)
    return weights * num.sum() / (weights * num).sum()


def dice_loss(scores: Array, semantic: Array) -> Array:
    """1 minus the mean Dice coefficient of the classes that a picture has, [B].

        D_c = 2 sum_i p_ic y_ic / (sum_i p_ic + sum_i y_ic)

    of probabilities p and truth y of each pixel i: Milletari et al., "V-Net" (2016), without squares below the line.
    """
    probability = jax.nn.softmax(scores)
    truth = jax.nn.one_hot(semantic, scores.shape[-1])
    both, all_of = ((x).sum((1, 2)) for x in (probability * truth, probability + truth))
    there = truth.any((1, 2))
    dice = jnp.where(there, 2 * both / jnp.maximum(all_of, 1e-6), 0)
    return 1 - dice.sum(-1) / jnp.maximum(there.sum(-1), 1)
