"""Recurrent cells: a GRU and an LSTM, in two halves, so that the inputs of many steps are one product of matrices.

    gates = cell.project(x)             all steps at once
    carry, y = cell.step(carry, gates)  one after the other

States begin at zero. Kernels begin as those of the other layers here, where flax's cells have orthogonal recurrent ones.

Shapes: `B` batch, `F` features of the input, `H` size of the state.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array, PyTree
from jaxdl.nn.initializers import lecun_uniform

Kind = Literal["gru", "lstm"]


class GRU(linen.Module):
    """Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation" (2014).

        r = sigmoid(W_r x + U_r h)    z = sigmoid(W_z x + U_z h)    n = tanh(W_n x + r * (U_n h))    h' = (1 - z) n + z h

    with biases in every product; `r` after the product as in cuDNN, where the paper has it before.
    """

    size: int

    def setup(self) -> None:
        """Make the layers."""
        self.inputs = linen.Dense(3 * self.size, kernel_init=lecun_uniform)
        self.hidden = linen.Dense(3 * self.size, kernel_init=lecun_uniform)

    def project(self, x: Array) -> Array:
        """[..., F] -> [..., 3 H]."""
        return self.inputs(x)

    def step(self, h: Array, gates: Array) -> tuple[Array, Array]:
        """State [B, H] and gates [B, 3 H] -> state, output [B, H]."""
        of_x, of_h = jnp.split(gates, 3, -1), jnp.split(self.hidden(h), 3, -1)
        reset, update = jax.nn.sigmoid(of_x[0] + of_h[0]), jax.nn.sigmoid(of_x[1] + of_h[1])
        new = jnp.tanh(of_x[2] + reset * of_h[2])
        h = (1 - update) * new + update * h
        return h, h


class LSTM(linen.Module):
    """Hochreiter & Schmidhuber, "Long short-term memory" (1997), with forget gates (Gers et al. 2000).

        i, f, o = sigmoid(W x + U h + b)    g = tanh(W_g x + U_g h + b_g)    c' = f c + i g    h' = o tanh(c')

    1 is added to the forget gate's bias: it begins open (Jozefowicz et al. 2015).
    """

    size: int

    def setup(self) -> None:
        """Make the layers."""
        self.inputs = linen.Dense(4 * self.size, kernel_init=lecun_uniform, use_bias=False)
        self.hidden = linen.Dense(4 * self.size, kernel_init=lecun_uniform)

    def project(self, x: Array) -> Array:
        """[..., F] -> [..., 4 H]."""
        return self.inputs(x)

    def step(self, carry: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
        """State (c, h), [B, H] each, and gates [B, 4 H] -> state, output [B, H]."""
        c, h = carry
        i, f, g, o = jnp.split(gates + self.hidden(h), 4, -1)
        c = jax.nn.sigmoid(f + 1.0) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (c, h), h


def zero_carry(kind: Kind, size: int, n: int) -> PyTree:
    """The states of `n` sequences that begin: [n, H], or two of them for an LSTM."""
    zeros = jnp.zeros((n, size))
    return zeros if kind == "gru" else (zeros, zeros)
