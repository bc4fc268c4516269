"""Noisy layers: weights with learned noise, which explores in place of random actions.

Fortunato et al., "Noisy networks for exploration" (2018), with factorised noise (eqs. 10 and 11):

    y = W x + b + (S * f(e_out) f(e_in)^T) x + s * f(e_out),    f(e) = sign(e) sqrt(|e|),    e ~ N(0, 1)

W and b begin as usual (U(-1/sqrt(p), 1/sqrt(p)) with p inputs, b = 0 where the paper draws it too), S and s at sigma / sqrt(p).

Noise is no parameter and no hidden draw: it is a collection of variables beside the parameters, made by `noise` from one
key for all layers, and a network that is applied without it uses the means.

Shapes: `B` batch, `p` inputs, `q` outputs.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array, Key, PyTree
from jaxdl.nn.dense import Dense
from jaxdl.nn.initializers import Uniform

_MEAN_INIT = Uniform(1 / 3, "in")  # U(-1/sqrt(p), 1/sqrt(p))


class NoisyDense(linen.Module):
    """A dense layer with factorised noise, [B, p] -> [B, q], that multiplies in `dtype` and gives float32 (`precision`).

    The collection `noise` holds its `in` [p] and `out` [q], or [B, p] and [B, q] for noise of each example's own.
    """

    features: int
    sigma: float | Array = 0.5
    dtype: Any = jnp.float32

    @linen.compact
    def __call__(self, x: Array) -> Array:
        x, p = x.astype(self.dtype), x.shape[-1]
        y = Dense(self.features, dtype=self.dtype, kernel_init=_MEAN_INIT, name="mean")(x)

        def scale(key: Key, shape: tuple[int, ...]) -> Array:
            del key
            return jnp.full(shape, self.sigma / math.sqrt(p), jnp.float32)

        kernel, bias = self.param("kernel_scale", scale, (p, self.features)), self.param("bias_scale", scale, (self.features,))
        if not self.has_variable("noise", "in"):
            return y
        e_in, e_out = self.get_variable("noise", "in"), self.get_variable("noise", "out")
        kernel, bias, e_in, e_out = (v.astype(self.dtype) for v in (kernel, bias, e_in, e_out))
        return y + ((x * e_in) @ kernel + bias) * e_out


def noise(variables: PyTree, key: Key, lead: tuple[int, ...] = ()) -> PyTree:
    """The collection `noise` for a network's variables: `f(e)` of every noisy layer, with leading axes `lead`.

    One draw for all layers: each hash is a loop of its own to compile. Empty where no layer is noisy.
    """
    sizes: list[tuple[tuple[str, ...], int, int]] = []

    def visit(tree: PyTree, path: tuple[str, ...]) -> None:
        if "kernel_scale" in tree:
            sizes.append((path, *tree["kernel_scale"].shape))
        else:
            for name, sub in tree.items():
                if isinstance(sub, dict):
                    visit(sub, (*path, name))

    visit(variables["params"], ())
    found: PyTree = {}
    if not sizes:
        return found
    e = jax.random.normal(key, (*lead, sum(p + q for _, p, q in sizes)))
    # without the barrier XLA draws the numbers again for every example that they are broadcast to
    e, begin = jax.lax.optimization_barrier(jnp.sign(e) * jnp.sqrt(jnp.abs(e))), 0
    for path, p, q in sizes:
        layer = found
        for name in path:
            layer = layer.setdefault(name, {})
        layer["in"], layer["out"] = e[..., begin : begin + p], e[..., begin + p : begin + p + q]
        begin += p + q
    return found
