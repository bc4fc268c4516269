"""The network that answers questions about pictures: a cell reads the question, convolutions see, and a cell writes the answer.

    film     the question scales and shifts the features of residual blocks, x + relu(g(q) norm(conv(x)) + b(q)) (Perez et al.,
             "FiLM: visual reasoning with a general conditioning layer", 2018)
    concat   the mean of the features beside the question's state (Antol et al., "VQA: visual question answering", 2015)

Shapes: `B` pictures, `Q` questions of each, `L` words, `H` of a cell, `V` words of the vocabulary.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, PyTree
from jaxdl.nn import unet
from jaxdl.nn.norm import Kind as Norm
from jaxdl.supervised.caption_network import Cell, with_places

Fusion = Literal["film", "concat"]
Without = Literal["nothing", "picture", "question"]


class FilmBlock(linen.Module):
    """Features [B, h, w, F] and states of questions [B, H] -> features [B, h, w, F]."""

    features: int
    norm: Norm | None = "batch"
    axis_name: str | None = None
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array, q: Array, train: bool = False) -> Array:
        at = with_places(x).reshape(*x.shape[:3], -1)
        x = jax.nn.relu(nn.Conv(self.features, (1, 1), dtype=self.dtype, kernel_init=nn.he_uniform)(at))
        shifted = self.norm == "batch"  # which takes a bias away again
        y = nn.Conv(self.features, (3, 3), use_bias=not shifted, dtype=self.dtype, kernel_init=nn.he_uniform)(x)
        y = y if self.norm is None else nn.normalized(y, self.norm, train, self.axis_name)
        scale, shift = jnp.split(nn.Dense(2 * self.features, dtype=self.dtype)(q)[:, None, None], 2, -1)
        return x + jax.nn.relu((1 + scale) * y + shift)


class AnswerNetwork(linen.Module):
    """Pictures and questions -> the first state of the answer; state and word -> state and logits."""

    num_words: int
    fusion: Fusion = "film"
    without: Without = "nothing"
    cell: Cell = "gru"
    hidden_size: int = 128
    embedding_size: int = 64
    channels: tuple[int, ...] = (32, 64, 128)
    features: int = 64  # of the blocks
    blocks: int = 2
    norm: Norm | None = "batch"
    activation: str = "relu"
    axis_name: str | None = None
    dtype: Any = "float32"

    def setup(self) -> None:
        """Make the layers."""
        self.backbone = unet.Backbone(self.channels, self.norm, self.activation, 1, self.axis_name, self.dtype)
        self.embed = linen.Embed(self.num_words, self.embedding_size)
        self.reads, self.writes = (nn.CELLS[self.cell](self.hidden_size, self.dtype) for _ in range(2))
        self.squeeze = nn.Dense(self.features, dtype=self.dtype)
        self.begin, self.head = nn.Dense(self.hidden_size), nn.Dense(self.num_words)
        self.seen = nn.Dense(self.hidden_size, dtype=self.dtype)
        if self.fusion == "film":
            self.films = [FilmBlock(self.features, self.norm, self.axis_name, self.dtype) for _ in range(self.blocks)]

    def encode(self, images: Array, questions: Array, train: bool = False) -> PyTree:
        """[B, H, W, C], words [B, Q, L] -> the state before the answers, [B Q, H] (two for an LSTM)."""
        num = questions.shape[1]
        q = jnp.zeros((questions.shape[0] * num, self.hidden_size))
        if self.without != "question":
            q = self._read(questions.reshape(-1, questions.shape[-1]))
        maps = with_places(self.backbone(images, train))
        sides = nn.smallest(images.shape[1:], len(self.channels))
        x = jax.nn.relu(self.squeeze(maps)).reshape(-1, *sides, self.features)
        x = jnp.zeros_like(x) if self.without == "picture" else x
        x = jnp.repeat(x, num, 0)
        if self.fusion == "film":
            for film in self.films:
                x = film(x, q, train)
            seen = nn.max_over_places(x)
        else:
            seen = x.mean((1, 2))
        h = jnp.tanh(self.begin(jnp.concatenate([jax.nn.relu(self.seen(seen)), q], -1)))
        return (jnp.zeros_like(h), h) if self.cell == "lstm" else h

    def _read(self, words: Array) -> Array:
        """The state after a question [N, L]."""
        state = nn.zero_carry(self.cell, self.hidden_size, len(words))
        for t in range(words.shape[1]):
            after, _ = self.reads.step(state, self.reads.project(self.embed(words[:, t])))
            there = (words[:, t] > 0)[:, None]
            state = jax.tree.map(lambda a, b: jnp.where(there, a, b), after, state)  # noqa: B023
        return state[1] if self.cell == "lstm" else state

    def step(self, state: PyTree, word: Array) -> tuple[PyTree, Array]:
        """Words [N] -> the state after them, and logits of the next ones [N, V]."""
        state, out = self.writes.step(state, self.writes.project(self.embed(word)))
        return state, self.head(out)

    def __call__(self, images: Array, questions: Array) -> Array:
        """Everything once, so that all parameters are made."""
        state = self.encode(images, questions)
        self._read(questions.reshape(-1, questions.shape[-1]))
        return self.step(state, jnp.zeros(questions.shape[0] * questions.shape[1], jnp.int32))[1]
