"""Changes of images that leave what they show: training sees each of them anew."""

import jax
import jax.numpy as jnp

from jaxdl.core.types import Array, Key


def shifted(images: Array, key: Key, most: int) -> Array:
    """Each image moved by a whole number of pixels of its own, up to `most` either way; zeros come in: [B, H, W, C]."""
    if most == 0:
        return images
    by = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1)
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
    return jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (*at, 0), images.shape[1:]))(padded, by)
