"""Changes of images: exact moves, maps that boxes and classes follow, and mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from tools import assert_close

from jaxdl.core.errors import UserError
from jaxdl.data import augment
from jaxdl.data.augment import Config, Moves


def test_images_are_moved_by_whole_pixels_each_its_own_way():
    images = jnp.arange(1, 251, dtype=jnp.uint8)[:, None, None, None] * jnp.zeros((1, 7, 7, 1), jnp.uint8).at[0, 3, 3, 0].set(1)
    moved = np.asarray(augment.shifted(images, jax.random.key(0), 2))
    assert (moved.shape, moved.dtype) == (images.shape, np.uint8)
    np.testing.assert_array_equal(moved.sum((1, 2, 3)), np.arange(1, 251))
    places = {tuple(int(i) for i in np.argwhere(image)[0][:2]) for image in moved}
    assert places == {(i, j) for i in range(1, 6) for j in range(1, 6)}
    np.testing.assert_array_equal(augment.shifted(images, jax.random.key(0), 0), images)


def test_a_map_is_that_of_scipy():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(3, 9, 7, 2)).astype(np.float32)
    matrix, offset = rng.normal(size=(3, 2, 2)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    found = augment.moved(jnp.asarray(images), Moves(jnp.asarray(matrix), jnp.asarray(offset)))
    centre = np.array([4, 3])
    padded = np.pad(images, ((0, 0), (5, 5), (5, 5), (0, 0)))
    for b in range(3):
        at = centre + 5 + offset[b] - matrix[b] @ (centre + 0)
        for c in range(2):
            expected = ndimage.affine_transform(padded[b, ..., c], matrix[b], at, output_shape=(9, 7), order=1)
            assert_close(found[b, ..., c], expected, atol=1e-4)


def test_boxes_and_classes_are_moved_along():
    """A filled rectangle, its map of classes and its box stay together under flips, scales and shifts."""
    config = Config(max_shift=3, flip=True, scale=0.4)
    mask = np.zeros((16, 40, 40, 1), np.uint8)
    mask[:, 12:24, 10:30] = 1
    moves = augment.draw(config, jax.random.key(1), mask.shape)
    images = np.asarray(augment.moved(jnp.asarray(200 * mask), moves))
    masks = np.asarray(augment.moved(jnp.asarray(mask), moves, nearest=True))
    boxes = np.asarray(augment.moved_boxes(jnp.full((16, 1, 4), jnp.array([10.0, 12, 30, 24])), moves, mask.shape))[:, 0]
    assert set(np.unique(masks)) == {0, 1}
    assert np.abs((images > 100).astype(int) - masks).mean() < 0.01
    for one, (x0, y0, x1, y1) in zip(masks[..., 0], boxes, strict=True):
        rows, columns = np.flatnonzero(one.any(1)), np.flatnonzero(one.any(0))
        np.testing.assert_allclose([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], [x0, y0, x1, y1], atol=0.51)


def test_turns_and_crops_stay_within_what_was_asked():
    moves = augment.draw(Config(rotate=30.0), jax.random.key(0), (500, 8, 8, 1))
    angles = np.rad2deg(np.arctan2(moves.matrix[:, 1, 0], moves.matrix[:, 0, 0]))
    assert np.abs(angles).max() <= 30.001
    assert angles.std() == pytest.approx(30 / np.sqrt(3), rel=0.1)
    assert_close(moves.matrix @ moves.matrix.mT, np.broadcast_to(np.eye(2), (500, 2, 2)), atol=1e-5)
    moves = augment.draw(Config(crop=0.3), jax.random.key(0), (500, 8, 8, 1))
    part = np.asarray(moves.matrix)[:, [0, 1], [0, 1]]
    assert (part <= 1).all()
    assert 0.29 < part.prod(-1).min() < 0.35
    assert (np.abs(moves.offset) <= (1 - part) * 4 + 1e-5).all()  # never outside
    np.testing.assert_array_equal(augment.moved(jnp.ones((1, 5, 5, 1)), Moves(jnp.eye(2)[None], jnp.zeros((1, 2)))), 1)


def test_a_square_is_cut_and_colours_keep_their_range():
    images = jnp.full((200, 9, 9, 3), 100, jnp.uint8)
    cut = np.asarray(augment.cut(images, jax.random.key(0), 3))
    holes = (cut == 0).all(-1).sum((1, 2))
    assert set(holes) == {4, 6, 9}  # corners, edges, within
    coloured = np.asarray(augment.coloured(images, jax.random.key(0), 0.5))
    assert coloured.dtype == np.uint8
    assert_close(coloured[..., 0], coloured[..., 1])  # grey stays grey
    assert 50 <= coloured.min() < 60
    assert 140 < coloured.max() <= 150
    assert_close(augment.coloured(images, jax.random.key(0), 0.0), images)


def test_mixtures_are_of_pairs_and_their_losses_are_mixed_alike():
    x = jnp.eye(4)
    mix = augment.mixed(x, jax.random.key(3), 0.4)
    assert_close(mix.inputs, mix.share * x + (1 - mix.share) * x[mix.others])
    np.testing.assert_array_equal(np.sort(mix.others), np.arange(4))
    assert_close(mix.loss(jnp.array([1.0, 2, 3, 4]), jnp.zeros(4)), mix.share * jnp.array([1.0, 2, 3, 4]))
    shares = jax.vmap(lambda key: augment.mixed(x, key, 0.4).share)(jax.random.split(jax.random.key(0), 2000))
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.1)  # of Beta(a, a)


@pytest.mark.parametrize(("field", "value"), [
    ("max_shift", -1), ("rotate", 200.0), ("scale", 1.0), ("crop", 0.0), ("colour", 1.5), ("cutout", 0), ("mixup", 0.0)])
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(UserError, match=f"{field} must be .*, got {value}"):
        augment.validate(Config(**{field: value}))
