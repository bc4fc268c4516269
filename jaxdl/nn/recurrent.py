"""Recurrent cells: RNN, GRU and LSTM, in two halves, so that the inputs of many steps are one product of matrices.

    gates = cell.project(x)             all steps at once
    carry, y = cell.step(carry, gates)  one after the other: cell.rule(carry, gates, cell.mix(h))

`unroll` runs a cell over sequences, and the gradient by the recurrent kernel is one product of all steps, where autodiff would
add one a step.

    cell = nn.LSTM(64)
    carries, outputs = nn.unroll(cell, params, nn.zero_carry("lstm", 64, B), inputs)  # inputs [T, B, F], outputs [T, B, H]

What is read and what is kept of the outputs makes every form: one to one is a single step, many to one the last output, many
to many all of them, one to many an output that is the next input, and sequence to sequence a second cell that begins with the
last state of the first. `unroll_layers` has cells above each other.

States begin at zero. Kernels begin as those of the other layers here, where flax's cells have orthogonal recurrent ones.

Shapes: `T` time, `B` batch, `F` features of the input, `H` size of the state, `G` gates: H, 3 H or 4 H.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array, PyTree
from jaxdl.nn.dense import Dense

Kind = Literal["rnn", "rnn_relu", "gru", "lstm"]


class RNN(linen.Module):
    """Elman, "Finding structure in time" (1990): h' = tanh(W x + U h + b).

    With ReLU in place of tanh, U begins as the identity (Le et al., "A simple way to initialize recurrent networks of rectified
    linear units", 2015).
    """

    size: int
    dtype: Any = "float32"
    relu: bool = False

    def setup(self) -> None:
        """Make the layers."""
        self.inputs = Dense(self.size, use_bias=False, dtype=self.dtype)
        first = {"kernel_init": _identity} if self.relu else {}
        self.hidden = Dense(self.size, dtype=self.dtype, **first)

    def project(self, x: Array) -> Array:
        """[..., F] -> [..., H]."""
        return self.inputs(x)

    def step(self, h: Array, gates: Array) -> tuple[Array, Array]:
        """State [B, H] and gates [B, H] -> state, output [B, H]."""
        return self.rule(h, gates, self.mix(h))

    def mix(self, h: Array) -> Array:
        """[..., H] -> [..., H]."""
        return self.hidden(h)

    @linen.nowrap
    def rule(self, h: Array, gates: Array, of_h: Array) -> tuple[Array, Array]:
        """A step without its products: state, gates and `mix(h)` -> state, output."""
        del h
        h = (jax.nn.relu if self.relu else jnp.tanh)(gates + of_h)
        return h, h


def _identity(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    del key
    return jnp.eye(*shape, dtype=dtype)


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
        return self.rule(h, gates, self.mix(h))

    def mix(self, h: Array) -> Array:
        """[..., H] -> [..., 3 H]."""
        return self.hidden(h)

    @linen.nowrap
    def rule(self, h: Array, gates: Array, of_h: Array) -> tuple[Array, Array]:
        """A step without its products: state, gates and `mix(h)` -> state, output."""
        of_x, of_h = jnp.split(gates, 3, -1), jnp.split(of_h, 3, -1)
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
        return self.rule(carry, gates, self.mix(carry[1]))

    def mix(self, h: Array) -> Array:
        """[..., H] -> [..., 4 H]."""
        return self.hidden(h)

    @linen.nowrap
    def rule(self, carry: tuple[Array, Array], gates: Array, of_h: Array) -> tuple[tuple[Array, Array], Array]:
        """A step without its products: state, gates and `mix(h)` -> state, output."""
        c, h = lstm_gates(gates + of_h, carry[0], "ifgo", forget_bias=1.0)
        return (c, h), h


CELLS: dict[str, Callable[..., linen.Module]] = {
    "rnn": RNN, "rnn_relu": functools.partial(RNN, relu=True), "gru": GRU, "lstm": LSTM}


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


def unroll(cell: linen.Module, params: PyTree, carry: PyTree, inputs: Array, first: Array | None = None,
           there: Array | None = None) -> tuple[PyTree, Array]:
    """Run a cell over sequences: all inputs are projected at once, then the steps are scanned.

    Args:
        cell: one of those here.
        params: its parameters.
        carry: the state before the first step, arrays [B, ...].
        inputs: [T, B, F].
        first: as in `unroll_steps`.
        there: as in `unroll_steps`.

    Returns:
        The states after each step, arrays [T, B, ...], and the outputs [T, B, H].
    """
    return unroll_gates(cell, params, carry, cell.apply(params, inputs, method="project"), first, there)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def unroll_gates(cell: linen.Module, params: PyTree, carry: PyTree, gates: Array, first: Array | None = None,
                 there: Array | None = None) -> tuple[PyTree, Array]:
    """As `unroll`, of inputs that are projected: [T, B, G]."""
    return unroll_steps(lambda carry, x: cell.apply(params, carry, x, method="step"), carry, gates, first, there)


def _unroll_forward(cell: linen.Module, params: PyTree, carry: PyTree, gates: Array, first: Array | None, there: Array | None
                    ) -> tuple[tuple[PyTree, Array], tuple]:
    def body(carry: PyTree, x: tuple) -> tuple[PyTree, tuple]:
        gates, reset, moves = x
        carry = carry if reset is None else _where(reset, jax.tree.map(jnp.zeros_like, carry), carry)
        h = jax.tree.leaves(carry)[-1]
        (new, output), back = jax.vjp(cell.rule, carry, gates, cell.apply(params, h, method="mix"))
        carry = new if moves is None else _where(moves, new, carry)
        return carry, (carry, output, h, back)

    _, (carries, outputs, hs, backs) = jax.lax.scan(body, carry, (gates, first, there))
    return (carries, outputs), (params, hs, backs, first, there)


def _unroll_backward(cell: linen.Module, kept: tuple, grads: tuple[PyTree, Array]) -> tuple:
    params, hs, backs, first, there = kept

    def body(later: PyTree, x: tuple) -> tuple[PyTree, tuple[Array, Array]]:
        of_carry, of_output, h, back, reset, moves = x
        of_carry = jax.tree.map(jnp.add, later, of_carry)
        nothing = jax.tree.map(jnp.zeros_like, of_carry)
        moved = of_carry if moves is None else _where(moves, of_carry, nothing)
        before, of_gates, of_mix = back((moved, of_output))
        (of_h,) = jax.vjp(lambda h: cell.apply(params, h, method="mix"), h)[1](of_mix)
        leaves, structure = jax.tree.flatten(before)
        before = structure.unflatten([*leaves[:-1], leaves[-1] + of_h])
        if moves is not None:
            before = jax.tree.map(jnp.add, before, _where(moves, nothing, of_carry))
        before = before if reset is None else _where(reset, nothing, before)
        return before, (of_gates, of_mix)

    nothing = jax.tree.map(lambda x: jnp.zeros_like(x[0]), grads[0])
    of_carry, (of_gates, of_mix) = jax.lax.scan(body, nothing, (*grads, hs, backs, first, there), reverse=True)
    rows = hs.reshape(-1, hs.shape[-1])  # a sum over two axes would be a slow product on a CPU
    (of_params,) = jax.vjp(lambda params: cell.apply(params, rows, method="mix"), params)[1](of_mix.reshape(len(rows), -1))
    return of_params, of_carry, of_gates, None, None


unroll_gates.defvjp(_unroll_forward, _unroll_backward)


def _where(which: Array, a: PyTree, b: PyTree) -> PyTree:
    """Of two trees of arrays [B, ...] the rows of `a` where `which` [B] is true, of `b` elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(which.reshape(-1, *[1] * (y.ndim - 1)), x, y), a, b)


