"""The plain PixelCNN: in the middle of each block a masked convolution (van den Oord et al. 2016, figure 5, right).

    out = relu(conv_B(relu(down(relu(h)))))

Its windows, one upon the other, leave a blind spot: what lies above and further to the right is never seen (van den Oord et
al., "Conditional image generation with PixelCNN decoders", 2016, figure 1).

Shapes: as in `residual`.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, PyTree
from jaxdl.generative.pixel import causal, outputs, residual
from jaxdl.generative.pixel.autoregressive import Config, Network


class _Middle(linen.Module):
    features: int
    groups: int
    window: int = 3

    @linen.compact
    def __call__(self, h: Array, y: Array | None) -> Array:
        ones, window = (1, 1), (self.window, self.window)
        m = nn.Conv(self.features, ones, mask=nn.causal_mask(ones, "B", self.groups), kernel_init=nn.lecun_uniform,
                    name="down")(jax.nn.relu(h))
        m = nn.Conv(self.features, window, mask=nn.causal_mask(window, "B", self.groups), kernel_init=nn.lecun_uniform,
                    name="mid")(jax.nn.relu(m))
        if y is not None:
            m += linen.Dense(self.features, use_bias=False, kernel_init=nn.lecun_uniform, name="class")(y)[:, None, None]
        return jax.nn.relu(m)


def _steps(params: PyTree, y: Array | None, n: int, *, groups: int, width: int) -> residual.Middle:
    down, mid = params["down"]["kernel"][:, 0, 0], params["mid"]["kernel"]
    layers, reach, features = len(mid), mid.shape[1] // 2, mid.shape[-1]
    offset = params["mid"]["bias"][:, None]
    if y is not None:
        offset = offset + jnp.einsum("ny,lyo->lno", y, params["class"]["kernel"])

    def row(above: Array, r: Array) -> tuple[Array, Array]:
        del r
        return above, sum(causal.row_above(line, mid[:, k]) for k, line in enumerate(above)) + offset

    def weights(g: int) -> PyTree:
        to_left = causal.columns(mid[:, reach, :reach].reshape(layers, reach * features, -1), g, groups)
        to_both = jnp.concatenate([to_left, causal.centre(mid[:, reach, reach], g, groups)], 1)
        return causal.centre(down, g, groups), causal.columns(params["down"]["bias"], g, groups), to_both

    def pixel(weights: PyTree, rests: Array, left: Array, h: Array, seen: Array | None, g: int) -> tuple[Array, Array]:
        down, bias, to_both = weights
        m = causal.grown(seen, jax.nn.relu(jax.nn.relu(h) @ down + bias))
        t = jnp.concatenate([left, m], -1) @ to_both + causal.columns(rests, g, groups)
        return jax.nn.relu(t), m

    def left_of(m: Array, left: Array) -> Array:
        return jnp.concatenate([left[:, features:], m], -1)

    return residual.Middle(
        above=jnp.zeros((reach, width, layers, n, features)), left=jnp.zeros((layers, n, reach * features)), row=row,
        weights=weights, pixel=pixel, left_of=left_of, kept_of=lambda m: m,
        ended=lambda above, kept: jnp.concatenate([above[1:], kept[None]]))


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape."""
    return residual.make(config, spec, output, partial(_Middle, config.features, output.groups),
                         partial(_steps, groups=output.groups, width=spec.shape[1]))
