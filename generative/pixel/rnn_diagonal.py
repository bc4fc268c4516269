"""The Diagonal BiLSTM: in the core of each block two LSTMs that go along the diagonals, from the left and from the right.

    left:   gates(r, c) = in_B(h(r, c)) + K_1 s(r, c-1) + K_0 s(r-1, c) + b,   cell from (r, c-1)
    right:  the same mirrored, with weights of its own; its states are moved down a row, where they depend on past pixels alone
    out     = s_left(r, c) + s_right(r-1, c)

van den Oord et al., "Pixel recurrent neural networks" (2016), section 3.2. A whole image is skewed, each row moved one further
to the right than the one above, so that a diagonal is a column, and the columns are gone through in turn. The input of
the right one is not masked, since after the move down it depends on no pixel of the row itself.

The sampler steps the left one with the pixels, and runs the right one over a row once the row is complete.

Shapes: `B` batch, `N` images, `H W` an image, `F` features, `G` groups of channels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, PyTree
from jaxdl.generative.pixel import outputs, residual
from jaxdl.generative.pixel.autoregressive import Config, Network
from jaxdl.generative.pixel.layers import State, Weights, centre, columns, grown
from jaxdl.generative.pixel.rnn_row import Cells, Seen, lstm


class _Core(linen.Module):
    features: int
    groups: int
    dtype: str

    @linen.compact
    def __call__(self, h: Array, y: Array | None) -> Array:
        ones, wide = (1, 1), 4 * self.features
        mask = nn.causal_mask(ones, "B", self.groups)
        how = {"kernel_init": nn.lecun_uniform, "dtype": self.dtype}
        left = nn.Conv(wide, ones, mask=mask, name="left", **how)(h)
        right = nn.Conv(wide, ones, name="right", **how)(h[:, :, ::-1])
        kernels = [self.param(f"{side}_state", nn.lecun_uniform, (2, self.features, wide)) for side in ("left", "right")]
        gates = jnp.stack([left, right])
        if y is not None:
            of_class = nn.Dense(2 * wide, use_bias=False, name="class", **how)(y)
            gates += jnp.stack(jnp.split(of_class, 2, -1))[:, :, None, None]
        left, right = _along_diagonals(gates, jnp.stack(kernels), self.groups)
        return left + jnp.pad(right[:, :, ::-1], ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def _along_diagonals(gates: Array, kernel: Array, groups: int) -> Array:
    """Gates of the inputs [2, B, H, W, 4 F] of two directions, kernels [2, 2, F, 4 F] -> states [2, B, H, W, F]."""
    height, width = gates.shape[2:4]
    inside = _skew(jnp.ones((1, 1, height, width, 1), bool))
    kernel = kernel.reshape(2, -1, kernel.shape[-1])

    def diagonal(before: Cells, xs: tuple[Array, Array]) -> tuple[Cells, Array]:  # [2, B, H, F], of the diagonal before
        gates, inside = xs
        above = jnp.pad(before.state, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        both = jnp.concatenate([above, before.state], -1)
        cells = lstm(gates + jnp.einsum("dbhc,dco->dbho", both, kernel), before.cell, groups)
        cells = Cells(*(jnp.where(inside, x, 0) for x in cells))  # a row begins with zeros
        return cells, cells.state

    zeros = jnp.zeros((*gates.shape[:3], gates.shape[-1] // 4), gates.dtype)
    _, states = jax.lax.scan(diagonal, Cells(zeros, zeros), tuple(jnp.moveaxis(z, 3, 0) for z in (_skew(gates), inside)))
    return _straight(jnp.moveaxis(states, 0, 3), width)


def _skew(x: Array) -> Array:
    """[..., H, W, C] -> [..., H, H + W - 1, C]: row r moved r to the right, the gaps zero."""
    *lead, height, width, channels = x.shape
    x = jnp.pad(x, [*[(0, 0)] * (len(lead) + 1), (0, height), (0, 0)])
    x = x.reshape(*lead, height * (width + height), channels)[..., : height * (width + height - 1), :]
    return x.reshape(*lead, height, width + height - 1, channels)


def _straight(x: Array, width: int) -> Array:
    """Undo `_skew`: [..., H, H + W - 1, C] -> [..., H, W, C]."""
    *lead, height, long, channels = x.shape
    x = jnp.pad(x.reshape(*lead, height * long, channels), [*[(0, 0)] * len(lead), (0, height), (0, 0)])
    return x.reshape(*lead, height, long + 1, channels)[..., :width, :]


class _Above(NamedTuple):
    """The memory of the row above [W, N, ...]."""

    h: Array  # inputs
    left: Array  # states of the LSTM from the left
    right: Array  # states of the LSTM from the right: until `row` updates them, those of one row further up


class _Row(NamedTuple):
    """Parameters used once a row."""

    left_state: Array  # [F, 4 F], of the state above
    left_offset: Array
    right: Array  # [2 F, 4 F], of the inputs
    right_above: Array  # [F, 4 F], of the state above
    right_before: Array  # [F, 4 F], of the state before
    right_offset: Array


class _Terms(NamedTuple):
    """Terms of a row's pixels, of the rows above alone."""

    gates: Array  # [W, N, 4 F], of the LSTM from the left
    right: Array  # [W, N, F] states of the LSTM from the right


