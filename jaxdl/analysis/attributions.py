"""Attributions: how much each number of an input has to do with an output.

    saliency              |df/dx|, the maximum over channels    Simonyan, Vedaldi & Zisserman 2014
    gradient_x_input      x df/dx                               Shrikumar et al. 2017
    smoothgrad            mean of df/dx at x + noise            Smilkov et al. 2017
    integrated_gradients  (x - x') int_0^1 df/dx(x' + a (x - x')) da, by Gauss and Legendre's nodes; they sum to
                          f(x) - f(x')                          Sundararajan, Taly & Yan 2017
    deconvnet, guided     df/dx through ReLUs of other rules    `relus`
    grad_cam              max(0, sum_c w_c A_c) of a layer's maps A, w_c the mean of df/dA_c, as large as the picture
                                                                Selvaraju et al. 2017
    guided_grad_cam       guided times grad_cam
    occlusion             f(x) - f(x with a window of a baseline's values), the mean over the windows that cover a place
                                                                Zeiler & Fergus 2014

`f` gives outputs [N, K] of inputs [N, ...], a row of a row, and what is explained is the output `target` of each. All methods
are functions that jit and vmap.

Shapes: `N` inputs, `...` one input, `H W C` a picture, `K` outputs.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import layers, relus
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key

Function = Callable[[Array], Array]  # inputs [N, ...] -> outputs [N, K]
Method = Literal["saliency", "gradient", "gradient_x_input", "smoothgrad", "integrated_gradients", "deconvnet", "guided",
                 "grad_cam", "guided_grad_cam", "occlusion"]


def chosen(f: Function, target: Array) -> Callable[[Array], Array]:
    """The outputs `target` [N] of `f`, [N]."""
    return lambda x: jnp.take_along_axis(f(x), target[:, None], 1)[:, 0]


def gradient(f: Function, x: Array, target: Array) -> Array:
    """df/dx, [N, ...]."""
    return jax.grad(lambda x: chosen(f, target)(x).sum())(x)


def saliency(f: Function, x: Array, target: Array) -> Array:
    """|df/dx|, the maximum over the last axis: [N, ...] without it."""
    return jnp.abs(gradient(f, x, target)).max(-1)


def gradient_x_input(f: Function, x: Array, target: Array) -> Array:
    """X df/dx, [N, ...]."""
    return x * gradient(f, x, target)


def smoothgrad(f: Function, x: Array, target: Array, key: Key, num: int = 50, noise: float | Array = 0.15) -> Array:
    """The mean of `num` gradients with normal noise, whose deviation is `noise` times the range of each input, [N, ...]."""
    axes = tuple(range(1, x.ndim))
    deviation = noise * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))

    def add(total: Array, key: Key) -> tuple[Array, None]:
        return total + gradient(f, x + deviation * jax.random.normal(key, x.shape), target), None

    return jax.lax.scan(add, jnp.zeros_like(x), jax.random.split(key, num))[0] / num


def integrated_gradients(f: Function, x: Array, target: Array, baseline: Array | float = 0.0, steps: int = 50) -> Array:
    """The path integral of gradients from a baseline (a number, or as x) to x, [N, ...]."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    nodes, weights = (nodes + 1) / 2, weights / 2
    way = x - baseline

    def add(total: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        node, weight = at
        return total + weight * gradient(f, baseline + node * way, target), None

    along = jnp.asarray(nodes, x.dtype), jnp.asarray(weights, x.dtype)
    return way * jax.lax.scan(add, jnp.zeros_like(x), along)[0]


def deconvnet(f: Function, x: Array, target: Array) -> Array:
    """What a deconvnet projects down to the input, [N, ...]."""
    return gradient(relus.with_rule(f, "deconvnet"), x, target)


def guided(f: Function, x: Array, target: Array) -> Array:
    """Guided backpropagation, [N, ...]."""
    return gradient(relus.with_rule(f, "guided"), x, target)


def grad_cam(f: Function, x: Array, target: Array, layer: str | None = None) -> Array:
    """Where the maps of a layer speak for the output, [N, H, W], as large as the pictures (linearly enlarged).

    Args:
        layer: its name; the last one that gives maps, if not given.

    Raises:
        UserError: there is no such layer, or it gives no maps.
    """
    layer = map_layer(f, x, layer)
    maps, grads = layers.gradients(lambda x: chosen(f, target)(x).sum(), layer, x)
    small = jax.nn.relu((maps * grads.mean((1, 2), keepdims=True)).sum(-1))
    return jax.image.resize(small, x.shape[:3], "linear")


def guided_grad_cam(f: Function, x: Array, target: Array, layer: str | None = None) -> Array:
    """Guided backpropagation times Grad-CAM, [N, H, W, C]. Arguments and errors are those of `grad_cam`."""
    return guided(f, x, target) * grad_cam(f, x, target, layer)[..., None]


def map_layer(f: Function, x: Array, layer: str | None = None) -> str:
    """A layer that gives maps [N, h, w, C]: the one that is named, or the last.

    Raises:
        UserError: there is none.
    """
    found = layers.of(f, x)
    maps = [name for name, out in found.items() if len(out.shape) == 4 and out.shape[1] * out.shape[2] > 1]
    if layer is None:
        if not maps:
            raise UserError("Grad-CAM is of convolutions, and this network has no maps; use saliency or integrated_gradients")
        return maps[-1]
    layers.check(layer, found)
    if layer not in maps:
        raise UserError(f"Grad-CAM is of maps [N, h, w, C], and {layer} gives {list(found[layer].shape)}; layers with maps are "
                        f"{', '.join(maps) or 'none'}")
    return layer


def occlusion(f: Function, x: Array, target: Array, window: tuple[int, int] = (4, 4), stride: tuple[int, int] = (2, 2),
              baseline: Array | float = 0.0) -> Array:
    """How much lower the output is where a window hides a place, the mean over the windows that do: [N, H, W].

    Windows begin every `stride` pixels, and the last ones at the edge are cut off.
    """
    height, width = x.shape[1:3]
    rows, columns = (_windows(side, w, s) for side, w, s in zip((height, width), window, stride, strict=True))
    before = chosen(f, target)(x)

    def add(state: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        total, times = state
        hidden = at[0][:, None] & at[1]
        lost = before - chosen(f, target)(jnp.where(hidden[..., None], baseline, x))
        return (total + lost[:, None, None] * hidden, times + hidden), None

    pairs = jnp.repeat(rows, len(columns), 0), jnp.tile(columns, (len(rows), 1))
    (total, times), _ = jax.lax.scan(add, (jnp.zeros(x.shape[:3]), jnp.zeros((height, width))), pairs)
    return total / jnp.maximum(times, 1)


def _windows(side: int, window: int, stride: int) -> Array:
    """Which pixels of a side each window hides, bool [windows, side]."""
    num = -(-max(side - window, 0) // stride) + 1
    at = jnp.arange(side)
    first = (jnp.arange(num) * stride)[:, None]
    return (at >= first) & (at < first + window)


def methods(key: Key | None = None, layer: str | None = None) -> dict[str, Callable[..., Array]]:
    """All methods by name, as functions (f, x [N, H, W, C], target [N]) -> [N, ...].

    Args:
        key: of the noise of smoothgrad.
        layer: of grad_cam and guided_grad_cam.
    """
    return {"saliency": saliency, "gradient": gradient, "gradient_x_input": gradient_x_input,
            "smoothgrad": functools.partial(smoothgrad, key=jax.random.key(0) if key is None else key),
            "integrated_gradients": integrated_gradients, "deconvnet": deconvnet, "guided": guided,
            "grad_cam": functools.partial(grad_cam, layer=layer),
            "guided_grad_cam": functools.partial(guided_grad_cam, layer=layer), "occlusion": occlusion}


def as_map(values: Array) -> Array:
    """An attribution of pictures as one number a pixel, [N, H, W]: the sum over channels where there are any."""
    return values.sum(-1) if values.ndim == 4 else values
