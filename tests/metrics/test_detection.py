"""Average precision: by hand, and beside COCO's own evaluation on random detections."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxdl.metrics import detection

N, D, K, SIDE, Y = 20, 30, 8, 32, 3


def scene(seed):
    """Objects, and detections that are near to them, far from them, twice, and of other classes; scores are often equal."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, SIDE, (N, K, 2, 2)), 2)
    truth, labels = corners.reshape(N, K, 4), rng.integers(0, Y + 1, (N, K))
    labels[:2], labels[2] = 0, 1  # pictures without objects
    near = np.take_along_axis(truth, rng.integers(0, K, (N, D))[..., None], 1)
    boxes = near + rng.normal(size=near.shape) * rng.choice([0, 0.3, 1, 8], (N, D, 1))
    boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2] + 0.5)
    classes = np.where(rng.random((N, D)) < 0.8, np.take_along_axis(labels, rng.integers(0, K, (N, D)), 1),
                       rng.integers(0, Y + 1, (N, D)))
    return truth, labels, boxes, classes, rng.integers(0, 20, (N, D)) / 20


def pixels(boxes):
    x = np.arange(SIDE) + 0.5
    inside = [(boxes[..., i, None] <= x) & (x <= boxes[..., i + 2, None]) for i in range(2)]
    return inside[1][..., :, None] & inside[0][..., None, :]


def by_coco(kind, truth, labels, boxes, classes, scores):
    """ap, ap50 of pycocotools."""
    def entry(i, box, label, **more):
        rle = coco_mask.encode(np.asfortranarray(pixels(box).astype(np.uint8)))
        x0, y0, x1, y1 = map(float, box)
        area = float(coco_mask.area(rle)) if kind == "segm" else (x1 - x0) * (y1 - y0)
        return {"image_id": i + 1, "category_id": int(label), "segmentation": rle, "area": area, "iscrowd": 0,
                "bbox": [x0, y0, x1 - x0, y1 - y0], **more}

    given = COCO()
    objects = [entry(i, truth[i, k], labels[i, k]) for i in range(N) for k in range(K) if labels[i, k]]
    given.dataset = {"images": [{"id": i + 1, "height": SIDE, "width": SIDE} for i in range(N)],
                     "categories": [{"id": c, "name": str(c)} for c in range(1, Y + 1)],
                     "annotations": [{"id": n + 1, **x} for n, x in enumerate(objects)]}
    with contextlib.redirect_stdout(io.StringIO()):
        given.createIndex()
        found = given.loadRes([{k: v for k, v in entry(i, boxes[i, d], classes[i, d], score=scores[i, d]).items()
                                if k != ("bbox" if kind == "segm" else "segmentation")}
                               for i in range(N) for d in range(D) if classes[i, d]])
        judge = COCOeval(given, found, kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    by_class = judge.eval["precision"][0, :, :, 0, 2].mean(0)
    return judge.stats[:2], by_class


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_what_coco_computes(kind, seed):
    truth, labels, boxes, classes, scores = drawn = scene(seed)
    overlaps = (detection.box_overlaps(boxes, truth) if kind == "bbox"
                else detection.mask_overlaps(pixels(boxes), pixels(truth)))
    found = detection.average_precision(overlaps, scores, classes, labels, Y)
    (ap, ap50), by_class = by_coco(kind, *drawn)
    assert 0.05 < ap < 0.9
    np.testing.assert_allclose((found.ap, found.ap50), (ap, ap50), atol=1e-6)
    np.testing.assert_allclose(found.by_class, by_class, atol=1e-6)


def test_by_hand():
    overlaps = np.array([[[0.9, 0], [0.8, 0], [0, 0.6], [0.9, 0.9]]])  # the second finds what was found
    scores, classes, labels = np.array([[0.9, 0.8, 0.7, 0.99]]), np.array([[1, 1, 1, 0]]), np.array([[1, 1]])
    found = detection.average_precision(overlaps, scores, classes, labels, 2)
    ap50 = (51 * 1 + 50 * 2 / 3) / 101  # recall 0.5 at precision 1, recall 1 at 2 / 3
    np.testing.assert_allclose(found.ap50, ap50)
    np.testing.assert_allclose(found.ap, (3 * ap50 + 6 * 51 / 101) / 10)  # above 0.6 one object, above 0.9 none
    assert np.isnan(found.by_class[1])
    once = detection.average_precision(overlaps, scores, classes, labels, 2, most=1)
    np.testing.assert_allclose(once.ap50, 51 / 101)


def test_nothing_found_and_nothing_there():
    nothing = np.zeros((2, 0, 3)), np.zeros((2, 0)), np.zeros((2, 0), int)
    assert detection.average_precision(*nothing, np.array([[1, 0, 0], [0, 0, 0]]), 1).ap == 0
    assert np.isnan(detection.average_precision(*nothing, np.zeros((2, 3), int), 1).ap)
