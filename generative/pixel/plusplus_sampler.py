"""PixelCNN++ by rows and pixels: the network of `plusplus` in the order in which images are drawn.

The vertical stream u is computed a whole row at a time, together with the terms that the horizontal stream v gets of u and of
its own row above; v is computed a pixel at a time. Both go down the scales and up again by recursion. A pixel of the next scale
covers two by two pixels: it is computed with the first of them, in a branch of the program, and kept for the other three.

Shapes: `N` images, `W` width of a scale, `C` channels, `F` features, `L` blocks of a scale, one way.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, PyTree
from jaxdl.generative.pixel.autoregressive import Draw, Steps
from jaxdl.generative.pixel.layers import rows_above


class Pair(NamedTuple):
    """An array for each of the two convolutions of L blocks."""

    first: Array
    second: Array


class ScaleKept(NamedTuple):
    """The memory of a scale's last row: inputs of convolutions, on the way down and on the way up."""

    down_vertical: Pair  # [L, W, N, 2 F]
    down_horizontal: Pair  # [W, L, N, 2 F]
    up_vertical: Pair
    up_horizontal: Pair
    smaller: "SmallerKept | None"  # None at the smallest scale


class SmallerKept(NamedTuple):
    """The part of `ScaleKept` between a scale and the next smaller one."""

    vertical: Array  # [W, N, F] at the end of the way down
    horizontal: Array
    low_vertical: Array  # [W / 2, N, F] at the end of the smaller scale
    low_horizontal: Array
    scale: ScaleKept


class ScaleRow(NamedTuple):
    """Terms that the horizontal stream gets of all but its own row."""

    down: Pair  # [W, L, N, F] and [W, L, N, 2 F]
    up: Pair
    smaller: "SmallerRow | None"


class SmallerRow(NamedTuple):
    """The part of `ScaleRow` between a scale and the next smaller one. In odd rows `scale` is zeros that no pixel reads."""

    halve: Array  # [W, N, F]
    low_horizontal: Array  # [W, N, F] at the end of the smaller scale, of its last row
    scale: ScaleRow  # each pixel twice [W, ...]


class ScalePixel(NamedTuple):
    """What a pixel keeps for the one to its right and for the row below: inputs of the horizontal stream's convolutions."""

    down: Pair  # [L, N, 2 F]
    up: Pair
    smaller: "SmallerPixel | None"


class SmallerPixel(NamedTuple):
    """The part of `ScalePixel` between a scale and the next smaller one."""

    horizontal: Array  # [N, F] at the end of the way down
    low_horizontal: Array  # [N, F] at the end of the smaller scale
    scale: ScalePixel


class PixelWeights(NamedTuple):
    """Kernels that a pixel needs of L blocks: of the pixel to the left and of itself, and of the short cut."""

    first: Array  # [L, 4 F, F]
    second: Array  # [L, 4 F, 2 F]
    cut: Array | None  # [L, 2 F, F]


class Net(NamedTuple):
    """The network's parameters, and classes `y` [N, Y] or None."""

    params: PyTree
    pixel: dict[str, PixelWeights]
    y: Array | None
    num_scales: int


class Kept(NamedTuple):
    """The memory of the rows above."""

    lines: tuple[Array, Array]  # of the image, filled up [W, N, C + 1], the upper one first
    scale: ScaleKept


def steps(params: PyTree, y: Array | None, n: int, num_scales: int, shape: tuple[int, int, int]) -> Steps:
    """The network for N images [H, W, C], a row and a pixel at a time."""
    blocks = {name: _pixel_weights(p) for name, p in params.items() if name.startswith(("down_", "up_"))}
    net = Net(params, blocks, y, num_scales)
    columns, channels = shape[1:]
    width = columns + -columns % 2 ** (num_scales - 1)
    line = jnp.zeros((width, n, channels + 1))

    def row(kept: Kept, r: Array) -> tuple[Kept, tuple[Array, ScaleRow]]:
        vertical = rows_above(kept.lines, params["u_first"]["kernel"]) + params["u_first"]["bias"]
        first = rows_above(kept.lines[1:], params["v_above"]["kernel"]) + params["v_above"]["bias"]
        first += _shifted(kept.lines[1]) @ params["v_left"]["kernel"][0, 0] + params["v_left"]["bias"]
        _, scale, terms = _row(net, 0, vertical, kept.scale, r)
        return kept._replace(scale=scale), jax.tree.map(lambda x: x[:columns], (first, terms))

    def pixel(left: tuple[Array, ScalePixel], terms: tuple[Array, ScaleRow], place: tuple[Array, Array], draw: Draw
              ) -> tuple[PyTree, PyTree]:
        (x, scale), (first, of_scale) = left, terms
        horizontal, now = _pixel(net, 0, first + x @ params["v_left"]["kernel"][1, 0], scale, of_scale, place)
        x = draw(0, jax.nn.elu(horizontal) @ params["out"]["kernel"][0, 0] + params["out"]["bias"])
        now = jnp.concatenate([x, jnp.ones((n, 1))], -1), now
        return now, now

    def end_row(kept: Kept, pixels: tuple[Array, ScalePixel], r: Array) -> Kept:
        x, scale = pixels
        return Kept((kept.lines[1], _wide(x, width)), _end_row(kept.scale, scale, r))

    left = jnp.zeros((n, channels + 1)), _before_pixels(net, 0, n)
    return Steps(Kept((line, line), _before_rows(net, 0, width, n)), left, row, pixel, end_row)


