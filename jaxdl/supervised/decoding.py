"""Sequences out of a distribution of the next token: the likeliest token each time, or beam search.

    beams = the K of beams x tokens with the highest sum of log-probabilities

Lowerre, "The HARPY speech recognition system" (1976), as in Sutskever et al., "Sequence to sequence learning with neural
networks" (2014). A hypothesis that has ended stays as it is, beside those that go on. With K = 1 the search is greedy; with K
as large as the number of sequences it finds the likeliest.

Shapes: `B` examples, `K` beams, `L` tokens of a sequence, `V` of the vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, PyTree

Step = Callable[[PyTree, Array], tuple[PyTree, Array]]  # (carry, token [N]) -> carry, logits [N, V]


def greedy(step: Step, carry: PyTree, num: int, length: int, end: int = 0) -> tuple[Array, Array]:
    """The likeliest token each time, until `end`.

    Args:
        step: the distribution of the token that follows.
        carry: arrays [B, ...], before the first token.
        num: B.
        length: L.
        end: the token that ends a sequence, fills what is left, and comes before the first.

    Returns:
        Tokens int32 [B, L] and their log-probability [B].
    """

    def body(state: tuple, _: None) -> tuple[tuple, Array]:
        carry, token, ended, total = state
        carry, logits = step(carry, token)
        log_p = jax.nn.log_softmax(logits)
        token = jnp.where(ended, end, log_p.argmax(-1))
        total += jnp.where(ended, 0, log_p.max(-1))
        return (carry, token, ended | (token == end), total), token

    state = carry, jnp.full(num, end, jnp.int32), jnp.zeros(num, bool), jnp.zeros(num)
    (_, _, _, total), tokens = jax.lax.scan(body, state, length=length)
    return tokens.T, total


def beam_search(step: Step, carry: PyTree, num: int, width: int, length: int, end: int = 0) -> tuple[Array, Array]:
    """The K best sequences that are found, the best first.

    Args:
        step: as in `greedy`, of N = B K sequences, those of an example side by side.
        carry: arrays [B K, ...], equal for those of an example.
        num: B.
        width: K.
        length: L.
        end: as in `greedy`.

    Returns:
        Tokens int32 [B, K, L] and their log-probabilities [B, K]; -inf where there are fewer sequences than K.
    """
    example = jnp.arange(num)[:, None]

    def body(state: tuple, at: Array) -> tuple[tuple, None]:
        carry, tokens, last, total = state
        carry, logits = step(carry, last.ravel())
        size = logits.shape[-1]
        log_p = jax.nn.log_softmax(logits).reshape(num, width, size)
        ended = (last == end) & (at > 0)
        log_p = jnp.where(ended[..., None], jnp.where(jnp.arange(size) == end, 0, -jnp.inf), log_p)
        total, best = jax.lax.top_k((total[..., None] + log_p).reshape(num, -1), width)
        parent, last = best // size, best % size
        carry = jax.tree.map(lambda x: x.reshape(num, width, *x.shape[1:])[example, parent].reshape(x.shape), carry)
        return (carry, tokens[example, parent].at[:, :, at].set(last), last, total), None

    total = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf) * jnp.ones((num, 1))  # one hypothesis, as they are all equal
    state = carry, jnp.zeros((num, width, length), jnp.int32), jnp.full((num, width), end, jnp.int32), total
    (_, tokens, _, total), _ = jax.lax.scan(body, state, jnp.arange(length))
    return tokens, total
