"""Canvases: an image is whole wherever it lies, pieces are of others, and what is drawn is the key's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.core.errors import UserError
from jaxdl.data import canvas

RNG = np.random.default_rng(0)
drawn = jit(canvas.drawn, static_argnums=(1, 2))


def found_at(image, on):
    """Where a canvas shows an image, pixel by pixel."""
    h, w = image.shape[:2]
    corners = np.ndindex(len(on) - h + 1, on.shape[1] - w + 1)
    return [(i, j) for i, j in corners if (on[i : i + h, j : j + w] == image).all()]


def test_an_image_lies_whole_and_alone_at_any_place():
    images = np.uint8(RNG.integers(1, 256, (200, 3, 4, 1)))
    on = np.asarray(drawn(images, 6, 0, jax.random.key(0)))
    assert (on.shape, on.dtype) == ((200, 6, 6, 1), np.uint8)
    np.testing.assert_array_equal((on > 0).sum((1, 2, 3)), 12)
    places = [found_at(*pair) for pair in zip(images, on, strict=True)]
    assert all(len(place) == 1 for place in places)
    assert {place[0] for place in places} == {(i, j) for i in range(4) for j in range(3)}  # edges too
    again = drawn(images, 6, 0, jax.random.key(0))
    np.testing.assert_array_equal(on, again)
    assert (on != drawn(images, 6, 0, jax.random.key(1))).any((1, 2, 3)).mean() > 0.8
    np.testing.assert_array_equal(drawn(images[:7], 6, 0, jax.random.key(0)), on[:7])
    np.testing.assert_array_equal(drawn(images, None, 0, jax.random.key(0)), images)


def test_pieces_are_of_other_images_and_hide_nothing_that_is_brighter():
    """Images of one grey each: the brightest is seen whole, a piece shows whose it is."""
    images = (np.arange(1, 7, dtype=np.uint8) * 40)[:, None, None, None] * np.ones((1, 10, 9, 1), np.uint8)
    plain = np.asarray(drawn(images, 40, 0, jax.random.key(3)))
    on = np.asarray(drawn(images, 40, 3, jax.random.key(3)))
    for i, canvas_of in enumerate(on):
        rest = canvas_of[plain[i] == 0]
        greys = set(np.unique(rest)) - {0}
        assert greys
        assert greys <= set(np.unique(images)) - {images[i, 0, 0, 0]}
        assert (rest > 0).sum() <= 3 * canvas.PIECE**2
    brightest = on[-1] == images[-1, 0, 0, 0]
    assert brightest.sum() == 90
    assert (on >= plain).all()


def test_pieces_are_parts_as_they_were():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    images[1] = RNG.integers(1, 256, (8, 8, 1))  # a piece of it is all of it
    on = np.asarray(drawn(images, 30, 1, jax.random.key(0)))
    assert len(found_at(images[1], on[0])) == 1
    assert len(found_at(images[1], on[1])) == 1  # its own place, and the piece is of the black one


@pytest.mark.parametrize(("how", "sentence"), [
    ((27, 0, (28, 20, 1)), "canvas=27 is below the images of 28x20"), ((None, 4, (28, 28, 1)), "clutter=4 is of a canvas"),
    ((60, -1, (28, 28, 1)), "clutter must be 0 or above, got -1"), ((60, 4, (28, 7, 1)), "clutter=4 are pieces of 8x8")])
def test_what_does_not_fit_is_refused(how, sentence):
    with pytest.raises(UserError, match=sentence):
        canvas.check(*how)


def test_one_image_alone_has_pieces_of_itself():
    one = jnp.full((1, 8, 8, 1), 9, jnp.uint8)
    assert (np.asarray(drawn(one, 30, 2, jax.random.key(0))) == 9).sum() > 64
