"""PixelCNN++: two streams of gated residual blocks, down to smaller scales and up again with short cuts.

    e(x) = elu([x, -x])
    block(x, a): c = e(conv(e(x)) + link(e(a))),   (d, g) = conv(dropout(c)) + V y,   x + d * sigmoid(g)

Salimans et al., "PixelCNN++: improving the PixelCNN with discretized logistic mixture likelihood and other modifications"
(2017), figure 2, and their code for what the figure leaves open. Stream `u` is of the rows above (windows of 2x3, the row and
the one before), stream `v` of the row to the left and above (2x2); `a` is what a short cut brings, for v also u. Where sides
cannot be halved as often as there are scales, images are filled up at the bottom and right, and outputs cropped.

How this differs from theirs: kernels are not divided by their norms, and do not begin from a pass over data.

By pixels: a pixel of a smaller scale is computed with that of its four (two by two) which comes first, in a branch of the
program; the others take what is kept.

Shapes: `B` batch, `N` images, `H W` an image, `F` features, `L` blocks of a scale.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, DataSpec, Key, PyTree
from jaxdl.generative.pixel import causal, outputs
from jaxdl.generative.pixel.autoregressive import Config, Draw, Network, Steps

_SMALL = nn.Uniform(0.1**2, "in")  # of a block's second convolution: it begins as almost nothing


def _e(x: Array) -> Array:
    bent = jnp.exp(jnp.where(x > 0, -x, x)) - 1  # one exponential for both: of x and -x one is below 0
    return jnp.concatenate([jnp.where(x > 0, x, bent), jnp.where(x > 0, bent, -x)], -1)


class _Block(linen.Module):
    """Both streams, `(u, v)` each [B, H, W, F]; short cuts `(u, v)`, or None on the way down."""

    features: int
    dropout: float | Array | None

    RECOMPUTED = True

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
            return nn.Conv(features, (2, wide), padding=((1, 0), (1, wide - 2)), kernel_init=init, name=f"{stream}_{name}")

        c = conv("in", self.features, nn.lecun_uniform)(_e(x))
        for name, a in more:
            if a is not None:
                c += nn.Conv(self.features, (1, 1), use_bias=False, kernel_init=nn.lecun_uniform,
                             name=f"{stream}_{name}")(_e(a))
        c = _e(c)
        if self.dropout is not None and self.has_rng("dropout"):
            kept = jax.random.uniform(self.make_rng("dropout"), c.shape) >= self.dropout
            c = jnp.where(kept, c / (1 - self.dropout), 0)
        c = conv("out", 2 * self.features, _SMALL)(c)
        if y is not None:
            c += linen.Dense(2 * self.features, use_bias=False, kernel_init=nn.lecun_uniform,
                             name=f"{stream}_class")(y)[:, None, None]
        d, g = jnp.split(c, 2, -1)
        return x + d * jax.nn.sigmoid(g)


class _Whole(linen.Module):
    features: int
    num_blocks: int
    num_scales: int
    dropout: float | Array | None
    outputs: int

    @linen.compact
    def __call__(self, x: Array, y: Array | None) -> Array:
        def conv(name: str, window: tuple[int, int], padding: tuple, stride: int = 1) -> nn.Conv:
            return nn.Conv(self.features, window, (stride, stride), padding, kernel_init=nn.lecun_uniform, name=name)

        height, width = x.shape[1:3]
        x = _filled(x, self.num_scales)
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
                                                 kernel_init=nn.lecun_uniform, name=f"{name}_double_{s}")(z)
                                for name, w, z in zip("uv", (3, 2), streams, strict=True))
            streams, _ = self._blocks(f"up_{s}", self.num_blocks + (s + 1 < self.num_scales))(
                streams, jax.tree.map(lambda x: x[::-1], cuts[s]), y)
        out = nn.Conv(self.outputs, (1, 1), kernel_init=nn.lecun_uniform, name="out")(jax.nn.elu(streams[1]))
        return out[:, :height, :width, None]

    def _blocks(self, name: str, length: int) -> linen.Module:
        blocks = linen.scan(_Block, variable_axes={"params": 0}, split_rngs={"params": True, "dropout": True},
                            in_axes=(0, linen.broadcast), length=length)
        return blocks(self.features, self.dropout, name=name)


def _filled(x: Array, num_scales: int) -> Array:
    """[B, H, W, C] -> [B, H', W', C + 1]: sides that can be halved, and a channel that is 1 within the image."""
    fill = [(0, -side % 2 ** (num_scales - 1)) for side in x.shape[1:3]]
    x = jnp.concatenate([x, jnp.ones((*x.shape[:-1], 1), x.dtype)], -1)
    return jnp.pad(x, ((0, 0), *fill, (0, 0)))


def make(config: Config, spec: DataSpec, output: outputs.Output) -> Network:
    """The network for images of a shape. It orders no channels: the output has to."""
    whole = _Whole(config.features, config.num_blocks, config.num_scales, config.dropout, output.outputs)
    classes = jnp.zeros((1, spec.num_classes)) if config.conditional else None

    def init(key: Key) -> PyTree:
        return nn.init(whole, key, jnp.zeros((1, *spec.shape)), classes)["params"]

    def apply(params: PyTree, x: Array, y: Array | None, key: Key | None = None) -> Array:
        return whole.apply({"params": params}, x, y, rngs=None if key is None else {"dropout": key})

    return Network(init, apply, lambda params, y, n: _steps(params, y, n, config.num_scales, spec.shape))


class _Old(NamedTuple):
    """What L blocks keep of one row of both streams: inputs of their two convolutions, [L, W, N, 2 F] (v: [W, L, N, 2 F])."""

    u_in: Array
    u_out: Array
    v_in: Array
    v_out: Array


class _Scale(NamedTuple):
    """What a scale keeps of its rows so far."""

    down: _Old
    up: _Old
    u: Array | None  # [W, N, F] the last row at the end of the way down; None at the smallest scale
    v: Array | None
    u_low: Array | None  # [W / 2, N, F] the last row of the next smaller scale at its end
    v_low: Array | None


def _steps(params: PyTree, y: Array | None, n: int, scales: int, shape: tuple[int, int, int]) -> Steps:
    features = params["out"]["kernel"].shape[-2]
    width = shape[1] + -shape[1] % 2 ** (scales - 1)

    def zeros(*lead: int, size: int) -> Array:
        return jnp.zeros((*lead, n, size))

    def old(where: str, s: int) -> _Old:
        layers, w = len(params[where]["u_in"]["bias"]), width // 2**s
        of_u, of_v = zeros(layers, w, size=2 * features), zeros(w, layers, size=2 * features)
        return _Old(of_u, of_u, of_v, of_v)

    def above() -> PyTree:
        made = []
        for s in range(scales):
            w = width // 2**s
            rows = [zeros(w, size=features)] * 2 + [zeros(w // 2, size=features)] * 2 if s + 1 < scales else [None] * 4
            made.append(_Scale(old(f"down_{s}", s), old(f"up_{s}", s), *rows))
        return zeros(2, width, size=shape[2] + 1), made

    # Rows: all of u, and what v gets of u and of its own row above.

    def u_blocks(where: str, u: Array, old: _Old, cuts: Array | None) -> tuple[Array, Array, _Old, Array]:
        """[W, N, F] through the blocks: it, each block's output, what is kept, and what v's first convolutions get of it."""
        p = params[where]

        def block(u: Array, xs: tuple) -> tuple[Array, tuple]:
            p, old_in, old_out, cut = xs
            now_in = _e(u)
            c = causal.rows_above(jnp.stack([old_in, now_in]), p["u_in"]["kernel"]) + p["u_in"]["bias"]
            if cut is not None:
                c += _e(cut) @ p["u_cut"]["kernel"][0, 0]
            now_out = _e(c)
            c = causal.rows_above(jnp.stack([old_out, now_out]), p["u_out"]["kernel"]) + p["u_out"]["bias"]
            u = _gated(u, c, p["u_class"]["kernel"] if y is not None else None)
            return u, (u, now_in, now_out, _e(u) @ p["v_link"]["kernel"][0, 0])

        u, (after, now_in, now_out, link) = jax.lax.scan(block, u, (p, old.u_in, old.u_out, cuts))
        return u, after, old._replace(u_in=now_in, u_out=now_out), link

    def v_rests(where: str, old: _Old, link: Array) -> tuple[Array, Array]:
        """What v's two convolutions of each block get of all but the row itself, [W, L, N, F] and [W, L, N, 2 F]."""
        p = params[where]
        first = _two_above(old.v_in, p["v_in"]["kernel"]) + p["v_in"]["bias"][:, None] + link.swapaxes(0, 1)
        second = _two_above(old.v_out, p["v_out"]["kernel"]) + p["v_out"]["bias"][:, None]
        if y is not None:
            second += jnp.einsum("ny,lyo->lno", y, p["v_class"]["kernel"])
        return first, second

    def _gated(x: Array, c: Array, of_class: Array | None) -> Array:
        if of_class is not None:
            c += y @ of_class
        d, g = jnp.split(c, 2, -1)
        return x + d * jax.nn.sigmoid(g)

    def rows(s: int, u: Array, state: list[_Scale], r: Array) -> tuple[Array, list[_Scale], PyTree]:
        """Row r of a scale and of the smaller ones: u at the end, what is kept, what v rests on."""
        here, *smaller = state
        start = u
        u, after, down, link = u_blocks(f"down_{s}", u, here.down, None)
        rests = {"down": v_rests(f"down_{s}", here.down, link)}
        cuts = jnp.concatenate([start[None], after])
        if s + 1 < scales:
            kernel, bias = (params[f"u_halve_{s}"][name] for name in ("kernel", "bias"))
            both = jnp.stack([here.u, u])

            def go_down(args: tuple) -> tuple:
                both, smaller = args
                return rows(s + 1, causal.rows_above(both, kernel)[::2] + bias, smaller, r // 2)

            _, _, like = jax.eval_shape(go_down, (both, smaller))
            empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)  # v does not look at it in such a row
            u_low, smaller, below = jax.lax.cond(
                r % 2 == 0, go_down, lambda args: (here.u_low, args[1], empty), (both, smaller))
            halve = params[f"v_halve_{s}"]
            rests["halve"] = _two_above(here.v[:, None], halve["kernel"][None])[:, 0] + halve["bias"]
            rests["below"] = jax.tree.map(lambda x: x.repeat(2, 0), below)
            rests["v_low"] = here.v_low.repeat(2, 0)
            here = here._replace(u=u, u_low=u_low)
            u = _doubled(u_low, params[f"u_double_{s}"], r)
        else:
            cuts = cuts[:-1]
        u, _, up, link = u_blocks(f"up_{s}", u, here.up, cuts[::-1])
        rests["up"] = v_rests(f"up_{s}", here.up, link)
        return u, [here._replace(down=down, up=up), *smaller], rests

    def row(above: PyTree, r: Array) -> tuple[PyTree, PyTree]:
        lines, state = above
        u = causal.rows_above(lines, params["u_first"]["kernel"]) + params["u_first"]["bias"]
        first = causal.rows_above(lines[1:], params["v_above"]["kernel"]) + params["v_above"]["bias"]
        before = jnp.pad(lines[1], ((1, 0), (0, 0), (0, 0)))[:-1]  # above and to the left
        first += before @ params["v_left"]["kernel"][0, 0] + params["v_left"]["bias"]
        _, state, rests = rows(0, u, state, r)
        return (lines, state), jax.tree.map(lambda x: x[: shape[1]], (first, rests))

    # Pixels: v.

    pixel_weights = {where: _pixel_weights(params[where]) for s in range(scales) for where in (f"down_{s}", f"up_{s}")}

    def v_blocks(where: str, v: Array, rests: tuple[Array, Array], left: tuple[Array, Array], cuts: Array | None
                 ) -> tuple[Array, Array, tuple[Array, Array]]:
        def block(v: Array, xs: tuple) -> tuple[Array, tuple]:
            (w_in, w_out, w_cut), (first, second), (left_in, left_out), cut = xs
            now_in = _e(v)
            c = jnp.concatenate([left_in, now_in], -1) @ w_in + first
            if cut is not None:
                c += _e(cut) @ w_cut
            now_out = _e(c)
            v = _gated(v, jnp.concatenate([left_out, now_out], -1) @ w_out + second, None)
            return v, (v, (now_in, now_out))

        v, (after, now) = jax.lax.scan(block, v, (pixel_weights[where], rests, left, cuts))
        return v, after, now

    def pixel_at(s: int, v: Array, left: PyTree, rests: PyTree, place: tuple[Array, Array]) -> tuple[Array, PyTree]:
        """The pixel of a scale and of the smaller ones: v at the end; what is left of the next one, and is kept."""
        r, c = place
        start = v
        v, after, down = v_blocks(f"down_{s}", v, rests["down"], left["down"], None)
        cuts = jnp.concatenate([start[None], after])
        now = {"down": down}
        if s + 1 < scales:
            halve, double = params[f"v_halve_{s}"]["kernel"][1], params[f"v_double_{s}"]

            def go_down(args: tuple) -> tuple[Array, PyTree]:
                v, left, rests = args
                v = rests["halve"] + left["v"] @ halve[0] + v @ halve[1]
                return pixel_at(s + 1, v, left["below"], rests["below"], (r // 2, c // 2))

            v_low, below = jax.lax.cond(
                (r % 2 == 0) & (c % 2 == 0), go_down,
                lambda args: (jnp.where(r % 2 == 0, args[1]["v_low"], args[2]["v_low"]), args[1]["below"]), (v, left, rests))
            now |= {"v": v, "v_low": v_low, "below": below}
            v = v_low @ double["kernel"][1 - r % 2, 1 - c % 2] + double["bias"]
        else:
            cuts = cuts[:-1]
        v, _, now["up"] = v_blocks(f"up_{s}", v, rests["up"], left["up"], cuts[::-1])
        return v, now

    def pixel(left: PyTree, before: PyTree, place: tuple[Array, Array], draw: Draw) -> tuple[PyTree, PyTree]:
        (x, left), (first, rests) = left, before
        v, now = pixel_at(0, first + x @ params["v_left"]["kernel"][1, 0], left, rests, place)
        out = jax.nn.elu(v) @ params["out"]["kernel"][0, 0] + params["out"]["bias"]
        x = draw(0, out)
        x = jnp.concatenate([x, jnp.ones((n, 1))], -1)
        return (x, now), (x, now)

    def kept_in(s: int, state: list[_Scale], kept: PyTree, r: Array) -> list[_Scale]:
        """The row's v, filled up where images are."""
        here, *smaller = state

        def wide(x: Array) -> Array:
            return jnp.pad(x, ((0, width // 2**s - len(x)), *[(0, 0)] * (x.ndim - 1)))

        def of_blocks(old: _Old, new: tuple[Array, Array]) -> _Old:
            return old._replace(v_in=wide(new[0]), v_out=wide(new[1]))

        here = here._replace(down=of_blocks(here.down, kept["down"]), up=of_blocks(here.up, kept["up"]))
        if s + 1 < scales:
            v_low = jnp.pad(kept["v_low"][::2], ((0, width // 2 ** (s + 1) - -(-len(kept["v_low"]) // 2)), (0, 0), (0, 0)))
            here = here._replace(v=wide(kept["v"]), v_low=jnp.where(r % 2 == 0, v_low, here.v_low))
            below = jax.tree.map(lambda x: x[::2], kept["below"])
            smaller = jax.lax.cond(r % 2 == 0, lambda: kept_in(s + 1, smaller, below, r // 2), lambda: smaller)
        return [here, *smaller]

    def ended(above: PyTree, kept: PyTree, r: Array) -> PyTree:
        (lines, state), (line, now) = above, kept
        line = jnp.pad(line, ((0, width - len(line)), (0, 0), (0, 0)))
        return jnp.stack([lines[1], line]), kept_in(0, state, now, r)

    def left(s: int) -> PyTree:
        made = {name: (zeros(len(params[f"{name}_{s}"]["u_in"]["bias"]), size=2 * features),) * 2 for name in ("down", "up")}
        if s + 1 < scales:
            made |= {"v": zeros(size=features), "v_low": zeros(size=features), "below": left(s + 1)}
        return made

    return Steps(above(), (zeros(size=shape[2] + 1), left(0)), row, pixel, ended)


def _pixel_weights(p: PyTree) -> tuple[Array, Array, Array | None]:
    """What a pixel's v takes of L blocks: kernels of its row, the pixel to the left and itself, and of the short cut."""
    w_in, w_out = (p[name]["kernel"][:, 1] for name in ("v_in", "v_out"))  # [L, 2, 2 F, O]
    w_in, w_out = (w.reshape(len(w), -1, w.shape[-1]) for w in (w_in, w_out))
    return w_in, w_out, p["v_cut"]["kernel"][:, 0, 0] if "v_cut" in p else None


def _two_above(x: Array, kernel: Array) -> Array:
    """What kernels of 2x2 make of the row above: [W, L, N, C], [L, 2, 2, C, O] -> [W, L, N, O]."""
    before = jnp.pad(x, ((1, 0), (0, 0), (0, 0), (0, 0)))[:-1]
    kernel = kernel[:, 0].reshape(len(kernel), -1, kernel.shape[-1])
    return jnp.einsum("wlnc,lco->wlno", jnp.concatenate([before, x], -1), kernel)


def _doubled(x: Array, layer: PyTree, r: Array) -> Array:
    """Row r of the transposed convolution of 2x3: [W / 2, N, C] -> [W, N, O]."""
    kernel = layer["kernel"][1 - r % 2]  # [3, C, O]
    after = jnp.pad(x, ((0, 1), (0, 0), (0, 0)))[1:]
    y = jnp.stack([x @ kernel[1], x @ kernel[0] + after @ kernel[2]], 1)
    return y.reshape(-1, *y.shape[2:]) + layer["bias"]
