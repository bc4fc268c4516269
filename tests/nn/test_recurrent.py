"""Recurrent cells: those of flax with the same weights, and the same whether inputs are projected together or one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from tools import assert_close, jit

from jaxdl import nn
from jaxdl.ops import losses

B, T, F, H = 3, 5, 4, 6
CELLS = {kind: cell(H) for kind, cell in nn.CELLS.items()}


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
    if kind.startswith("rnn"):
        other = linen.SimpleCell(H, activation_fn=jax.nn.relu if kind == "rnn_relu" else jnp.tanh)
        return other, {"params": {"i": inputs | {"bias": hidden["bias"]}, "h": {"kernel": hidden["kernel"]}}}
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
    assert gates.shape == (T, B, {"gru": 3, "lstm": 4}.get(kind, 1) * H)
    assert_close(run(cell.apply, params, carry, gates, method="step"), run(cell.apply, params, carry, xs, method=one_step))


@pytest.mark.parametrize("kind", CELLS)
def test_an_unrolled_cell_is_its_steps_one_after_the_other(kind):
    cell, params, carry, xs = made(kind)
    carries, outputs = jit(functools.partial(nn.unroll, cell))(params, carry, xs)
    last, expected = run(cell.apply, params, carry, xs, method=one_step)
    assert_close(outputs, expected)
    assert_close(jax.tree.map(lambda h: h[-1], carries), last)


@pytest.mark.parametrize("kind", CELLS)
def test_an_unrolled_cell_forgets_where_a_sequence_begins(kind):
    cell, params, carry, xs = made(kind)
    first = np.zeros((T, B), bool)
    first[2, 1] = True
    unroll = jit(functools.partial(nn.unroll, cell))
    outputs, without = unroll(params, carry, xs, first)[1], unroll(params, carry, xs)[1]
    fresh = unroll(params, nn.zero_carry(kind, H, B), xs[2:])[1]
    assert_close(outputs[2:, 1], fresh[:, 1])
    assert_close((outputs[:2], outputs[:, [0, 2]]), (without[:2], without[:, [0, 2]]))
    assert np.abs(outputs[2:, 1] - without[2:, 1]).max() > 0.1


def test_steps_of_any_function_and_any_trees_are_unrolled():
    first = np.array([[False], [False], [True]])
    carries, outputs = nn.unroll_steps(lambda c, x: ({"sum": c["sum"] + x["a"]}, 2 * x["a"]), {"sum": jnp.full((1, 2, 2), 5.0)},
                                       {"a": jnp.ones((3, 1, 2, 2))}, first)
    np.testing.assert_array_equal(carries["sum"][:, 0, 0, 0], [6, 7, 1])
    np.testing.assert_array_equal(outputs, 2 * np.ones((3, 1, 2, 2)))


def test_the_gates_of_an_lstm_may_stand_in_any_order():
    gates, c = jax.random.normal(jax.random.key(0), (B, 4, H)), jax.random.normal(jax.random.key(1), (B, H))
    expected = nn.lstm_gates(gates.reshape(B, -1), c, "ifgo")
    assert_close(nn.lstm_gates(gates[:, [0, 1, 3, 2]].reshape(B, -1), c, "ifog"), expected)
    opened = gates.at[:, 1].add(1.0).reshape(B, -1)
    assert_close(nn.lstm_gates(gates.reshape(B, -1), c, "ifgo", forget_bias=1.0), nn.lstm_gates(opened, c, "ifgo"))


@pytest.mark.parametrize("kind", CELLS)
def test_sequences_begin_at_zero_each_with_a_state_of_its_own(kind):
    cell, params, _, xs = made(kind)
    zero = nn.zero_carry(kind, H, B)
    leaves = jax.tree.leaves(zero)
    assert [x.shape for x in leaves] == [(B, H)] * (2 if kind == "lstm" else 1)
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



def lengths_and_inputs(n, steps=8, seed=0):
    """Sequences of 2 to `steps` numbers, [T, n, 1], bool [T, n] where they are, and whether the first is above 0, [n]."""
    rng = np.random.default_rng(seed)
    xs, length = rng.normal(size=(steps, n, 1)), rng.integers(2, steps + 1, n)
    return jnp.float32(xs), jnp.asarray(np.arange(steps)[:, None] < length), jnp.asarray(xs[0, :, 0] > 0)


def test_a_state_stays_after_the_end_of_a_shorter_sequence():
    cell, params, carry, xs = made("lstm")
    there = np.arange(T)[:, None] < np.array([T, 2, 3])
    gates = cell.apply(params, xs, method="project")
    step = lambda carry, x: cell.apply(params, carry, x, method="step")  # noqa: E731
    unroll = jit(functools.partial(nn.unroll_steps, step))
    carries, _ = unroll(carry, gates, there=there)
    whole, _ = unroll(carry, gates)
    for i, length in enumerate((T, 2, 3)):
        for a, b in zip(carries, whole, strict=True):
            assert_close(a[-1, i], b[length - 1, i])


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("cut", [False, True])
def test_the_gradient_is_that_of_autodiff(kind, cut):
    """By parameters, first state and inputs, of states and outputs; with sequences that begin and end on the way, or not."""
    cell, params, carry, xs = made(kind)
    first = np.zeros((T, B), bool)
    first[2, 1] = True
    marks = (first, np.arange(T)[:, None] < np.array([T, 2, 3])) if cut else (None, None)
    weights = [jax.random.normal(jax.random.key(i), (T, B, H)) for i in range(3)]

    def loss(unrolled, params, carry, xs):
        carries, outputs = unrolled(params, carry, xs)
        return sum((w * x).sum() for w, x in zip(weights, [outputs, *jax.tree.leaves(carries)], strict=False))

    def plain(params, carry, xs):
        gates = cell.apply(params, xs, method="project")
        return nn.unroll_steps(lambda h, x: cell.apply(params, h, x, method="step"), carry, gates, *marks)

    grads = [jit(jax.value_and_grad(functools.partial(loss, unrolled), (0, 1, 2)))(params, carry, xs)
             for unrolled in (lambda *args: nn.unroll(cell, *args, *marks), plain)]
    assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_many_to_one_is_a_classifier_of_sequences():
    """Whether the first number was above 0, told after as many others as there are."""
    cell, head = nn.GRU(12), nn.Dense(2)
    zero = nn.zero_carry("gru", 12, 64)
    params = {"cell": cell.init(jax.random.key(0), zero, jnp.zeros((64, 1)), method=one_step),
              "head": head.init(jax.random.key(1), zero)}

    def logits(params, xs, there):
        gates = cell.apply(params["cell"], xs, method="project")
        carries, _ = nn.unroll_steps(lambda h, x: cell.apply(params["cell"], h, x, method="step"), zero, gates, there=there)
        return head.apply(params["head"], carries[-1])

    def loss(params, xs, there, labels):
        return losses.cross_entropy(logits(params, xs, there), labels.astype(int)).mean()

    adam = optax.adam(0.02)

    @jit
    def learned(params, data):
        def body(carry, data):
            params, opt = carry
            updates, opt = adam.update(jax.grad(loss)(params, *data), opt)
            return (optax.apply_updates(params, updates), opt), None

        return jax.lax.scan(body, (params, adam.init(params)), data)[0][0]

    data = [x.reshape(*x.shape[:1], 150, 64, *x.shape[2:]).swapaxes(0, 1) if x.ndim > 1 else x.reshape(150, 64)
            for x in lengths_and_inputs(150 * 64)]
    xs, there, labels = lengths_and_inputs(64, seed=1)
    assert (logits(learned(params, data), xs, there).argmax(-1) == labels).mean() > 0.9


def test_one_to_many_is_an_output_that_is_the_next_input():
    cell, params, carry, _ = made("rnn")
    readout = jax.random.normal(jax.random.key(5), (H, F))

    def step(state, _):
        h, x = state
        h, y = one_step(cell.bind(params), h, x)
        return (h, y @ readout), y

    _, outputs = nn.unroll_steps(step, (carry, jnp.ones((B, F))), jnp.zeros((T, B)))
    h, x = carry, jnp.ones((B, F))
    for y in outputs:
        h, expected = cell.apply(params, h, x, method=one_step)
        assert_close(y, expected)
        x = expected @ readout


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_layers_are_cells_above_each_other(kind):
    """Layer by layer, all steps at once, is all layers of a step, step by step."""
    cell, _, carry, xs = made(kind)
    cells = [cell.init(jax.random.key(i), carry, jnp.zeros((B, n)), method=one_step) for i, n in enumerate((F, H))]

    def body(carries, x):
        after = []
        for params, state in zip(cells, carries, strict=True):
            state, x = cell.apply(params, state, x, method=one_step)
            after.append(state)
        return after, x

    expected = jit(lambda xs: jax.lax.scan(body, [carry, carry], xs))(xs)
    found = jit(lambda xs: nn.unroll_layers([(cell, params) for params in cells], [carry, carry],
                                            cell.apply(cells[0], xs, method="project")))(xs)
    assert_close(found, expected)
