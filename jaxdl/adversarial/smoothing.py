"""Randomized smoothing: the class that a network says most often under noise, and how far it is certain.

    g(x) = argmax_c P(f(x + sigma n) = c),  n standard normal
    no change shorter than sigma Phi^-1(p) in l2 makes g say another class, p a lower bound of P(f(x + sigma n) = g(x))

Cohen, Rosenfeld & Kolter, "Certified adversarial robustness via randomized smoothing", 2019. The class is chosen by some draws,
and p is Clopper and Pearson's bound from others, so it is wrong with probability `alpha` at most.

Shapes: `N` inputs, `...` one input, `Y` classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from jaxdl.core.types import Array, Key

Function = Callable[[Array], Array]  # inputs [N, ...] -> logits [N, Y]


class Certified(NamedTuple):
    """What a smoothed network says, and how far it is certain."""

    label: np.ndarray  # int [N]; -1 where nothing is certain
    radius: np.ndarray  # float [N] in l2; 0 where nothing is certain


def counts(f: Function, x: Array, sigma: float | Array, key: Key, num: int) -> Array:
    """How often each class is said of x under noise, int32 [N, Y]."""
    num_classes = jax.eval_shape(f, x).shape[-1]

    def add(total: Array, key: Key) -> tuple[Array, None]:
        said = f(x + sigma * jax.random.normal(key, x.shape)).argmax(-1)
        return total + jax.nn.one_hot(said, num_classes, dtype=jnp.int32), None

    return jax.lax.scan(add, jnp.zeros((len(x), num_classes), jnp.int32), jax.random.split(key, num))[0]


def radius(times: np.ndarray, num: int, sigma: float, alpha: float = 0.001) -> np.ndarray:
    """The certain radius [N] of a class that was said `times` [N] of `num`; 0 where that may be half of the time or less."""
    low = stats.beta.ppf(alpha, times, num - times + 1)
    return np.where(np.nan_to_num(low) > 0.5, sigma * stats.norm.ppf(np.clip(low, 0.5, 1 - 1e-12)), 0.0)


def certify(f: Function, x: Array, sigma: float, key: Key, num: int = 1000, first: int = 100, alpha: float = 0.001,
            block: int = 200) -> Certified:
    """The smoothed network's classes of inputs [N, ...], and how far they are certain.

    Args:
        f: the network.
        x: inputs.
        sigma: deviation of the noise.
        key: of the noise.
        num: draws for the bound.
        first: draws by which the class is chosen.
        alpha: probability of an error, for each input.
        block: inputs at once.
    """
    program = jax.jit(lambda x, key, num: counts(f, x, sigma, key, num), static_argnums=2)
    labels, radii = [], []
    for i in range(0, len(x), block):
        k_choose, k_bound = jax.random.split(jax.random.fold_in(key, i))
        chosen = np.asarray(program(x[i : i + block], k_choose, first)).argmax(-1)
        times = np.asarray(program(x[i : i + block], k_bound, num))[np.arange(len(chosen)), chosen]
        found = radius(times, num, sigma, alpha)
        labels.append(np.where(found > 0, chosen, -1))
        radii.append(found)
    return Certified(np.concatenate(labels), np.concatenate(radii))
