"""Layers of causal networks in two forms: on whole images, for training, and by rows and pixels, for drawing.

A causal kernel is cut into parts, each computed as soon as its inputs exist: the rows above the centre for a whole row at once,
the columns to the left and the centre a pixel at a time. Channels are in `G` contiguous groups, and a pixel is computed a group
at a time: at the centre, group g sees the groups up to g (kind "B") or those before g (kind "A"). `network` makes
both forms of a network from one list of layers.

Shapes: `B` batch, `N` images, `H W` an image, `C` channels in, `O` out, `L` layers of a stack, `K` rows and `k` columns of a
kernel, `G` groups of channels, `P` outputs a group.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, Key, PyTree
from jaxdl.generative.labels import Classes
from jaxdl.generative.pixel import outputs
from jaxdl.generative.pixel.autoregressive import Config, Draw, Network, Steps


class Weights(NamedTuple):
    """The parameters of a layer, cut once for all rows and pixels."""

    row: PyTree  # used once a row
    pixel: tuple[PyTree, ...]  # used once a pixel, for each group


class State(NamedTuple):
    """The memory of a layer at the first pixel of an image: zeros, as beyond its borders."""

    above: PyTree  # of the rows above [W, N, ...]
    left: PyTree  # of the pixels to the left [N, ...]


class Layer(Protocol):
    """A causal layer. `seen` is its memory of a pixel's earlier groups, None at the first."""

    def apply(self, h: Array, y: Array | None, compute: nn.Compute) -> Array:
        """Compute whole images [B, H, W, C] -> [B, H, W, O] by flax modules, which a compact module around it owns."""

    def prepare(self, params: PyTree, y: Array | None) -> Weights:
        """Cut the parameters for N images of the classes `y` [N, Y]."""

    def start(self, params: PyTree, n: int, width: int) -> State:
        """Return the memory at the first pixel of N images."""

    def row(self, weights: PyTree, above: PyTree, r: Array) -> tuple[PyTree, PyTree]:
        """Compute what row r gets of the rows above alone: `above`, and terms of its pixels [W, N, ...].

        An axis of L layers may come before N in arrays, and first in weights.
        """

    def pixel(self, weights: PyTree, terms: PyTree, left: PyTree, seen: PyTree, h: Array | None, g: int
              ) -> tuple[Array, PyTree]:
        """Compute group g of a pixel, [N, C / G] -> [N, O / G], and `seen`. Kind A takes group g - 1, None at first."""

    def end_pixel(self, left: PyTree, seen: PyTree, h: Array | None = None) -> tuple[PyTree, PyTree]:
        """Return `left` for the next pixel, and what is kept for the row below. Kind A takes the last group `h` here."""

    def end_row(self, above: PyTree, kept: PyTree) -> PyTree:
        """Return `above` for the next row, given what its pixels kept [W, N, ...]."""


