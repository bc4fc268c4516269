"""Glimpses: means of areas, worked out pixel by pixel, and what lies outside of an image."""

import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.ops.glimpses import glimpses

RNG = np.random.default_rng(0)


def cell_mean(image, top, left, side):
    """The mean over a square of an image that is constant within each pixel and zero outside, by small squares of it."""
    fine = 8
    at = (np.arange(side * fine) + 0.5) / fine
    y, x = np.floor(top + at).astype(int), np.floor(left + at).astype(int)
    there = ((y >= 0) & (y < image.shape[0]))[:, None] & ((x >= 0) & (x < image.shape[1]))
    found = image[np.clip(y, 0, len(image) - 1)[:, None], np.clip(x, 0, image.shape[1] - 1)]
    return (found * there[..., None]).mean((0, 1))


@pytest.mark.parametrize(("shape", "size", "scales"), [((9, 7, 2), 4, 1), ((6, 6, 1), 3, 3)])
def test_a_cell_is_the_mean_of_the_image_over_its_area(shape, size, scales):
    """Also where it lies half outside of the image; places are multiples of 1/8 of a pixel, for the sums of the oracle."""
    images = RNG.uniform(size=(2, *shape)).astype(np.float32)
    centres = RNG.integers(-8, 8 * np.array(shape[:2]) + 8, size=(2, 5, 2)) / 8
    found = jit(glimpses, static_argnums=(2, 3))(images, np.float32(2 * centres / shape[:2] - 1), size, scales)
    assert found.shape == (2, 5, scales, size, size, shape[2])
    for b, p, k, i, j in np.ndindex(found.shape[:-1]):
        top, left = (centres[b, p] + (np.array([i, j]) - size / 2) * 2**k)
        np.testing.assert_allclose(found[b, p, k, i, j], cell_mean(images[b], top, left, 2**k), atol=2e-6)


def test_whole_pixels_are_a_crop_and_corners_see_zeros():
    images = jnp.arange(1.0, 37).reshape(1, 6, 6, 1)
    centre = glimpses(images, jnp.zeros((1, 2)), 4)[0, 0, ..., 0]
    np.testing.assert_array_equal(centre, images[0, 1:5, 1:5, 0])
    corner = np.asarray(glimpses(images, -jnp.ones((1, 2)), 4)[0, 0, ..., 0])
    np.testing.assert_array_equal(corner[2:, 2:], images[0, :2, :2, 0])
    assert not corner[:2].any()
    assert not corner[:, :2].any()
    coarse = glimpses(images, jnp.zeros((1, 2)), 3, 2)[0, 1, ..., 0]  # cells of 2x2 pixels over the whole image
    np.testing.assert_allclose(coarse, images[0, ..., 0].reshape(3, 2, 3, 2).mean((1, 3)), rtol=1e-6)


def test_down_comes_first():
    images = jnp.zeros((1, 8, 8, 1)).at[0, 6, 1].set(1)
    place = jnp.array([[6.5, 1.5]]) / 4 - 1  # the centre of that pixel
    np.testing.assert_allclose(glimpses(images, place, 3)[0, 0, 1, 1], [1], rtol=1e-6)
