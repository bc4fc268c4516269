"""An encoder that reads a sequence and a decoder that writes another, both of recurrent cells, with attention or without.

The decoder begins with the states in which the encoder ends (Sutskever et al., "Sequence to sequence learning with neural
networks", 2014; Cho et al. 2014). With attention its output h also looks at the encoder's outputs e_s,

    a = softmax_s score(h, e_s)    c = sum_s a_s e_s    logits of tanh(W [c, h])
    additive: score = v . tanh(W h + U e_s)    multiplicative: score = h . W e_s

after Bahdanau et al., "Neural machine translation by jointly learning to align and translate" (2015) and Luong et al.,
"Effective approaches to attention-based neural machine translation" (2015). Both are applied to the output of the cell, as
Luong et al. do, and are not fed back: all steps of a known target are one pass.

Shapes: `B` batch, `S` tokens of an input, `L` of a target, `H` size of a state, `V` tokens of the vocabulary.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.nn.recurrent import Kind

Attention = Literal["none", "additive", "multiplicative"]


class Memory(NamedTuple):
    """What the decoder knows of an input."""

    values: Array | None  # [B, S, H] outputs of the encoder; None without attention
    keys: Array | None  # [B, S, H] what outputs of the decoder are compared with
    there: Array  # bool [B, S] where the input has tokens


class Network(NamedTuple):
    """The distribution of a target, as functions; `key` is that of dropout, None where nothing is dropped."""

    init: Callable[..., PyTree]  # (key, initial weights=None) -> params
    encode: Callable[..., tuple[list[PyTree], Memory]]  # (params, inputs [B, S], key, dtype) -> first state, memory
    decode: Callable[..., Array]  # (params, state, memory, tokens [B, L], key, dtype) -> logits [B, L, V] of what follows each
    step: Callable[..., tuple[list[PyTree], Array]]  # (params, state, memory, token [B], key, dtype) -> state, logits [B, V]
    shares: Callable[..., Array] | None  # (params, state, memory, tokens [B, L]) -> a [B, L, S]; None without attention


class _Coder(linen.Module):
    cell: Kind
    num_layers: int
    size: int
    num_tokens: int
    attention: Attention
    dtype: str = "float32"

    def setup(self) -> None:
        self.embeds = [linen.Embed(self.num_tokens, self.size) for _ in range(2)]
        self.encoder = [nn.CELLS[self.cell](self.size, self.dtype) for _ in range(self.num_layers)]
        self.decoder = [nn.CELLS[self.cell](self.size, self.dtype) for _ in range(self.num_layers)]
        self.head = nn.Dense(self.num_tokens)
        if self.attention != "none":
            self.to_keys = nn.Dense(self.size, use_bias=False, dtype=self.dtype)
            self.combine = nn.Dense(self.size, dtype=self.dtype)
        if self.attention == "additive":
            self.to_query, self.to_score = nn.Dense(self.size, dtype=self.dtype), nn.Dense(1, use_bias=False, dtype=self.dtype)

    def gates(self, side: int, layer: int, x: Array) -> Array:
        """The projected inputs of a layer of the encoder (0) or the decoder (1); those of the first layer are tokens [...]."""
        cell = (self.encoder, self.decoder)[side][layer]
        return cell.project(x) if layer else cell.project(self.embeds[side].embedding)[x]

    def step(self, side: int, layer: int, carry: PyTree, gates: Array) -> tuple[PyTree, Array]:
        """One step of a layer."""
        return (self.encoder, self.decoder)[side][layer].step(carry, gates)

    def keys(self, values: Array) -> Array:
        """[B, S, H] -> [B, S, H]."""
        return self.to_keys(values)

    def shares(self, h: Array, memory: Memory) -> Array:
        """Outputs of the decoder [B, ..., H] -> how much of each token of the input is seen, [B, ..., S]."""
        if self.attention == "additive":
            among = memory.keys.reshape(len(h), *[1] * (h.ndim - 2), *memory.keys.shape[1:])
            score = self.to_score(jnp.tanh(self.to_query(h)[..., None, :] + among))[..., 0]
        else:
            score = jnp.einsum("b...h,bsh->b...s", h, memory.keys)
        there = memory.there.reshape(len(h), *[1] * (h.ndim - 2), -1)
        return jax.nn.softmax(jnp.where(there, score, -1e30), -1)  # finite: of an empty input there is a mean, and no NaN

    def logits(self, h: Array, memory: Memory) -> Array:
        """Outputs of the decoder [B, ..., H] -> [B, ..., V]."""
        if self.attention != "none":
            context = jnp.einsum("b...s,bsh->b...h", self.shares(h, memory), memory.values)
            h = jnp.tanh(self.combine(jnp.concatenate([context, h], -1)))
        return self.head(h)

    def __call__(self, carry: list[PyTree], token: Array) -> Array:
        """Everything once, so that all parameters are made."""
        for side in range(2):
            x = token
            for layer, state in enumerate(carry):
                _, x = self.step(side, layer, state, self.gates(side, layer, x))
        values = x[:, None]
        keys = self.keys(values) if self.attention != "none" else None
        return self.logits(x, Memory(values, keys, jnp.ones((len(x), 1), bool)))


def make(cell: Kind, num_layers: int, size: int, num_tokens: int, attention: Attention, rate: float | Array | None) -> Network:
    """The network; `rate` is that of dropout, on the outputs of layers."""
    module = _Coder(cell, num_layers, size, num_tokens, attention)

    def zero(n: int) -> list[PyTree]:
        return [nn.zero_carry(cell, size, n) for _ in range(num_layers)]

    def init(key: Key, begins: nn.Initial | None = None) -> PyTree:
        return nn.init(module, key, zero(1), jnp.zeros(1, jnp.int32), initial=begins)

    def dropped(key: Key | None) -> Callable[[int, Array], Array]:
        return lambda layer, x: x if rate is None or key is None else nn.dropout(x, rate, jax.random.fold_in(key, layer))

    def unrolled(params: PyTree, side: int, carry: list[PyTree], tokens: Array, there: Array | None, key: Key | None, dtype: str
                 ) -> tuple[list[PyTree], Array]:
        """Tokens [B, T] -> the states after them, and the outputs [B, T, H]."""
        call = module.clone(dtype=dtype).apply
        names = [f"{('encoder', 'decoder')[side]}_{i}" for i in range(num_layers)]
        cells = [(nn.CELLS[cell](size, dtype), {"params": params["params"][name]}) for name in names]
        ends, x = nn.unroll_layers(cells, carry, call(params, side, 0, tokens.T, method="gates"), there, dropped(key))
        return ends, x.swapaxes(0, 1)

    def encode(params: PyTree, inputs: Array, key: Key | None = None, dtype: str = "float32") -> tuple[list[PyTree], Memory]:
        there = inputs != 0
        ends, values = unrolled(params, 0, zero(len(inputs)), inputs, there.T, key, dtype)
        if attention == "none":
            return ends, Memory(None, None, there)
        return ends, Memory(values, module.clone(dtype=dtype).apply(params, values, method="keys"), there)

    def decode(params: PyTree, state: list[PyTree], memory: Memory, tokens: Array, key: Key | None = None,
               dtype: str = "float32") -> Array:
        _, h = unrolled(params, 1, state, tokens, None, key, dtype)
        return module.clone(dtype=dtype).apply(params, h, memory, method="logits")

    def step(params: PyTree, state: list[PyTree], memory: Memory, token: Array, key: Key | None = None, dtype: str = "float32"
             ) -> tuple[list[PyTree], Array]:
        call, ends, x = module.clone(dtype=dtype).apply, [], token
        for layer, before in enumerate(state):
            after, x = call(params, 1, layer, before, call(params, 1, layer, x, method="gates"), method="step")
            ends.append(after)
            x = dropped(key)(layer, x)
        return ends, call(params, x, memory, method="logits")

    def shares(params: PyTree, state: list[PyTree], memory: Memory, tokens: Array) -> Array:
        _, h = unrolled(params, 1, state, tokens, None, None, "float32")
        return module.apply(params, h, memory, method="shares")

    return Network(init, encode, decode, step, None if attention == "none" else shares)