@dataclass(frozen=True)
class Conv:
    """A masked convolution of `before(h)`, by default 1x1; a class adds `by_class` y to its outputs."""

    name: str
    features: int
    groups: int
    window: tuple[int, int] = (1, 1)
    kind: str = "B"
    before: Callable[..., Array] | None = None  # activation of the inputs, (h, groups=1) -> h
    by_class: str | None = None  # name of the kernel that classes have, if they have one
    bias: bool = True
    last: bool = False  # in float32 whatever the others multiply in
    half: bool = False  # of a window of one row: the kernel ends at its centre, without the columns that a mask would zero

    def apply(self, h: Array, y: Array | None, compute: nn.Compute) -> Array:
        mask, padding, reach = nn.causal_mask(self.window, self.kind, self.groups), "SAME", self.window[1] // 2
        if self.half:
            mask, padding = tuple(line[: reach + 1] for line in mask), ((0, 0), (reach, 0))
        h = h if self.before is None else self.before(h, self.groups)
        h = nn.Conv(self.features, (len(mask), len(mask[0])), padding=padding, mask=mask, use_bias=self.bias,
                    kernel_init=nn.lecun_uniform, dtype=None if self.last else compute.dtype, name=self.name)(h)
        if y is not None and self.by_class:
            h += nn.Dense(self.features, use_bias=False, dtype=compute.dtype, name=self.by_class)(y)[:, None, None]
        return h

    def prepare(self, params: PyTree, y: Array | None) -> Weights:
        kernel, offset = params[self.name]["kernel"], self.offset(params, y)
        rows, reach = (size // 2 for size in self.window)
        to_left = kernel[rows, :reach].reshape(-1, self.features)
        kernels = [jnp.concatenate([columns(to_left, g, self.groups), centre(kernel[rows, reach], g, self.groups, self.kind)])
                   for g in range(self.groups)]
        if rows:  # the offset is added to a row
            return Weights((kernel[:rows], offset), tuple((kernel, None) for kernel in kernels))
        offsets = [None if offset is None else columns(offset, g, self.groups) for g in range(self.groups)]
        return Weights(None, tuple(zip(kernels, offsets, strict=True)))

    def offset(self, params: PyTree, y: Array | None) -> Array | None:
        """The bias and what classes add to it, [1, O] or [N, O]."""
        if not self.bias:
            return None
        bias = params[self.name]["bias"][None]
        return bias if y is None or not self.by_class else bias + y @ params[self.by_class]["kernel"]

    def start(self, params: PyTree, n: int, width: int) -> State:
        """As `Layer`: the rows above, [W, N, C] each, and the pixels to the left, concatenated [N, reach C]."""
        (rows, reach), channels = (size // 2 for size in self.window), params[self.name]["kernel"].shape[-2]
        return State((jnp.zeros((width, n, channels)),) * rows, jnp.zeros((n, reach * channels)) if reach else None)

    def row(self, weights: PyTree, above: tuple[Array, ...], r: Array) -> tuple[PyTree, Array | None]:
        del r
        if weights is None:
            return above, None
        kernel, offset = weights
        return above, rows_above(above, kernel) + offset

    def pixel(self, weights: PyTree, terms: Array | None, left: Array | None, seen: Array | None, h: Array | None, g: int
              ) -> tuple[Array, Array | None]:
        """As `Layer`; `seen` are the inputs so far [N, (g + 1) C / G]. Terms come from `row`, or from the caller."""
        kernel, offset = weights
        seen = grown(seen, h if self.before is None else self.before(h))
        out = grown(left, seen) @ kernel
        if terms is not None:
            out = out + columns(terms, g, self.groups)
        return out if offset is None else out + offset, seen

    def end_pixel(self, left: Array | None, seen: Array | None, h: Array | None = None) -> tuple[Array | None, Array | None]:
        seen = grown(seen, h)
        left = None if left is None else jnp.concatenate([left[..., seen.shape[-1] :], seen], -1)
        return left, seen if self.window[0] > 1 else None

    def end_row(self, above: tuple[Array, ...], kept: Array | None) -> tuple[Array, ...]:
        return above if kept is None else (*above[1:], kept)


@dataclass(frozen=True)
class Chain:
    """Layers one after the other. With a name, their parameters are under it."""

    layers: tuple[Layer, ...]
    name: str | None = None

    def apply(self, h: Array, y: Array | None, compute: nn.Compute) -> Array:
        if self.name:
            return Module(replace(self, name=None), compute, name=self.name)(h, y)
        for layer in self.layers:
            h = layer.apply(h, y, compute)
        return h

    def _params(self, params: PyTree) -> PyTree:
        return params[self.name] if self.name else params

    def prepare(self, params: PyTree, y: Array | None) -> Weights:
        rows, pixels = zip(*(layer.prepare(self._params(params), y) for layer in self.layers), strict=True)
        return Weights(rows, tuple(zip(*pixels, strict=True)))

    def start(self, params: PyTree, n: int, width: int) -> State:
        return State(*zip(*(layer.start(self._params(params), n, width) for layer in self.layers), strict=True))

    def row(self, weights: PyTree, above: PyTree, r: Array) -> tuple[PyTree, PyTree]:
        rows = [layer.row(w, of_layer, r) for layer, w, of_layer in zip(self.layers, weights, above, strict=True)]
        return tuple(zip(*rows, strict=True))

    def pixel(self, weights: PyTree, terms: PyTree, left: PyTree, seen: PyTree, h: Array | None, g: int
              ) -> tuple[Array, PyTree]:
        now, seen = [], (None,) * len(self.layers) if seen is None else seen
        for layer, *of_layer in zip(self.layers, weights, terms, left, seen, strict=True):
            h, more = layer.pixel(*of_layer, h, g)
            now.append(more)
        return h, tuple(now)

    def end_pixel(self, left: PyTree, seen: PyTree, h: Array | None = None) -> tuple[PyTree, PyTree]:
        """As `Layer`. Only the first may be of kind A."""
        last = (h, *[None] * (len(self.layers) - 1))
        return tuple(zip(*(layer.end_pixel(*x) for layer, *x in zip(self.layers, left, seen, last, strict=True)), strict=True))

    def end_row(self, above: PyTree, kept: PyTree) -> PyTree:
        return tuple(layer.end_row(*x) for layer, *x in zip(self.layers, above, kept, strict=True))


@dataclass(frozen=True)
class Blocks:
    """`length` residual blocks h + block(h), as one loop over stacked parameters [L, ...]."""

    block: Layer
    length: int
    name: str

    def apply(self, h: Array, y: Array | None, compute: nn.Compute) -> Array:
        blocks = linen.scan(compute.block(_Block), variable_axes={"params": 0}, split_rngs={"params": True},
                            in_axes=linen.broadcast, length=self.length)
        return blocks(self.block, compute, name=self.name)(h, y)[0]

    def prepare(self, params: PyTree, y: Array | None) -> Weights:
        """As `Layer`, with arrays [L, ...]."""
        return jax.vmap(lambda params: self.block.prepare(params, y))(params[self.name])

    def start(self, params: PyTree, n: int, width: int) -> State:
        """As `Layer`: `above` is [W, L, N, ...], as the loop over pixels stacks it, and `left` [L, N, ...]."""
        return jax.vmap(lambda params: self.block.start(params, n, width), out_axes=State(1, 0))(params[self.name])

    def row(self, weights: PyTree, above: PyTree, r: Array) -> tuple[PyTree, PyTree]:
        """As `Layer`, all blocks at once: they depend on kept rows alone, and an axis more makes one product of theirs."""
        return self.block.row(weights, above, r)

    def pixel(self, weights: PyTree, terms: PyTree, left: PyTree, seen: PyTree, h: Array, g: int) -> tuple[Array, PyTree]:
        """As `Layer`, one block after the other."""
        def block(h: Array, of_block: tuple) -> tuple[Array, PyTree]:
            out, seen = self.block.pixel(*of_block, h, g)
            return h + out, seen

        return jax.lax.scan(block, h, (weights, terms, left, seen))

    def end_pixel(self, left: PyTree, seen: PyTree, h: Array | None = None) -> tuple[PyTree, PyTree]:
        """As `Layer`, all blocks at once."""
        return self.block.end_pixel(left, seen, h)

    def end_row(self, above: PyTree, kept: PyTree) -> PyTree:
        """As `Layer`, all blocks at once."""
        return self.block.end_row(above, kept)


class Module(linen.Module):
    """A layer as a module: (h [B, H, W, C], y [B, Y] or None) -> [B, H, W, O]."""

    layer: Layer
    compute: nn.Compute = nn.FLOAT32

    @linen.compact
    def __call__(self, h: Array, y: Array | None) -> Array:
        return self.layer.apply(h, y, self.compute)


class _Block(linen.Module):
    layer: Layer
    compute: nn.Compute

    @linen.compact
    def __call__(self, h: Array, y: Array | None) -> tuple[Array, None]:
        return h + self.layer.apply(h, y, self.compute), None


def relu(h: Array, groups: int = 1) -> Array:
    """Rectify, whatever the groups."""
    del groups
    return jax.nn.relu(h)


def head(features: int, groups: int, per_group: int) -> Chain:
    """The last layers, two convolutions of 1x1: [B, H, W, F] -> [B, H, W, G P]."""
    out = Conv("out", groups * per_group, groups, before=relu, last=True)
    return Chain((Conv("hidden", features, groups, before=relu), out), "head")


def network(layers: Sequence[Layer], config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network of layers, the first of which is of kind A, for images of a shape."""
    chain = Chain(tuple(layers))
    module = Module(chain)
    y = Classes.of(config.conditional, spec).example()

    def init(key: Key) -> PyTree:
        return nn.init(module, key, jnp.zeros((1, *spec.shape)), y, initial=config.init)["params"]

    def apply(params: PyTree, x: Array, y: Array | None, key: Key | None = None, compute: nn.Compute = nn.FLOAT32) -> Array:
        del key
        h = module.clone(compute=compute).apply({"params": params}, x, y)
        return h.reshape(*h.shape[:-1], output.groups, output.outputs)

    def steps(params: PyTree, y: Array | None, n: int) -> Steps:
        weights = chain.prepare(params, y)

        def pixel(left: PyTree, terms: PyTree, place: tuple[Array, Array], draw: Draw) -> tuple[PyTree, PyTree]:
            del place
            seen = x = None
            for g in range(output.groups):
                out, seen = chain.pixel(weights.pixel[g], terms, left, seen, x, g)
                x = draw(g, out)
            return chain.end_pixel(left, seen, x)

        def end_row(above: PyTree, kept: PyTree, r: Array) -> PyTree:
            del r
            return chain.end_row(above, kept)

        above, left = chain.start(params, n, spec.shape[1])
        return Steps(above, left, lambda above, r: chain.row(weights.row, above, r), pixel, end_row)

    return Network(init, apply, steps)


def columns(kernel: Array, g: int, groups: int) -> Array:
    """Slice out the columns of group g: [..., O] -> [..., O / G]."""
    size = kernel.shape[-1] // groups
    return kernel[..., g * size : (g + 1) * size]


def centre(kernel: Array, g: int, groups: int, kind: str = "B") -> Array:
    """Slice out of a kernel's centre the rows that group g sees and its columns: [..., C, O] -> [..., C', O / G]."""
    return columns(kernel[..., : (g + (kind == "B")) * (kernel.shape[-2] // groups), :], g, groups)


def grown(seen: Array | None, new: Array | None) -> Array | None:
    """Append channels [..., C]; None stands for no channels."""
    if seen is None or new is None:
        return new if seen is None else seen
    return jnp.concatenate([seen, new], -1)


def rows_above(lines: Sequence[Array], kernel: Array) -> Array:
    """Convolve K rows to one: [W, N, C] each and a kernel [K, k, C, O] -> [W, N, O].

    With an axis of L layers: [W, L, N, C] each and kernels [L, K, k, C, O] -> [W, L, N, O].
    """
    width, (columns, channels, features) = len(lines[0]), kernel.shape[-3:]
    rim = (columns // 2, columns // 2), *[(0, 0)] * (lines[0].ndim - 1)
    lines = [jnp.pad(line, rim) for line in lines]
    seen = jnp.concatenate([line[j : j + width] for line in lines for j in range(columns)], -1)
    return seen @ kernel.reshape(*kernel.shape[:-4], len(lines) * columns * channels, features)
