"""Convolutional networks by name: from images to features, each as published and scaled to small images.

| name | source | layers | parameters | multiplications |
|---|---|---|---|---|
| lenet | LeNet-5, LeCun et al. 1998 | 5 | 61,706 | 0.42 M (32x32) |
| alexnet | Krizhevsky et al. 2012, without its two groups | 8 | 62,378,344 | 1.14 G (227x227) |
| vgg | VGG-16, Simonyan & Zisserman 2015 | 16 | 138,357,544 | 15.5 G (224x224) |
| inception | GoogLeNet, Szegedy et al. 2015, without auxiliary classifiers | 22 | 6,998,552 | 1.6 G (224x224) |
| resnet | ResNet-50, He et al. 2016 | 50 | 25,557,032 | 3.9 G (224x224) |
| resnet | ResNet-20 for 32x32 images, section 4.2 | 20 | 0.27 M | 41 M (32x32) |
| densenet | DenseNet-121, Huang et al. 2017 | 121 | 7,978,856 | 2.8 G (224x224) |
| densenet | DenseNet-40 with growth 12 for 32x32 images | 40 | 1.0 M | 0.26 G (32x32) |
| squeezenet | SqueezeNet 1.0, Iandola et al. 2016 | 18 | 1,248,424 | 0.8 G (224x224) |

Layers are weight layers on the longest way, multiplications those of convolutions and dense layers for one image; the numbers
are of networks with 1,000 classes (10 for 32x32), and tests count them (`cost`). Images of less than 100 pixels get the small
form: the same layers, but first windows of 3x3 and stride 1, and channels divided by `narrower` (4 by default, 2 for
squeezenet, 1 for lenet and for what was published for small images). A residual network of 6n + 2 layers (20, 32, 44, 56, 110)
and a dense one of 3n + 4 (40, 100) are those that were published for 32x32.

Shapes: `B` batch, `H W C` an image, `F` features.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl.core.types import Array
from jaxdl.nn.activations import activation
from jaxdl.nn.convolution import Conv
from jaxdl.nn.dense import Dense
from jaxdl.nn.dropout import dropout_in
from jaxdl.nn.initializers import he_uniform, lecun_uniform
from jaxdl.nn.norm import Kind, normalized
from jaxdl.nn.pooling import fractional_max_pool, max_pool

SMALL = 100  # pixels below which an image gets the small form
BOTTLENECKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # residual blocks of three layers, per stage
BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # of two layers
VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
DENSE = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}
_FIRE = ((16, 64), (16, 64), (32, 128), None, (32, 128), (48, 192), (48, 192), (64, 256), None, (64, 256))  # None: a pool
_INCEPTION = (  # outputs of 1x1; 1x1, 3x3; 1x1, 5x5; pool and 1x1 (table 1 of the paper)
    (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), None, (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128), None,
    (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128))


class Layers(NamedTuple):
    """What an architecture is built of, within a module that is `compact`."""

    small: bool
    narrower: int  # published channels are divided by it
    depth: int
    norm_by: Callable[..., Array]  # (x, scale_init=) -> normalized
    added_norm: bool  # behind convolutions, of an architecture that was published without
    act: Callable[[Array], Array]
    dropped: Callable[..., Array]  # (x, rate=, whole=) -> x with dropout
    stochastic_depth: float | Array | None  # of the last residual block; it rises to it from the first (Huang et al. 2016)
    halved: Callable[[Array], Array]  # a pool over 2x2
    dtype: Any

    def channels(self, published: int) -> int:
        """Channels of a layer."""
        return max(published // self.narrower, 1)

    def conv(self, x: Array, channels: int, window: int = 1, stride: int = 1, padding: Any = "SAME",
             bias: bool = True) -> Array:
        """A convolution to `channels` as published, [B, H, W, C] -> [B, H', W', C']."""
        if padding == "SAME":  # as published: the same zeros before and after, where a stride would shift them
            padding = ((window // 2, (window - 1) // 2 if stride == 1 else window // 2),) * 2
        x = Conv(self.channels(channels), (window, window), (stride, stride), padding, bias, dtype=self.dtype,
                 kernel_init=he_uniform)(x)
        return self.norm(x) if self.added_norm else x

    def norm(self, x: Array, zero: bool = False) -> Array:
        """Normalization; `zero`: its scale begins at zero, so a residual block as the identity (Goyal et al. 2017)."""
        return self.norm_by(x, scale_init=linen.initializers.zeros if zero else linen.initializers.ones)

    def dense(self, x: Array, size: int) -> Array:
        """A dense layer to `size` features as published, with the activation; what goes in is dropped at random."""
        x = self.dropped(x.reshape(len(x), -1))
        return self.act(Dense(self.channels(size), dtype=self.dtype, kernel_init=he_uniform)(x))


def _max_pool(x: Array, window: int, stride: int, padding: Any) -> Array:
    return linen.max_pool(x, (window, window), (stride, stride), padding)


def _halved(x: Array, window: int = 3, ceil: bool = False) -> Array:
    """A maximum over overlapping windows of stride 2; `ceil`: a last one that leaves the image counts too."""
    low = 0 if ceil else window // 2

    def padding(side: int) -> tuple[int, int]:
        free = side + 2 * low - window
        steps = max(-(-free // 2) if ceil else free // 2, 0)
        return low, max(2 * steps + window - side - low, 0)

    return _max_pool(x, window, 2, [padding(side) for side in x.shape[1:3]])


def _lenet(b: Layers, x: Array) -> Array:
    """Windows of 5x5 and sums over 2x2; images of less than 32 pixels are filled up by the first."""
    x = b.act(b.conv(x, 6, 5, padding="SAME" if min(x.shape[1:3]) < 32 else "VALID"))
    x = b.act(b.conv(b.halved(x), 16, 5, padding="VALID"))
    return b.dense(b.dense(b.halved(x), 120), 84)


def _alexnet(b: Layers, x: Array) -> Array:
    x = b.act(b.conv(x, 96, 3) if b.small else b.conv(x, 96, 11, 4, "VALID"))
    x = b.act(b.conv(_halved(x, ceil=True), 256, 5))
    x = _halved(x, ceil=True)
    for channels in (384, 384, 256):
        x = b.act(b.conv(x, channels, 3))
    return b.dense(b.dense(_halved(x, ceil=True), 4096), 4096)


def _vgg(b: Layers, x: Array) -> Array:
    for channels, layers in zip((64, 128, 256, 512, 512), VGG[b.depth], strict=True):
        for _ in range(layers):
            x = b.act(b.conv(x, channels, 3))
        if min(x.shape[1:3]) > 1:
            x = b.halved(x)
    return b.dense(b.dense(x, 4096), 4096)


def _inception(b: Layers, x: Array) -> Array:
    if b.small:
        x = b.act(b.conv(x, 192, 3))
    else:
        x = _halved(b.act(b.conv(x, 64, 7, 2)), ceil=True)
        x = _halved(b.act(b.conv(b.act(b.conv(x, 64)), 192, 3)), ceil=True)
    for row in _INCEPTION:
        if row is None:
            x = _halved(x, ceil=True)
            continue
        one, to_three, three, to_five, five, pooled = row
        x = jnp.concatenate([
            b.act(b.conv(x, one)), b.act(b.conv(b.act(b.conv(x, to_three)), three, 3)),
            b.act(b.conv(b.act(b.conv(x, to_five)), five, 5)), b.act(b.conv(_max_pool(x, 3, 1, "SAME"), pooled))], -1)
    return x.mean((1, 2))


def _resnet(b: Layers, x: Array) -> Array:
    """Blocks of two layers, or of three (a narrow one between two of 1x1); a projection where shapes change."""
    published = (b.depth - 2) % 6 == 0 and b.depth not in BOTTLENECKS  # for 32x32
    stages = ((b.depth - 2) // 6,) * 3 if published else BASIC.get(b.depth) or BOTTLENECKS[b.depth]
    x = b.conv(x, 16 if published else 64, 3 if b.small else 7, 1 if b.small else 2, bias=False)
    x = b.act(b.norm(x))
    if not b.small:
        x = _halved(x)
    place = 0
    for stage, blocks in enumerate(stages):
        for block in range(blocks):
            place += 1
            x = _residual(b, x, (16 if published else 64) * 2**stage, 2 if stage and block == 0 else 1, place / sum(stages))
    return x.mean((1, 2))


def _residual(b: Layers, x: Array, channels: int, stride: int, place: float) -> Array:
    """`place` is 1 for the last block."""
    y, out = x, channels
    if b.depth in BOTTLENECKS:
        out = 4 * channels
        y = b.act(b.norm(b.conv(y, channels, 1, stride, bias=False)))
        y = b.act(b.norm(b.conv(y, channels, 3, bias=False)))
        y = b.norm(b.conv(y, out, bias=False), zero=True)
    else:
        y = b.act(b.norm(b.conv(y, channels, 3, stride, bias=False)))
        y = b.norm(b.conv(y, channels, 3, bias=False), zero=True)
    if x.shape != y.shape:
        x = b.norm(b.conv(x, out, 1, stride, bias=False))
    if b.stochastic_depth is not None:
        y = b.dropped(y, rate=b.stochastic_depth * place, whole=True)
    return b.act(x + y)


def _densenet(b: Layers, x: Array) -> Array:
    """Each layer sees all before it; blocks of three are without bottlenecks, as published for 32x32."""
    growth, plain = (12, True) if b.depth not in DENSE else (32, False)
    blocks = ((b.depth - 4) // 3,) * 3 if plain else DENSE[b.depth]
    channels = 16 if plain else 64
    x = b.conv(x, channels, 3 if b.small else 7, 1 if b.small else 2, bias=False)
    if not b.small:
        x = _halved(b.act(b.norm(x)))
    for i, layers in enumerate(blocks):
        for _ in range(layers):
            y = b.act(b.norm(x))
            if not plain:
                y = b.act(b.norm(b.conv(y, 4 * growth, bias=False)))
            x = jnp.concatenate([x, b.conv(y, growth, 3, bias=False)], -1)
            channels += growth
        if i < len(blocks) - 1:
            channels = channels if plain else channels // 2
            x = linen.avg_pool(b.conv(b.act(b.norm(x)), channels, bias=plain), (2, 2), (2, 2))
    return b.act(b.norm(x)).mean((1, 2))


def _squeezenet(b: Layers, x: Array) -> Array:
    """Fire: 1x1 to few channels, then 1x1 and 3x3 side by side. The last convolution gives the classes: see `CNN`."""
    x = b.act(b.conv(x, 96, 3) if b.small else b.conv(x, 96, 7, 2, "VALID"))
    x = _halved(x, ceil=True)
    for row in _FIRE:
        if row is None:
            x = _halved(x, ceil=True)
            continue
        squeeze, expand = row
        x = b.act(b.conv(x, squeeze))
        x = b.act(jnp.concatenate([b.conv(x, expand), b.conv(x, expand, 3)], -1))
    return x


class Architecture(NamedTuple):
    """A row of the table."""

    features: Callable[[Layers, Array], Array]  # (layers, [B, H, W, C]) -> [B, F], or [B, h, w, F] before a mean over places
    depths: tuple[int, ...]  # that there are, the default for small images first
    narrower: int = 1  # of the small form, where none is given
    has_norm: bool = False  # it was published with batch normalization


ARCHITECTURES = {
    "lenet": Architecture(_lenet, (5,)),
    "alexnet": Architecture(_alexnet, (8,), 4),
    "vgg": Architecture(_vgg, (11, 13, 16, 19), 4),
    "inception": Architecture(_inception, (22,), 4),
    "resnet": Architecture(_resnet, (20, 32, 44, 56, 110, *BASIC, *BOTTLENECKS), has_norm=True),
    "densenet": Architecture(_densenet, (40, 100, *DENSE), has_norm=True),
    "squeezenet": Architecture(_squeezenet, (18,), 2),
}


class CNN(linen.Module):
    """[B, H, W, C] in [0, 1] -> features [B, F] and logits [B, num_classes].

    Running statistics of normalization are the collection "batch_stats"; `train` moves them. What is random (dropout,
    stochastic depth, fractional pooling) is so where there is a key called "dropout".
    """

    architecture: str
    num_classes: int | None  # None: features alone, and no logits
    depth: int | None = None
    narrower: int | None = None
    activation: str = "relu"
    dropout: float | Array | None = None  # of what goes into dense layers and of the features
    stochastic_depth: float | Array | None = None  # of the last block of resnet
    norm: Kind | None = None  # as published if not given
    pool: Literal["max", "fractional"] = "max"  # of lenet and vgg
    axis_name: str | None = None
    dtype: Any = "float32"
    small: bool | None = None  # the form; that of the images that it is given, if not given

    @linen.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array | None]:
        of = ARCHITECTURES[self.architecture]
        small = min(x.shape[1:3]) < SMALL if self.small is None else self.small
        layers = Layers(
            small, self.narrower or (of.narrower if small else 1), self.depth or of.depths[0],
            functools.partial(normalized, kind=self.norm or "batch", train=train, axis_name=self.axis_name),
            self.norm is not None and not of.has_norm, activation(self.activation),
            lambda x, rate=self.dropout, whole=False: dropout_in(self, x, rate, whole), self.stochastic_depth, self._halved,
            self.dtype)
        features = layers.dropped(of.features(layers, x))
        if features.ndim == 4:  # classes of every place, and their mean
            means = features.mean((1, 2))
            if self.num_classes is None:
                return means, None
            logits = Conv(self.num_classes, (1, 1), kernel_init=lecun_uniform)(features)
            return means, layers.act(logits).mean((1, 2))
        return features, None if self.num_classes is None else Dense(self.num_classes, kernel_init=lecun_uniform)(features)

    def _halved(self, x: Array) -> Array:
        if self.pool == "max":
            return max_pool(x)
        return fractional_max_pool(x, self.make_rng("dropout") if self.has_rng("dropout") else None)


class Cost(NamedTuple):
    """What a network takes for one example."""

    parameters: int
    products: int  # multiplications of dense and convolutional layers


def cost(module: linen.Module, *inputs: Any, **how: Any) -> Cost:
    """Parameters and multiplications of a network, from shapes alone: nothing is computed.

    Args:
        module: dense and convolutional layers of this package are counted.
        inputs: shapes of its arguments, one example each (`jax.ShapeDtypeStruct`).
        how: further arguments of the call.
    """
    products = 0

    def count(call: Callable, args: tuple, kwargs: dict, context: linen.module.InterceptorContext) -> Any:
        nonlocal products
        y = call(*args, **kwargs)
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, Conv | Dense):
            per_output = args[0].shape[-1] * (math.prod(layer.kernel_size) if isinstance(layer, Conv) else 1)
            products += y.size * per_output
        return y

    with linen.intercept_methods(count):
        variables = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, **how), *inputs)
    return Cost(sum(x.size for x in jax.tree.leaves(variables["params"])), products)
