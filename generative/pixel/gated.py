"""The gated PixelCNN: a stack for the rows above, a stack for the row, and no blind spot.

    gate(t) = tanh(t_1) * sigmoid(t_2)
    a_l = conv(v_l-1) + V_l y                 v_l = gate(a_l)                          rows above, whole
    b_l = conv_left(h_l-1) + link(a_l) + U_l y    h_l = h_l-1 + out(gate(b_l))         the row, and what is above

van den Oord et al., "Conditional image generation with PixelCNN decoders" (2016), figure 2. The first layer has a larger
window, sees neither the row in v nor the pixel in h, and has no residual. Two convolutions of 1x1 end it, as in the PixelCNN
before it.

Shapes: `B` batch, `N` images, `H W` an image, `F` features, `L` layers after the first, `G` groups of channels.
"""

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, Key, PyTree
from jaxdl.generative.pixel import causal, outputs
from jaxdl.generative.pixel.autoregressive import Config, Draw, Network, Steps


def _gate(t: Array, groups: int = 1) -> Array:
    """[..., 2 F] -> [..., F], each group by itself."""
    t = t.reshape(*t.shape[:-1], groups, 2, -1)
    gated = jnp.tanh(t[..., 0, :]) * jax.nn.sigmoid(t[..., 1, :])
    return gated.reshape(*gated.shape[:-2], -1)


class _Layer(linen.Module):
    features: int
    window: int
    groups: int
    first: bool = False

    RECOMPUTED = True

    @linen.compact
    def __call__(self, streams: tuple[Array, Array], y: Array | None) -> tuple[tuple[Array, Array], None]:
        v, h = streams
        reach, wide = self.window // 2, 2 * self.features
        kind = "A" if self.first else "B"
        rows, below = (reach, -1) if self.first else (reach + 1, 0)
        a = nn.Conv(wide, (rows, self.window), padding=((reach, below), (reach, reach)), kernel_init=nn.lecun_uniform,
                    name="rows")(v)
        mask = tuple(line[: reach + 1] for line in nn.causal_mask((1, self.window), kind, self.groups))
        b = nn.Conv(wide, (1, reach + 1), padding=((0, 0), (reach, 0)), mask=mask, use_bias=False,
                    kernel_init=nn.lecun_uniform, name="row")(h)
        if y is not None:
            of_class = linen.Dense(2 * wide, use_bias=False, kernel_init=nn.lecun_uniform, name="class")(y)[:, None, None]
            a, b = a + of_class[..., :wide], b + of_class[..., wide:]
        b = b + nn.Conv(wide, (1, 1), kernel_init=nn.lecun_uniform, name="link")(a)
        mask = nn.causal_mask((1, 1), "B", self.groups)
        out = nn.Conv(self.features, (1, 1), mask=mask, kernel_init=nn.lecun_uniform, name="out")(_gate(b, self.groups))
        return (_gate(a), out if self.first else h + out), None


