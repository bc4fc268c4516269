"""Residual blocks around something causal: the PixelCNN and both PixelRNNs of one paper.

    h_0 = conv_A(x) [2 F],   h_l = h_l-1 + up_l(middle_l(h_l-1)),   outputs = head(h_L)

van den Oord et al., "Pixel recurrent neural networks" (2016), table 1 and figure 5: a masked convolution of 7x7 (kind A),
blocks of 2 F features of which what is in the middle has F, two convolutions of 1x1. A class adds to the input of the middle.

What is in the middle comes in two forms, of which this module needs: a flax module `(h [B, H, W, 2 F], y) -> [B, H, W, F]`, and
`Middle`, the same by rows and pixels.

Shapes: `B` batch, `N` images, `H W` an image, `F` features, `L` blocks, `G` groups of channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, Key, PyTree
from jaxdl.generative.pixel import causal, outputs
from jaxdl.generative.pixel.autoregressive import Config, Draw, Network, Steps


class Middle(NamedTuple):
    """What is in the middle of L blocks, by rows and pixels. `seen` is what it made of a pixel's groups so far."""

    above: PyTree  # before the first row
    left: PyTree  # [L, ...] before a row's first pixel
    row: Callable[[PyTree, Array], tuple[PyTree, PyTree]]  # (above, row) -> (above, what rests on it [W, L, ...])
    weights: Callable[[int], PyTree]  # group -> what `pixel` takes of the parameters [L, ...]
    pixel: Callable[..., tuple[Array, PyTree]]  # of one block: (weights, what rests on the rows above, left, h of the groups so
    # far [N, (g + 1) 2 F / G], seen, g) -> (out [N, F / G], seen)
    left_of: Callable[[PyTree, PyTree], PyTree]  # (seen, left) -> left of the next pixel
    kept_of: Callable[[PyTree], PyTree]  # seen -> what a row keeps
    ended: Callable[[PyTree, PyTree], PyTree]  # (above, kept [W, L, ...]) -> above


class _Block(linen.Module):
    middle: Callable[..., linen.Module]
    features: int
    groups: int

    RECOMPUTED = True

    @linen.compact
    def __call__(self, h: Array, y: Array | None) -> tuple[Array, None]:
        mask = nn.causal_mask((1, 1), "B", self.groups)
        m = self.middle(name="middle")(h, y)
        return h + nn.Conv(2 * self.features, (1, 1), mask=mask, kernel_init=nn.lecun_uniform, name="up")(m), None


class _Whole(linen.Module):
    middle: Callable[..., linen.Module]
    features: int
    num_blocks: int
    window: int
    head_features: int
    groups: int
    outputs: int

    @linen.compact
    def __call__(self, x: Array, y: Array | None) -> Array:
        window = (self.window, self.window)
        h = nn.Conv(2 * self.features, window, mask=nn.causal_mask(window, "A", self.groups), kernel_init=nn.lecun_uniform,
                    name="first")(x)
        blocks = linen.scan(_Block, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=linen.broadcast,
                            length=self.num_blocks)
        h, _ = blocks(self.middle, self.features, self.groups, name="blocks")(h, y)
        return causal.Head(self.head_features, self.groups, self.outputs, name="head")(h)


def make(config: Config, spec: DataSpec, output: outputs.Output, module: Callable[..., linen.Module],
         steps_of: Callable[[PyTree, Array | None, int], Middle]) -> Network:
    """The network around `module`, whose other form is `steps_of(parameters of the L modules, y, N)`."""
    groups, features, (_, width, channels) = output.groups, config.features, spec.shape
    whole = _Whole(module, features, config.num_blocks, config.window, config.head_features, groups, output.outputs)
    classes = jnp.zeros((1, spec.num_classes)) if config.conditional else None

    def init(key: Key) -> PyTree:
        return nn.init(whole, key, jnp.zeros((1, *spec.shape)), classes)["params"]

    def apply(params: PyTree, x: Array, y: Array | None, key: Key | None = None) -> Array:
        del key
        return whole.apply({"params": params}, x, y)

    def steps(params: PyTree, y: Array | None, n: int) -> Steps:
        middle = steps_of(params["blocks"]["middle"], y, n)
        reach = config.window // 2
        first, up = params["first"]["kernel"], params["blocks"]["up"]["kernel"][:, 0, 0]
        weights = []
        for g in range(groups):
            of_block = (middle.weights(g), causal.centre(up, g, groups),
                        causal.columns(params["blocks"]["up"]["bias"], g, groups))
            to_left = causal.columns(first[reach, :reach].reshape(reach * channels, -1), g, groups)
            weights.append((to_left, causal.centre(first[reach, reach], g, groups, "A"), of_block))

        def row(above: PyTree, r: Array) -> tuple[PyTree, PyTree]:
            lines, inner = above
            inner, rests = middle.row(inner, r)
            return (lines, inner), (causal.rows_above(lines, first[:reach]) + params["first"]["bias"], rests)

        def pixel(left: PyTree, before: PyTree, place: tuple[Array, Array], draw: Draw) -> tuple[PyTree, PyTree]:
            del place
            (pixels_left, inner_left), (of_first, rests) = left, before
            now = seen_h = seen_head = seen = None
            for g, (to_left, to_centre, of_block) in enumerate(weights):
                h = causal.columns(of_first, g, groups) + pixels_left.swapaxes(0, 1).reshape(n, -1) @ to_left
                h = h if now is None else h + now @ to_centre

                def block(h: Array, xs: tuple, g: int = g) -> tuple[Array, tuple]:
                    (of_middle, up, bias), rests, left, seen = xs
                    seen_h, seen_out, seen_middle = seen
                    seen_h = causal.grown(seen_h, h)
                    out, seen_middle = middle.pixel(of_middle, rests, left, seen_h, seen_middle, g)
                    seen_out = causal.grown(seen_out, out)
                    h = h + seen_out @ up + bias
                    if g + 1 == groups:
                        return h, (middle.left_of(seen_middle, left), middle.kept_of(seen_middle))
                    return h, (seen_h, seen_out, seen_middle)

                h, seen = jax.lax.scan(block, h, (of_block, rests, inner_left, (None, None, None) if seen is None else seen))
                seen_h = causal.grown(seen_h, h)
                out, seen_head = causal.head_pixel(params["head"], seen_h, seen_head, g, groups)
                now = causal.grown(now, draw(g, out))
            pixels_left = jnp.concatenate([pixels_left[1:], now[None]])
            return (pixels_left, seen[0]), (now, seen[1])

        def ended(above: PyTree, kept: PyTree, r: Array) -> PyTree:
            del r
            (lines, inner), (line, of_middle) = above, kept
            return jnp.concatenate([lines[1:], line[None]]), middle.ended(inner, of_middle)

        return Steps((jnp.zeros((reach, width, n, channels)), middle.above),
                     (jnp.zeros((reach, n, channels)), middle.left), row, pixel, ended)

    return Network(init, apply, steps)