def _sizes(net: Net, scale: int) -> tuple[int, int, int]:
    """Blocks on the way down and on the way up, and features."""
    down, up = (len(net.params[f"{way}_{scale}"]["u_in"]["bias"]) for way in ("down", "up"))
    return down, up, net.params["out"]["kernel"].shape[-2]


def _before_rows(net: Net, scale: int, width: int, n: int) -> ScaleKept:
    """Zeros in place of a row above the first."""
    down, up, features = _sizes(net, scale)
    pairs = [Pair(*[jnp.zeros((*lead, n, 2 * features))] * 2)
             for blocks in (down, up) for lead in ((blocks, width), (width, blocks))]
    smaller = None
    if scale + 1 < net.num_scales:
        row, low = jnp.zeros((width, n, features)), jnp.zeros((width // 2, n, features))
        smaller = SmallerKept(row, row, low, low, _before_rows(net, scale + 1, width // 2, n))
    return ScaleKept(*pairs, smaller)


def _before_pixels(net: Net, scale: int, n: int) -> ScalePixel:
    """Zeros in place of a pixel to the left of the first."""
    *blocks, features = _sizes(net, scale)
    pairs = [Pair(*[jnp.zeros((length, n, 2 * features))] * 2) for length in blocks]
    zeros = jnp.zeros((n, features))
    smaller = SmallerPixel(zeros, zeros, _before_pixels(net, scale + 1, n)) if scale + 1 < net.num_scales else None
    return ScalePixel(*pairs, smaller)


# --- Rows: the vertical stream, and the terms that the horizontal stream gets of it and of its own row above.


def _row(net: Net, scale: int, vertical: Array, kept: ScaleKept, r: Array) -> tuple[Array, ScaleKept, ScaleRow]:
    """Compute row r of a scale and of the smaller ones: the vertical stream [W, N, F] at its end, its memory, terms."""
    start = vertical
    vertical, after, down_vertical, link = _vertical(net, f"down_{scale}", vertical, kept.down_vertical, None)
    down, cuts = _terms(net, f"down_{scale}", kept.down_horizontal, link), jnp.concatenate([start[None], after])
    smaller = smaller_row = None
    if kept.smaller is None:
        cuts = cuts[:-1]  # the last is what the way up begins with
    else:
        vertical, smaller, smaller_row = _smaller_row(net, scale, vertical, kept.smaller, r)
    vertical, _, up_vertical, link = _vertical(net, f"up_{scale}", vertical, kept.up_vertical, cuts[::-1])
    up = _terms(net, f"up_{scale}", kept.up_horizontal, link)
    kept = kept._replace(down_vertical=down_vertical, up_vertical=up_vertical, smaller=smaller)
    return vertical, kept, ScaleRow(down, up, smaller_row)


def _smaller_row(net: Net, scale: int, vertical: Array, kept: SmallerKept, r: Array) -> tuple[Array, SmallerKept, SmallerRow]:
    """Take row r at the end of a scale's way down through the smaller scales and back; only even rows are computed there."""
    halve, double = net.params[f"u_halve_{scale}"], net.params[f"u_double_{scale}"]
    lines = kept.vertical, vertical

    def go_down(lines: tuple[Array, Array], kept: ScaleKept) -> tuple[Array, ScaleKept, ScaleRow]:
        low = rows_above(lines, halve["kernel"])[::2] + halve["bias"]
        return _row(net, scale + 1, low, kept, r // 2)

    _, _, shapes = jax.eval_shape(go_down, lines, kept.scale)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)  # no pixel of an odd row reads it
    low, smaller, terms = jax.lax.cond(
        r % 2 == 0, go_down, lambda lines, smaller: (kept.low_vertical, smaller, nothing), lines, kept.scale)
    halve = net.params[f"v_halve_{scale}"]
    row = SmallerRow(_two_above(kept.horizontal, halve["kernel"]) + halve["bias"], kept.low_horizontal.repeat(2, 0),
                     jax.tree.map(lambda x: x.repeat(2, 0), terms))
    return _doubled(low, double, r), kept._replace(vertical=vertical, low_vertical=low, scale=smaller), row


def _vertical(net: Net, where: str, vertical: Array, kept: Pair, cuts: Array | None) -> tuple[Array, Array, Pair, Array]:
    """Take the vertical stream [W, N, F] through blocks: it, each block's output, memory, and each block's link to v."""

    def block(x: Array, of_block: tuple) -> tuple[Array, tuple]:
        p, kept, cut = of_block
        first = concat_elu(x)
        c = rows_above((kept.first, first), p["u_in"]["kernel"]) + p["u_in"]["bias"]
        if cut is not None:
            c += concat_elu(cut) @ p["u_cut"]["kernel"][0, 0]
        second = concat_elu(c)
        c = rows_above((kept.second, second), p["u_out"]["kernel"]) + p["u_out"]["bias"]
        x = gated(x, c if net.y is None else c + net.y @ p["u_class"]["kernel"])
        return x, (x, Pair(first, second), concat_elu(x) @ p["v_link"]["kernel"][0, 0])

    vertical, (after, kept, link) = jax.lax.scan(block, vertical, (net.params[where], kept, cuts))
    return vertical, after, kept, link


def _terms(net: Net, where: str, kept: Pair, link: Array) -> Pair:
    """Terms of the horizontal stream's convolutions: of the row above, of the vertical stream and of classes."""
    p = net.params[where]
    first = _two_above(kept.first, p["v_in"]["kernel"]) + p["v_in"]["bias"][:, None] + link.swapaxes(0, 1)
    second = _two_above(kept.second, p["v_out"]["kernel"]) + p["v_out"]["bias"][:, None]
    if net.y is not None:
        second += net.y @ p["v_class"]["kernel"]
    return Pair(first, second)


# --- Pixels: the horizontal stream.


def _pixel(net: Net, scale: int, horizontal: Array, left: ScalePixel, terms: ScaleRow, place: tuple[Array, Array]
           ) -> tuple[Array, ScalePixel]:
    """Compute the pixel at (row, column) of a scale and of the smaller ones: the horizontal stream [N, F] at its end."""
    start = horizontal
    horizontal, after, down = _horizontal(net, f"down_{scale}", horizontal, terms.down, left.down, None)
    cuts, smaller = jnp.concatenate([start[None], after]), None
    if left.smaller is None:
        cuts = cuts[:-1]
    else:
        horizontal, smaller = _smaller_pixel(net, scale, horizontal, left.smaller, terms.smaller, place)
    horizontal, _, up = _horizontal(net, f"up_{scale}", horizontal, terms.up, left.up, cuts[::-1])
    return horizontal, ScalePixel(down, up, smaller)


def _smaller_pixel(net: Net, scale: int, horizontal: Array, left: SmallerPixel, terms: SmallerRow,
                   place: tuple[Array, Array]) -> tuple[Array, SmallerPixel]:
    """Take a pixel at the end of a scale's way down through the smaller scales and back; one of four is computed there."""
    (r, c), halve, double = place, net.params[f"v_halve_{scale}"]["kernel"][1], net.params[f"v_double_{scale}"]

    def go_down(horizontal: Array, left: SmallerPixel, terms: SmallerRow) -> tuple[Array, ScalePixel]:
        low = terms.halve + left.horizontal @ halve[0] + horizontal @ halve[1]
        return _pixel(net, scale + 1, low, left.scale, terms.scale, (r // 2, c // 2))

    def stay(horizontal: Array, left: SmallerPixel, terms: SmallerRow) -> tuple[Array, ScalePixel]:
        return jnp.where(r % 2 == 0, left.low_horizontal, terms.low_horizontal), left.scale

    low, smaller = jax.lax.cond((r % 2 == 0) & (c % 2 == 0), go_down, stay, horizontal, left, terms)
    return low @ double["kernel"][1 - r % 2, 1 - c % 2] + double["bias"], SmallerPixel(horizontal, low, smaller)


def _horizontal(net: Net, where: str, horizontal: Array, terms: Pair, left: Pair, cuts: Array | None
                ) -> tuple[Array, Array, Pair]:
    """Take the horizontal stream [N, F] through blocks: it, each block's output, and what is kept of the pixel."""

    def block(x: Array, of_block: tuple) -> tuple[Array, tuple]:
        weights, terms, left, cut = of_block
        first = concat_elu(x)
        c = jnp.concatenate([left.first, first], -1) @ weights.first + terms.first
        if cut is not None:
            c += concat_elu(cut) @ weights.cut
        second = concat_elu(c)
        x = gated(x, jnp.concatenate([left.second, second], -1) @ weights.second + terms.second)
        return x, (x, Pair(first, second))

    horizontal, (after, now) = jax.lax.scan(block, horizontal, (net.pixel[where], terms, left, cuts))
    return horizontal, after, now


def _end_row(kept: ScaleKept, pixels: ScalePixel, r: Array) -> ScaleKept:
    """Keep a row's pixels [W', ...], filled up to the width of the scale."""
    width = len(kept.down_horizontal.first)
    down, up = (Pair(*(_wide(x, width) for x in pair)) for pair in (pixels.down, pixels.up))
    kept = kept._replace(down_horizontal=down, up_horizontal=up)
    if kept.smaller is None:
        return kept
    smaller, low = kept.smaller, _wide(pixels.smaller.low_horizontal[::2], width // 2)
    below = jax.tree.map(lambda x: x[::2], pixels.smaller.scale)
    scale = jax.lax.cond(r % 2 == 0, lambda: _end_row(smaller.scale, below, r // 2), lambda: smaller.scale)
    return kept._replace(smaller=smaller._replace(
        horizontal=_wide(pixels.smaller.horizontal, width), scale=scale,
        low_horizontal=jnp.where(r % 2 == 0, low, smaller.low_horizontal)))


# --- Pieces.


def concat_elu(x: Array) -> Array:
    """Compute elu([x, -x]): [..., F] -> [..., 2 F]."""
    bent = jnp.exp(jnp.where(x > 0, -x, x)) - 1  # one exponential for both: of x and -x one is below 0
    return jnp.concatenate([jnp.where(x > 0, x, bent), jnp.where(x > 0, bent, -x)], -1)


def gated(x: Array, c: Array) -> Array:
    """Compute x + d * sigmoid(g), where c [..., 2 F] is d and g: [..., F]."""
    d, g = jnp.split(c, 2, -1)
    return x + d * jax.nn.sigmoid(g)


def _pixel_weights(p: PyTree) -> PixelWeights:
    first, second = (p[name]["kernel"][:, 1] for name in ("v_in", "v_out"))  # [L, 2, 2 F, O]
    first, second = (w.reshape(len(w), -1, w.shape[-1]) for w in (first, second))
    return PixelWeights(first, second, p["v_cut"]["kernel"][:, 0, 0] if "v_cut" in p else None)


def _wide(x: Array, width: int) -> Array:
    """Fill up with zeros on the right: [W', ...] -> [W, ...]."""
    return jnp.pad(x, ((0, width - len(x)), *[(0, 0)] * (x.ndim - 1)))


def _shifted(x: Array) -> Array:
    """Move pixels one to the right: [W, ...] -> [W, ...]."""
    return jnp.pad(x, ((1, 0), *[(0, 0)] * (x.ndim - 1)))[:-1]


def _two_above(x: Array, kernel: Array) -> Array:
    """Convolve the row above by the upper row of kernels: [W, (L,) N, C], [(L,) 2, 2, C, O] -> [W, (L,) N, O]."""
    kernel = kernel[..., 0, :, :, :]
    return jnp.concatenate([_shifted(x), x], -1) @ kernel.reshape(*kernel.shape[:-3], -1, kernel.shape[-1])


def _doubled(x: Array, layer: PyTree, r: Array) -> Array:
    """Row r of the transposed convolution of 2x3: [W / 2, N, C] -> [W, N, O]."""
    kernel = layer["kernel"][1 - r % 2]  # [3, C, O]
    after = jnp.pad(x, ((0, 1), (0, 0), (0, 0)))[1:]
    y = jnp.stack([x @ kernel[1], x @ kernel[0] + after @ kernel[2]], 1)
    return y.reshape(-1, *y.shape[2:]) + layer["bias"]
