"""The Row LSTM: in the middle of each block an LSTM that goes down the rows, all pixels of a row at once.

    i, f, o, g = conv_B(h) + K * s_r-1 + b,   c_r = sigmoid(f) c_r-1 + sigmoid(i) tanh(g),   s_r = sigmoid(o) tanh(c_r)

with conv_B masked along the row, and K of the row above unmasked; both windows are 3 wide. van den Oord et al., "Pixel
recurrent neural networks" (2016), section 3.1.

Shapes: `B` batch, `N` images, `H W` an image, `F` features, `L` blocks, `G` groups of channels.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, PyTree
from jaxdl.generative.pixel import causal, outputs, residual
from jaxdl.generative.pixel.autoregressive import Config, Network


def lstm(gates: Array, c: Array, groups: int = 1) -> tuple[Array, Array]:
    """Gates [..., 4 F], for each group i, f, o, g together, and the cell [..., F] -> cell, state."""
    gates = gates.reshape(*gates.shape[:-1], groups, 4, -1)
    i, f, o = (jax.nn.sigmoid(gates[..., k, :]) for k in range(3))
    c = f * c.reshape(*c.shape[:-1], groups, -1) + i * jnp.tanh(gates[..., 3, :])
    s = o * jnp.tanh(c)
    return tuple(z.reshape(*z.shape[:-2], -1) for z in (c, s))


class _Middle(linen.Module):
    features: int
    groups: int

    @linen.compact
    def __call__(self, h: Array, y: Array | None) -> Array:
        mask = nn.causal_mask((1, 3), "B", self.groups)
        gates = nn.Conv(4 * self.features, (1, 3), mask=mask, kernel_init=nn.lecun_uniform, name="input")(h)
        kernel = self.param("state", nn.lecun_uniform, (3, self.features, 4 * self.features))
        if y is not None:
            of_class = linen.Dense(4 * self.features, use_bias=False, kernel_init=nn.lecun_uniform, name="class")(y)
            gates += of_class[:, None, None]

        def row(carry: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
            c, s = carry  # [B, W, F]
            wide = jnp.pad(s, ((0, 0), (1, 1), (0, 0)))
            wide = jnp.concatenate([wide[:, k : k + s.shape[1]] for k in range(3)], -1)
            c, s = lstm(gates + wide @ kernel.reshape(-1, kernel.shape[-1]), c, self.groups)
            return (c, s), s

        zeros = jnp.zeros((len(h), h.shape[2], self.features), h.dtype)
        _, states = jax.lax.scan(row, (zeros, zeros), gates.swapaxes(0, 1))
        return states.swapaxes(0, 1)


def _steps(params: PyTree, y: Array | None, n: int, *, groups: int, width: int) -> residual.Middle:
    to_gates, of_state = params["input"]["kernel"][:, 0], params["state"]  # [L, 3, 2 F, 4 F], [L, 3, F, 4 F]
    layers, features = len(to_gates), of_state.shape[2]
    offset = params["input"]["bias"][:, None]
    if y is not None:
        offset = offset + jnp.einsum("ny,lyo->lno", y, params["class"]["kernel"])

    def row(above: tuple[Array, Array], r: Array) -> tuple[PyTree, PyTree]:
        del r
        c, s = above  # [W, L, N, F]
        return above, (causal.row_above(s, of_state) + offset, c)

    def weights(g: int) -> Array:
        return jnp.concatenate([causal.columns(to_gates[:, 0], g, groups), causal.centre(to_gates[:, 1], g, groups)], 1)

    def pixel(weights: Array, rests: tuple[Array, Array], left: Array, h: Array, seen: PyTree, g: int) -> tuple[Array, PyTree]:
        gates, c = (causal.columns(z, g, groups) for z in rests)
        c, s = lstm(jnp.concatenate([left, h], -1) @ weights + gates, c)
        return s, (h, *map(causal.grown, (None, None) if seen is None else seen[1:], (c, s)))

    start = jnp.zeros((width, layers, n, features))
    return residual.Middle(above=(start, start), left=jnp.zeros((layers, n, 2 * features)), row=row, weights=weights,
                           pixel=pixel, left_of=lambda seen, left: seen[0], kept_of=lambda seen: seen[1:],
                           ended=lambda above, kept: kept)


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape."""
    return residual.make(config, spec, output, partial(_Middle, config.features, output.groups),
                         partial(_steps, groups=output.groups, width=spec.shape[1]))
