"""Objectives of adversarial training, one formula a function, element by element on the discriminator's logits.

A discriminator gives a logit d for an image, and D = sigmoid(d) where it is a probability that the image is real. Both players
minimize a loss of their own.

    non_saturating   -log D(x) - log(1 - D(G(z)));  -log D(G(z))              Goodfellow et al. (2014)
    minimax          the same;                       log(1 - D(G(z)))         Goodfellow et al. (2014), eq. 1
    least_squares    ((d(x) - 1)^2 + d(G(z))^2) / 2;  (d(G(z)) - 1)^2 / 2     Mao et al. (2017), a = 0, b = c = 1
    hinge            max(0, 1 - d(x)) + max(0, 1 + d(G(z)));  -d(G(z))        Lim & Ye (2017), Miyato et al. (2018)
    wgan_gp          d(G(z)) - d(x);  -d(G(z)), under `gradient_penalty`      Arjovsky et al. (2017), Gulrajani et al. (2017)

Shapes: `B` batch, `H W C` an image.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key

Objective = Literal["non_saturating", "minimax", "least_squares", "hinge", "wgan_gp"]


def discriminator_loss(objective: Objective, real: Array, fake: Array) -> Array:
    """The discriminator's loss: logits of real and of generated images [B], [B] -> [B]."""
    if objective in ("non_saturating", "minimax"):
        return jax.nn.softplus(-real) + jax.nn.softplus(fake)
    if objective == "least_squares":
        return 0.5 * (jnp.square(real - 1) + jnp.square(fake))
    if objective == "hinge":
        return jax.nn.relu(1 - real) + jax.nn.relu(1 + fake)
    return fake - real


def generator_loss(objective: Objective, fake: Array) -> Array:
    """The generator's loss: logits of generated images [B] -> [B]."""
    if objective == "non_saturating":
        return jax.nn.softplus(-fake)
    if objective == "minimax":
        return -jax.nn.softplus(fake)  # log(1 - sigmoid(fake))
    if objective == "least_squares":
        return 0.5 * jnp.square(fake - 1)
    return -fake


def gradient_penalty(critic: Callable[[Array], Array], real: Array, fake: Array, key: Key) -> Array:
    """(|grad d(x)| - 1)^2 of each example at a place x drawn evenly between a real and a generated image: [B, H, W, C] -> [B].

    Gulrajani et al., "Improved training of Wasserstein GANs" (2017), eq. 3. `critic` gives logits [B] of images; it must treat
    each by itself, or the gradient at one would be that of others too.
    """
    share = jax.random.uniform(key, (len(real), *[1] * (real.ndim - 1)))
    slope = jax.grad(lambda x: critic(x).sum())(real + share * (fake - real))
    length = jnp.sqrt(jnp.square(slope).reshape(len(real), -1).sum(-1) + 1e-12)  # at zero a root has no gradient
    return jnp.square(length - 1)
