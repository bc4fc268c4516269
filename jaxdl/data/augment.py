"""Changes of images on the device, so that training sees each of them anew; what they show stays, or is mixed with it.

    geometry   flip, crop, rotate, scale and shift: one affine map an image, drawn by `draw`, and applied to what it moves:
               images (`moved`), maps of classes (`moved` with `nearest`), boxes (`moved_boxes`)
    colour     brightness, contrast and saturation times numbers of U(1 - s, 1 + s) (Howard, "Some improvements on deep
               convolutional neural network based image classification", 2013)
    cutout     a square of zeros at a random place (DeVries & Taylor 2017)
    mixup      l x_i + (1 - l) x_j with l of Beta(a, a), and the same of the losses (Zhang et al. 2018); one l a batch

A map takes places of the new image to places of the old one, in pixels from the centre; what lies outside is zero. Shifts and
flips alone are exact moves of whole pixels; with anything else images are interpolated linearly.

Shapes: `B` batch, `H W C` an image, `K` boxes of an image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_unit
from jaxdl.core.types import Array, Key


@settings
class Config:
    """How images are changed while they are learned from."""

    max_shift: int = 0
    """Pixels by which an image is moved at most, up or down and left or right."""
    flip: bool = False
    """Mirror half of the images, left to right."""
    rotate: float | None = None
    """Degrees by which an image is turned at most, either way."""
    scale: float | None = None
    """Share by which an image is made larger or smaller at most: 0.1 for 0.9 to 1.1."""
    crop: float | None = None
    """Share of an image's area that a random part of it has at least, which is then stretched to the whole (Szegedy et al.
    2015: 0.08); sides are between 3 to 4 and 4 to 3."""
    colour: float | None = None
    """Brightness, contrast and saturation are multiplied by numbers between 1 - colour and 1 + colour."""
    cutout: int | None = None
    """Side of the square of zeros."""
    mixup: float | None = None
    """The a of Beta(a, a), by whose draws each two images are mixed."""


def validate(config: Config) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require(config, "max_shift", config.max_shift >= 0, "0 or above")
    require(config, "cutout", config.cutout is None or config.cutout > 0, "above 0")
    require(config, "rotate", config.rotate is None or 0 <= config.rotate <= 180, "between 0 and 180 degrees")
    require(config, "scale", config.scale is None or 0 <= config.scale < 1, "at least 0 and below 1")
    require(config, "crop", config.crop is None or 0 < config.crop <= 1, "above 0 and at most 1")
    if config.colour is not None:
        require_unit(config, "colour")
    require(config, "mixup", config.mixup is None or 0 < config.mixup < float("inf"), "above 0")


class Moves(NamedTuple):
    """An affine map an image: place in the old image = matrix @ place in the new one + offset, (y, x) from the centre."""

    matrix: Array  # [B, 2, 2]
    offset: Array  # [B, 2] pixels


def is_affine(config: Config) -> bool:
    """Whether images are moved by more than whole pixels."""
    return config.rotate is not None or config.scale is not None or config.crop is not None


def draw(config: Config, key: Key, shape: tuple[int, ...]) -> Moves:
    """The maps of a batch [B, H, W, C]."""
    num, sides = shape[0], jnp.array(shape[1:3], jnp.float32)
    k_flip, k_turn, k_scale, k_shift, k_area, k_ratio, k_place = jax.random.split(key, 7)
    angle = jnp.zeros(num) if config.rotate is None else jnp.deg2rad(config.rotate) * _either_way(k_turn, (num,))
    size = jnp.ones((num, 1)) if config.scale is None else 1 / (1 + config.scale * _either_way(k_scale, (num, 1)))
    offset = jax.random.randint(k_shift, (num, 2), -config.max_shift, config.max_shift + 1).astype(jnp.float32)
    if config.crop is not None:
        area = jax.random.uniform(k_area, (num, 1), minval=config.crop, maxval=1.0)
        ratio = jnp.exp(jax.random.uniform(k_ratio, (num, 1), minval=jnp.log(3 / 4), maxval=jnp.log(4 / 3)))
        part = jnp.minimum(jnp.sqrt(area * jnp.concatenate([ratio, 1 / ratio], -1)), 1.0)  # of each side
        offset += (1 - part) * sides / 2 * _either_way(k_place, (num, 2))
        size = size * part
    mirrored = jnp.where(jax.random.bernoulli(k_flip, 0.5, (num,)) & config.flip, -1.0, 1.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.stack([jnp.stack([cos, -sin * mirrored], -1), jnp.stack([sin, cos * mirrored], -1)], -2)
    return Moves(turn * size[..., None], offset)


def moved(images: Array, moves: Moves, nearest: bool = False) -> Array:
    """Images [B, H, W, C] of any dtype, or maps of classes with `nearest`, where their maps put them; zeros come in.

    Linear between the four pixels around a place; `nearest`: the one that is.
    """
    h, w = images.shape[1:3]
    centre = jnp.array([(h - 1) / 2, (w - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij"), -1).reshape(-1, 2) - centre
    places = jnp.einsum("bij,pj->bpi", moves.matrix, grid, precision="highest") + moves.offset[:, None] + centre

    def of_one(image: Array, place: Array) -> Array:
        def at(corner: Array) -> Array:
            y, x = corner[:, 0], corner[:, 1]
            inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
            found = image.reshape(h * w, -1)[jnp.clip(y, 0, h - 1) * w + jnp.clip(x, 0, w - 1)]
            return jnp.where(inside[:, None], found, 0)

        if nearest:
            return at(jnp.floor(place + 0.5).astype(jnp.int32)).reshape(image.shape)
        low = jnp.floor(place)
        part, low = place - low, low.astype(jnp.int32)
        total = 0.0
        for dy in (0, 1):
            for dx in (0, 1):
                weight = (part[:, 0] if dy else 1 - part[:, 0]) * (part[:, 1] if dx else 1 - part[:, 1])
                total += weight[:, None] * at(low + jnp.array([dy, dx])).astype(jnp.float32)
        return _as_dtype(total.reshape(image.shape), image.dtype)

    return jax.vmap(of_one)(images, places)


def moved_boxes(boxes: Array, moves: Moves, shape: tuple[int, ...]) -> Array:
    """Boxes [B, K, 4] (x and y of the first pixel's edge, x and y of the last one's) around where their corners went.

    They are cut at the edges of the image [B, H, W, C]; one that left it has no area.
    """
    h, w = shape[1:3]
    x0, y0, x1, y1 = jnp.moveaxis(boxes, -1, 0)
    corners = jnp.stack([jnp.stack([y, x], -1) for y in (y0, y1) for x in (x0, x1)], -2)  # [B, K, 4, 2]
    centre = jnp.array([h / 2, w / 2])
    back = jnp.linalg.inv(moves.matrix)
    new = jnp.einsum("bij,bkcj->bkci", back, corners - centre - moves.offset[:, None, None], precision="highest") + centre
    new = jnp.clip(new, 0, jnp.array([h, w]))
    low, high = new.min(-2), new.max(-2)
    return jnp.stack([low[..., 1], low[..., 0], high[..., 1], high[..., 0]], -1)


def changed(config: Config, images: Array, key: Key) -> Array:
    """Images [B, H, W, C], each changed in its own way; mixing is `mixed`."""
    k_move, k_flip, k_colour, k_cut = jax.random.split(key, 4)
    if is_affine(config):
        images = moved(images, draw(config, k_move, images.shape))
    else:
        images = shifted(images, k_move, config.max_shift)
        if config.flip:
            mirror = jax.random.bernoulli(k_flip, 0.5, (len(images), 1, 1, 1))
            images = jnp.where(mirror, images[:, :, ::-1], images)
    if config.colour is not None:
        images = coloured(images, k_colour, config.colour)
    return images if config.cutout is None else cut(images, k_cut, config.cutout)


def shifted(images: Array, key: Key, most: int) -> Array:
    """Each image moved by a whole number of pixels of its own, up to `most` either way; zeros come in: [B, H, W, C]."""
    if most == 0:
        return images
    by = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1)
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    return jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), images.shape[1:]))(padded, by)


def coloured(images: Array, key: Key, strength: float | Array) -> Array:
    """Brightness, then contrast around the mean, then saturation around grey, each times its own number an image."""
    brightness, contrast, saturation = 1 + strength * _either_way(key, (3, len(images), 1, 1, 1))
    top = 255.0 if images.dtype == jnp.uint8 else 1.0
    x = images.astype(jnp.float32) * brightness
    mean = x.mean((1, 2, 3), keepdims=True)
    x = mean + contrast * (x - mean)
    grey = x.mean(-1, keepdims=True)
    return _as_dtype(jnp.clip(grey + saturation * (x - grey), 0, top), images.dtype)


def cut(images: Array, key: Key, side: int) -> Array:
    """A square of zeros in each image, whose centre may be any pixel: at the edges less of it is seen."""
    num, h, w, _ = images.shape
    centre = jax.random.randint(key, (num, 2), 0, jnp.array([h, w]))

    def hidden(n: int, at: Array) -> Array:
        from_start = jnp.arange(n) - at[:, None] + side // 2
        return (from_start >= 0) & (from_start < side)

    square = hidden(h, centre[:, 0])[:, :, None] & hidden(w, centre[:, 1])[:, None, :]
    return jnp.where(square[..., None], 0, images)


class Mixed(NamedTuple):
    """A batch mixed with another order of itself."""

    inputs: Array  # float32 [B, ...]
    others: Array  # the order, int32 [B]
    share: Array  # () of the example itself, the rest is of the other one

    def loss(self, of: Array, of_others: Array) -> Array:
        """The losses [B] of each example's own target and of the other's, mixed alike."""
        return self.share * of + (1 - self.share) * of_others


def mixed(inputs: Array, key: Key, a: float | Array) -> Mixed:
    """Inputs [B, ...] (float32) mixed with another order of themselves."""
    k_share, k_order = jax.random.split(key)
    share, others = jax.random.beta(k_share, a, a), jax.random.permutation(k_order, len(inputs))
    return Mixed(share * inputs + (1 - share) * inputs[others], others, share)


def _either_way(key: Key, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _as_dtype(x: Array, dtype: jnp.dtype) -> Array:
    return jnp.rint(x).astype(dtype) if dtype == jnp.uint8 else x.astype(dtype)
