"""Recurrent cells: those of flax with the same weights, and the same whether inputs are projected together or one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from tools import assert_close, jit

from jaxdl import nn

B, T, F, H = 3, 5, 4, 6
CELLS = {"gru": nn.GRU(H), "lstm": nn.LSTM(H)}


def one_step(cell, carry, x):
    return cell.step(carry, cell.project(x))


def run(apply, params, carry, xs, **how):
    """The last state, and the outputs [T, ...] of steps one after the other."""
    return jit(lambda params, carry, xs: jax.lax.scan(lambda carry, x: apply(params, carry, x, **how), carry, xs))(
        params, carry, xs)


@functools.cache
def made(kind):
    """A cell's parameters, with biases that are not zero, a state and inputs [T, B, F]."""
    cell, carry = CELLS[kind], nn.zero_carry(kind, H, B)
    params = jit(functools.partial(cell.init, method=one_step))(jax.random.key(0), carry, jnp.zeros((B, F)))
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves) + 3)
    params = treedef.unflatten([x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys[3:], strict=True)])
    carry = jax.tree.map(lambda x: jax.random.normal(keys[0], x.shape), carry)
    if kind == "lstm":
        carry = carry[0], jnp.tanh(jax.random.normal(keys[1], carry[1].shape))
    return cell, params, carry, jax.random.normal(keys[2], (T, B, F))


def parts(layer, names):
    """A layer of several gates as layers of one, by name."""
    kernels = np.split(np.asarray(layer["kernel"]), len(names), -1)
    found = {name: {"kernel": kernel} for name, kernel in zip(names, kernels, strict=True)}
    if "bias" in layer:
        for name, bias in zip(names, np.split(np.asarray(layer["bias"]), len(names)), strict=True):
            found[name]["bias"] = bias
    return found


def of_flax(kind, params):
    """The cell of flax, and its parameters for ours."""
    inputs, hidden = params["params"]["inputs"], params["params"]["hidden"]
    if kind == "gru":
        mapped = parts(inputs, ["ir", "iz", "in"]) | parts(hidden, ["hr", "hz", "hn"])
        for gate in "rz":  # flax has one bias for both products
            mapped["i" + gate]["bias"] = mapped["i" + gate]["bias"] + mapped["h" + gate].pop("bias")
        return linen.GRUCell(H), {"params": mapped}
    mapped = parts(inputs, ["ii", "if", "ig", "io"]) | parts(hidden, ["hi", "hf", "hg", "ho"])
    mapped["hf"]["bias"] = mapped["hf"]["bias"] + 1
    return linen.OptimizedLSTMCell(H), {"params": mapped}


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_is_that_of_flax(kind):
    cell, params, carry, xs = made(kind)
    other, mapped = of_flax(kind, params)
    ours = run(cell.apply, params, carry, xs, method=one_step)
    assert_close(ours, run(other.apply, mapped, carry, xs))
    assert np.abs(ours[1]).mean() > 0.1


@pytest.mark.parametrize("kind", CELLS)
def test_projecting_all_steps_at_once_is_projecting_them_one_by_one(kind):
    cell, params, carry, xs = made(kind)
    gates = cell.apply(params, xs, method="project")
    assert gates.shape == (T, B, (3 if kind == "gru" else 4) * H)
    assert_close(run(cell.apply, params, carry, gates, method="step"), run(cell.apply, params, carry, xs, method=one_step))


@pytest.mark.parametrize("kind", CELLS)
def test_sequences_begin_at_zero_each_with_a_state_of_its_own(kind):
    cell, params, _, xs = made(kind)
    zero = nn.zero_carry(kind, H, B)
    leaves = jax.tree.leaves(zero)
    assert [x.shape for x in leaves] == [(B, H)] * (1 if kind == "gru" else 2)
    assert not any(x.any() for x in leaves)
    together = run(cell.apply, params, zero, xs, method=one_step)[1]
    alone = run(cell.apply, params, nn.zero_carry(kind, H, 1), xs[:, 1:2], method=one_step)[1]
    assert_close(together[:, 1:2], alone)


def test_a_forget_gate_begins_open():
    """With all else at zero, what is remembered is sigmoid(1) of it, not half."""
    cell, params, carry, xs = made("lstm")
    (c, h), y = cell.apply(jax.tree.map(jnp.zeros_like, params), carry, xs[0], method=one_step)
    np.testing.assert_allclose(c, carry[0] / (1 + np.exp(-1.0)), rtol=1e-5)
    np.testing.assert_allclose(h, 0.5 * np.tanh(c), rtol=1e-5)
    np.testing.assert_array_equal(h, y)
