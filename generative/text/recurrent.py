"""Layers of recurrent cells over tokens: the outputs of one are the inputs of the next.

Graves, "Generating sequences with recurrent neural networks" (2013), without its short cuts. Dropout is on the outputs of
layers alone, not from step to step (Zaremba et al., "Recurrent neural network regularization", 2014).

Shapes: `T` time, `B` texts, `V` tokens of the vocabulary, `H` size of a state.
"""

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.generative.text.network import Network
from jaxdl.nn.recurrent import Kind


class _Recurrent(linen.Module):
    cell: Kind
    num_layers: int
    size: int
    num_tokens: int
    dtype: str = "float32"

    def setup(self) -> None:
        self.embed = linen.Embed(self.num_tokens, self.size)
        self.cells = [nn.CELLS[self.cell](self.size, self.dtype) for _ in range(self.num_layers)]
        self.head = nn.Dense(self.num_tokens)

    def gates(self, layer: int, x: Array) -> Array:
        """The projected inputs of a layer; of the first those of the whole vocabulary, of which tokens [...] choose."""
        return self.cells[layer].project(x) if layer else self.cells[0].project(self.embed.embedding)[x]

    def logits(self, x: Array) -> Array:
        """[..., H] -> [..., V]."""
        return self.head(x)

    def __call__(self, carry: list[PyTree], token: Array) -> tuple[list[PyTree], Array]:
        """States, token [B] -> states, logits [B, V] of the next one."""
        carries, x = [], token
        for layer, cell in enumerate(self.cells):
            state, x = cell.step(carry[layer], self.gates(layer, x))
            carries.append(state)
        return carries, self.head(x)


def make(cell: Kind, num_layers: int, size: int, num_tokens: int, rate: float | Array | None) -> Network:
    """The network; `rate` is that of dropout."""
    module = _Recurrent(cell, num_layers, size, num_tokens)

    def initial(n: int) -> list[PyTree]:
        return [nn.zero_carry(cell, size, n) for _ in range(num_layers)]

    def init(key: Key, begins: nn.Initial | None = None) -> PyTree:
        return nn.init(module, key, initial(1), jnp.zeros(1, jnp.int32), initial=begins)

    def apply(params: PyTree, tokens: Array, carry: list[PyTree], key: Key | None = None, dtype: str = "float32"
              ) -> tuple[list[PyTree], Array]:
        call = module.clone(dtype=dtype).apply

        def between(layer: int, x: Array) -> Array:
            return x if rate is None or key is None else nn.dropout(x, rate, jax.random.fold_in(key, layer))

        cells = [(nn.CELLS[cell](size, dtype), {"params": params["params"][f"cells_{i}"]}) for i in range(num_layers)]
        ends, x = nn.unroll_layers(cells, carry, call(params, 0, tokens, method="gates"), between=between)
        return ends, call(params, x, method="logits")

    def begin(params: PyTree, prompt: Array) -> tuple[list[PyTree], Array]:
        carry, logits = apply(params, prompt, initial(prompt.shape[1]))
        return carry, logits[-1]

    return Network(init, initial, apply, begin, lambda params, carry, token: module.apply(params, carry, token))
