"""One change for all inputs (Moosavi-Dezfooli et al., "Universal adversarial perturbations", 2017).

Theirs adds up DeepFool's changes of one input after the other. This is the simpler and stronger form of Shafahi et al.
("Universal adversarial training", 2020): steepest ascent of the mean loss of minibatches,

    max over ||d|| <= epsilon of  mean_n min(cross_entropy(f(x_n + d), y_n), beta)

where no input that is wrong already can carry the mean (beta), by steps whose length falls to zero in a line. Pixels are kept
in [0, 1] when the change is added, and each changed input within the ball to the last bit.

Shapes: `N` inputs, `...` one input, `B` a minibatch.
"""

import jax
import jax.numpy as jnp

from jaxdl.adversarial import ball
from jaxdl.adversarial.attacks import Function
from jaxdl.adversarial.ball import Norm
from jaxdl.core.types import Array, Key
from jaxdl.ops import losses


def universal(f: Function, x: Array, labels: Array, epsilon: float | Array, norm: Norm, key: Key, steps: int = 400,
              batch_size: int = 128, step: float = 0.2, most: float = 9.0, target: int | None = None) -> Array:
    """The change [...] that inputs [N, ...] with labels [N] taught.

    Args:
        steps: of the ascent, each on a minibatch that is drawn with replacement.
        step: length of the first, in epsilons.
        most: loss of an input beyond which it counts no more, beta (9 as published).
        target: the class that is to be said; any wrong one if not given, and none is cut at `most`.
    """
    def loss(change: Array, index: Array) -> Array:
        logits = f(jnp.clip(x[index] + change, 0, 1))
        if target is not None:
            return -losses.cross_entropy(logits, jnp.full(len(index), target)).mean()
        return jnp.minimum(losses.cross_entropy(logits, labels[index]), most).mean()

    def body(change: Array, at: tuple[Array, Key]) -> tuple[Array, None]:
        k, key = at
        grad = jax.grad(loss)(change, jax.random.randint(key, (batch_size,), 0, len(x)))
        ahead = change + step * epsilon * (1 - k / steps) * ball.steepest(grad[None], norm)[0]
        return _within(ahead, epsilon, norm), None

    k_start, k_steps = jax.random.split(key)
    start = _within(ball.random(k_start, jnp.full((1, *x.shape[1:]), 0.5), epsilon, norm)[0] - 0.5, epsilon, norm)
    return jax.lax.scan(body, start, (jnp.arange(steps), jax.random.split(k_steps, steps)))[0]


def applied(change: Array, x: Array, epsilon: float | Array, norm: Norm) -> Array:
    """Inputs [N, ...] with the change, in [0, 1] and within their balls."""
    return ball.project(x + change, x, epsilon, norm)


def _within(change: Array, epsilon: float | Array, norm: Norm) -> Array:
    if norm == "linf":
        return jnp.clip(change, -epsilon, epsilon)
    return change * jnp.minimum(1, epsilon / jnp.maximum(ball.size(change[None], norm)[0], 1e-30))
