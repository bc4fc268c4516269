"""Boxes: overlaps, suppression, deltas, anchors, matching and RoIAlign by hand and beside plain loops of NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import jit

from jaxdl.ops import boxes as ops


def drawn(rng, n, size=64.0):
    corners = np.sort(rng.uniform(0, size, (n, 2, 2)), 1)
    return np.float32(corners.reshape(n, 4))


def overlap(a, b):
    """Of two boxes, in plain Python."""
    both = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / either


def greedy(boxes, scores, threshold, classes=None):
    """Non-maximum suppression box by box."""
    left, kept = list(np.argsort(-scores, kind="stable")), []
    while left:
        i = left.pop(0)
        kept.append(i)
        left = [j for j in left if overlap(boxes[i], boxes[j]) <= threshold
                or (classes is not None and classes[i] != classes[j])]
    return kept


def test_overlaps_by_hand():
    a = jnp.array([[0, 0, 4, 4], [2, 2, 6, 6], [5, 5, 5, 9], [3, 3, 1, 1.0]])
    np.testing.assert_allclose(ops.box_area(a), [16, 16, 0, 0])
    np.testing.assert_allclose(ops.box_iou(a, a[:2]), [[1, 4 / 28], [4 / 28, 1], [0, 0], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(ops.box_iou(a / 64, a[:2] / 64), ops.box_iou(a, a[:2]), rtol=1e-6)  # also of less than a pixel
    assert ops.box_iou(jnp.zeros((2, 5, 4)), jnp.zeros((2, 3, 4))).shape == (2, 5, 3)
    np.testing.assert_allclose(ops.clip_boxes(jnp.array([-3.0, 2, 70, 50]), 40, 60), [0, 2, 60, 40])


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_suppression_is_that_box_by_box(threshold):
    rng = np.random.default_rng(0)
    boxes = np.stack([drawn(rng, 80) for _ in range(4)])
    scores = np.float32(rng.integers(0, 40, (4, 80)) / 40)  # many are equal
    classes = rng.integers(0, 3, (4, 80))
    plain = jit(jax.vmap(lambda b, s: ops.nms(b, s, threshold)))(boxes, scores)
    by_class = jit(jax.vmap(lambda b, s, c: ops.nms(b, s, threshold, classes=c, num=20)))(boxes, scores, classes)
    for i in range(4):
        assert plain.index[i][plain.valid[i]].tolist() == greedy(boxes[i], scores[i], threshold)
        assert by_class.index[i][by_class.valid[i]].tolist() == greedy(boxes[i], scores[i], threshold, classes[i])[:20]
    assert by_class.index.shape == (4, 20)


def test_a_chain_of_overlaps_and_boxes_that_are_not_there():
    boxes = jnp.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [12, 0, 22, 10.0]])  # each overlaps the next by 6 / 14
    scores = jnp.array([0.9, 0.8, 0.7, 0.6])
    kept = ops.nms(boxes, scores, 0.3)
    assert (kept.index[:2].tolist(), kept.valid.tolist()) == ([0, 2], [True, True, False, False])
    kept = ops.nms(boxes, scores, 0.3, valid=jnp.array([False, True, True, True]))
    assert kept.index[kept.valid].tolist() == [1, 3]
    assert not ops.nms(boxes, scores, 0.3, valid=jnp.zeros(4, bool)).valid.any()


def test_deltas_by_hand_and_back():
    anchor, box = jnp.array([10.0, 10, 20, 30]), jnp.array([15.0, 0, 20, 40])
    found = ops.encode(box, anchor)
    np.testing.assert_allclose(found, [0.25, 0, math.log(0.5), math.log(2)], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ops.encode(box, anchor, (10, 10, 5, 5)), found * np.array([10, 10, 5, 5]), rtol=1e-6)
    rng = np.random.default_rng(1)
    boxes, anchors = drawn(rng, 50), drawn(rng, 50) + np.float32([0, 0, 8, 8])
    again = ops.decode(ops.encode(boxes, anchors, (10, 10, 5, 5)), anchors, (10, 10, 5, 5))
    np.testing.assert_allclose(again, boxes, atol=1e-3)
    grown = ops.decode(jnp.array([0, 0, 99.0, -99.0]), anchor)
    np.testing.assert_allclose(grown[2] - grown[0], 10 * 1000 / 16, rtol=1e-5)
    assert np.isfinite(ops.encode(jnp.zeros(4), anchor)).all()  # an object that is not there


def test_anchors_lie_around_the_centres_of_cells():
    found = ops.make_anchors(2, 3, 8, (16, 32), (0.5, 1.0))
    assert found.shape == (2 * 3 * 4, 4)
    found = np.asarray(found).reshape(2, 3, 4, 4)
    centres = np.array([[[4, 4], [12, 4], [20, 4]], [[4, 12], [12, 12], [20, 12]]])[:, :, None]
    np.testing.assert_allclose((found[..., :2] + found[..., 2:]) / 2, np.broadcast_to(centres, (2, 3, 4, 2)))
    sides = (found[..., 2:] - found[..., :2])[1, 2]
    np.testing.assert_allclose(np.sqrt(sides.prod(-1)), [16, 32, 16, 32], rtol=1e-6)
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], [0.5, 0.5, 1, 1], rtol=1e-6)


def test_what_anchors_are_to_find():
    objects = jnp.array([[0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 60.0], [0, 0, 64, 64]])
    valid = jnp.array([True, True, True, False])
    anchors = jnp.array([[0, 0, 10, 9], [0, 0, 10, 6], [5, 5, 15, 15], [20, 20, 40, 32], [52, 52, 70, 70], [50, 56, 90, 90],
                         [0, 0, 64, 63.0]])
    overlaps = [max(overlap(a, o) for o in objects[:3].tolist()) for a in anchors.tolist()]
    np.testing.assert_allclose(overlaps, [0.9, 0.6, 25 / 175, 0.6, 64 / 360, 40 / 1420, 400 / 4032], rtol=1e-6)
    found = ops.match(anchors, objects, valid, 0.3, 0.7)
    np.testing.assert_array_equal(found, [0, ops.BETWEEN, -1, ops.BETWEEN, -1, -1, -1])
    np.testing.assert_array_equal(ops.match(anchors, objects, valid, 0.3, 0.7, True), [0, ops.BETWEEN, -1, 1, 2, -1, -1])
    np.testing.assert_array_equal(ops.match(anchors, objects, jnp.zeros(4, bool), 0.3, 0.7, True), -1)


def aligned(features, box, size, scale, samples):
    """RoIAlign point by point."""
    height, width, channels = features.shape
    x0, y0, x1, y1 = (v * scale for v in box)
    out = np.zeros((size, size, channels))
    for p, q, i, j in np.ndindex(size, size, samples, samples):
        y = y0 - 0.5 + (p + (i + 0.5) / samples) * (y1 - y0) / size
        x = x0 - 0.5 + (q + (j + 0.5) / samples) * (x1 - x0) / size
        if not (-1 <= y <= height and -1 <= x <= width):
            continue
        y, x = (min(max(v, 0), n - 1) for v, n in ((y, height), (x, width)))
        top, left = int(y), int(x)
        for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if row < height and column < width:
                out[p, q] += (1 - abs(y - row)) * (1 - abs(x - column)) * features[row, column] / samples**2
    return out


@pytest.mark.parametrize(("scale", "samples", "size"), [(0.25, 2, 7), (1.0, 1, 4), (0.125, 3, 2)])
def test_regions_are_those_point_by_point(scale, samples, size):
    rng = np.random.default_rng(2)
    features = np.float32(rng.normal(size=(9, 11, 3)))
    boxes = np.concatenate([drawn(rng, 5, 9 / scale), [[-9 / scale, -2, 3, 15 / scale], [4, 4, 4, 4.5]]]).astype(np.float32)
    found = jit(lambda f, b: ops.roi_align(f, b, size, scale, samples))(features, boxes)
    for box, region in zip(boxes, found, strict=True):
        np.testing.assert_allclose(region, aligned(features, box, size, scale, samples), atol=1e-5)


def test_a_region_of_a_slope_is_the_slope():
    x, y = np.meshgrid(np.arange(16) + 0.5, np.arange(16) + 0.5)
    features = jnp.asarray(np.stack([x, y], -1), jnp.float32)  # a pixel knows where its centre is
    found = ops.roi_align(features, jnp.array([[3.0, 4, 11, 8]]), 4)
    np.testing.assert_allclose(found[0, 0, :, 0], [4, 6, 8, 10], rtol=1e-6)
    np.testing.assert_allclose(found[0, :, 0, 1], [4.5, 5.5, 6.5, 7.5], rtol=1e-6)


def test_a_mask_is_put_into_its_box():
    mask = jnp.array([[[1.0, 0.0], [1.0, 1.0]]])
    found = ops.paste(mask, jnp.array([[2.0, 1, 6, 5]]), 6, 8)
    assert found.shape == (1, 6, 8)
    inside = np.zeros((6, 8), bool)
    inside[1:5, 2:6] = True
    assert (found[0][~inside] == 0).all()
    np.testing.assert_allclose(found[0, 1, 2:6], [1, 0.75, 0.25, 0], atol=1e-6)
    np.testing.assert_allclose(found[0, 4, 2:6], 1, atol=1e-6)
    whole = ops.paste(jnp.ones((1, 14, 14)), jnp.array([[2.3, 1.2, 6.8, 4.9]]), 6, 8)  # pixels whose centres lie in the box
    np.testing.assert_allclose(whole[0], np.pad(np.ones((4, 5)), ((1, 1), (2, 1))), atol=1e-6)
