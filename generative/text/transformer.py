"""A transformer that sees the last W tokens.

    x = x + attention(norm(x))    x = x + mlp(norm(x))    mlp(x) = W' gelu(W x)

Vaswani et al., "Attention is all you need" (2017), causal, with norms before the layers (Radford et al., "Language models are
unsupervised multitask learners", 2019) and positions as rotations of queries and keys (Su et al., "RoFormer", 2021), so that
a text may be longer than a window: each token attends to the W - 1 before it and to itself, by distances that were trained.

Writing keeps the keys and values of the last W tokens, and a token costs one row of every product.

Shapes: `T` time, `B` texts, `F` features, `A` heads, `D` features of a head, `V` tokens of the vocabulary, `L` layers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.generative.text.network import Network

_BASE = 10_000.0  # of the angles' periods (Vaswani et al., section 3.5)


class Memory(NamedTuple):
    """Keys and values of the last W tokens, a ring; and how many tokens there were."""

    keys: Array  # [L, B, W, A, D], rotated
    values: Array  # [L, B, W, A, D]
    count: Array  # int32 ()


class _Block(linen.Module):
    size: int
    num_heads: int
    rate: float | Array | None
    residual: nn.Uniform  # initial values of what is added to x
    dtype: str

    def setup(self) -> None:
        self.norms = [linen.LayerNorm(use_bias=False) for _ in range(2)]
        self.to_heads = nn.Dense(3 * self.size, use_bias=False, dtype=self.dtype)
        self.from_heads = nn.Dense(self.size, use_bias=False, dtype=self.dtype, kernel_init=self.residual)
        self.up = nn.Dense(4 * self.size, dtype=self.dtype)
        self.down = nn.Dense(self.size, dtype=self.dtype, kernel_init=self.residual)

    def heads(self, x: Array, position: Array) -> tuple[Array, Array, Array]:
        """[..., F] at positions [...] -> queries, keys and values [..., A, D], the first two rotated."""
        parts = jnp.split(self.to_heads(self.norms[0](x)), 3, -1)
        query, key, value = (part.reshape(*part.shape[:-1], self.num_heads, -1) for part in parts)
        return rotated(query, position), rotated(key, position), value

    def rest(self, x: Array, seen: Array) -> Array:
        """The block's output from its input [..., F] and what its heads saw [..., A, D]."""
        x = x + nn.dropout_in(self, self.from_heads(seen.reshape(x.shape)), self.rate)
        return x + nn.dropout_in(self, self.down(jax.nn.gelu(self.up(self.norms[1](x)))), self.rate)


class _Transformer(linen.Module):
    num_layers: int
    size: int
    num_heads: int
    num_tokens: int
    window: int
    rate: float | Array | None
    dtype: str = "float32"

    def setup(self) -> None:
        self.embed = linen.Embed(self.num_tokens, self.size)
        residual = nn.Uniform(1 / (2 * self.num_layers), "in")  # as GPT-2: the sum over layers begins with variance one
        self.blocks = [_Block(self.size, self.num_heads, self.rate, residual, self.dtype) for _ in range(self.num_layers)]
        self.norm = linen.LayerNorm(use_bias=False)
        self.head = nn.Dense(self.num_tokens)

    def __call__(self, tokens: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        """[B, T] -> logits [B, T, V], and keys and values [B, T, A, D] of each layer."""
        x, position, kept = self.embed(tokens), jnp.arange(tokens.shape[1]), []
        band = (self.window - 1, 0) if tokens.shape[1] > self.window else None
        for block in self.blocks:
            query, key, value = block.heads(x, position)
            x = block.rest(x, jax.nn.dot_product_attention(query, key, value, is_causal=True, local_window_size=band))
            kept.append((key, value))
        return self.head(self.norm(x)), kept

    def step(self, memory: Memory, token: Array) -> tuple[Memory, Array]:
        """Memory and token [B] -> memory, logits [B, V]."""
        x, slot = self.embed(token), memory.count % self.window
        there = jnp.arange(self.window) <= memory.count  # slots that were written; all of them after a window
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            query, key, value = block.heads(x, memory.count)
            keys.append(memory.keys[layer].at[:, slot].set(key))
            values.append(memory.values[layer].at[:, slot].set(value))
            score = jnp.einsum("bad,bwad->baw", query, keys[-1]) / query.shape[-1] ** 0.5
            share = jax.nn.softmax(jnp.where(there, score, -jnp.inf), -1)
            x = block.rest(x, jnp.einsum("baw,bwad->bad", share, values[-1]))
        return Memory(jnp.stack(keys), jnp.stack(values), memory.count + 1), self.head(self.norm(x))


def rotated(x: Array, position: Array) -> Array:
    """Heads [..., A, D] whose pairs of features are turned by angles that grow with the position [...] or ()."""
    half = x.shape[-1] // 2
    angle = position[..., None, None] * _BASE ** (-jnp.arange(half) / half)
    a, b = jnp.split(x, 2, -1)
    return jnp.concatenate([a * jnp.cos(angle) - b * jnp.sin(angle), a * jnp.sin(angle) + b * jnp.cos(angle)], -1)


def make(num_layers: int, size: int, num_heads: int, num_tokens: int, window: int, rate: float | Array | None) -> Network:
    """The network; `window` is W, `rate` that of dropout."""
    module = _Transformer(num_layers, size, num_heads, num_tokens, window, rate)

    def init(key: Key, begins: nn.Initial | None = None) -> PyTree:
        return nn.init(module, key, jnp.zeros((1, 2), jnp.int32), initial=begins)

    def apply(params: PyTree, tokens: Array, carry: None, key: Key | None = None, dtype: str = "float32"
              ) -> tuple[None, Array]:
        logits, _ = module.clone(dtype=dtype).apply(params, tokens.T, rngs=None if key is None else {"dropout": key})
        return carry, logits.swapaxes(0, 1)

    def begin(params: PyTree, prompt: Array) -> tuple[Memory, Array]:
        logits, kept = module.apply(params, prompt.T)
        length = len(prompt)
        last = jnp.arange(max(length - window, 0), length)

        def ring(x: Array) -> Array:
            return jnp.zeros((len(x), window, *x.shape[2:])).at[:, last % window].set(x[:, last])

        keys, values = (jnp.stack([ring(x) for x in of_layers]) for of_layers in zip(*kept, strict=True))
        return Memory(keys, values, jnp.asarray(length, jnp.int32)), logits[:, -1]

    return Network(init, lambda n: None, apply, begin,
                   lambda params, memory, token: module.apply(params, memory, token, method="step"))