class _Whole(linen.Module):
    features: int
    num_blocks: int
    first_window: int
    head_features: int
    groups: int
    outputs: int
    window: int = 3

    @linen.compact
    def __call__(self, x: Array, y: Array | None) -> Array:
        streams, _ = _Layer(self.features, self.first_window, self.groups, first=True, name="first")((x, x), y)
        layers = linen.scan(_Layer, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=linen.broadcast,
                            length=self.num_blocks)
        (_, h), _ = layers(self.features, self.window, self.groups, name="layers")(streams, y)
        return causal.Head(self.head_features, self.groups, self.outputs, name="head")(h)


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape."""
    groups, features, (_, width, channels) = output.groups, config.features, spec.shape
    whole = _Whole(features, config.num_blocks, config.window, config.head_features, groups, output.outputs)
    classes = jnp.zeros((1, spec.num_classes)) if config.conditional else None

    def init(key: Key) -> PyTree:
        return nn.init(whole, key, jnp.zeros((1, *spec.shape)), classes)["params"]

    def apply(params: PyTree, x: Array, y: Array | None, key: Key | None = None) -> Array:
        del key
        return whole.apply({"params": params}, x, y)

    def steps(params: PyTree, y: Array | None, n: int) -> Steps:
        first, layers = params["first"], params["layers"]
        reach, far = layers["row"]["kernel"].shape[2] - 1, first["row"]["kernel"].shape[1] - 1
        weights = [(_pixel_weights(first, g, groups, "A"),
                    jax.vmap(lambda layer, g=g: _pixel_weights(layer, g, groups, "B"))(layers)) for g in range(groups)]

        def of_rows(layer: PyTree, v: Array) -> tuple[Array, Array]:
            """Rows of v [K, W, N, C] -> the next v, and what the row's h gets of it [W, N, 2 F]."""
            a, more = causal.rows_above(v, layer["rows"]["kernel"]) + layer["rows"]["bias"], 0
            if y is not None:
                of_a, more = jnp.split(y @ layer["class"]["kernel"], 2, -1)
                a = a + of_a
            return _gate(a), a @ layer["link"]["kernel"][0, 0] + layer["link"]["bias"] + more

        def row(above: PyTree, r: Array) -> tuple[PyTree, PyTree]:
            del r
            lines, old = above  # [far, W, N, C], [L, reach, W, N, F]
            v, of_first = of_rows(first, lines)

            def layer(v: Array, xs: tuple[PyTree, Array]) -> tuple[Array, tuple[Array, Array]]:
                layer, old = xs
                seen = jnp.concatenate([old, v[None]])
                v, rests = of_rows(layer, seen)
                return v, (rests, seen[1:])

            _, (rests, old) = jax.lax.scan(layer, v, (layers, old))
            return (lines, old), (of_first, rests.swapaxes(0, 1))

        def pixel(left: PyTree, before: PyTree, place: tuple[Array, Array], draw: Draw) -> tuple[PyTree, PyTree]:
            del place
            (pixels_left, h_left), (of_first, rests) = left, before
            now = seen_first = seen_h = seen_head = seen = None
            for g, (of_pixel, of_layer) in enumerate(weights):
                seen_x = pixels_left.swapaxes(0, 1).reshape(n, -1)
                h, seen_first = _pixel(of_pixel, of_first, seen_x if now is None else jnp.concatenate([seen_x, now], -1),
                                       seen_first, g, groups)

                def layer(h: Array, xs: tuple, g: int = g) -> tuple[Array, tuple]:
                    weights, rests, left, (seen_h, seen_gated) = xs
                    seen_h = causal.grown(seen_h, h)
                    out, seen_gated = _pixel(weights, rests, jnp.concatenate([left, seen_h], -1), seen_gated, g, groups)
                    if g + 1 == groups:
                        return h + out, jnp.concatenate([left, seen_h], -1)[:, features:]
                    return h + out, (seen_h, seen_gated)

                h, seen = jax.lax.scan(layer, h, (of_layer, rests, h_left, (None, None) if seen is None else seen))
                seen_h = causal.grown(seen_h, h)
                out, seen_head = causal.head_pixel(params["head"], seen_h, seen_head, g, groups)
                now = causal.grown(now, draw(g, out))
            return (jnp.concatenate([pixels_left[1:], now[None]]), seen), now

        def ended(above: PyTree, line: Array, r: Array) -> PyTree:
            del r
            lines, old = above
            return jnp.concatenate([lines[1:], line[None]]), old

        return Steps((jnp.zeros((far, width, n, channels)), jnp.zeros((config.num_blocks, reach, width, n, features))),
                     (jnp.zeros((far, n, channels)), jnp.zeros((config.num_blocks, n, reach * features))), row, pixel, ended)

    return Network(init, apply, steps)


def _pixel_weights(layer: PyTree, g: int, groups: int, kind: str) -> PyTree:
    """What group g of a pixel takes of a layer: kernels of the pixels to the left and the groups before, and of the output."""
    row = layer["row"]["kernel"][0]  # [reach + 1, C, 2 F]
    to_left = causal.columns(row[:-1].reshape(-1, row.shape[-1]), g, groups)
    return (jnp.concatenate([to_left, causal.centre(row[-1], g, groups, kind)]),
            causal.centre(layer["out"]["kernel"][0, 0], g, groups), causal.columns(layer["out"]["bias"], g, groups))


def _pixel(weights: PyTree, rests: Array, x: Array, seen: Array | None, g: int, groups: int) -> tuple[Array, Array]:
    """A layer's output for group g of a pixel [N, F / G], and its gated features so far."""
    row, out, bias = weights
    seen = causal.grown(seen, _gate(x @ row + causal.columns(rests, g, groups)))
    return seen @ out + bias, seen
