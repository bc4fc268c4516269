"""Two-dimensional convolutions that are fast, and whose gradients are fast, on a CPU as well as on an accelerator.

A convolution y = F(x, k) is bilinear, and so are the gradients of <g, F(x, k)>: X(g, k) to the images, W(x, g) to the
kernel. Since <g, F(x, k)> = <x, X(g, k)> = <k, W(x, g)>, the gradients of each of the three are the other two:

    F(x, k):  X(g, k), W(x, g)        X(g, k):  F(x, k), W(x, g)        W(x, g):  X(g, k), F(x, k)

with the cotangent of the output in the place of the argument that is missing. On a CPU these are the rules, of any order.
XLA's CPU backend runs F at the speed of a matrix product, but lax's own X and W, convolutions with dilated or transposed
operands, at a hundredth to a tenth of it inside a loop, which training is. Here X is a forward convolution and W a matrix
product. Both first turn a stride s into a stride of 1: cells of s x s pixels become channels, and the kernel a kernel over
cells (n of them), filled up with zeros. Windows of 2 or 3 on enough channels are computed with fewer products (`winograd`),
large windows to few channels for a square of outputs at a time (`_by_squares`), and rows and columns of a kernel that are
wholly masked are cut off. Accelerators take lax's own rules: their libraries have kernels for all three.

Shapes: `B` batch, `H W` an image, `C` channels in, `P Q` the image of the output, `O` channels out, `h w` the window of a
kernel, [h, w, C, O], `G` groups of channels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax import lax

from jaxdl.core.types import Array
from jaxdl.nn import winograd
from jaxdl.nn.precision import to_compute, widened

Mask = tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]  # [h, w, G, G'] of 0 and 1, see `causal_mask`

_BLOCK_BYTES = 2**20  # of patches made at a time: half to all of a core's L2 cache
# Windows that `winograd` is faster on, and the channels that it takes: of forward convolutions, and of gradients to the kernel.
_FORWARD_CHANNELS = {(3, 3): 64, (2, 2): 128}
_KERNEL_CHANNELS = {(3, 3): 32, (2, 3): 32}
_LARGE, _NARROW = 5, 16  # a window, and channels out, for `_by_squares`


class _Axis(NamedTuple):
    """One spatial axis of a convolution: sizes of image and window, stride, and padding before and after the image."""

    size: int
    window: int
    stride: int
    low: int
    high: int

    @property
    def out(self) -> int:
        """Size of the output."""
        return (self.low + self.size + self.high - self.window) // self.stride + 1

    @property
    def cells(self) -> int:
        """Size of the window in cells of `stride` pixels."""
        return -(-self.window // self.stride)


def conv(x: Array, kernel: Array, strides: tuple[int, int] = (1, 1), padding: str | Sequence[tuple[int, int]] = "VALID", *,
         mask: Mask | None = None, plain: bool = False) -> Array:
    """Convolve images: [B, H, W, C], [h, w, C, O] -> [B, P, Q, O].

    The default backend at the time of tracing decides which form is used. (`lax.platform_dependent` would decide at the time of
    compiling, but its branches would have to share one rule for gradients, and a GPU would lose forward mode.)

    Args:
        strides: rows and columns from one window to the next.
        padding: "VALID", "SAME", or zeros (before, after) the rows and the columns.
        mask: 0 and 1, [h, w, G, G'], by which the kernel is multiplied: each of the G groups of channels in, and of the G'
            groups out, shares its entries. 1 divides every number of channels.
        plain: lax's own convolution everywhere. Forward mode (`jax.jvp`, `jax.hessian`) needs it on a CPU.

    Raises:
        ValueError: the mask does not fit the kernel.
    """
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    axes = tuple(_Axis(*a, *pads) for *a, pads in zip(x.shape[1:3], kernel.shape[:2], strides, padding, strict=True))
    ones = None if mask is None else _spread(mask, kernel.shape)
    if ones is not None:
        kernel = kernel * ones.astype(kernel.dtype)
    if plain or jax.default_backend() != "cpu":
        return _lax(x, kernel, strides, [(a.low, a.high) for a in axes])
    if ones is not None and ones.any():
        spans = [np.flatnonzero(ones.any((1 - i, 2, 3)))[[0, -1]] for i in range(2)]  # first and last that are not all zero
        axes = tuple(_Axis(a.size, last + 1 - first, a.stride, a.low - first, a.high - (a.window - 1 - last))
                     for a, (first, last) in zip(axes, np.array(spans).tolist(), strict=True))
        kernel = kernel[tuple(slice(first, last + 1) for first, last in spans)]
    return _forward(x, kernel, axes)


def causal_mask(window: tuple[int, int], kind: str, groups: int = 1) -> Mask:
    """Mask of a kernel that sees only the pixels before its centre: rows from the top, pixels of a row from the left.

    van den Oord et al. 2016 (arXiv:1601.06759), figure 2. With groups of channels (red, green, blue), each a contiguous part of
    them, the centre comes in that order: kind "A", of a first layer, lets group i see groups < i of the centre, "B" those <= i.

    Args:
        window: odd numbers of rows and columns.
        kind: "A" or "B".
        groups: of the channels in and of the channels out.

    Returns:
        0 and 1, [h, w, groups, groups], as tuples: hashable, a field of `Conv`.

    Raises:
        ValueError: an even window, another kind.
    """
    if kind not in ("A", "B"):
        raise ValueError(f"kind is {kind!r}; it is 'A' (the centre is not seen) or 'B' (it is)")
    h, w = window
    if h % 2 == 0 or w % 2 == 0:
        raise ValueError(f"window is {tuple(window)}; it has a centre only if both are odd")
    centre = h // 2 * w + w // 2

    def entry(place: int, before: int, after: int) -> int:
        return int(place < centre or (place == centre and before < after + (kind == "B")))

    return tuple(tuple(tuple(tuple(entry(i * w + j, a, b) for b in range(groups)) for a in range(groups)) for j in range(w))
                 for i in range(h))


def _spread(mask: Mask, shape: Sequence[int]) -> np.ndarray:
    """[h, w, G, G'] -> [h, w, C, O]."""
    ones = np.asarray(mask, np.float32)
    if ones.ndim != 4 or ones.shape[:2] != tuple(shape[:2]) or shape[2] % ones.shape[2] or shape[3] % ones.shape[3]:
        raise ValueError(f"a mask [h, w, G, G'] of shape {list(ones.shape)} does not fit a kernel of shape {list(shape)}: the "
                         "window is the kernel's, and each number of groups divides its number of channels")
    return ones.repeat(shape[2] // ones.shape[2], 2).repeat(shape[3] // ones.shape[3], 3)


def conv_transpose(x: Array, kernel: Array, strides: tuple[int, int] = (1, 1),
                   padding: str | Sequence[tuple[int, int]] = "SAME", *, plain: bool = False) -> Array:
    """Convolve images whose pixels are moved apart by the strides: [B, H, W, C], [h, w, C, O] -> [B, P, Q, O].

    `lax.conv_transpose`, with its paddings: "SAME" gives P = H * stride, pairs are of the image moved apart. It is the X of a
    convolution with the kernel turned round, so on a CPU it is one convolution of stride 1 to strides^2 * O channels.

    Args:
        strides: rows and columns from one pixel to the next.
        padding: "VALID", "SAME", or zeros (before, after) the rows and the columns.
        plain: lax's own convolution everywhere, as in `conv`.
    """
    if isinstance(padding, str):
        padding = [_transposed_padding(window, stride, padding) for window, stride in zip(kernel.shape, strides, strict=False)]
    if plain or jax.default_backend() != "cpu":
        return lax.conv_transpose(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    axes = []
    for size, window, stride, (before, after) in zip(x.shape[1:3], kernel.shape[:2], strides, padding, strict=True):
        out, low = (size - 1) * stride + before + after - window + 2, window - 1 - before
        axes.append(_Axis(out, window, stride, low, (size - 1) * stride + window - low - out))
    return _to_images(x, kernel[::-1, ::-1].swapaxes(2, 3), tuple(axes))


def _transposed_padding(window: int, stride: int, padding: str) -> tuple[int, int]:
    """Zeros before and after an axis of pixels moved apart, as lax counts them."""
    if padding == "VALID":
        return window - 1, max(window, stride) - 1
    total = window + stride - 2
    before = window - 1 if stride > window - 1 else -(-total // 2)
    return before, total - before


class Conv(linen.Module):
    """`linen.Conv` by `conv`: the same parameters, "kernel" [h, w, C, O] and "bias" [O]; [..., H, W, C] -> [..., P, Q, O].

    It multiplies in `dtype` (None: that of its inputs), and its output is float32 even if that is bfloat16 (`precision`).
    A mask is of 0 and 1, [h, w, G, G'] in tuples, as `causal_mask` makes it; the shape of the kernel does not depend on it.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str | Sequence[tuple[int, int]] = "SAME"
    use_bias: bool = True
    dtype: Any = None
    kernel_init: linen.initializers.Initializer = linen.initializers.lecun_normal()
    mask: Mask | None = None
    plain: bool = False

    @linen.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
        bias = self.param("bias", linen.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = to_compute(self.dtype, x, kernel, bias)
        y = conv(x.reshape(-1, *x.shape[-3:]), kernel, self.strides, self.padding, mask=self.mask, plain=self.plain)
        y = y.reshape(*x.shape[:-3], *y.shape[1:])
        return widened(y if bias is None else y + bias)


class ConvTranspose(linen.Module):
    """`linen.ConvTranspose` by `conv_transpose`, as `Conv`: the same parameters; [..., H, W, C] -> [..., P, Q, O]."""

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str | Sequence[tuple[int, int]] = "SAME"
    use_bias: bool = True
    dtype: Any = None
    kernel_init: linen.initializers.Initializer = linen.initializers.lecun_normal()
    plain: bool = False

    @linen.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (*self.kernel_size, x.shape[-1], self.features))
        bias = self.param("bias", linen.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = to_compute(self.dtype, x, kernel, bias)
        y = conv_transpose(x.reshape(-1, *x.shape[-3:]), kernel, self.strides, self.padding, plain=self.plain)
        y = y.reshape(*x.shape[:-3], *y.shape[1:])
        return widened(y if bias is None else y + bias)


def _lax(x: Array, kernel: Array, strides: Sequence[int], pads: Sequence[tuple[int, int]]) -> Array:
    if min(map(min, pads)) < 0:  # crop first: on a CPU XLA (jaxlib 0.10.2) reads beyond the image where pads are (-n, n)
        crops = [(min(low, 0), min(high, 0), 0) for low, high in pads]
        x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *crops, (0, 0, 0)))
        pads = [(max(low, 0), max(high, 0)) for low, high in pads]
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _member_by_member(x: Array, kernel: Array, strides: Sequence[int], pads: Sequence[tuple[int, int]]) -> Array:
    """`_lax`, under vmap a loop over the members: lax makes a population one convolution in groups, several times as slow."""
    if kernel.shape[:2] == tuple(strides) == (1, 1) and not any(map(any, pads)):
        return x @ kernel[0, 0]

    def single(x: Array, kernel: Array) -> Array:
        if _few_products(kernel, strides, _FORWARD_CHANNELS):
            return winograd.forward(x, kernel, pads)
        *window, _, features = kernel.shape
        if min(window) >= _LARGE and features <= _NARROW and tuple(strides) == (1, 1):
            return _by_squares(x, kernel, pads)
        return _lax(x, kernel, strides, pads)
    return jax.custom_batching.sequential_vmap(single)(x, kernel)


def _by_squares(x: Array, kernel: Array, pads: Sequence[tuple[int, int]]) -> Array:
    """`_lax` of stride 1, a square of s x s outputs as the channels of one: [B, H, W, C], [h, w, C, O] -> [B, P, Q, O].

    The kernel is moved to each of the s^2 places of a window of [h + s - 1, w + s - 1], whose stride is s. That multiplies by
    zeros, but a matrix product of few columns is slow, and patches are copied s^2 times less often: LeNet's layers, and their
    gradients to images, take a third of the time.
    """
    h, w, channels, features = kernel.shape
    least = 16 if channels > 3 else 48  # columns of the product; of few channels patches cost more than products
    s = next((s for s in (2, 3) if s * s * features >= least), 4)
    places = [(i, j) for i in range(s) for j in range(s)]
    moved = jnp.stack([jnp.pad(kernel, ((i, s - 1 - i), (j, s - 1 - j), (0, 0), (0, 0))) for i, j in places], 3)
    outs = [low + side + high - window + 1 for side, window, (low, high) in zip(x.shape[1:3], (h, w), pads, strict=True)]
    filled = [(low, high + -out % s) for out, (low, high) in zip(outs, pads, strict=True)]
    y = _lax(x, moved.reshape(h + s - 1, w + s - 1, channels, s * s * features), (s, s), filled)
    batch, rows, columns, _ = y.shape
    y = y.reshape(batch, rows, columns, s, s, features).swapaxes(2, 3).reshape(batch, rows * s, columns * s, features)
    return y[:, : outs[0], : outs[1]]


def _few_products(kernel: Any, strides: Sequence[int], least: dict[tuple[int, ...], int]) -> bool:
    """Whether `winograd` is the faster: by window, the channels that it takes."""
    *window, channels, features = kernel.shape
    enough = min(channels, features) >= least.get(tuple(window), np.inf)
    return enough and tuple(strides) == (1, 1) and kernel.dtype == jnp.float32


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _forward(x: Array, k: Array, axes: tuple[_Axis, _Axis]) -> Array:
    """F: [B, H, W, C], [h, w, C, O] -> [B, P, Q, O]."""
    return _member_by_member(x, k, [a.stride for a in axes], [(a.low, a.high) for a in axes])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _to_images(g: Array, k: Array, axes: tuple[_Axis, _Axis]) -> Array:
    """X: [B, P, Q, O], [h, w, C, O] -> [B, H, W, C]: convolved with the kernel turned round, to cells that become pixels."""
    pads, crops = [], []
    for a in axes:
        skip, rest = divmod(a.low, a.stride)  # whole cells of padding need not be computed
        cells = -(-(a.low + a.size) // a.stride) - skip
        low = a.cells - 1 - skip
        pads.append((low, cells - a.out + a.cells - 1 - low))
        crops.append((-rest, rest + a.size - cells * a.stride, 0))
    turned = _kernel_to_cells(k, axes)[::-1, ::-1].swapaxes(2, 3)
    y = _member_by_member(g, lax.optimization_barrier(turned), (1, 1), pads)  # or XLA undoes the turn: slow
    batch, rows, columns = y.shape[:3]
    (s, t), channels = (a.stride for a in axes), k.shape[2]
    y = y.reshape(batch, rows, columns, s, t, channels).swapaxes(2, 3).reshape(batch, rows * s, columns * t, channels)
    return lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), *crops, (0, 0, 0)))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _to_kernel(x: Array, g: Array, axes: tuple[_Axis, _Axis]) -> Array:
    """W: [B, H, W, C], [B, P, Q, O] -> [h, w, C, O].

    The sum over images and places of (outputs' gradient)^T (patch), [O, BPQ] x [BPQ, hwC]: a matrix product for each block
    of images whose patches fit into the cache.
    """
    (batch, _, _, channels), features = x.shape, g.shape[-1]
    kernel = jax.ShapeDtypeStruct((*(a.window for a in axes), channels, features), x.dtype)
    if _few_products(kernel, [a.stride for a in axes], _KERNEL_CHANNELS):
        return winograd.to_kernel(x, g, kernel.shape[:2], [(a.low, a.high) for a in axes])
    (s, t), (n, m), (p, q) = ((a.stride for a in axes), (a.cells for a in axes), (a.out for a in axes))
    crops = [(a.low, (a.out + a.cells - 1) * a.stride - a.low - a.size, 0) for a in axes]

    def product(x, g):
        x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *crops, (0, 0, 0)))
        rows, columns = p + n - 1, q + m - 1
        x = x.reshape(-1, rows, s, columns, t, channels).swapaxes(2, 3).reshape(-1, rows, columns, s * t * channels)
        x = jnp.stack([x[:, :, j : j + q] for j in range(m)], 3)  # in two steps: both copy long rows
        x = jnp.stack([x[:, i : i + p] for i in range(n)], 3)
        parts = 4 if p * q % 4 == 0 else 1  # short products are faster, and those of few rows
        x, g = x.reshape(parts, -1, patch), g.reshape(parts, -1, features)
        a, b = (g, x) if features <= patch else (x, g)
        return jnp.einsum("kpa,kpb->kab", a, b, preferred_element_type=jnp.float32).sum(0)

    patch = n * m * s * t * channels
    patches = p * q * patch * x.dtype.itemsize  # bytes of one image's
    blocks = max(-(-batch // max(_BLOCK_BYTES // patches, 1)), 1)
    if blocks == 1:  # without the barrier XLA makes it (patch)^T (outputs' gradient), which takes two to three times as long
        y = lax.optimization_barrier(product(x, g))
    else:
        size = -(-batch // blocks)
        fill = ((0, blocks * size - batch), (0, 0), (0, 0), (0, 0))
        x, g = (jnp.pad(z, fill).reshape(blocks, size, *z.shape[1:]) for z in (x, g))
        zeros = jnp.zeros(sorted((features, patch)), jnp.float32)
        y, _ = lax.scan(lambda total, block: (total + product(*block), None), zeros, (x, g))
    y = (y.T if features <= patch else y).astype(x.dtype).reshape(n, m, s, t, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return y.reshape(n * s, m * t, channels, features)[: axes[0].window, : axes[1].window]


def _kernel_to_cells(k: Array, axes: tuple[_Axis, _Axis]) -> Array:
    """[h, w, C, O] -> [n, m, s * t * C, O], filled up with zeros."""
    (s, t), (n, m) = ((a.stride for a in axes), (a.cells for a in axes))
    k = jnp.pad(k, [(0, a.cells * a.stride - a.window) for a in axes] + [(0, 0)] * 2)
    return k.reshape(n, s, m, t, *k.shape[2:]).swapaxes(1, 2).reshape(n, m, s * t * k.shape[2], k.shape[3])


_forward.defvjp(lambda x, k, axes: (_forward(x, k, axes), (x, k)),
                lambda axes, saved, g: (_to_images(g, saved[1], axes), _to_kernel(saved[0], g, axes)))
_to_images.defvjp(lambda g, k, axes: (_to_images(g, k, axes), (g, k)),
                  lambda axes, saved, x: (_forward(x, saved[1], axes), _to_kernel(x, saved[0], axes)))
_to_kernel.defvjp(lambda x, g, axes: (_to_kernel(x, g, axes), (x, g)),
                  lambda axes, saved, k: (_to_images(saved[1], k, axes), _forward(saved[0], k, axes)))
