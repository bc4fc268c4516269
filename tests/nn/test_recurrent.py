"""Recurrent cells: those of flax with the same weights, and the same whether inputs are projected together or one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from jaxdl import nn

B, T, F, H = 3, 5, 4, 6
CELLS = {"gru": nn.GRU(H), "lstm": nn.LSTM(H)}


def one_step(cell, carry, x):
    return cell.step(carry, cell.project(x))


def made(kind):
    """A cell's parameters, with biases that are not zero, a state and inputs [T, B, F]."""
    cell, carry = CELLS[kind], nn.zero_carry(kind, H, B)
    params = cell.init(jax.random.key(0), carry, jnp.zeros((B, F)), method=one_step)
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
    ours = theirs = carry
    for x in xs:
        ours, y = cell.apply(params, ours, x, method=one_step)
        theirs, z = other.apply(mapped, theirs, x)
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)
    assert np.abs(y).mean() > 0.1


@pytest.mark.parametrize("kind", CELLS)
def test_projecting_all_steps_at_once_is_projecting_them_one_by_one(kind):
    cell, params, carry, xs = made(kind)
    gates = cell.apply(params, xs, method="project")
    assert gates.shape == (T, B, (3 if kind == "gru" else 4) * H)

    def step(carry, gates):
        return cell.apply(params, carry, gates, method="step")

    last, outputs = jax.lax.scan(step, carry, gates)
    for x, out in zip(xs, outputs, strict=True):
        carry, y = cell.apply(params, carry, x, method=one_step)
        np.testing.assert_allclose(y, out, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), carry, last)


@pytest.mark.parametrize("kind", CELLS)
def test_sequences_begin_at_zero_each_in_a_state_of_its_own(kind):
    cell, params, _, xs = made(kind)
    zero = nn.zero_carry(kind, H, B)
    leaves = jax.tree.leaves(zero)
    assert [x.shape for x in leaves] == [(B, H)] * (1 if kind == "gru" else 2)
    assert not any(x.any() for x in leaves)
    together = cell.apply(params, zero, xs[0], method=one_step)[1]
    for i in range(B):
        alone = cell.apply(params, nn.zero_carry(kind, H, 1), xs[0, i : i + 1], method=one_step)[1]
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-5, atol=1e-6)


def test_a_forget_gate_begins_open():
    """With all gates at zero but the one that is added, what is remembered is sigmoid(1) of it, not half."""
    cell, params, carry, xs = made("lstm")
    zeros = jax.tree.map(jnp.zeros_like, params)
    (c, h), y = cell.apply(zeros, carry, xs[0], method=one_step)
    np.testing.assert_allclose(c, carry[0] / (1 + np.exp(-1.0)), rtol=1e-5)
    np.testing.assert_allclose(h, 0.5 * np.tanh(c), rtol=1e-5)
    np.testing.assert_array_equal(h, y)
