"""Convolutions of stride 1 with small windows by fewer products (Winograd 1980; Lavin & Gray 2016, arXiv:1509.09308).

Two neighbouring outputs of a window of r = 2 or 3 are y = A^T [(G k) (B^T d)] of the r + 1 pixels d that they see: r + 1
products in the place of 2 r. In two dimensions, with products summed over channels,

    y = A^T [(G k G^T) (B^T d B)] A        dk = G^T [sum (B^T d B) (A g A^T)] G

of tiles of 2 x 2 outputs: (r + 1)^2 matrix products [tiles, C] x [C, O], 16 for 36 and 9 for 16. The matrices add, subtract
and halve, so float32 loses at most a digit. Images go through in blocks whose tiles stay in the cache.

Shapes: `B` batch, `H W` an image, `C` channels in, `P Q` the image of the output, `O` channels out, `h w` the window.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxdl.core.types import Array

_TILES = 400  # of a block, at least: fewer make matrix products too small

_IMAGE = {2: ((1, -1, 0), (0, 1, 0), (0, -1, 1)), 3: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))}  # B^T
_KERNEL = {2: ((1, 0), (1, 1), (0, 1)), 3: ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))}  # G
_OUTPUT = {2: ((1, 1, 0), (0, 1, 1)), 3: ((1, 1, 1, 0), (0, 1, -1, -1))}  # A^T


def forward(x: Array, kernel: Array, pads: Sequence[tuple[int, int]]) -> Array:
    """[B, H, W, C], [h, w, C, O], zeros (low, high) around rows and columns -> [B, P, Q, O]; h and w are 2 or 3."""
    window, (p, q), (r, s), pads = _sizes(x, kernel.shape[:2], pads)
    g, h = (jnp.asarray(_KERNEL[side], kernel.dtype) for side in window)
    kernel = jnp.einsum("ti,uj,ijco->tuco", g, h, kernel).reshape(-1, *kernel.shape[2:])

    def outputs(x: Array) -> Array:
        # one product here, where it is the faster, and 16 in `to_kernel`, where they are
        products = jnp.einsum("tpc,tco->tpo", jnp.stack(_images(x, window, pads, (r, s))), kernel)
        products = list(products.reshape(-1, len(x), r, s, products.shape[-1]))
        rows = [products[i : i + window[1] + 1] for i in range(0, len(products), window[1] + 1)]
        rows = [_combine(_OUTPUT[window[1]], row) for row in rows]
        columns = [_combine(_OUTPUT[window[0]], column) for column in zip(*rows, strict=True)]
        y = jnp.stack([jnp.stack(pair, 3) for pair in zip(*columns, strict=True)], 2)
        return y.reshape(len(x), 2 * r, 2 * s, -1)[:, :p, :q]

    size = _block(len(x), r * s)
    if size == len(x):
        return outputs(x)
    return lax.map(outputs, x.reshape(-1, size, *x.shape[1:])).reshape(len(x), p, q, -1)


def to_kernel(x: Array, g: Array, window: tuple[int, int], pads: Sequence[tuple[int, int]]) -> Array:
    """The gradient to the kernel: [B, H, W, C], [B, P, Q, O] -> [h, w, C, O]."""
    window, (p, q), (r, s), pads = _sizes(x, window, pads)
    size, (channels, features) = _block(len(x), r * s), (x.shape[-1], g.shape[-1])

    def add(total: list[Array], block: tuple[Array, Array]) -> tuple[list[Array], None]:
        x, g = block
        g = jnp.pad(g, ((0, 0), (0, 2 * r - p), (0, 2 * s - q), (0, 0))).reshape(size, r, 2, s, 2, features)
        rows = _combine(zip(*_OUTPUT[window[0]], strict=True), [g[:, :, 0], g[:, :, 1]])
        g = [y for row in rows for y in _combine(zip(*_OUTPUT[window[1]], strict=True), [row[:, :, :, 0], row[:, :, :, 1]])]
        x, g = lax.optimization_barrier((_images(x, window, pads, (r, s)), [y.reshape(-1, features) for y in g]))
        return [t + a.T @ b for t, a, b in zip(total, x, g, strict=True)], None

    zeros = [jnp.zeros((channels, features), x.dtype)] * ((window[0] + 1) * (window[1] + 1))
    y, _ = lax.scan(add, zeros, (x.reshape(-1, size, *x.shape[1:]), g.reshape(-1, size, p, q, features)))
    y = jnp.stack(y).reshape(window[0] + 1, window[1] + 1, channels, features)
    return jnp.einsum("ti,uj,tuco->ijco", *(jnp.asarray(_KERNEL[side], x.dtype) for side in window), y)


def _sizes(x: Array, window: Sequence[int], pads: Sequence[tuple[int, int]]) -> tuple:
    """Window, outputs, tiles, and padding that fills the last tile up."""
    out = [low + size + high - side + 1 for size, side, (low, high) in zip(x.shape[1:3], window, pads, strict=True)]
    tiles = [-(-size // 2) for size in out]
    return tuple(window), out, tiles, [(low, high + size % 2) for size, (low, high) in zip(out, pads, strict=True)]


def _block(batch: int, tiles: int) -> int:
    """Images of a block: the smallest divisor of the batch that has enough tiles."""
    return next((d for d in range(1, batch) if batch % d == 0 and d * tiles >= _TILES), batch)


def _images(x: Array, window: tuple[int, int], pads: Sequence[tuple[int, int]], tiles: Sequence[int]) -> list[Array]:
    """B^T d B of every tile: [B, H, W, C] -> (h + 1) (w + 1) times [B * tiles, C]."""
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)))
    for axis in (0, 1):
        def split(x: Array, axis: int = axis) -> list[Array]:
            count = 2 * tiles[axis] - 1
            parts = [lax.slice_in_dim(x, i, i + count, 2, axis + 1) for i in range(window[axis] + 1)]
            return _combine(_IMAGE[window[axis]], parts)
        x = split(x) if axis == 0 else [y for row in x for y in split(row)]
    return [y.reshape(-1, y.shape[-1]) for y in x]


def _combine(matrix: Sequence[Sequence[float]], parts: Sequence[Array]) -> list[Array]:
    """Rows of the matrix times the parts."""
    out = []
    for row in matrix:
        terms = [(c, p) for c, p in zip(row, parts, strict=True) if c]
        total = terms[0][1] if terms[0][0] == 1 else -terms[0][1]
        for c, p in terms[1:]:
            total = total + p if c == 1 else total - p
        out.append(total)
    return out
