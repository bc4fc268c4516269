"""Images at random places of a larger canvas, with pieces of other images around them.

As in Mnih et al., "Recurrent models of visual attention" (2014): translated digits lie anywhere on an empty canvas; among
clutter lie parts of 8 x 8 pixels of other digits too, which are no digits themselves. Where two overlap the brighter one shows.

Shapes: `B` images, `H W C` an image, `K` pieces, `L` side of the canvas.
"""

import jax
import jax.numpy as jnp

from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key

PIECE = 8  # pixels


def check(canvas: int | None, clutter: int, shape: tuple[int, ...]) -> None:
    """Refuse a canvas on which images [H, W, C] do not fit, and clutter that cannot be.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    sides = "x".join(map(str, shape[:2]))
    if canvas is not None and canvas < max(shape[:2]):
        raise UserError(f"canvas={canvas} is below the images of {sides} that it is to hold; give {max(shape[:2])} or more")
    if clutter < 0:
        raise UserError(f"clutter must be 0 or above, got {clutter}")
    if clutter and canvas is None:
        raise UserError(f"clutter={clutter} is of a canvas, and none is given; give canvas, its side in pixels")
    if clutter and min(shape[:2]) < PIECE:
        raise UserError(f"clutter={clutter} are pieces of {PIECE}x{PIECE} pixels of images, and these have {sides}; leave it "
                        "out")


def shape_on(canvas: int | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what is looked at, of images of a shape [H, W, C]."""
    return shape if canvas is None else (canvas, canvas, shape[2])


def drawn(images: Array, canvas: int | None, clutter: int, key: Key) -> Array:
    """Canvases [B, L, L, C] of images [B, H, W, C] and of K pieces of others of them; without a canvas the images.

    What image i draws depends on i and the key, and not on how many there are; whose pieces it has does.
    """
    if canvas is None:
        return images
    images, index = jnp.asarray(images), jnp.arange(len(images))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
    return jax.vmap(lambda i, key: _one(images, canvas, clutter, i, key))(index, keys)


def _one(images: Array, side: int, clutter: int, i: Array, key: Key) -> Array:
    num, height, width, channels = images.shape
    u = jax.random.uniform(key, (1 + clutter, 5))

    def below(u: Array, n: int) -> Array:
        return jnp.minimum((u * n).astype(jnp.int32), n - 1)

    canvas = jnp.zeros((side, side, channels), images.dtype)
    place = below(u[0, 0], side - height + 1), below(u[0, 1], side - width + 1), 0
    canvas = jax.lax.dynamic_update_slice(canvas, images[i], place)
    for other, *at in u[1:]:
        other = (i + 1 + below(other, max(num - 1, 1))) % num
        piece = jax.lax.dynamic_slice(images, (other, below(at[0], height - PIECE + 1), below(at[1], width - PIECE + 1), 0),
                                      (1, PIECE, PIECE, channels))[0]
        place = below(at[2], side - PIECE + 1), below(at[3], side - PIECE + 1), 0
        under = jax.lax.dynamic_slice(canvas, place, piece.shape)
        canvas = jax.lax.dynamic_update_slice(canvas, jnp.maximum(under, piece), place)
    return canvas