@dataclass(frozen=True)
class DiagonalLSTM:
    """The core as a `Layer`: [B, H, W, 2 F] -> states [B, H, W, F]."""

    features: int
    groups: int

    def apply(self, h: Array, y: Array | None, compute: nn.Compute) -> Array:
        return _Core(self.features, self.groups, compute.dtype, name="middle")(h, y)

    def prepare(self, params: PyTree, y: Array | None) -> Weights:
        """As `Layer`. A pixel's kernel takes the state to the left, then the inputs of the groups up to its own."""
        params = params["middle"]
        to_left, to_right = (params[side]["kernel"][0, 0] for side in ("left", "right"))
        of_left, of_right = params["left_state"], params["right_state"]
        offsets = [params[side]["bias"][None] for side in ("left", "right")]
        if y is not None:
            offsets = [a + b for a, b in zip(offsets, jnp.split(y @ params["class"]["kernel"], 2, -1), strict=True)]
        pixel = [jnp.concatenate([columns(of_left[1], g, self.groups), centre(to_left, g, self.groups)])
                 for g in range(self.groups)]
        return Weights(_Row(of_left[0], offsets[0], to_right, *of_right, offsets[1]), tuple(pixel))

    def start(self, params: PyTree, n: int, width: int) -> State:
        del params
        states, cell = jnp.zeros((width, n, self.features)), jnp.zeros((n, self.features))
        return State(_Above(jnp.zeros((width, n, 2 * self.features)), states, states), Cells(cell, cell))

    def row(self, weights: _Row, above: _Above, r: Array) -> tuple[_Above, _Terms]:
        """As `Layer`. The LSTM from the right passes over the row above, which is complete."""
        gates = above.h @ weights.right + above.right @ weights.right_above + weights.right_offset

        def from_right(before: Cells, gates: Array) -> tuple[Cells, Array]:
            cells = lstm(gates + before.state @ weights.right_before, before.cell, self.groups)
            return cells, cells.state

        zeros = jnp.zeros(above.right.shape[1:])
        _, right = jax.lax.scan(from_right, Cells(zeros, zeros), gates, reverse=True)
        right = jnp.where(r > 0, right, 0)
        return above._replace(right=right), _Terms(above.left @ weights.left_state + weights.left_offset, right)

    def pixel(self, weights: Array, terms: _Terms, left: Cells, seen: Seen | None, h: Array, g: int) -> tuple[Array, Seen]:
        gates, right, cell = (columns(x, g, self.groups) for x in (*terms, left.cell))
        h = grown(seen and seen.h, h)
        cells = lstm(jnp.concatenate([left.state, h], -1) @ weights + gates, cell)
        return cells.state + right, Seen.after(seen, h, cells)

    def end_pixel(self, left: Cells, seen: Seen, h: Array | None = None) -> tuple[Cells, tuple[Array, Array]]:
        del left, h
        return seen.cells, (seen.h, seen.cells.state)

    def end_row(self, above: _Above, kept: tuple[Array, Array]) -> _Above:
        return _Above(*kept, above.right)


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape."""
    return residual.make(config, spec, output, DiagonalLSTM(config.width, output.groups))
