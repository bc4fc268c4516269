"""Pieces that causal networks share: the head, and what a convolution is when it goes row by row and pixel by pixel.

Channels are in `G` groups, each a contiguous part of them, and a pixel is computed a group at a time. A masked kernel then
falls into parts that are computed when what they see is there: its rows above, for a whole row; its columns to the left, from
pixels that are kept; its centre, of which group g sees the groups up to g ("B") or below it ("A").

Shapes: `N` images, `W` width, `L` layers, `K` rows, `k` columns of a kernel, `C` channels in, `O` out.
"""

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, PyTree


class Head(linen.Module):
    """Two convolutions of 1x1: features [B, H, W, F] -> outputs [B, H, W, G, P]."""

    features: int
    groups: int
    outputs: int

    @linen.compact
    def __call__(self, h: Array) -> Array:
        mask = nn.causal_mask((1, 1), "B", self.groups)
        h = nn.Conv(self.features, (1, 1), mask=mask, kernel_init=nn.lecun_uniform, name="hidden")(jax.nn.relu(h))
        h = nn.Conv(self.groups * self.outputs, (1, 1), mask=mask, kernel_init=nn.lecun_uniform, name="out")(jax.nn.relu(h))
        return h.reshape(*h.shape[:-1], self.groups, self.outputs)


def head_pixel(params: PyTree, h: Array, seen: Array | None, g: int, groups: int) -> tuple[Array, Array]:
    """`Head` at a pixel and group: features of the groups up to it [N, (g + 1) F / G], `seen` before -> outputs, `seen`."""
    hidden = jax.nn.relu(jax.nn.relu(h) @ centre(params["hidden"]["kernel"][0, 0], g, groups)
                         + columns(params["hidden"]["bias"], g, groups))
    seen = grown(seen, hidden)
    return seen @ centre(params["out"]["kernel"][0, 0], g, groups) + columns(params["out"]["bias"], g, groups), seen


def columns(kernel: Array, g: int, groups: int) -> Array:
    """[..., O] -> [..., O / G]: what makes group g."""
    size = kernel.shape[-1] // groups
    return kernel[..., g * size : (g + 1) * size]


def centre(kernel: Array, g: int, groups: int, kind: str = "B") -> Array:
    """[..., C, O] -> [..., C', O / G]: what group g is made of, of the groups that it sees."""
    return columns(kernel[..., : (g + (kind == "B")) * (kernel.shape[-2] // groups), :], g, groups)


def grown(seen: Array | None, new: Array) -> Array:
    """One group's features [..., O / G] after those of the groups before."""
    return new if seen is None else jnp.concatenate([seen, new], -1)


def rows_above(x: Array, kernel: Array) -> Array:
    """What the K rows of a kernel above its centre make of K rows: [K, W, N, C], [K, k, C, O] -> [W, N, O]."""
    width, reach = x.shape[1], kernel.shape[1] // 2
    x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0), (0, 0)))
    x = jnp.concatenate([row[j : j + width] for row in x for j in range(kernel.shape[1])], -1)
    return x @ kernel.reshape(-1, kernel.shape[-1])


def row_above(x: Array, kernel: Array) -> Array:
    """The same of one row and for each of L layers: [W, L, N, C], [L, k, C, O] -> [W, L, N, O]."""
    width, reach = len(x), kernel.shape[1] // 2
    x = jnp.pad(x, ((reach, reach), (0, 0), (0, 0), (0, 0)))
    x = jnp.concatenate([x[j : j + width] for j in range(kernel.shape[1])], -1)
    return jnp.einsum("wlnc,lco->wlno", x, kernel.reshape(len(kernel), -1, kernel.shape[-1]))
