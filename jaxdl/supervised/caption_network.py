"""The network of the captioner: convolutions over a picture, and a recurrent cell that writes.

    first_state   h_0 = tanh(W v)                    v the mean of the map of features (Vinyals et al., "Show and tell", 2015)
    each_step     x_t = [word, W_ih v]               (Karpathy and Fei-Fei 2015 have it at the first step alone)
    soft          x_t = [word, sum_i a_ti v_i]       a_t a softmax over places of the map, of h_{t-1} and v_i
    hard          x_t = [word, v_i]                  i one place that is drawn from a_t

Attention is additive, as in Xu et al., "Show, attend and tell" (2015), whose first state is that of `first_state`.

Shapes: `B` pictures, `P` places of the map, `F` features, `H` of the cell, `V` words.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.nn import unet
from jaxdl.nn.norm import Kind as Norm

Look = Literal["first_state", "each_step", "soft", "hard"]
Cell = Literal["rnn", "gru", "lstm"]


class Memory(NamedTuple):
    """What is known of pictures."""

    values: Array  # [B, P, F]
    keys: Array | None  # [B, P, H], where there is attention


class Seen(NamedTuple):
    """Where a step looked."""

    shares: Array  # [B, P] of each place; hard: its probability
    place: Array | None  # int32 [B], hard: the one that was looked at


def with_places(maps: Array) -> Array:
    """Maps [B, h, w, C] -> features of places [B, P, C + 2], their x and y from -1 to 1 beside the others."""
    b, h, w, channels = maps.shape
    y, x = jnp.meshgrid(jnp.linspace(-1, 1, h), jnp.linspace(-1, 1, w), indexing="ij")
    at = jnp.broadcast_to(jnp.stack([x, y], -1), (b, h, w, 2))
    return jnp.concatenate([maps, at], -1).reshape(b, h * w, channels + 2)


class CaptionNetwork(linen.Module):
    """Pictures -> memory and first state; state and word -> state and logits of the next word."""

    look: Look
    num_words: int
    cell: Cell = "lstm"
    hidden_size: int = 256
    embedding_size: int = 64
    channels: tuple[int, ...] = (32, 64, 128)
    norm: Norm | None = "batch"
    activation: str = "relu"
    axis_name: str | None = None
    dtype: Any = "float32"

    def setup(self) -> None:
        """Make the layers."""
        self.backbone = unet.Backbone(self.channels, self.norm, self.activation, 1, self.axis_name, self.dtype)
        self.embed = linen.Embed(self.num_words, self.embedding_size)
        self.recurrent = nn.CELLS[self.cell](self.hidden_size, self.dtype)
        self.begin, self.head = nn.Dense(self.hidden_size), nn.Dense(self.num_words)
        self.value = nn.Dense(1)
        if self.look == "each_step":
            self.to_input = nn.Dense(self.hidden_size, use_bias=False, dtype=self.dtype)
        if self.look in ("soft", "hard"):
            self.to_keys, self.to_query = (nn.Dense(self.hidden_size, dtype=self.dtype) for _ in range(2))
            self.to_score = nn.Dense(1, use_bias=False, dtype=self.dtype)

    def encode(self, images: Array, train: bool = False) -> tuple[PyTree, Memory]:
        """[B, H, W, C] -> the first state, and what is looked at."""
        values = with_places(self.backbone(images, train))
        mean = jnp.tanh(self.begin(values.mean(1)))
        state = (jnp.zeros_like(mean), mean) if self.cell == "lstm" else mean
        return state, Memory(values, self.to_keys(values) if self.look in ("soft", "hard") else None)

    def step(self, state: PyTree, memory: Memory, word: Array, key: Key | None = None) -> tuple[PyTree, Array, Seen]:
        """Words [B] -> the state after them, logits of the next ones [B, V], and where it looked.

        With a key a hard place is drawn, without one it is the likeliest.
        """
        h = state[1] if self.cell == "lstm" else state
        seen = Seen(jnp.full(memory.values.shape[:2], 1 / memory.values.shape[1]), None)
        x = self.embed(word)
        if self.look == "each_step":
            x = jnp.concatenate([x, self.to_input(memory.values.mean(1))], -1)
        if memory.keys is not None:
            score = self.to_score(jnp.tanh(self.to_query(h)[:, None] + memory.keys))[..., 0]
            seen = Seen(jax.nn.softmax(score), None)
            weights = seen.shares
            if self.look == "hard":
                place = score.argmax(-1) if key is None else jax.random.categorical(key, score)
                seen = Seen(seen.shares, place)
                weights = jax.nn.one_hot(place, score.shape[-1])
            x = jnp.concatenate([x, jnp.einsum("bp,bpf->bf", weights, memory.values)], -1)
        state, out = self.recurrent.step(state, self.recurrent.project(x))
        return state, self.head(out), seen

    def values_of(self, state: PyTree) -> Array:
        """What is expected of the words that follow a state, [B]."""
        return self.value(jax.lax.stop_gradient(state[1] if self.cell == "lstm" else state))[..., 0]

    def __call__(self, images: Array) -> Array:
        """Everything once, so that all parameters are made."""
        state, memory = self.encode(images)
        state, logits, _ = self.step(state, memory, jnp.zeros(len(images), jnp.int32))
        return logits, self.values_of(state)
