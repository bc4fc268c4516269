"""The moving average of parameters against its formula."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import optim


def test_the_mean_is_short_at_first_and_then_has_its_decay():
    mean, expected = {"w": jnp.zeros(3)}, 0.0
    update = jax.jit(lambda mean, new, t: optim.ema(mean, new, 0.5, t))
    for t in range(20):
        mean = update(mean, {"w": jnp.full(3, float(t))}, jnp.int32(t))
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * t
        np.testing.assert_allclose(mean["w"], expected, rtol=1e-6)
