"""How far attributions can be trusted.

    deletion      area under f(x) while pixels are taken away, the most important first; low is good    Petsiuk et al. 2018
    insertion     area under f(x) while they are put onto a baseline; high is good
    infidelity    E[(I . attribution - (f(x) - f(x - I)))^2], I normal noise                              Yeh et al. 2019
    sanity        rank correlation with the attribution after layers were randomized, from the last one down: an attribution
                  that says something of the network changes                                            Adebayo et al. 2018

Shapes: `N` inputs, `H W C` a picture, `K` outputs, `T` steps.
"""

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdl.analysis.attributions import Function, chosen
from jaxdl.core.types import Array, Key


def curve(f: Function, x: Array, target: Array, attribution: Array, baseline: Array | float = 0.0, steps: int = 28,
          insert: bool = False) -> Array:
    """The output while pixels go, [T + 1, N]; with `insert` they come, onto the baseline.

    Args:
        attribution: [N, H, W].
        steps: T; as many pixels a step.
    """
    num, height, width = attribution.shape
    rank = jnp.argsort(jnp.argsort(-attribution.reshape(num, -1), -1), -1).reshape(num, height, width, 1)

    def at(share: Array) -> Array:
        gone = rank < jnp.round(share * height * width)
        kept = gone if insert else ~gone
        return chosen(f, target)(jnp.where(kept, x, baseline))

    return jax.lax.map(at, jnp.linspace(0, 1, steps + 1))


def deletion(f: Function, x: Array, target: Array, attribution: Array, baseline: Array | float = 0.0, steps: int = 28
             ) -> Array:
    """The area under the curve while the most important pixels go, [N]; `f` gives probabilities."""
    return jnp.trapezoid(curve(f, x, target, attribution, baseline, steps), dx=1 / steps, axis=0)


def insertion(f: Function, x: Array, target: Array, attribution: Array, baseline: Array | float = 0.0, steps: int = 28
              ) -> Array:
    """The area under the curve while the most important pixels come, [N]; `f` gives probabilities."""
    return jnp.trapezoid(curve(f, x, target, attribution, baseline, steps, insert=True), dx=1 / steps, axis=0)


def infidelity(f: Function, x: Array, target: Array, attribution: Array, key: Key, num: int = 100, noise: float = 0.1) -> Array:
    """How far an attribution [N, ...] is from what noise of this deviation changes, [N], at its best scale."""
    axes = tuple(range(1, x.ndim))
    before = chosen(f, target)(x)

    def one(key: Key) -> tuple[Array, Array]:
        by = noise * jax.random.normal(key, x.shape)
        return (by * attribution).sum(axes), before - chosen(f, target)(x - by)

    said, true = jax.lax.map(one, jax.random.split(key, num))
    factor = (said * true).mean(0) / jnp.maximum((said**2).mean(0), 1e-30)
    return jnp.square(factor * said - true).mean(0)


def rank_correlation(a: Array, b: Array) -> Array:
    """Spearman's correlation of the absolute values of each pair of attributions [N, ...], [N]."""
    ranks = (jnp.argsort(jnp.argsort(jnp.abs(x).reshape(len(x), -1), -1), -1).astype(jnp.float32) for x in (a, b))
    a, b = (r - r.mean(-1, keepdims=True) for r in ranks)
    return (a * b).sum(-1) / jnp.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def randomized(params: dict, key: Key, names: tuple[str, ...]) -> dict:
    """Parameters of a network, those of the layers `names` drawn anew from a normal of the deviation they had.

    Args:
        params: a tree of dicts.
        names: the first words of paths: "cnn/Dense_2".
    """
    def anew(path: tuple, x: Array) -> Array:
        where = "/".join(str(getattr(part, "key", part)) for part in path)
        if x.ndim < 2 or not any(f"/{name}/" in f"/{where}/" for name in names):
            return x
        mixed = jax.random.fold_in(key, zlib.crc32(where.encode()))
        return x.std() * jax.random.normal(mixed, x.shape, x.dtype)

    return jax.tree_util.tree_map_with_path(anew, params)


def sanity(explain: Callable[[dict], Array], params: dict, layers: tuple[str, ...], key: Key) -> Array:
    """Rank correlations [layers, N] of an attribution with itself after the last layers, one more each time, were randomized.

    Args:
        explain: parameters -> attribution [N, ...].
        layers: names, the last one first.
    """
    before = explain(params)
    return jnp.stack([rank_correlation(before, explain(randomized(params, key, layers[: i + 1]))) for i in range(len(layers))])