def unroll_steps(step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]], carry: PyTree, inputs: PyTree,
                 first: Array | None = None, there: Array | None = None) -> tuple[PyTree, PyTree]:
    """As `unroll`, of any function `step(carry, x) -> (carry, output)` and of any trees of arrays [T, B, ...].

    Args:
        step: one step.
        carry: the state before the first one.
        inputs: what each step takes.
        first: bool [T, B], where the state is set to zero before a step; by default nowhere.
        there: bool [T, B], where there is an input; elsewhere, after the end of a shorter sequence, the state stays as it is.
    """

    def body(carry: PyTree, x: tuple[PyTree, Array | None, Array | None]) -> tuple[PyTree, tuple[PyTree, PyTree]]:
        x, reset, moves = x
        if reset is not None:
            carry = _where(reset, jax.tree.map(lambda h: 0, carry), carry)
        new, output = step(carry, x)
        carry = new if moves is None else _where(moves, new, carry)
        return carry, (carry, output)

    return jax.lax.scan(body, carry, (inputs, first, there))[1]


def unroll_layers(cells: Sequence[tuple[linen.Module, PyTree]], carry: list[PyTree], gates: Array, there: Array | None = None,
                  between: Callable[[int, Array], Array] = lambda layer, x: x) -> tuple[list[PyTree], Array]:
    """Cells above each other over sequences: the outputs of one are the inputs of the next (Graves 2013).

    One layer after the other, so that each projects its inputs of all steps at once.

    Args:
        cells: each layer's cell and its parameters.
        carry: the state of each layer before the first step, arrays [B, ...].
        gates: the projected inputs of the first layer, [T, B, G].
        there: as in `unroll_steps`.
        between: (layer, outputs [T, B, H]) -> what the next layer takes: dropout.

    Returns:
        The state of each layer after the last step, arrays [B, ...], and the outputs of the last layer [T, B, H].
    """
    ends, x = [], gates
    for layer, ((cell, params), state) in enumerate(zip(cells, carry, strict=True)):
        gates = cell.apply(params, x, method="project") if layer else gates
        carries, x = unroll_gates(cell, params, state, gates, None, there)
        ends.append(jax.tree.map(lambda h: h[-1], carries))
        x = between(layer, x)
    return ends, x
