"""The gated PixelCNN: a stack for the rows above, a stack for the row, and no blind spot.

    gate(t) = tanh(t_1) * sigmoid(t_2)
    a_l = conv(v_l-1) + V_l y                     v_l = gate(a_l)                   rows above, whole
    b_l = row(h_l-1) + link(a_l) + U_l y          h_l = h_l-1 + out(gate(b_l))      the row, and what is above

van den Oord et al., "Conditional image generation with PixelCNN decoders" (2016), figure 2. The first layer has a larger
window, sees neither the row in v nor the pixel in h, and has no residual. Two convolutions of 1x1 end it, as in the PixelCNN
before it.

The sampler computes v a whole row at a time, one layer after the other, and h gets of it the terms link(a_l) + U_l y.

Shapes: `B` batch, `N` images, `H W` an image, `F` features, `L` layers after the first, `G` groups of channels, `K` rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, PyTree
from jaxdl.generative.pixel import outputs
from jaxdl.generative.pixel.autoregressive import Config, Network
from jaxdl.generative.pixel.layers import Blocks, Chain, Conv, State, Weights, grown, head, network, rows_above

_WINDOW = 3  # of all layers but the first


def gate(t: Array, groups: int = 1) -> Array:
    """[..., 2 F] -> [..., F], each group by itself."""
    t = t.reshape(*t.shape[:-1], groups, 2, -1)
    gated = jnp.tanh(t[..., 0, :]) * jax.nn.sigmoid(t[..., 1, :])
    return gated.reshape(*gated.shape[:-2], -1)


def _across(features: int, window: int, groups: int, kind: str, name: str | None = None) -> Chain:
    """A layer of h, to which the terms of v are added between its two convolutions."""
    return Chain((Conv("row", 2 * features, groups, (1, window), kind, bias=False, half=True),
                  Conv("out", features, groups, before=gate)), name)


class _Layer(linen.Module):
    """A layer of both stacks, `(v, h)` each [B, H, W, F]."""

    across: Chain
    rows: int  # rows that v sees: those above, and but for the first layer also its own
    residual: bool
    compute: nn.Compute

    @linen.compact
    def __call__(self, streams: tuple[Array, Array], y: Array | None) -> tuple[tuple[Array, Array], None]:
        (v, h), (row, out) = streams, self.across.layers
        wide, window = row.features, row.window[1]
        reach = window // 2
        how = {"kernel_init": nn.lecun_uniform, "dtype": self.compute.dtype}
        padding = (reach, self.rows - 1 - reach), (reach, reach)
        a = nn.Conv(wide, (self.rows, window), padding=padding, name="rows", **how)(v)
        b = row.apply(h, None, self.compute)
        if y is not None:
            of_class = nn.Dense(2 * wide, use_bias=False, name="class", **how)(y)[:, None, None]
            a, b = a + of_class[..., :wide], b + of_class[..., wide:]
        b = b + nn.Conv(wide, (1, 1), name="link", **how)(a)
        b = out.apply(b, None, self.compute)
        return (gate(a), h + b if self.residual else b), None


class _Down(NamedTuple):
    """Weights of a layer of v."""

    rows: Array  # [K, k, C, 2 F]
    offset: Array  # [2 F], or [N, 2 F] with classes
    link: Array  # [2 F, 2 F]
    link_offset: Array


def _down(params: PyTree, y: Array | None) -> _Down:
    offset, link_offset = params["rows"]["bias"], params["link"]["bias"]
    if y is not None:
        of_a, of_b = jnp.split(y @ params["class"]["kernel"], 2, -1)
        offset, link_offset = offset + of_a, link_offset + of_b
    return _Down(params["rows"]["kernel"], offset, params["link"]["kernel"][0, 0], link_offset)


def _row(weights: _Down, lines: Sequence[Array]) -> tuple[Array, Array]:
    """Rows of v, [W, N, C] each -> the row of the next v [W, N, F], and the terms of h [W, N, 2 F]."""
    a = rows_above(lines, weights.rows) + weights.offset
    return gate(a), a @ weights.link + weights.link_offset


@dataclass(frozen=True)
class Stacks:
    """Both stacks as one `Layer`: images [B, H, W, C] -> h [B, H, W, F]."""

    features: int
    length: int  # L
    window: int  # of the first layer
    groups: int

    def _h(self) -> Chain:
        return Chain((_across(self.features, self.window, self.groups, "A", "first"),
                      Blocks(_across(self.features, _WINDOW, self.groups, "B"), self.length, "layers")))

    def apply(self, x: Array, y: Array | None, compute: nn.Compute) -> Array:
        first, blocks = self._h().layers
        layer = compute.block(_Layer)
        streams, _ = layer(first, self.window // 2, residual=False, compute=compute, name="first")((x, x), y)
        layers = linen.scan(layer, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=linen.broadcast,
                            length=self.length)
        (_, h), _ = layers(blocks.block, _WINDOW // 2 + 1, residual=True, compute=compute, name="layers")(streams, y)
        return h

    def prepare(self, params: PyTree, y: Array | None) -> Weights:
        down = _down(params["first"], y), jax.vmap(lambda layer: _down(layer, y))(params["layers"])
        return Weights(down, self._h().prepare(params, None).pixel)

    def start(self, params: PyTree, n: int, width: int) -> State:
        """As `Layer`: rows of the image [W, N, C], and of the inputs of each layer of v [L, W, N, F], from the top."""
        image = jnp.zeros((width, n, params["first"]["row"]["kernel"].shape[-2]))
        v = jnp.zeros((self.length, width, n, self.features))
        return State(((image,) * (self.window // 2), (v,) * (_WINDOW // 2)), self._h().start(params, n, width).left)

    def row(self, weights: tuple[_Down, _Down], above: PyTree, r: Array) -> tuple[PyTree, PyTree]:
        del r
        lines, old = above
        v, of_first = _row(weights[0], lines)

        def layer(v: Array, of_layer: tuple[_Down, tuple[Array, ...]]) -> tuple[Array, tuple]:
            weights, old = of_layer
            seen = (*old, v)
            v, terms = _row(weights, seen)
            return v, (terms, seen[1:])

        _, (terms, old) = jax.lax.scan(layer, v, (weights[1], old))
        return (lines, old), ((of_first, None), (terms.swapaxes(0, 1), None))

    def pixel(self, weights: PyTree, terms: PyTree, left: PyTree, seen: PyTree, h: Array | None, g: int
              ) -> tuple[Array, PyTree]:
        return self._h().pixel(weights, terms, left, seen, h, g)

    def end_pixel(self, left: PyTree, seen: PyTree, h: Array | None = None) -> tuple[PyTree, Array]:
        """As `Layer`. What is kept is the image's pixel: the first convolution has seen all of it but the last group."""
        left, _ = self._h().end_pixel(left, seen, h)
        (of_image, _), _ = seen
        return left, grown(of_image, h)

    def end_row(self, above: PyTree, kept: Array) -> PyTree:
        lines, old = above
        return (*lines[1:], kept), old


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape."""
    stacks = Stacks(config.width, config.num_blocks, config.window, output.groups)
    return network([stacks, head(config.head_features, output.groups, output.outputs)], config, spec, output)
