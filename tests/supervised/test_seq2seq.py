"""Sequence to sequence: what is told, step by step and at once; padding and attention; it learns; what is refused."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close, jit, random_like, refused, run, same_bits

from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec
from jaxdl.data import pairs
from jaxdl.data.pairs import Pairs, from_texts
from jaxdl.experiments import cli
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import encoder_decoder, seq2seq
from jaxdl.supervised.seq2seq import Config

V, B, S, L, H = 6, 3, 5, 4, 8
INPUTS = jnp.array([[1, 2, 3, 4, 0], [5, 5, 0, 0, 0], [2, 0, 0, 0, 0]])
TARGETS = jnp.array([[3, 2, 1, 0], [5, 0, 0, 0], [1, 4, 0, 0]])
KINDS = [("lstm", "none"), ("gru", "additive"), ("rnn", "multiplicative")]
SMALL = ["--hidden-size", "8", "--batch-size", "16", "--total-steps", "4", "--quick-compile"]


@functools.cache
def made(cell, attention, rate=None, layers=2):
    network = encoder_decoder.make(cell, layers, H, V, attention, rate)
    return network, random_like(jit(network.init)(jax.random.key(0)))


@pytest.mark.parametrize(("cell", "attention"), KINDS)
def test_tokens_one_by_one_are_all_at_once(cell, attention):
    network, params = made(cell, attention)
    told = seq2seq.before(TARGETS)

    def by_steps(params):
        state, memory = network.encode(params, INPUTS)
        return jax.lax.scan(lambda state, token: network.step(params, state, memory, token), state, told.T)[1].swapaxes(0, 1)

    logits = jit(lambda params: network.decode(params, *network.encode(params, INPUTS), told))(params)
    assert_close(jit(by_steps)(params), logits, atol=1e-5)
    assert np.ptp(logits, 1).max() > 0.1


@pytest.mark.parametrize(("cell", "attention"), KINDS[:2])
def test_what_fills_a_row_changes_nothing(cell, attention):
    network, params = made(cell, attention)
    told = seq2seq.before(TARGETS)

    apply = jit(lambda inputs: network.decode(params, *network.encode(params, inputs), told))
    assert_close(apply(jnp.pad(INPUTS, ((0, 0), (0, 3)))), apply(INPUTS))
    assert np.abs(apply(INPUTS.at[0, 0].set(2))[0] - apply(INPUTS)[0]).max() > 1e-3


@pytest.mark.parametrize("attention", ["additive", "multiplicative"])
def test_attention_is_the_formula(attention):
    network, params = made("gru", attention, layers=1)
    told = seq2seq.before(TARGETS)

    def found(params):
        state, memory = network.encode(params, INPUTS)
        return memory, network.shares(params, state, memory, told), network.decode(params, state, memory, told)

    memory, shares, _ = jit(found)(params)
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-5)
    assert shares.shape == (B, L, S)
    assert (np.asarray(shares)[np.broadcast_to((INPUTS == 0)[:, None], shares.shape)] == 0).all()
    p = params["params"]
    carry = np.asarray(network.encode(params, INPUTS)[0][0])  # of the only layer; its first step by hand
    cell = jax.tree.map(np.asarray, p["decoder_0"])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    x = np.split(np.asarray(p["embeds_1"]["embedding"])[told[:, 0]] @ cell["inputs"]["kernel"] + cell["inputs"]["bias"], 3, -1)
    h = np.split(carry @ cell["hidden"]["kernel"] + cell["hidden"]["bias"], 3, -1)
    new, update = np.tanh(x[2] + sigmoid(x[0] + h[0]) * h[2]), sigmoid(x[1] + h[1])
    out = (1 - update) * new + update * carry
    keys = np.asarray(memory.values) @ np.asarray(p["to_keys"]["kernel"])
    if attention == "multiplicative":
        score = np.einsum("bh,bsh->bs", out, keys)
    else:
        query = out @ np.asarray(p["to_query"]["kernel"]) + np.asarray(p["to_query"]["bias"])
        score = (np.tanh(query[:, None] + keys) @ np.asarray(p["to_score"]["kernel"]))[..., 0]
    weight = np.exp(score) * np.asarray(memory.there)
    np.testing.assert_allclose(shares[:, 0], weight / weight.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_what_counts_is_a_target_and_its_end():
    np.testing.assert_array_equal(seq2seq.before(TARGETS)[0], [0, 3, 2, 1])
    np.testing.assert_array_equal(seq2seq.counted(TARGETS), [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])


def learner(**settings):
    texts = from_texts(["abcd", "ee", "b"], ["cba", "e", "ad"], characters="abcde")
    config = Config(hidden_size=H, batch_size=B, total_steps=10,
                    optim=OptimConfig(optimizer="sgd", learning_rate=1.0, schedule="constant", max_grad_norm=None), **settings)
    return seq2seq.make(config, texts.spec), texts


def test_an_update_is_the_step_of_the_mean_over_all_places():
    model, texts = learner()
    np.testing.assert_array_equal(texts.arrays.targets, TARGETS)
    np.testing.assert_array_equal(texts.arrays.inputs, INPUTS)
    state = jit(model.learner.init)(jax.random.key(0))

    def loss(params):
        logits = model.network.decode(params, *model.network.encode(params, INPUTS), seq2seq.before(TARGETS))
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), TARGETS[..., None], -1)[..., 0]
        return (nll * seq2seq.counted(TARGETS)).sum() / TARGETS.size

    new, result = jit(model.learner.update)(state, Pairs(INPUTS, TARGETS), jax.random.key(1))
    value, grads = jit(jax.value_and_grad(loss))(state.params)
    assert_close(new.params, jax.tree.map(lambda p, g: p - g, state.params, grads))
    nll = result.metrics["nll"]
    np.testing.assert_allclose(nll.total / TARGETS.size, value, rtol=1e-5)
    assert float(nll.count) == 9


def test_scheduled_sampling_begins_with_the_truth_and_ends_with_its_own_draws():
    plain, scheduled = learner()[0], learner(scheduled_sampling=1.0)[0]
    pairs = Pairs(INPUTS, TARGETS)
    state = jit(plain.learner.init)(jax.random.key(0))
    update = jit(scheduled.learner.update)
    told = jit(plain.learner.update)(state, pairs, jax.random.key(1))[0]
    assert_close(update(state, pairs, jax.random.key(1))[0], told)  # at update 0 nothing is drawn
    late = state._replace(count=jnp.int32(10))
    one, other = (update(late, pairs, jax.random.key(i))[0].params for i in range(2))
    assert all(np.abs(a - b).max() > 1e-6 for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True) if a.ndim > 1)
    changed = Pairs(INPUTS, jnp.where(TARGETS == 3, 4, TARGETS))  # the first row begins with another token

    def second(pairs):
        """The gradient of the decoder's embedding, whose rows are those of tokens that it was told."""
        new = update(late, pairs, jax.random.key(0))[0].params["params"]["embeds_1"]["embedding"]
        return np.abs(new - late.params["params"]["embeds_1"]["embedding"]).sum(-1) > 0

    assert (second(pairs) == second(changed)).all()  # what it is told are its draws, whatever the truth is


