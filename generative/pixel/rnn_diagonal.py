"""The Diagonal BiLSTM: in the middle of each block two LSTMs that go along the diagonals, from the left and from the right.

    left:   gates(r, c) = in_B(h(r, c)) + K_1 s(r, c-1) + K_0 s(r-1, c) + b,   cell from (r, c-1)
    right:  the same mirrored, with weights of its own; its states are moved down a row, where all they know is past
    out     = s_left(r, c) + s_right(r-1, c)

van den Oord et al., "Pixel recurrent neural networks" (2016), section 3.2. A whole image is skewed, each row moved one further
to the right than the one above, so that a diagonal is a column, and the columns are gone through in turn. The input of
the right one is not masked, since the move down leaves nothing of the row itself.

By pixels: the left one goes along with them; the right one goes through a row when the row is complete.

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
from jaxdl.generative.pixel.rnn_row import lstm


class _Middle(linen.Module):
    features: int
    groups: int

    @linen.compact
    def __call__(self, h: Array, y: Array | None) -> Array:
        ones, wide = (1, 1), 4 * self.features
        mask = nn.causal_mask(ones, "B", self.groups)
        left = nn.Conv(wide, ones, mask=mask, kernel_init=nn.lecun_uniform, name="left")(h)
        right = nn.Conv(wide, ones, kernel_init=nn.lecun_uniform, name="right")(h[:, :, ::-1])
        kernels = [self.param(f"{side}_state", nn.lecun_uniform, (2, self.features, wide)) for side in ("left", "right")]
        gates = jnp.stack([left, right])
        if y is not None:
            of_class = linen.Dense(2 * wide, use_bias=False, kernel_init=nn.lecun_uniform, name="class")(y)
            gates += jnp.stack(jnp.split(of_class, 2, -1))[:, :, None, None]
        left, right = _along_diagonals(gates, jnp.stack(kernels), self.groups)
        return left + jnp.pad(right[:, :, ::-1], ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def _along_diagonals(gates: Array, kernel: Array, groups: int) -> Array:
    """Gates of the inputs [2, B, H, W, 4 F] of two directions, kernels [2, 2, F, 4 F] -> states [2, B, H, W, F]."""
    height, width = gates.shape[2:4]
    inside = _skew(jnp.ones((1, 1, height, width, 1), bool))
    kernel = kernel.reshape(2, -1, kernel.shape[-1])

    def diagonal(carry: tuple[Array, Array], xs: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
        (c, s), (gates, inside) = carry, xs  # [2, B, H, F], of the diagonal before
        above = jnp.pad(s, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
        both = jnp.concatenate([above, s], -1)
        new = lstm(gates + jnp.einsum("dbhc,dco->dbho", both, kernel), c, groups)
        c, s = (jnp.where(inside, z, 0) for z in new)  # a row begins with nothing
        return (c, s), s

    zeros = jnp.zeros((*gates.shape[:3], gates.shape[-1] // 4), gates.dtype)
    _, states = jax.lax.scan(diagonal, (zeros, zeros), tuple(jnp.moveaxis(z, 3, 0) for z in (_skew(gates), inside)))
    return _straight(jnp.moveaxis(states, 0, 3), width)


def _skew(x: Array) -> Array:
    """[..., H, W, C] -> [..., H, H + W - 1, C]: row r moved r to the right, the gaps zero."""
    *lead, height, width, channels = x.shape
    x = jnp.pad(x, [*[(0, 0)] * (len(lead) + 1), (0, height), (0, 0)])
    x = x.reshape(*lead, height * (width + height), channels)[..., : height * (width + height - 1), :]
    return x.reshape(*lead, height, width + height - 1, channels)


def _straight(x: Array, width: int) -> Array:
    """The way back."""
    *lead, height, long, channels = x.shape
    x = jnp.pad(x.reshape(*lead, height * long, channels), [*[(0, 0)] * len(lead), (0, height), (0, 0)])
    return x.reshape(*lead, height, long + 1, channels)[..., :width, :]


def _steps(params: PyTree, y: Array | None, n: int, *, groups: int, width: int) -> residual.Middle:
    to_left, to_right = (params[side]["kernel"][:, 0, 0] for side in ("left", "right"))  # [L, 2 F, 4 F]
    of_left, of_right = params["left_state"], params["right_state"]  # [L, 2, F, 4 F]
    layers, features = len(to_left), of_left.shape[2]
    offsets = [params[side]["bias"][:, None] for side in ("left", "right")]
    if y is not None:
        of_class = jnp.split(jnp.einsum("ny,lyo->lno", y, params["class"]["kernel"]), 2, -1)
        offsets = [a + b for a, b in zip(offsets, of_class, strict=True)]

    def row(above: PyTree, r: Array) -> tuple[PyTree, PyTree]:
        h, s_left, s_right = above  # of the row above: inputs [W, L, N, 2 F] and states; s_right of the one above that
        gates = jnp.einsum("wlnc,lco->wlno", h, to_right) + jnp.einsum("wlnc,lco->wlno", s_right, of_right[:, 0]) + offsets[1]

        def from_right(carry: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
            c, s = carry
            c, s = lstm(gates + jnp.einsum("lnc,lco->lno", s, of_right[:, 1]), c, groups)
            return (c, s), s

        zeros = jnp.zeros((layers, n, features))
        _, s_right = jax.lax.scan(from_right, (zeros, zeros), gates, reverse=True)
        s_right = jnp.where(r > 0, s_right, 0)
        rests = jnp.einsum("wlnc,lco->wlno", s_left, of_left[:, 0]) + offsets[0]
        return (h, s_left, s_right), (rests, s_right)

    def weights(g: int) -> Array:
        return jnp.concatenate([causal.columns(of_left[:, 1], g, groups), causal.centre(to_left, g, groups)], 1)

    def pixel(weights: Array, rests: PyTree, left: PyTree, h: Array, seen: PyTree, g: int) -> tuple[Array, PyTree]:
        gates, s_right = (causal.columns(z, g, groups) for z in rests)
        c, s = left
        c, s = lstm(jnp.concatenate([s, h], -1) @ weights + gates, causal.columns(c, g, groups))
        return s + s_right, (h, *map(causal.grown, (None, None) if seen is None else seen[1:], (c, s)))

    def start(*lead: int) -> Array:
        return jnp.zeros((*lead, layers, n, features))

    return residual.Middle(above=(jnp.zeros((width, layers, n, 2 * features)), start(width), start(width)),
                           left=(start(), start()), row=row, weights=weights, pixel=pixel,
                           left_of=lambda seen, left: seen[1:], kept_of=lambda seen: (seen[0], seen[2]),
                           ended=lambda above, kept: (*kept, above[2]))


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape."""
    return residual.make(config, spec, output, partial(_Middle, config.features, output.groups),
                         partial(_steps, groups=output.groups, width=spec.shape[1]))
