"""Initial values by name, and `init`, which draws all of a network's kernels at once.

    zeros            0
    normal           N(0, s^2), s of one's own (0.01)
    xavier           U(-a, a) with variance 2 / (fan_in + fan_out)    Glorot & Bengio 2010
    he               U(-a, a) with variance 2 / fan_in                He et al. 2015
    lecun            U(-a, a) with variance 1 / fan_in                LeCun et al. 1998
    orthogonal       g Q, orthogonal columns or rows                  Saxe et al. 2014

A uniform kernel of variance `scale / fan` has a = sqrt(3 scale / fan); a fan of 1 is for the small numbers of DCGAN (Radford et
al. 2016, deviation 0.02). A kernel is [..., in, out], its leading axes a window, which counts into both fans.

All of them are functions of one number in (-1, 1) for each of the kernel's (`of_draw`), so that a network has one draw.

Shapes: `B` batch.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require, require_positive
from jaxdl.core.types import Array, Key, PyTree

Name = Literal["zeros", "normal", "xavier", "he", "lecun", "orthogonal"]


class Uniform(NamedTuple):
    """A uniform initializer, usable wherever flax takes a `kernel_init`."""

    scale: float
    fan: Literal["in", "average", "one"]

    def bound(self, shape: tuple[int, ...]) -> float:
        """The `a` of U(-a, a) for a kernel [..., in, out]."""
        window = math.prod(shape[:-2])
        fan_in, fan_out = window * shape[-2], window * shape[-1]
        return math.sqrt(3 * self.scale / {"in": fan_in, "average": (fan_in + fan_out) / 2, "one": 1}[self.fan])

    def of_draw(self, draw: Array, shape: tuple[int, ...]) -> Array:
        """Kernels of a shape from draws [..., *shape] of U(-1, 1)."""
        return self.bound(shape) * draw

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        """A kernel [..., in, out]."""
        del out_sharding
        return self.bound(shape) * jax.random.uniform(key, shape, dtype, -1.0, 1.0)


class Normal(NamedTuple):
    """A normal initializer of any deviation, usable as `Uniform`."""

    scale: float | Array

    def of_draw(self, draw: Array, shape: tuple[int, ...]) -> Array:
        """Kernels of a shape from draws [..., *shape] of U(-1, 1)."""
        del shape
        return self.scale * _normal(draw)

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        """A kernel of any shape."""
        del out_sharding
        return self.scale * jax.random.normal(key, shape, dtype)


class Orthogonal(NamedTuple):
    """Orthogonal columns (or rows, if those are fewer) of length `gain`, usable as `Uniform`; windows count into the inputs."""

    gain: float | Array = 1.0

    def of_draw(self, draw: Array, shape: tuple[int, ...]) -> Array:
        """Kernels of a shape from draws [..., *shape] of U(-1, 1)."""
        rows, columns = math.prod(shape[:-1]), shape[-1]
        x = _normal(draw).reshape(-1, rows, columns)
        q, r = jnp.linalg.qr(x if rows >= columns else x.mT)
        q *= jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[:, None]  # or the signs of QR are a part of what is drawn
        return self.gain * (q if rows >= columns else q.mT).reshape(draw.shape)

    def __call__(self, key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        """A kernel [..., in, out]."""
        del out_sharding
        return self.of_draw(jax.random.uniform(key, shape, jnp.float32, -1.0, 1.0), shape).astype(dtype)


lecun_uniform = Uniform(1.0, "in")
he_uniform = Uniform(2.0, "in")
glorot_uniform = Uniform(1.0, "average")
small_uniform = Uniform(0.02**2, "one")
zeros = Uniform(0.0, "in")

_BY_NAME: dict[str, Callable[[float | Array | None], Any]] = {
    "zeros": lambda scale: zeros,
    "normal": lambda scale: Normal(0.01 if scale is None else scale),
    "xavier": lambda scale: glorot_uniform,
    "he": lambda scale: he_uniform,
    "lecun": lambda scale: lecun_uniform,
    "orthogonal": lambda scale: Orthogonal(1.0 if scale is None else scale),
}

# what layers begin with where nothing else is meant: `Initial` takes the place of these, and of no other
_USUAL = (lecun_uniform, he_uniform, glorot_uniform, small_uniform)


def initializer(name: Name, scale: float | Array | None = None) -> Any:
    """The initializer called `name`; `scale` is the deviation of normal, the gain of orthogonal."""
    return _BY_NAME[name](scale)


@settings
class Initial:
    """Initial weights of a network, where they are not what the network has of itself.

    They are of all dense and convolutional layers but those whose own are a part of the method: the small last layer of a
    policy, noisy layers, the small last convolution of a residual block.
    """

    applies: ClassVar = {"init_scale": ("initializer", "normal", "orthogonal")}

    initializer: Name | None = None
    """Initial weights: zeros, normal (of deviation init_scale), xavier, he, lecun, orthogonal; the network's if not given."""
    init_scale: float | None = None
    """Deviation of normal (0.01 if not given), or gain of orthogonal (1)."""
    bias_init: float | None = None
    """Initial bias of these layers, 0 if not given; a little above 0 lets ReLUs begin active."""

    def validate(self) -> None:
        """Refuse numbers that make no sense, or do nothing.

        Raises:
            UserError: names the field, what was given and what would do.
        """
        refuse_idle(self)
        require_positive(self, "init_scale")
        require(self, "bias_init", self.bias_init is None or abs(self.bias_init) < math.inf, "a finite number")


