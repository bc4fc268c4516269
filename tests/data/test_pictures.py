import errno
import os

import numpy as np
import pytest
from PIL import Image

from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.data.pictures import grid, pairs, save_png


def solid(n, height, width, channels=1):
    """Images 1 to n, each of a grey of its own"""
    return np.broadcast_to(np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None], (n, height, width, channels))


def test_every_image_is_in_its_place():
    picture = grid(solid(6, 64, 64))  # large enough to stay as it is: 3 columns, 2 rows
    assert picture.shape == (2 + 2 * 66, 2 + 3 * 66, 1)
    for i in range(6):
        top, left = 2 + i // 3 * 66, 2 + i % 3 * 66
        assert (picture[top : top + 64, left : left + 64] == i + 1).all()
    assert np.isin(picture, range(1, 7)).sum() == 6 * 64 * 64  # and the rest is gaps
    assert len(np.unique(picture)) == 7


def test_small_images_are_enlarged_pixel_by_pixel():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    picture = grid(image)
    assert picture.shape == (60, 60, 3)
    inside = picture[2:-2, 2:-2]
    np.testing.assert_array_equal(inside[::7, ::7], image[0])
    np.testing.assert_array_equal(inside, inside[::7, ::7].repeat(7, axis=0).repeat(7, axis=1))


@pytest.mark.parametrize(("n", "height", "width"), [(64, 28, 28), (30, 8, 8), (100, 10, 40), (50, 64, 16)])
def test_a_mosaic_is_nearly_square(n, height, width):
    rows, columns, _ = grid(solid(n, height, width)).shape
    assert 1 / 1.35 < rows / columns < 1.35


def test_a_large_mosaic_is_not_enlarged_beyond_reason():
    assert grid(solid(200, 28, 28)).shape[1] > 15 * 56
    assert max(grid(np.zeros((10_000, 28, 28, 1), np.uint8)).shape) < 3100


def test_floats_are_bytes_over_255():
    levels = np.array([0.0, 0.5, 1.0, -9e-4, 1.0009], np.float32).reshape(5, 1, 1, 1)
    expected = np.array([0, 128, 255, 0, 255], np.uint8).reshape(5, 1, 1, 1)
    np.testing.assert_array_equal(grid(levels), grid(expected))


def test_originals_stand_above_their_reconstructions():
    n = 8
    originals, again = solid(n, 64, 64), solid(n, 64, 64) + np.uint8(100)
    picture = pairs(originals, again.astype(np.float32) / 255)[..., 0]
    for i in range(1, n + 1):
        (top, left), (below, left_below) = (np.argwhere(picture == v).min(axis=0) for v in (i, i + 100))
        assert left == left_below
        assert below == top + 64 + 2
        assert (picture == i).sum() == (picture == i + 100).sum() == 64 * 64
    first, fifth = (np.argwhere(picture == v).min(axis=0) for v in (101, 5))
    assert fifth[0] - first[0] > 64 + 2  # pairs stand further apart than what belongs together


@pytest.mark.parametrize(("images", "sentence"), [
    (np.zeros((0, 8, 8, 1)), "none of them 0"),
    (np.zeros((8, 8)), r"must be \[N, H, W, C\]"),
    (np.zeros((2, 8, 8, 2)), "C 1 or 3"),
    (np.zeros((2, 8, 8, 1), np.int32), "got int32"),
    (np.full((2, 8, 8, 1), 255.0), "from 255 to 255"),
    (np.full((2, 8, 8, 1), -1.0), r"must lie in \[0, 1\]"),
    (np.full((2, 8, 8, 1), np.nan), r"must lie in \[0, 1\]"),
])
def test_what_is_no_image_is_refused(images, sentence):
    with pytest.raises(UserError, match=sentence):
        grid(images)
    with pytest.raises(UserError, match=sentence):
        pairs(images, images)


def test_pairs_of_different_shapes_are_refused():
    with pytest.raises(UserError, match=r"\[2, 8, 8, 1\] and reconstructions \[3, 8, 8, 1\]"):
        pairs(solid(2, 8, 8), solid(3, 8, 8))


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_png_goes_round(tmp_path, channels, mode):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    save_png(tmp_path / "x.png", picture)
    with Image.open(tmp_path / "x.png") as read:
        assert (read.format, read.mode) == ("PNG", mode)
        np.testing.assert_array_equal(np.asarray(read).reshape(picture.shape), picture)


def test_a_picture_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    picture = np.zeros((4, 4, 1), np.uint8)
    with pytest.raises(UserError, match=r"must end in \.png"):
        save_png(tmp_path / "x.jpg", picture)
    save_png(tmp_path / "x.png", picture)
    before = (tmp_path / "x.png").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        save_png(tmp_path / "x.png", picture + 1)
    assert (tmp_path / "x.png").read_bytes() == before
    assert os.listdir(tmp_path) == ["x.png"]
