"""Masks from attributions: an object of one colour is found whole from a few of its pixels."""

import numpy as np

from jaxdl.analysis import segments


def scene():
    picture = np.random.default_rng(0).uniform(0, 0.1, (30, 30, 3))
    truth = np.zeros((30, 30), bool)
    truth[8:20, 10:24] = True
    picture[truth] += [0.8, 0.1, 0.3]
    return picture, truth


def test_an_object_is_found_whole_from_some_of_its_pixels():
    picture, truth = scene()
    attribution = np.zeros((30, 30))
    attribution[3:27, 3:27] = 0.5  # undecided
    attribution[11:14, 12:15] = attribution[16:18, 20:22] = 1  # 13 of its 168 pixels
    found = segments.segmented(picture, attribution, high=0.98)
    assert segments.overlap(found[None], truth[None])[0] > 0.95


def test_colours_of_the_ground_are_no_object_however_strong():
    picture, truth = scene()
    attribution = np.zeros((30, 30))
    attribution[3:27, 3:27] = 0.5
    attribution[5:22, 12:15] = 1  # 5 of its 17 rows are ground above and below the object
    assert segments.overlap(segments.segmented(picture, attribution, high=0.94)[None], truth[None])[0] > 0.95


def test_distances_from_colours_by_hand():
    picture = np.array([[[0.0], [2.0], [4.0], [5.0]]])
    found = segments.distance(picture, np.array([[True, True, True, False]]))  # mean 2, variance 4
    np.testing.assert_allclose(found, [[1, 0, 1, 9 / 4]], rtol=1e-3)


def test_a_second_part_is_left_out_and_nothing_gives_nothing():
    mask = np.zeros((10, 10), bool)
    mask[1:3, 1:3] = mask[5:9, 5:8] = True
    found = segments.largest_part(mask)
    assert (found.sum(), found[6, 6], found[1, 1]) == (12, True, False)
    assert not segments.largest_part(np.zeros((4, 4), bool)).any()
    assert not segments.segmented(scene()[0], np.zeros((30, 30))).any()


def test_overlap_by_hand():
    a, b = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    a[0, :2], b[0, 1:3] = True, True
    a[1, 0, 0] = True
    np.testing.assert_allclose(segments.overlap(a, b), [4 / 12, 0, 1])
