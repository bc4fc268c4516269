"""Beam search: of width one it is greedy, a wide one finds the likeliest of all sequences, and what has ended stays."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.supervised import decoding

V, L, B = 3, 3, 4
RNG = np.random.default_rng(0)
TABLE = jnp.asarray(2 * RNG.normal(size=(B, L, V, V)), jnp.float32)  # logits of an example at a place after a token


def model(width):
    """A step whose state is the example and the place, and the state of `width` hypotheses of each example."""
    def step(carry, token):
        example, place = carry
        return (example, place + 1), TABLE[example, place, token]

    return step, (jnp.repeat(jnp.arange(B), width), jnp.zeros(B * width, jnp.int32))


def all_sequences(example):
    """Every sequence that fills what is left after its end, and its log-probability, the likeliest first."""
    log_p = np.asarray(jax.nn.log_softmax(TABLE[example]))
    found = {}
    for tokens in itertools.product(range(V), repeat=L):
        total, last, ended = 0.0, 0, False
        row = []
        for place, token in enumerate(tokens):
            token = 0 if ended else token
            total += 0 if ended else log_p[place, last, token]
            ended, last = ended or token == 0, token
            row.append(token)
        found[tuple(row)] = total
    return sorted(found.items(), key=lambda x: -x[1])


def test_all_sequences_have_probability_one():
    assert len(all_sequences(0)) == 1 + 2 + 4 + 8
    assert sum(np.exp(p) for _, p in all_sequences(0)) == pytest.approx(1)


def test_a_beam_of_one_is_greedy():
    step, carry = model(1)
    tokens, log_p = jit(lambda: decoding.greedy(step, carry, B, L))()
    beams, totals = jit(lambda: decoding.beam_search(step, carry, B, 1, L))()
    np.testing.assert_array_equal(beams[:, 0], tokens)
    np.testing.assert_allclose(totals[:, 0], log_p, rtol=1e-5)
    for row, p, example in zip(tokens.tolist(), log_p, range(B), strict=True):
        assert p == pytest.approx(dict(all_sequences(example))[tuple(row)], rel=1e-5)


def test_a_wide_beam_finds_the_best_sequences_in_their_order():
    step, carry = model(17)
    beams, totals = jit(lambda: decoding.beam_search(step, carry, B, 17, L))()
    for example in range(B):
        best = all_sequences(example)
        assert [tuple(x) for x in beams[example, :15].tolist()] == [tokens for tokens, _ in best]
        np.testing.assert_allclose(totals[example, :15], [p for _, p in best], rtol=1e-4)
        assert np.isneginf(totals[example, 15:]).all()  # there are no more


def test_a_beam_finds_what_greed_does_not():
    """The likeliest first token is followed by a coin; the other by what is sure."""
    table = jnp.log(jnp.array([[0.0, 0.6, 0.4], [0.5, 0.25, 0.25], [0.98, 0.01, 0.01]]))
    step = lambda carry, token: (carry, table[token])  # noqa: E731
    assert jit(lambda: decoding.greedy(step, jnp.zeros(1), 1, 2))()[0].tolist() == [[1, 0]]
    beams, totals = jit(lambda: decoding.beam_search(step, jnp.zeros(2), 1, 2, 2))()
    assert beams.tolist() == [[[2, 0], [1, 0]]]
    np.testing.assert_allclose(np.exp(totals), [[0.392, 0.3]], rtol=1e-5)
