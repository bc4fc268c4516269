"""What a network over tokens is: one set of parameters, a form that learns from windows and one that writes.

Shapes: `T` time, `B` texts, `P` tokens of a prompt, `V` tokens of the vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxdl.core.types import Array, PyTree


class Network(NamedTuple):
    """A distribution of the next token, as functions."""

    init: Callable[..., PyTree]  # (key, initial weights=None) -> params
    initial: Callable[[int], PyTree]  # (B) -> the state of texts that begin, [B, ...]; None where windows have no memory
    apply: Callable[..., tuple[PyTree, Array]]  # (params, tokens [T, B], state, key of dropout or None, dtype) -> state,
    # logits [T, B, V] of the tokens that follow
    begin: Callable[[PyTree, Array], tuple[PyTree, Array]]  # (params, prompt [P, B]) -> what `step` carries, logits [B, V]
    step: Callable[[PyTree, PyTree, Array], tuple[PyTree, Array]]  # (params, carry, token [B]) -> carry, logits [B, V]
