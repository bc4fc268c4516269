"""Recurrent cells: RNN, GRU and LSTM, in two halves, so that the inputs of many steps are one product of matrices.

    gates = cell.project(x)             all steps at once
    carry, y = cell.step(carry, gates)  one after the other

`unroll` runs a cell over sequences:

    cell = nn.LSTM(64)
    carries, outputs = nn.unroll(cell, params, nn.zero_carry("lstm", 64, B), inputs)  # inputs [T, B, F], outputs [T, B, H]

States begin at zero. Kernels begin as those of the other layers here, where flax's cells have orthogonal recurrent ones.

Shapes: `T` time, `B` batch, `F` features of the input, `H` size of the state.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array, PyTree
from jaxdl.nn.dense import Dense

Kind = Literal["rnn", "gru", "lstm"]


class RNN(linen.Module):
    """Elman, "Finding structure in time" (1990): h' = tanh(W x + U h + b)."""

    size: int
    dtype: Any = "float32"

    def setup(self) -> None:
        """Make the layers."""
        self.inputs = Dense(self.size, use_bias=False, dtype=self.dtype)
        self.hidden = Dense(self.size, dtype=self.dtype)

    def project(self, x: Array) -> Array:
        """[..., F] -> [..., H]."""
        return self.inputs(x)

    def step(self, h: Array, gates: Array) -> tuple[Array, Array]:
        """State [B, H] and gates [B, H] -> state, output [B, H]."""
        h = jnp.tanh(gates + self.hidden(h))
        return h, h


class GRU(linen.Module):
    """Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation" (2014).

        r = sigmoid(W_r x + U_r h)    z = sigmoid(W_z x + U_z h)    n = tanh(W_n x + r * (U_n h))    h' = (1 - z) n + z h

    with biases in every product; `r` after the product as in cuDNN, where the paper has it before.
    """

    size: int
    dtype: Any = "float32"

    def setup(self) -> None:
        """Make the layers."""
        self.inputs = Dense(3 * self.size, dtype=self.dtype)
        self.hidden = Dense(3 * self.size, dtype=self.dtype)

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
    dtype: Any = "float32"

    def setup(self) -> None:
        """Make the layers."""
        self.inputs = Dense(4 * self.size, use_bias=False, dtype=self.dtype)
        self.hidden = Dense(4 * self.size, dtype=self.dtype)

    def project(self, x: Array) -> Array:
        """[..., F] -> [..., 4 H]."""
        return self.inputs(x)

    def step(self, carry: tuple[Array, Array], gates: Array) -> tuple[tuple[Array, Array], Array]:
        """State (c, h), [B, H] each, and gates [B, 4 H] -> state, output [B, H]."""
        c, h = carry
        c, h = lstm_gates(gates + self.hidden(h), c, "ifgo", forget_bias=1.0)
        return (c, h), h


CELLS: dict[str, type[linen.Module]] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


def lstm_gates(gates: Array, c: Array, order: str, forget_bias: float = 0.0) -> tuple[Array, Array]:
    """The new cell and output of an LSTM from its gates before their nonlinearities.

    Args:
        gates: [..., 4 H].
        c: [..., H] the cell.
        order: in which the four gates stand along the last axis, the letters i, f, g and o.
        forget_bias: added to the forget gate.

    Returns:
        c [..., H], h [..., H].
    """
    i, f, g, o = (jnp.split(gates, 4, -1)[order.index(gate)] for gate in "ifgo")
    c = jax.nn.sigmoid(f + forget_bias if forget_bias else f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


def zero_carry(kind: Kind, size: int, n: int) -> PyTree:
    """The states of `n` sequences that begin: [n, H], or two of them for an LSTM."""
    zeros = jnp.zeros((n, size))
    return (zeros, zeros) if kind == "lstm" else zeros


def unroll(cell: linen.Module, params: PyTree, carry: PyTree, inputs: Array, first: Array | None = None
           ) -> tuple[PyTree, Array]:
    """Run a cell over sequences: all inputs are projected at once, then the steps are scanned.

    Args:
        cell: a module with `project` and `step`, as those here.
        params: its parameters.
        carry: the state before the first step, arrays [B, ...].
        inputs: [T, B, F].
        first: bool [T, B], where the state is set to zero before a step; by default nowhere.

    Returns:
        The states after each step, arrays [T, B, ...], and the outputs [T, B, H].
    """
    gates = cell.apply(params, inputs, method="project")
    return unroll_steps(lambda carry, x: cell.apply(params, carry, x, method="step"), carry, gates, first)


def unroll_steps(step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], carry: PyTree, inputs: PyTree,
                 first: Array | None = None) -> tuple[PyTree, PyTree]:
    """As `unroll`, of any function `step(carry, x) -> (carry, output)` and of any trees of arrays [T, B, ...]."""

    def body(carry: PyTree, x: tuple[PyTree, Array | None]) -> tuple[PyTree, tuple[PyTree, PyTree]]:
        x, reset = x
        if reset is not None:
            carry = jax.tree.map(lambda h: jnp.where(reset.reshape(-1, *[1] * (h.ndim - 1)), 0, h), carry)
        carry, output = step(carry, x)
        return carry, (carry, output)

    return jax.lax.scan(body, carry, (inputs, first))[1]
