"""Pixels of images: from bytes to numbers that networks take."""

import jax.numpy as jnp

from jaxdl.core.types import Array


def to_unit(images: Array) -> Array:
    """uint8 [...] -> float32 [...] in [0, 1]."""
    return images.astype(jnp.float32) / 255


def to_symmetric(images: Array) -> Array:
    """uint8 [...] -> float32 [...] in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1
