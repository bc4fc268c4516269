"""The Row LSTM: in the core of each block an LSTM that goes down the rows, all pixels of a row at once.

    i, f, o, g = conv_B(h) + K * s_r-1 + b,   c_r = sigmoid(f) c_r-1 + sigmoid(i) tanh(g),   s_r = sigmoid(o) tanh(c_r)

with conv_B masked along the row, and K of the row above unmasked; both windows are 3 wide. van den Oord et al., "Pixel
recurrent neural networks" (2016), section 3.1.

Shapes: `B` batch, `N` images, `H W` an image, `F` features, `G` groups of channels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, PyTree
from jaxdl.generative.pixel import outputs, residual
from jaxdl.generative.pixel.autoregressive import Config, Network
from jaxdl.generative.pixel.layers import Conv, State, Weights, columns, grown, rows_above
from jaxdl.nn.recurrent import lstm_gates


class Cells(NamedTuple):
    """Cells and states of an LSTM [..., F]."""

    cell: Array
    state: Array


def lstm(gates: Array, cell: Array, groups: int = 1) -> Cells:
    """One step: gates [..., 4 F], i f o g of each group in turn, and the cell [..., F] -> cell and state [..., F]."""
    lead = cell.shape[:-1]
    cells = lstm_gates(gates.reshape(*lead, groups, -1), cell.reshape(*lead, groups, -1), "ifog")
    return Cells(*(x.reshape(*lead, -1) for x in cells))


class Seen(NamedTuple):
    """The memory that an LSTM has of the groups so far of a pixel."""

    h: Array  # inputs
    cells: Cells

    @staticmethod
    def after(seen: "Seen | None", h: Array, cells: Cells) -> "Seen":
        """The memory after a group: inputs `h` of all groups so far, and `cells` of this one."""
        return Seen(h, cells if seen is None else Cells(*map(grown, seen.cells, cells)))


class _Terms(NamedTuple):
    """Terms of a row's pixels, of the rows above alone."""

    gates: Array  # [W, N, 4 F]
    cell: Array  # [W, N, F]


@dataclass(frozen=True)
class RowLSTM:
    """The core as a `Layer`: [B, H, W, 2 F] -> states [B, H, W, F]."""

    features: int
    groups: int

    def _input(self) -> Conv:
        return Conv("input", 4 * self.features, self.groups, (1, 3), by_class="class")

    def apply(self, h: Array, y: Array | None, compute: nn.Compute) -> Array:
        return _Core(self, compute, name="middle")(h, y)

    def prepare(self, params: PyTree, y: Array | None) -> Weights:
        """As `Layer`. The offset of the gates is added a row at a time."""
        params = params["middle"]
        pixel = self._input().prepare(params, y).pixel
        return Weights((params["state"][None], self._input().offset(params, y)), tuple((kernel, None) for kernel, _ in pixel))

    def start(self, params: PyTree, n: int, width: int) -> State:
        zeros = jnp.zeros((width, n, self.features))
        return State(Cells(zeros, zeros), self._input().start(params["middle"], n, width).left)

    def row(self, weights: tuple[Array, Array], above: Cells, r: Array) -> tuple[Cells, _Terms]:
        del r
        kernel, offset = weights
        return above, _Terms(rows_above([above.state], kernel) + offset, above.cell)

    def pixel(self, weights: PyTree, terms: _Terms, left: Array, seen: Seen | None, h: Array, g: int) -> tuple[Array, Seen]:
        gates, h = self._input().pixel(weights, terms.gates, left, seen and seen.h, h, g)
        cells = lstm(gates, columns(terms.cell, g, self.groups))
        return cells.state, Seen.after(seen, h, cells)

    def end_pixel(self, left: Array, seen: Seen, h: Array | None = None) -> tuple[Array, Cells]:
        left, _ = self._input().end_pixel(left, seen.h, h)
        return left, seen.cells

    def end_row(self, above: Cells, kept: Cells) -> Cells:
        del above
        return kept


class _Core(linen.Module):
    layer: RowLSTM
    compute: nn.Compute

    @linen.compact
    def __call__(self, h: Array, y: Array | None) -> Array:
        features, groups = self.layer.features, self.layer.groups
        gates = self.layer._input().apply(h, y, self.compute)
        kernel = self.param("state", nn.lecun_uniform, (3, features, 4 * features))

        def row(above: Cells, gates: Array) -> tuple[Cells, Array]:  # [B, W, F], from the top
            wide = jnp.pad(above.state, ((0, 0), (1, 1), (0, 0)))
            wide = jnp.concatenate([wide[:, k : k + h.shape[2]] for k in range(3)], -1)
            cells = lstm(gates + wide @ kernel.reshape(-1, kernel.shape[-1]), above.cell, groups)
            return cells, cells.state

        zeros = jnp.zeros((len(h), h.shape[2], features), h.dtype)
        _, states = nn.unroll_steps(row, Cells(zeros, zeros), gates.swapaxes(0, 1))
        return states.swapaxes(0, 1)


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape."""
    return residual.make(config, spec, output, RowLSTM(config.width, output.groups))
