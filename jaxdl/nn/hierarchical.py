"""Hierarchical softmax: classes are the leaves of a binary tree, and a class costs the decisions on the way to it.

    p(c | x) = prod over the inner nodes n on the way to c of sigmoid(s (w_n x + b_n)),    s = 1 to the left, -1 to the right

Morin and Bengio, "Hierarchical probabilistic neural network language model" (2005). The tree is Huffman's of the classes'
frequencies (Mikolov et al., "Distributed representations of words and phrases", 2013), so frequent classes have short ways: as
many decisions as the entropy of the classes in bits, to within one, where a softmax computes them all.

Shapes: `B` batch, `F` features, `Y` classes, `D` decisions on the longest way.
"""

import heapq
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.initializers import lecun_uniform
from jaxdl.nn.precision import to_compute, widened


class Tree(NamedTuple):
    """The way from the root to each class, in tuples: a field of a module."""

    nodes: tuple[tuple[int, ...], ...]  # [Y, D] inner nodes, 0 to Y - 2
    signs: tuple[tuple[int, ...], ...]  # [Y, D] 1 to the left, -1 to the right, 0 past the leaf


def huffman(frequencies: Sequence[float]) -> Tree:
    """The tree of Huffman's code (1952) of two classes or more with these frequencies [Y]."""
    heap: list[tuple[float, int, list[int]]] = [(f, i, [i]) for i, f in enumerate(frequencies)]
    heapq.heapify(heap)
    ways: list[list[tuple[int, int]]] = [[] for _ in frequencies]
    for node in range(len(frequencies) - 1):
        (f, _, left), (g, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for sign, leaves in ((1, left), (-1, right)):
            for leaf in leaves:
                ways[leaf].insert(0, (node, sign))
        heapq.heappush(heap, (f + g, len(frequencies) + node, left + right))
    depth = max(map(len, ways))
    padded = [way + [(0, 0)] * (depth - len(way)) for way in ways]
    nodes, signs = (tuple(tuple(step[i] for step in way) for way in padded) for i in range(2))
    return Tree(nodes, signs)


class HierarchicalHead(linen.Module):
    """Features [B, F] -> log-probabilities of all classes [B, Y], or of one class each: labels [B] -> [B]."""

    tree: Tree
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array, labels: Array | None = None) -> Array:
        """Of one class each, D decisions are computed; of all, Y - 1."""
        nodes, signs = np.array(self.tree.nodes), np.array(self.tree.signs, np.float32)
        kernel = self.param("kernel", lecun_uniform, (x.shape[-1], len(nodes) - 1))
        bias = self.param("bias", linen.initializers.zeros, (len(nodes) - 1,))
        x, kernel = to_compute(self.dtype, x, kernel)
        if labels is None:
            decisions = (widened(x @ kernel) + bias)[..., nodes]
        else:
            nodes, signs = jnp.asarray(nodes)[labels], jnp.asarray(signs)[labels]
            decisions = widened(jnp.einsum("bf,bdf->bd", x, kernel.T[nodes])) + bias[nodes]
        return jnp.where(signs == 0, 0, jax.nn.log_sigmoid(signs * decisions)).sum(-1)
