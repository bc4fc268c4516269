"""Layers of causal networks: by rows and pixels they are what they are of whole images; LSTMs by their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from tools import jit, random_like

from jaxdl.generative.pixel import gated, layers, rnn_diagonal, rnn_row
from jaxdl.generative.pixel.layers import Blocks, Chain, Conv, relu

KEY = jax.random.key(0)
FEATURES, GROUPS = 6, 3


# --- Two forms.


def by_pixels(layer, groups, first, params, h, y):
    """A layer of images [N, H, W, C], one row, pixel and group after the other; kind A (`first`) sees a group after it."""
    n, height, width, channels = h.shape
    size = channels // groups
    weights, (above, before) = layer.prepare(params, y), layer.start(params, n, width)
    rows = []
    for r in range(height):
        above, terms = layer.row(weights.row, above, jnp.asarray(r))
        left, kept, line = before, [], []
        for c in range(width):
            seen, out, parts = None, [], [h[:, r, c, g * size : (g + 1) * size] for g in range(groups)]
            for g in range(groups):
                x = parts[g] if not first else parts[g - 1] if g else None
                of_pixel = jax.tree.map(lambda x, c=c: x[c], terms)
                part, seen = layer.pixel(weights.pixel[g], of_pixel, left, seen, x, g)
                out.append(part)
            left, more = layer.end_pixel(left, seen, parts[-1] if first else None)
            line.append(jnp.concatenate(out, -1))
            kept.append(more)
        above = layer.end_row(above, jax.tree.map(lambda *x: jnp.stack(x), *kept))
        rows.append(jnp.stack(line, 1))
    return jnp.stack(rows, 1)


def chained(groups):
    return Chain((Conv("one", 6, groups, (3, 3), before=relu), Conv("two", 6, groups, (1, 3), before=relu)), "chain")


def up(core, groups):
    return Blocks(Chain((core, Conv("up", 12, groups))), 2, "blocks")


LAYERS = {  # of G groups
    "1x1": lambda groups: Conv("c", 12, groups),
    "1x1, rectified": lambda groups: Conv("c", 12, groups, before=relu, by_class="y"),
    "3x3": lambda groups: Conv("c", 6, groups, (3, 3), by_class="y"),
    "5x5, kind A": lambda groups: Conv("c", 6, groups, (5, 5), "A", by_class="y"),
    "1x5, half": lambda groups: Conv("c", 6, groups, (1, 5), half=True),
    "1x5, half, kind A, no bias": lambda groups: Conv("c", 6, groups, (1, 5), "A", half=True, bias=False),
    "1x1, gated": lambda groups: Conv("c", 6, groups, before=gated.gate),
    "chain": chained,
    "blocks": lambda groups: Blocks(chained(groups), 3, "blocks"),
    "head": lambda groups: layers.head(9, groups, 4),
    "row LSTM": lambda groups: rnn_row.RowLSTM(6, groups),
    "diagonal LSTM": lambda groups: rnn_diagonal.DiagonalLSTM(6, groups),
    "blocks of row LSTMs": lambda groups: up(rnn_row.RowLSTM(6, groups), groups),
    "blocks of diagonal LSTMs": lambda groups: up(rnn_diagonal.DiagonalLSTM(6, groups), groups),
    "gated stacks": lambda groups: gated.Stacks(6, 2, 5, groups),
}


GREY_ALONE = ("blocks of row LSTMs", "blocks of diagonal LSTMs", "gated stacks", "blocks")  # unless tests may be slow


@pytest.mark.parametrize(("name", "groups"), [
    pytest.param(name, groups, marks=[pytest.mark.slow] if groups == 3 and name in GREY_ALONE else [])
    for name in LAYERS for groups in (1, 3)])
def test_a_layer_by_rows_and_pixels_is_the_layer_of_whole_images(name, groups):
    layer, first = LAYERS[name](groups), "kind A" in name or name == "gated stacks"
    channels = 12 if "LSTM" in name or name == "1x1, gated" else 6
    h = np.random.default_rng(1).normal(size=(2, 3, 4, channels)).astype(np.float32)
    for y in (None, np.eye(3, dtype=np.float32)[[0, 2]]):
        module = layers.Module(layer)
        params = random_like(jax.eval_shape(module.init, KEY, h, y)["params"])
        whole = jit(lambda params, h, y, module=module: module.apply({"params": params}, h, y))(params, h, y)
        found = jit(lambda params, h, y: by_pixels(layer, groups, first, params, h, y))(params, h, y)
        assert found.shape == whole.shape
        np.testing.assert_allclose(found, whole, atol=2e-5)


# --- LSTMs, one pixel after the other.

def cell_by_numpy(gates, cell):
    """One LSTM step for each group: gates [4 F], of a group i, f, o, g together."""
    i, f, o, g = np.moveaxis(gates.reshape(GROUPS, 4, -1), 1, 0).reshape(4, -1)
    cell = expit(f) * cell + expit(i) * np.tanh(g)
    return cell, expit(o) * np.tanh(cell)


def masked(kernel):
    """[C, O] of a centre: a group sees those up to it."""
    a, b = (np.arange(size) // (size // GROUPS) for size in kernel.shape)
    return np.where(a[:, None] <= b, kernel, 0)


def core_of(layer):
    module = layers.Module(layer(FEATURES, GROUPS))
    h = np.random.default_rng(2).normal(size=(2, 4, 5, 2 * FEATURES)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[[0, 2]]
    params = random_like(jax.eval_shape(module.init, KEY, h, y))
    found = jit(module.apply)(params, h, y)
    params = jax.tree.map(np.float64, params["params"]["middle"])
    return np.float64(h), y @ params["class"]["kernel"], params, found


def test_the_row_lstm_by_its_equations():
    h, of_class, p, found = core_of(rnn_row.RowLSTM)
    n, height, width, _ = h.shape
    cells, states = (np.zeros((n, height + 1, width + 2, FEATURES)) for _ in range(2))  # with a rim of zeros
    kernel = p["input"]["kernel"][0]
    for b, r, c in np.ndindex(n, height, width):
        gates = h[b, r, c] @ masked(kernel[1]) + p["input"]["bias"] + of_class[b]
        if c:
            gates = gates + h[b, r, c - 1] @ kernel[0]
        for k in range(3):
            gates = gates + states[b, r, c + k] @ p["state"][k]
        cells[b, r + 1, c + 1], states[b, r + 1, c + 1] = cell_by_numpy(gates, cells[b, r, c + 1])
    np.testing.assert_allclose(found, states[:, 1:, 1:-1], atol=1e-5)


def test_the_diagonal_bilstm_by_its_equations():
    h, of_class, p, found = core_of(rnn_diagonal.DiagonalLSTM)
    n, height, width, _ = h.shape
    of_class = dict(zip(("left", "right"), np.split(of_class, 2, -1), strict=True))
    whole = {}
    for side in ("left", "right"):
        x = h if side == "left" else h[:, :, ::-1]
        kernel = p[side]["kernel"][0, 0]
        kernel = masked(kernel) if side == "left" else kernel
        cells, states = (np.zeros((n, height + 1, width + 1, FEATURES)) for _ in range(2))
        for b, r, c in np.ndindex(n, height, width):
            gates = (x[b, r, c] @ kernel + p[side]["bias"] + of_class[side][b] + states[b, r, c + 1] @ p[f"{side}_state"][0]
                     + states[b, r + 1, c] @ p[f"{side}_state"][1])
            cells[b, r + 1, c + 1], states[b, r + 1, c + 1] = cell_by_numpy(gates, cells[b, r + 1, c])
        whole[side] = states[:, 1:, 1:]
    down = np.pad(whole["right"][:, :-1, ::-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
    np.testing.assert_allclose(found, whole["left"] + down, atol=1e-5)