def init(module: linen.Module, key: Key, *inputs: Any, initial: Initial | None = None) -> PyTree:
    """`module.init(key, *inputs)`, with all kernels whose initializer is one of those here cut out of one draw.

    flax derives a key and draws numbers for each kernel, and XLA compiles a loop for each of these hashes. On one core 0.16 s
    become 0.08 (DQN), 0.23 become 0.08 (VAE), 0.39 become 0.17 (GAN), 2.6 become 0.24 (PixelCNN++, 3 scales of 2 blocks). The
    distribution is flax's, the bits are not. Call it under jit, where flax's own draws are dead code.

    Args:
        inputs: examples of the module's arguments, [B, ...].
        initial: what kernels and biases begin with in the place of the usual.
    """
    layers: dict[tuple[str, ...], linen.Module] = {}

    def record(call: Callable, args: tuple, kwargs: dict, context: linen.module.InterceptorContext) -> Any:
        layers[context.module.path] = context.module
        return call(*args, **kwargs)

    with linen.intercept_methods(record):
        variables = module.init(key, *inputs)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(variables)
    begins = [_begin(layers, path, leaf, initial or Initial()) for path, leaf in leaves]
    total = sum(leaf.size for (_, leaf), begin in zip(leaves, begins, strict=True) if _is_drawn(begin))
    k_kernels = jax.random.fold_in(key, 0)  # flax folds hashes of names into the same key
    draw, start, values = jax.random.uniform(k_kernels, (total,), minval=-1.0, maxval=1.0), 0, []
    for (_, leaf), begin in zip(leaves, begins, strict=True):
        if _is_drawn(begin):
            how, rank = begin
            part = draw[start : start + leaf.size].reshape(leaf.shape)
            start += leaf.size
            leaf = how.of_draw(part, leaf.shape[-rank:]).astype(leaf.dtype)
        elif begin is not None:
            leaf = jnp.full_like(leaf, begin)
        values.append(leaf)
    return jax.tree.unflatten(treedef, values)


def _is_drawn(begin: Any) -> bool:
    return isinstance(begin, tuple)


def _begin(layers: dict[tuple[str, ...], linen.Module], path: tuple, leaf: Array, initial: Initial) -> Any:
    """What a variable begins with: an initializer and the rank of a kernel, the number of a bias, or None: flax's."""
    collection, *where, name = (getattr(part, "key", None) for part in path)  # no key: a box around a leaf
    layer = layers.get(tuple(where)) if collection == "params" else None
    how = getattr(layer, "kernel_init", None)
    usual = (isinstance(how, Uniform) and how in _USUAL) or (how is not None and how is type(layer).kernel_init)
    if name == "bias" and usual:
        return initial.bias_init
    rank = 2 + len(getattr(layer, "kernel_size", ()))  # axes before those are of linen.scan or linen.vmap
    if name != "kernel" or layer is None or leaf.ndim < rank:
        return None
    if usual and initial.initializer is not None:
        how = initializer(initial.initializer, initial.init_scale)
    return (how, rank) if isinstance(how, Uniform | Normal | Orthogonal) else None


def _normal(draw: Array) -> Array:
    """Draws of U(-1, 1) -> draws of N(0, 1), as `jax.random.normal` makes them."""
    above = float(np.nextafter(np.float32(-1.0), np.float32(0.0)))
    return math.sqrt(2) * jax.lax.erf_inv(jnp.maximum(draw, above))