def test_it_learns_to_reverse_and_beams_agree():
    train, test = (pairs.reversal(3, 600).read(None, split) for split in ("train", "test"))
    config = Config(hidden_size=32, batch_size=64, total_steps=250, attention="multiplicative",
                    optim=OptimConfig(learning_rate=0.01, max_grad_norm=1.0))
    driver = make_device_driver(lambda c: seq2seq.make_run(c, train.spec), [config], train.on_device(), [0], quick=True)
    state, _ = driver.chunk(driver.start(), 250)
    model, params = seq2seq.make(config, train.spec), driver.params(state)
    write = jit(model.write, static_argnums=2)
    greedy, beams = (write(params, test.arrays.inputs, width) for width in (1, 3))
    assert (greedy == test.arrays.targets).all(1).mean() > 0.9
    assert (greedy == beams).all(1).mean() > 0.9
    told = jit(lambda p: model.network.decode(p, *model.network.encode(p, jnp.int32(test.arrays.inputs)),
                                              seq2seq.before(jnp.int32(test.arrays.targets))).argmax(-1))(params)
    counts = np.asarray(seq2seq.counted(test.arrays.targets))
    right = np.where(counts, told == test.arrays.targets, True).all(1)
    np.testing.assert_array_equal(right, (greedy == test.arrays.targets).all(1))  # a greedy target is right if each token is


def test_commands_train_resume_and_evaluate(capsys, tmp_path):
    (tmp_path / "mine.tsv").write_text("".join(f"{'ab'[i % 2] * (1 + i % 5)}{i}\t{i}\n" for i in range(200)))
    where = ["--dataset", "pairs", "--data-dir", tmp_path / "mine.tsv", *SMALL, "--schedule", "constant"]
    assert cli.main(["train", "seq2seq", *map(str, where), "--out", str(tmp_path / "whole")]) == 0
    assert cli.main(["train", "seq2seq", *map(str, where), "--stop-step", "2", "--out", str(tmp_path / "half")]) == 0
    assert cli.main(["resume", str(tmp_path / "half"), "--total-steps", "4"]) == 0
    capsys.readouterr()
    whole, half = (run(capsys, "evaluate", tmp_path / name, "--beam-width", 2) for name in ("whole", "half"))
    assert whole == half
    assert {"exact", "exact_6", "nll", "num"} < set(whole)
    assert whole["num"] == 40
    answers = run(capsys, "sample", tmp_path / "whole", "--prompt", "ab1", "b" * 12, "--beam-width", 2)
    assert (answers["num"], answers["prompts"]) == (2, ["ab1", "b" * 12])
    assert all(set(text) <= set("ab0123456789") for text in answers["texts"])
    for command in (("evaluate", tmp_path / "whole"), ("sample", tmp_path / "whole", "--prompt", "a")):
        assert "beam_width must be between 1 and 1000, got 0" in refused(capsys, *command, "--beam-width", 0)
    assert "'x'" in refused(capsys, "sample", tmp_path / "whole", "--prompt", "x")
    assert "none of them empty" in refused(capsys, "sample", tmp_path / "whole", "--prompt", "")


@pytest.mark.parametrize(("change", "message"), [
    ({"num_layers": 0}, "num_layers must be above 0"), ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    ({"scheduled_sampling": 1.5}, "scheduled_sampling must be at least 0 and at most 1, got 1.5")])
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        seq2seq.validate(replace(Config(), **change))


def test_what_are_no_pairs_is_refused():
    with pytest.raises(UserError, match="the dataset digits has none; use dataset=pairs"):
        seq2seq.make(Config(), DataSpec("digits", 100, (8, 8, 1)))


def test_dropout_is_dropped_while_it_learns_alone():
    network, params = made("lstm", "none", 0.5)
    plain, _ = made("lstm", "none")
    encode = jit(network.encode)
    same_bits(encode(params, INPUTS)[0], jit(plain.encode)(params, INPUTS)[0])
    one, other = (encode(params, INPUTS, jax.random.key(i))[0][1][1] for i in range(2))
    assert np.abs(one - other).max() > 0.01
