"""Networks of detectors: a backbone, a dense head over every anchor, and heads of regions.

The backbone halves a picture four times, with a residual block behind each time but the first (He et al. 2016), and adds what
the coarser maps know to the finer ones, down to stride 4: a feature pyramid (Lin et al., "Feature pyramid networks for object
detection", 2017) of which the finest map alone is read, which is enough for small pictures. It halves by windows of 2x2 (Liu
et al., "A ConvNet for the 2020s", 2022), which take an eighth of the time of 3x3 on a CPU. Layers are normalized in groups
(Wu & He 2018), so that nothing depends on the other pictures of a batch.

Shapes: `B` pictures, `H W C` a picture, `h w F` its features, `A` anchors of a cell, `R` regions, `P` cells along a side of a
region, `Y` classes, `J` joints.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array

STRIDE = 4  # pixels of a cell
CROP = 16  # pixels along a side of what is cut out of a picture
_PRIOR = 4.6  # minus the logit of 0.01: what a dense head says of every class at first (Lin et al. 2017)


def _conv(x: Array, channels: int, dtype: Any, stride: int = 1, window: int = 3) -> Array:
    """A convolution, normalized and with a ReLU; within a module that is compact."""
    return jax.nn.relu(_normalized(x, channels, dtype, stride, window))


def _normalized(x: Array, channels: int, dtype: Any, stride: int = 1, window: int = 3, scale_init: Any = linen.initializers.ones
                ) -> Array:
    pads = "SAME" if window == stride else ((window // 2,) * 2,) * 2
    x = nn.Conv(channels, (window, window), (stride, stride), pads, use_bias=False, dtype=dtype, kernel_init=nn.he_uniform)(x)
    return nn.normalized(x, "group", True, scale_init=scale_init)


class Backbone(linen.Module):
    """[B, H, W, C] in [0, 1] -> [B, H / 4, W / 4, F], sides rounded up."""

    channels: tuple[int, ...]  # at the strides 2, 4, 8 ...
    features: int
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> Array:
        x, maps = _conv(2 * x - 1, self.channels[0], self.dtype, 2), []
        for channels in self.channels[1:]:
            x = _conv(x, channels, self.dtype, 2, 2)
            y = _normalized(_conv(x, channels, self.dtype), channels, self.dtype, scale_init=linen.initializers.zeros)
            x = jax.nn.relu(x + y)
            maps.append(x)
        x = nn.Conv(self.features, (1, 1), dtype=self.dtype)(maps.pop())
        while maps:
            finer = maps.pop()
            height, width = finer.shape[1:3]
            x = x.repeat(2, 1).repeat(2, 2)[:, :height, :width] + nn.Conv(self.features, (1, 1), dtype=self.dtype)(finer)
        return _conv(x, self.features, self.dtype)


class DenseHead(linen.Module):
    """Features [B, h, w, F] -> logits [B, h * w * A, outputs] and deltas [B, h * w * A, 4] of every anchor."""

    anchors: int
    outputs: int
    convs: int
    prior: bool = False  # logits begin where all are improbable
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        for _ in range(self.convs):
            x = _conv(x, x.shape[-1], self.dtype)
        small = nn.Normal(0.01)
        logits = nn.Conv(self.anchors * self.outputs, (1, 1), kernel_init=small, name="logits")(x)
        deltas = nn.Conv(self.anchors * 4, (1, 1), kernel_init=small, name="deltas")(x)
        logits = logits.reshape(len(x), -1, self.outputs)
        return logits - (_PRIOR if self.prior else 0.0), deltas.reshape(len(x), -1, 4)


class CropNetwork(linen.Module):
    """What is cut out of pictures, [R, CROP, CROP, C] in [0, 1] -> features [R, CROP / 4, CROP / 4, F].

    It is not normalized: a bright part of one colour and a dark one would be the same.
    """

    features: int
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> Array:
        x = 2 * x - 1
        for channels in (self.features // 2, self.features):
            x = jax.nn.relu(nn.Conv(channels, (4, 4), (2, 2), dtype=self.dtype, kernel_init=nn.he_uniform)(x))
        return x


class RegionHead(linen.Module):
    """Features of regions [..., P, P, F] -> logits [..., 1 + Y], of the ground first, and deltas [..., 4]."""

    num_classes: int
    hidden_size: int
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        x = x.reshape(*x.shape[:-3], -1)
        for _ in range(2):
            x = jax.nn.relu(nn.Dense(self.hidden_size, kernel_init=nn.he_uniform, dtype=self.dtype)(x))
        return (nn.Dense(1 + self.num_classes, name="logits")(x),
                nn.Dense(4, kernel_init=nn.Normal(0.001), name="deltas")(x))


class MaskHead(linen.Module):
    """Features of regions [R, P, P, F] -> logits of masks [R, 2 P, 2 P, Y] and of joints [R, 2 P, 2 P, J]."""

    num_classes: int
    num_joints: int
    convs: int = 2
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        for _ in range(self.convs):
            x = _conv(x, x.shape[-1], self.dtype)
        x = nn.ConvTranspose(x.shape[-1], (2, 2), (2, 2), kernel_init=nn.he_uniform, dtype=self.dtype)(x)
        x = jax.nn.relu(x)
        return (nn.Conv(self.num_classes, (1, 1), name="masks")(x),
                nn.Conv(self.num_joints, (1, 1), name="joints")(x) if self.num_joints else jnp.zeros((*x.shape[:3], 0)))


class Network(linen.Module):
    """All parts of a detector; those that a method has not are None."""

    backbone: Backbone | None
    dense: DenseHead | None
    crops: CropNetwork | None
    regions: RegionHead | None
    masks: MaskHead | None
    region_size: int

    def __call__(self, images: Array) -> None:
        """Touch every part, so that all parameters are made."""
        shared = self.crops(images[:, :CROP, :CROP]) if self.backbone is None else self.backbone(images)
        size = self.region_size if self.backbone else shared.shape[1]
        part = jnp.zeros((1, size, size, shared.shape[-1]))
        for head, x in ((self.dense, shared), (self.regions, part), (self.masks, part)):
            if head is not None:
                head(x)
