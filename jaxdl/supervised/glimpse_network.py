"""A network that reads an image by glimpses, one after the other.

    l_t = mean_t + deviation * noise    mean_t = tanh(W h_(t-1))          where it looks
    x_t = glimpse of the image at l_t (`ops.glimpses`)                    what it sees
    g_t = relu(W [relu(W x_t), relu(W l_t)])                              both together
    h_t = core(h_(t-1), g_t)                                              what it remembers

h_0 is zero, so that the first place is around a mean that is learned. Of h it says the class, and of h_(t-1) the value V, of
what is known before l_t is drawn. No gradient passes through a place: an image is seen where it was looked at.

After Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention" (2014), whose core is `rnn_relu`, whose first
place is uniform and whose glimpse network adds the two parts after a layer for each, which is the same. The value's gradient
stops at h.

Shapes: `B` images, `D` draws of places for each, `T` glimpses, `H` size of the core's output, `Y` classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.nn.recurrent import Kind
from jaxdl.ops.glimpses import glimpses


class Reading(NamedTuple):
    """How images were read."""

    h: Array  # [T + 1, B, D, H]: before the first glimpse, and after each
    means: Array  # [T, B, D, 2]
    places: Array  # [T, B, D, 2]: -1 is the first edge of an image, 1 the last one


class Network(NamedTuple):
    """The network as functions."""

    init: Callable[..., PyTree]  # (key, initial weights) -> params
    read: Callable[..., Reading]  # (params, images float32 [B, ...], noise [B, D, T, 2], dtype) -> Reading
    logits: Callable[[PyTree, Array], Array]  # (params, h [..., H]) -> [..., Y]
    value: Callable[[PyTree, Array], Array] | None  # (params, h [..., H]) -> [...]; None where none is learned


class Sizes(NamedTuple):
    """What shapes the network."""

    cell: Kind
    hidden_size: int
    features: int
    num_classes: int
    glimpse_size: int
    num_scales: int
    channels: int
    valued: bool


class _Reader(linen.Module):
    sizes: Sizes
    dtype: str = "float32"

    def setup(self) -> None:
        sizes = self.sizes
        self.what, self.where = (nn.Dense(sizes.features, dtype=self.dtype) for _ in range(2))
        self.both = nn.Dense(sizes.hidden_size, dtype=self.dtype)
        self.core = nn.CELLS[sizes.cell](sizes.hidden_size, self.dtype)
        self.locate = nn.Dense(2, kernel_init=nn.small_uniform)
        self.head = nn.Dense(sizes.num_classes)
        if sizes.valued:
            self.to_value = nn.Dense(1)

    def step(self, carry: PyTree, seen: Array, places: Array) -> tuple[PyTree, Array]:
        """States [R, H], what is seen [R, F] at places [R, 2] -> states, h [R, H]."""
        parts = jax.nn.relu(self.what(seen)), jax.nn.relu(self.where(places))
        return self.core.step(carry, self.core.project(jax.nn.relu(self.both(jnp.concatenate(parts, -1)))))

    def mean(self, h: Array) -> Array:
        """[..., H] -> [..., 2]."""
        return jnp.tanh(self.locate(h))

    def logits(self, h: Array) -> Array:
        """[..., H] -> [..., Y]."""
        return self.head(h)

    def value(self, h: Array) -> Array:
        """[..., H] -> [...]."""
        return self.to_value(jax.lax.stop_gradient(h))[..., 0]

    def __call__(self, carry: PyTree, seen: Array) -> Array:
        """Everything once, so that all parameters are made."""
        _, h = self.step(carry, seen, self.mean(_output(carry)))
        return self.logits(h) + (self.value(h)[..., None] if self.sizes.valued else 0)


def _output(carry: PyTree) -> Array:
    return jax.tree.leaves(carry)[-1]


def make(sizes: Sizes, deviation: float | Array) -> Network:
    """The network; `deviation` is that of places from their means, in halves of a side."""
    module = _Reader(sizes)

    def init(key: Key, begins: nn.Initial | None = None) -> PyTree:
        seen = jnp.zeros((1, sizes.num_scales * sizes.glimpse_size**2 * sizes.channels))
        return nn.init(module, key, nn.zero_carry(sizes.cell, sizes.hidden_size, 1), seen, initial=begins)

    def read(params: PyTree, images: Array, noise: Array, dtype: str = "float32") -> Reading:
        call, (num, draws) = module.clone(dtype=dtype).apply, noise.shape[:2]

        def body(carry: PyTree, noise: Array) -> tuple[PyTree, tuple[Array, Array, Array]]:
            mean = call(params, _output(carry), method="mean").reshape(num, draws, 2)
            places = jax.lax.stop_gradient(mean + deviation * noise)
            seen = glimpses(images, places, sizes.glimpse_size, sizes.num_scales)
            carry, h = call(params, carry, seen.reshape(num * draws, -1), places.reshape(-1, 2), method="step")
            return carry, (h.reshape(num, draws, -1), mean, places)

        zero = nn.zero_carry(sizes.cell, sizes.hidden_size, num * draws)
        _, (h, means, places) = jax.lax.scan(body, zero, jnp.moveaxis(noise, 2, 0))
        return Reading(jnp.concatenate([_output(zero).reshape(1, num, draws, -1), h]), means, places)

    def logits(params: PyTree, h: Array) -> Array:
        return module.apply(params, h, method="logits")

    def value(params: PyTree, h: Array) -> Array:
        return module.apply(params, h, method="value")

    return Network(init, read, logits, value if sizes.valued else None)
