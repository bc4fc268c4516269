"""Textures, and pictures in the manner of others: statistics of a layer's maps that do not say where.

    G = F^T F / (h w)                            Gram matrices of maps F [h w, K]
    texture   sum over layers |G(x) - G(x0)|^2 / |G(x0)|^2                         Gatys, Ecker & Bethge 2015
    style     the same of one picture, and |F(x) - F(x1)|^2 / |F(x1)|^2 of another       Gatys, Ecker & Bethge 2016

Maps are those of layers of a network behind a ReLU, or of one layer of random filters at several scales, which no one has
trained: Ustyuzhaninov et al., "What does it take to generate natural textures?" (2017). There filters grow; here one size of
filters sees the picture at smaller and smaller sizes, which costs less. Losses are relative, so layers weigh alike.

Shapes: `N` pictures, `H W C` a picture, `h w K` maps, `T` steps.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxdl.analysis import layers
from jaxdl.analysis.inversion import Made, descend, difference
from jaxdl.analysis.priors import total_variation
from jaxdl.core.types import Array, Key
from jaxdl.nn.convolution import conv

Features = Callable[[Array], dict[str, Array]]  # pictures [N, H, W, C] -> maps [N, h, w, K] by name

_MARGIN = 16  # pixels
_NOISE = 0.05


def gram(maps: Array) -> Array:
    """[N, h, w, K] -> [N, K, K]."""
    return jnp.einsum("nhwa,nhwb->nab", maps, maps) / (maps.shape[1] * maps.shape[2])


def of_network(f: Callable[[Array], Array], names: Sequence[str]) -> Features:
    """Maps of layers of a function, at any size of pictures, behind a ReLU. Raises as `layers.upto` when called."""
    upto = layers.upto(f, names)
    return lambda x: {name: jax.nn.relu(maps) for name, maps in upto(x).items()}


def of_random_filters(key: Key, channels: int, num: int = 64, window: int = 7, scales: int = 5) -> Features:
    """Maps of one layer of random filters, of what is lost when sides are halved, and of the same at half the size, and so on.

    So a scale has frequencies of its own (Burt & Adelson's pyramid): in those of all, fine noise would hardly count.

    Sizes at which a side has less than two windows are left out: their statistics would say what is where.
    """
    filters = jax.random.normal(key, (window, window, channels, num))
    filters = filters / jnp.sqrt((filters**2).sum((0, 1, 2)))

    def features(x: Array) -> dict[str, Array]:
        found = {"pixels": x}
        for scale in range(scales):
            if min(x.shape[1:3]) < 2 * window:
                break
            half = jax.image.resize(x, (len(x), x.shape[1] // 2, x.shape[2] // 2, channels), "linear")  # without aliases
            band = x - jax.image.resize(half, x.shape, "linear")
            found[f"scale {scale}"] = jax.nn.relu(conv(band, filters))
            x = half
        return found

    return features


def loss(features: Features, wanted: dict[str, Array], x: Array) -> Array:
    """How far the Gram matrices of pictures are from those wanted, the mean over layers, [N]."""
    found = features(x)
    return sum(difference(gram(found[name]), gram_of) for name, gram_of in wanted.items()) / len(wanted)


def wanted(features: Features, x: Array) -> dict[str, Array]:
    """The Gram matrices of a picture, by name."""
    return {name: gram(maps) for name, maps in features(x).items()}


def synthesize(features: Features, of: Array, size: tuple[int, int], key: Key, variation: float | Array = 0.0,
               steps: int = 300, rate: float = 0.05) -> Made:
    """A picture of this size that has the texture of another, `of` [1, H', W', C], made from noise around its mean colour.

    It is made larger and its margin is cut off, of which windows see less. The losses are of the larger one.

    Args:
        variation: weight of the total variation; networks with pools let fine noise through, which random filters do not.
    """
    target, large = wanted(features, of), [side + 2 * _MARGIN for side in size]
    noise = _NOISE * jax.random.normal(key, (1, *large, of.shape[-1]))

    def total(x: Array) -> Array:
        return loss(features, target, x) + variation * total_variation(x) / x[0].size

    made = descend(total, jnp.clip(of.mean((1, 2), keepdims=True) + noise, 0, 1), steps, rate)
    return made._replace(x=made.x[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN])


def restyle(features: Features, x: Array, style: Array, content: Sequence[str], weight: float | Array = 10.0,
            variation: float | Array = 0.0, steps: int = 300, rate: float = 0.03) -> tuple[Made, dict[str, Array]]:
    """The picture `x` [1, H, W, C] in the manner of `style` [1, H', W', C].

    Args:
        content: names of maps that are to stay as they are.
        weight: of the style beside the content.

    Returns:
        The picture, and by name the losses of style and of content, [2]: before and after.
    """
    target, stays = wanted(features, style), {name: maps for name, maps in features(x).items() if name in content}

    def parts(x: Array) -> dict[str, Array]:
        found = features(x)
        kept = sum(difference(found[name], maps) for name, maps in stays.items()) / len(stays)
        by_gram = sum(difference(gram(found[name]), gram_of) for name, gram_of in target.items()) / len(target)
        return {"style": by_gram, "content": kept}

    def total(x: Array) -> Array:
        said = parts(x)
        return weight * said["style"] + said["content"] + variation * total_variation(x) / x[0].size

    made = descend(total, x, steps, rate)
    return made, {name: jnp.stack([before[0], after[0]]) for (name, before), after in zip(
        parts(x).items(), parts(made.x).values(), strict=True)}
