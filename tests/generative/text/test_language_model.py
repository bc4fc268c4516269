"""Language models: both forms of a network agree, windows are one text, a character is judged once, draws are draws."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close, jit, random_like, same_bits

from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec
from jaxdl.data import sequences
from jaxdl.generative.text import language_model, recurrent, transformer
from jaxdl.generative.text.language_model import Config
from jaxdl.generative.text.network import Network
from jaxdl.optim import Config as OptimConfig

V, B, W = 5, 2, 6
CELLS = ("rnn", "rnn_relu", "gru", "lstm", "transformer")
SPEC = DataSpec("text", 200, (), vocabulary=tuple("abcde"), input="tokens")


@functools.cache
def made(cell, rate=None):
    """A network with weights that matter, and texts [T, B] of three windows."""
    network = transformer.make(2, 8, 2, V, W, rate) if cell == "transformer" else recurrent.make(cell, 2, 8, V, rate)
    params = random_like(jit(network.init)(jax.random.key(0)))
    return network, params, jax.random.randint(jax.random.key(1), (3 * W, B), 0, V)


def written(network, params, tokens, known):
    """Logits [T - known + 1, B, V] of a text that is read up to `known` and then token by token."""

    @jit
    def run(params, tokens):
        carry, logits = network.begin(params, tokens[:known])
        _, rest = jax.lax.scan(lambda carry, token: network.step(params, carry, token), carry, tokens[known:])
        return jnp.concatenate([logits[None], rest])

    return run(params, tokens)


@pytest.mark.parametrize("known", [1, W, 2 * W + 1])
@pytest.mark.parametrize("cell", CELLS)
def test_writing_token_by_token_is_reading_all_at_once(cell, known):
    network, params, tokens = made(cell)
    _, logits = jit(network.apply)(params, tokens, network.initial(B))
    assert_close(written(network, params, tokens, known), logits[known - 1:], atol=1e-5)
    assert np.ptp(logits, 0).max() > 0.1


@pytest.mark.parametrize("cell", CELLS)
def test_a_token_is_told_by_those_before_it_alone(cell):
    network, params, tokens = made(cell)
    sees = W if cell == "transformer" else 2 * W
    at = 2 * W - 1 if cell != "transformer" else W + 2
    _, logits = jit(network.apply)(params, tokens, network.initial(B))
    for other, changes in ((at + 1, False), (at, True), (at - sees + 2, True)):
        moved = tokens.at[other].add(1) % V
        _, after = jit(network.apply)(params, moved, network.initial(B))
        assert bool(jnp.abs(after[at] - logits[at]).max() > 1e-6) == changes, other


def test_a_transformer_of_one_layer_forgets_what_is_a_window_ago():
    network = transformer.make(1, 8, 2, V, W, None)
    params, tokens = random_like(jit(network.init)(jax.random.key(0))), made("lstm")[2]
    _, logits = jit(network.apply)(params, tokens, None)
    _, after = jit(network.apply)(params, tokens.at[0].add(1) % V, None)
    assert_close(after[W:], logits[W:])
    assert np.abs(after[W - 1] - logits[W - 1]).max() > 1e-4


@pytest.mark.parametrize("cell", CELLS[:4])
def test_windows_with_the_state_carried_are_one_text(cell):
    network, params, tokens = made(cell)
    apply = jit(network.apply)
    whole = apply(params, tokens, network.initial(B))
    carry, parts = network.initial(B), []
    for window in tokens.reshape(3, W, B):
        carry, logits = apply(params, window, carry)
        parts.append(logits)
    assert_close((carry, jnp.concatenate(parts)), whole)


def test_a_transformer_knows_distances_not_places():
    turned = transformer.rotated(jnp.ones((2, 1, 4)), jnp.array([5, 9])), transformer.rotated(jnp.ones((2, 1, 4)),
                                                                                            jnp.array([1005, 1009]))
    products = [jnp.vdot(*x) for x in turned]
    np.testing.assert_allclose(products[0], products[1], rtol=1e-4)
    np.testing.assert_allclose(jnp.linalg.norm(turned[1][0]), 2, rtol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "transformer"])
def test_what_is_dropped_is_dropped_while_it_learns_alone(cell):
    network, params, tokens = made(cell, 0.5)
    plain, _, _ = made(cell)
    apply, state = jit(network.apply), network.initial(B)
    assert_close(apply(params, tokens, state), jit(plain.apply)(params, tokens, state))
    one, other = (apply(params, tokens, state, jax.random.key(i))[1] for i in range(2))
    assert np.abs(one - other).max() > 0.1


def bigram(table):
    """A network that knows the last token: logits are rows of a table."""
    return Network(None, lambda n: jnp.zeros(n), lambda params, tokens, carry: (carry, table[tokens]), None, None)


@pytest.mark.parametrize(("num", "window"), [(2, 8), (9, 8), (10, 8), (700, 64), (5_000, 64), (40_000, 16)])
def test_every_character_but_the_first_is_judged_once(num, window):
    rng = np.random.default_rng(num)
    table, tokens = rng.normal(size=(V, V)).astype(np.float32), rng.integers(0, V, num, dtype=np.uint8)
    found = jit(language_model.held_out(bigram(jnp.asarray(table)), window, num))(None, jnp.asarray(tokens))
    log_p = table - np.log(np.exp(table).sum(-1, keepdims=True))
    np.testing.assert_allclose(found, -log_p[tokens[:-1], tokens[1:]].mean(), rtol=1e-5)


def test_held_out_text_is_read_by_recurrent_layers_from_its_beginning():
    """A single stream is one pass over the text; of several, each knows characters before those it is judged by."""
    network, params, _ = made("lstm")
    tokens = jax.random.randint(jax.random.key(3), (101,), 0, V)
    _, logits = jit(network.apply)(params, tokens[:-1, None], network.initial(1))
    expected = -jnp.take_along_axis(jax.nn.log_softmax(logits[:, 0]), tokens[1:, None], 1).mean()
    np.testing.assert_allclose(jit(language_model.held_out(network, 8, 101))(params, tokens), expected, rtol=1e-5)


def test_an_update_is_the_mean_over_a_batch_and_gives_back_the_state_after_it():
    optim = OptimConfig(optimizer="sgd", learning_rate=1.0, schedule="constant", max_grad_norm=None)
    config = Config(cell="gru", num_layers=1, hidden_size=8, batch_size=4, window=W, total_steps=3, optim=optim)
    model = language_model.make(config, SPEC)
    state = jit(model.learner.init)(jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (W + 1, 4), 0, V)
    batch = sequences.Windows([tokens[:-1]], [tokens[1:]], model.network.initial(4), jnp.asarray(True))

    def loss(params):
        _, logits = model.network.apply(params, tokens[:-1], model.network.initial(4))
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[1:, :, None], -1).mean()

    new, result = jit(model.learner.update)(state, batch, jax.random.key(2))
    assert_close(new.params, jax.tree.map(lambda p, g: p - g, state.params, jit(jax.grad(loss))(state.params)))
    same_bits(jax.tree.map(jnp.shape, result.feedback), jax.tree.map(jnp.shape, model.network.initial(4)))
    accumulated = language_model.make(
        replace(config, optim=replace(optim, grad_accumulation=2)), SPEC)
    again, parts = jit(accumulated.learner.update)(state, batch, jax.random.key(2))
    assert_close((again.params, parts.feedback), (new.params, result.feedback))


def test_a_window_as_long_as_the_text_is_backpropagation_through_all_of_it():
    optim = OptimConfig(optimizer="sgd", learning_rate=1.0, schedule="constant", max_grad_norm=None)
    config = Config(cell="rnn", num_layers=1, hidden_size=4, batch_size=1, window=40, total_steps=2, optim=optim)
    spec, tokens = SPEC._replace(num_examples=41), jax.random.randint(jax.random.key(1), (41,), 0, V)
    run, network = language_model.make_run(config, spec), language_model.make(config, spec).network
    state = jit(run.init)(jax.random.key(0), [tokens])

    def loss(params):
        _, logits = network.apply(params, tokens[:-1, None], network.initial(1))
        return -jnp.take_along_axis(jax.nn.log_softmax(logits[:, 0]), tokens[1:, None], -1).mean()

    params = run.params(state)
    expected = jax.tree.map(lambda p, g: p - g, params, jit(jax.grad(loss))(params))
    assert_close(run.params(jit(run.step)(state, [tokens])[0]), expected)


def test_a_recurrent_network_learns_what_its_window_does_not_show():
    """Of each four characters the last is the first again: one bit, and windows of six cut through them."""
    texts = np.zeros((800, 4), np.uint8)
    texts[:, 0] = texts[:, 3] = np.random.default_rng(0).integers(1, 3, 800)
    config = Config(cell="lstm", num_layers=1, hidden_size=16, batch_size=8, window=6, total_steps=400,
                    optim=OptimConfig(learning_rate=0.02, max_grad_norm=1.0))
    spec = DataSpec("text", texts.size, (), vocabulary=tuple("abc"), input="tokens")
    run, data = language_model.make_run(config, spec), [jnp.asarray(texts.ravel())]
    state = jit(run.init)(jax.random.key(0), data)
    state, metrics = jit(lambda state: jax.lax.scan(lambda s, _: run.step(s, data), state, None, length=400))(state)
    nll = (metrics["nll"].total / metrics["nll"].count)[-40:].mean()
    assert nll == pytest.approx(np.log(2) / 4, abs=0.03)  # without the state from window to window: 0.3


def test_draws_are_draws_of_the_distribution():
    table = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
    network = Network(None, None, None, lambda params, prompt: (None, jnp.tile(table, (prompt.shape[1], 1))),
                      lambda params, carry, token: (carry, jnp.tile(table, (len(token), 1))))
    writer = language_model.writer(network, ("a", "b", "c"))
    state = writer.begin(None, jnp.zeros((1, 500), jnp.int32))

    def share(**how):
        _, tokens = jit(functools.partial(writer.extend, num=40, **how))(None, state, jax.random.key(0))
        assert tokens.shape == (40, 500)
        return np.bincount(np.ravel(tokens), minlength=3) / tokens.size

    np.testing.assert_allclose(share(), [0.7, 0.2, 0.1], atol=0.01)
    np.testing.assert_allclose(share(top_k=2), [7 / 9, 2 / 9, 0], atol=0.01)
    np.testing.assert_allclose(share(temperature=0.5), np.array([0.49, 0.04, 0.01]) / 0.54, atol=0.01)
    np.testing.assert_array_equal(share(temperature=0.0), [1, 0, 0])


@pytest.mark.parametrize(("change", "message"), [
    ({"num_heads": 2}, "num_heads=2 is of cell=transformer, and cell is lstm"),
    ({"cell": "transformer", "hidden_size": 20}, "hidden_size must be a multiple of 8"),
    ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ({"num_layers": 0}, "num_layers must be above 0"),
    ({"window": 0}, "window must be above 0"),
])
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        language_model.validate(Config(**change))


def test_what_is_no_text_is_refused():
    for spec, message in ((SPEC._replace(vocabulary=None), "has no vocabulary"), (SPEC._replace(vocabulary=("a",)), "has 1")):
        with pytest.raises(UserError, match=message):
            language_model.make(Config(), spec)
    with pytest.raises(UserError, match="no whole batch"):
        language_model.make_run(Config(window=512), SPEC)
