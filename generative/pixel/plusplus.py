"""PixelCNN++: two streams of gated residual blocks, down to smaller scales and up again with short cuts.

    e(x) = elu([x, -x])
    block(x, a): c = e(conv(e(x)) + link(e(a))),   (d, g) = conv(dropout(c)) + V y,   x + d * sigmoid(g)

Salimans et al., "PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and other modifications"
(2017), figure 2, and their code for what the figure leaves open. The vertical stream `u` sees the row and those above (windows
of 2x3), the horizontal stream `v` sees the pixels to the left and above (2x2); `a` comes by a short cut, and
for v also from u. Where sides cannot be halved as often as there are scales, images are padded at the bottom and right, and
outputs cropped.

How this differs from theirs: kernels are not divided by their norms, and are not initialized from a batch of data.

How images are drawn is in `plusplus_sampler`.

Shapes: `B` batch, `H W` an image, `F` features, `L` blocks of a scale.
"""

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, Key, PyTree
from jaxdl.generative.labels import Classes
from jaxdl.generative.pixel import outputs, plusplus_sampler
from jaxdl.generative.pixel.autoregressive import Config, Network
from jaxdl.generative.pixel.plusplus_sampler import concat_elu, gated

_SMALL = nn.Uniform(0.1**2, "in")  # of a block's second convolution: a block begins near the identity


class _Block(linen.Module):
    """Both streams, `(u, v)` each [B, H, W, F]; short cuts `(u, v)`, or None on the way down."""

    features: int
    dropout: float | Array | None
    dtype: str

    @linen.compact
    def __call__(self, streams: tuple[Array, Array], cuts: tuple[Array, Array] | None, y: Array | None
                 ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        u, v = streams
        u_cut, v_cut = (None, None) if cuts is None else cuts
        u = self._half("u", u, [("cut", u_cut)], 3, y)
        v = self._half("v", v, [("link", u), ("cut", v_cut)], 2, y)
        return (u, v), (u, v)

    def _half(self, stream: str, x: Array, more: list[tuple[str, Array | None]], wide: int, y: Array | None) -> Array:
        def conv(name: str, features: int, init: nn.Uniform) -> nn.Conv:
            return nn.Conv(features, (2, wide), padding=((1, 0), (1, wide - 2)), kernel_init=init, dtype=self.dtype,
                           name=f"{stream}_{name}")

        c = conv("in", self.features, nn.lecun_uniform)(concat_elu(x))
        for name, a in more:
            if a is not None:
                c += nn.Conv(self.features, (1, 1), use_bias=False, kernel_init=nn.lecun_uniform,
                             dtype=self.dtype, name=f"{stream}_{name}")(concat_elu(a))
        c = concat_elu(c)
        c = nn.dropout_in(self, c, self.dropout)
        c = conv("out", 2 * self.features, _SMALL)(c)
        if y is not None:
            c += nn.Dense(2 * self.features, use_bias=False, dtype=self.dtype, name=f"{stream}_class")(y)[:, None, None]
        return gated(x, c)


class _PlusPlus(linen.Module):
    features: int
    num_blocks: int
    num_scales: int
    dropout: float | Array | None
    outputs: int
    compute: nn.Compute = nn.FLOAT32

    @linen.compact
    def __call__(self, x: Array, y: Array | None) -> Array:
        how = {"kernel_init": nn.lecun_uniform, "dtype": self.compute.dtype}

        def conv(name: str, window: tuple[int, int], padding: tuple, stride: int = 1) -> nn.Conv:
            return nn.Conv(self.features, window, (stride, stride), padding, name=name, **how)

        height, width = x.shape[1:3]
        x = _padded(x, self.num_scales)
        u = conv("u_first", (2, 3), ((2, -1), (1, 1)))(x)
        v = conv("v_above", (1, 3), ((1, -1), (1, 1)))(x) + conv("v_left", (2, 1), ((1, 0), (1, -1)))(x)
        streams, cuts = (u, v), []
        for s in range(self.num_scales):
            start = streams
            streams, after = self._blocks(f"down_{s}", self.num_blocks)(streams, None, y)
            cuts.append(jax.tree.map(lambda x, more: jnp.concatenate([x[None], more]), start, after))
            if s + 1 < self.num_scales:
                u, v = streams
                streams = (conv(f"u_halve_{s}", (2, 3), ((1, 0), (1, 1)), 2)(u),
                           conv(f"v_halve_{s}", (2, 2), ((1, 0), (1, 0)), 2)(v))
        cuts[-1] = jax.tree.map(lambda x: x[:-1], cuts[-1])  # the last is what the way up begins with
        for s in reversed(range(self.num_scales)):
            if s + 1 < self.num_scales:
                streams = tuple(nn.ConvTranspose(self.features, (2, w), (2, 2), ((1, 1), (1, w - 1)),
                                                 name=f"{name}_double_{s}", **how)(z)
                                for name, w, z in zip("uv", (3, 2), streams, strict=True))
            streams, _ = self._blocks(f"up_{s}", self.num_blocks + (s + 1 < self.num_scales))(
                streams, jax.tree.map(lambda x: x[::-1], cuts[s]), y)
        out = nn.Conv(self.outputs, (1, 1), kernel_init=nn.lecun_uniform, name="out")(jax.nn.elu(streams[1]))
        return out[:, :height, :width, None]

    def _blocks(self, name: str, length: int) -> linen.Module:
        blocks = linen.scan(self.compute.block(_Block), variable_axes={"params": 0},
                            split_rngs={"params": True, "dropout": True}, in_axes=(0, linen.broadcast), length=length)
        return blocks(self.features, self.dropout, self.compute.dtype, name=name)


def _padded(x: Array, num_scales: int) -> Array:
    """Pad to sides that can be halved, and add a channel that is 1 within the image: [B, H, W, C] -> [B, H', W', C + 1]."""
    fill = [(0, -side % 2 ** (num_scales - 1)) for side in x.shape[1:3]]
    x = jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), x.dtype)], -1)
    return jnp.pad(x, ((0, 0), *fill, (0, 0)))


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape. It does not order channels, so the output distribution has to."""
    module = _PlusPlus(config.width, config.num_blocks, config.num_scales, config.dropout, output.outputs)
    y = Classes.of(config.conditional, spec).example()

    def init(key: Key) -> PyTree:
        return nn.init(module, key, jnp.zeros((1, *spec.shape)), y, initial=config.init)["params"]

    def apply(params: PyTree, x: Array, y: Array | None, key: Key | None = None, compute: nn.Compute = nn.FLOAT32
              ) -> Array:
        return module.clone(compute=compute).apply({"params": params}, x, y,
                                                   rngs=None if key is None else {"dropout": key})

    return Network(init, apply, lambda params, y, n: plusplus_sampler.steps(params, y, n, config.num_scales, spec.shape))
