"""Detectors: losses by hand, what is proposed and chosen; each method learns a few pictures; commands; what is refused."""

import functools
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_pictures
from tools import jit, refused, run

from jaxdl.core.errors import UserError
from jaxdl.core.types import DataSpec
from jaxdl.data import proposals
from jaxdl.data.augment import Config as AugmentConfig
from jaxdl.data.dataset import from_tree
from jaxdl.experiments import cli
from jaxdl.ops import boxes as ops
from jaxdl.ops import losses
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import detection, detector
from jaxdl.supervised import detection_losses as of
from jaxdl.supervised.detection_losses import Truth
from jaxdl.supervised.detector import Config

SMALL = {"channels": (8, 16, 16), "features": 16, "anchor_sizes": (11,), "anchor_ratios": (1.0,), "hidden_size": 32,
         "regions": 12, "detections": 8, "batch_size": 8}
CUT = {name: SMALL[name] for name in ("features", "anchor_sizes", "anchor_ratios", "hidden_size", "regions", "batch_size")}
DENSE = {name: value for name, value in SMALL.items() if name not in ("hidden_size", "regions")}
OF = {"one_stage": DENSE, "rcnn": CUT, "sliding_windows": CUT}
TRUTH = Truth(jnp.array([[2.0, 2, 12, 12], [16, 16, 28, 26], [0, 0, 0, 0]]), jnp.array([1, 2, 0]),
              jnp.asarray(toy_pictures.pictures(1).instances[0]), jnp.zeros((3, 1, 3)))


def test_each_candidate_counts_as_often_as_it_is_drawn():
    positive = jnp.arange(100) < 10
    weight = of.sampled(positive, ~positive, 40, 0.5)
    np.testing.assert_allclose(weight, np.where(positive, 1, 30 / 90), rtol=1e-6)
    weight = of.sampled(positive, ~positive, 16, 0.25)
    np.testing.assert_allclose(weight, np.where(positive, 4 / 10, 12 / 90), rtol=1e-6)
    assert (of.sampled(positive & False, positive, 99, 0.25) == positive).all()


def test_focal_loss_is_the_formula():
    logits, targets = np.linspace(-6, 6, 25)[:, None], np.array([[0.0, 1.0]])
    p = 1 / (1 + np.exp(-logits))
    expected = np.where(targets > 0, -0.25 * (1 - p) ** 2 * np.log(p), -0.75 * p**2 * np.log(1 - p))
    logits, targets = jnp.broadcast_to(jnp.float32(logits), (25, 2)), jnp.broadcast_to(jnp.float32(targets), (25, 2))
    np.testing.assert_allclose(of.focal(logits, targets, 0.25, 2.0), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(of.focal(logits, targets, 0.5, 0.0), losses.binary_cross_entropy(logits, targets) / 2, rtol=1e-5)
    assert np.isfinite(jax.grad(lambda z: of.focal(z, targets, 0.25, 2.0).sum())(20 * logits)).all()


def test_losses_of_regions_by_hand():
    regions = jnp.array([[2.0, 2, 12, 12], [16, 16, 28, 28], [20, 0, 30, 10], [2, 2, 12, 13]])
    valid = jnp.array([True, True, True, False])
    logits = jnp.array([[0.0, 2, 0], [0, 0, 1], [3, 0, 0], [9, 9, 9]])
    deltas = jnp.array([[0.0, 0, 0, 0], [0, 0, 0, 0], [5, 5, 5, 5], [5, 5, 5, 5]])
    found = of.regions_loss(logits, deltas, regions, valid, TRUTH, 100)
    nll = [-z[c] + np.log(np.exp(z).sum()) for z, c in zip(np.asarray(logits), (1, 2, 0), strict=False)]
    np.testing.assert_allclose(found["classes"], np.mean(nll), rtol=1e-5)
    error = np.array([0, 10 * -1 / 12, 0, 5 * np.log(10 / 12)])  # of the second region, 12 high, from its object, 10 high
    by_hand = np.where(abs(error) < 1 / 9, error**2 * 9 / 2, abs(error) - 1 / 18).sum()
    np.testing.assert_allclose(found["boxes"], by_hand / 3, rtol=1e-4)
    quarter = of.regions_loss(logits, deltas, regions, valid, TRUTH, 2)  # half a positive and one and a half of the ground
    np.testing.assert_allclose(quarter["classes"], (0.25 * (nll[0] + nll[1]) + nll[2]) / 1.5, rtol=1e-5)


def test_losses_of_anchors_fall_to_nothing_where_all_is_right():
    anchors = ops.make_anchors(8, 8, 4, (11,), (1.0,))
    found = ops.match(anchors, TRUTH.boxes, TRUTH.there, 0.3, 0.7, low_quality=True)
    deltas = ops.encode(TRUTH.boxes[jnp.maximum(found, 0)], anchors)
    proposals_loss, dense_loss = (jit(f) for f in (of.proposals_loss, of.dense_loss))
    right = proposals_loss(jnp.where(found >= 0, 20.0, -20.0), deltas, anchors, TRUTH)
    assert {k: float(v) for k, v in right.items()} == pytest.approx({"objects": 0, "proposals": 0}, abs=1e-6)
    wrong = proposals_loss(jnp.zeros(64), deltas + 1, anchors, TRUTH)
    assert wrong["objects"] == pytest.approx(np.log(2), rel=1e-5)
    positives, counted = int((found >= 0).sum()), int((found != ops.BETWEEN).sum())
    assert positives >= 2
    assert wrong["proposals"] == pytest.approx(4 * (1 - 1 / 18) * positives / counted, rel=1e-4)
    found = ops.match(anchors, TRUTH.boxes, TRUTH.there, 0.4, 0.5, low_quality=True)
    deltas, labels = ops.encode(TRUTH.boxes[jnp.maximum(found, 0)], anchors), TRUTH.labels[jnp.maximum(found, 0)]
    logits = jnp.where((found[:, None] >= 0) & (labels[:, None] == jnp.arange(1, 3)), 20.0, -20.0)
    right = dense_loss(logits, deltas, anchors, TRUTH, 0.25, 2.0)
    assert {k: float(v) for k, v in right.items()} == pytest.approx({"classes": 0, "boxes": 0}, abs=1e-6)
    other = dense_loss(logits[:, ::-1], deltas + 1, anchors, TRUTH, 0.25, 2.0)
    assert other["boxes"] == pytest.approx(4)
    assert other["classes"] == pytest.approx(20, rel=1e-3)  # 0.25 * 20 of what is there, 0.75 * 20 of what is not
    nothing = dense_loss(-logits, deltas, anchors, TRUTH._replace(labels=jnp.zeros(3, int)), 0.25, 2.0)
    assert nothing["boxes"] == 0


def test_masks_and_joints_are_learned_from_the_region_of_their_object():
    arrays = toy_pictures.pictures(8)
    n = int(np.argmax((arrays.labels > 0).sum(1)))
    truth = Truth(*(jnp.asarray(x[n]) for x in (arrays.boxes, arrays.labels.astype(int), arrays.instances, arrays.joints)))
    regions, size = of.regions_of_objects(truth.boxes + 1.0, jnp.ones(3, bool), truth), 14
    np.testing.assert_allclose(regions[0], truth.boxes[0] + 1)
    np.testing.assert_allclose(of.regions_of_objects(truth.boxes + 9.0, jnp.ones(3, bool), truth), truth.boxes)
    np.testing.assert_allclose(of.regions_of_objects(truth.boxes + 1.0, jnp.zeros(3, bool), truth), truth.boxes)
    align = jit(lambda mask, box: ops.roi_align(mask, box, size)[0, ..., 0])
    inside = np.stack([align(jnp.float32(truth.instances == k + 1)[..., None], truth.boxes[k, None]) for k in range(3)]) >= 0.5
    assert 0.6 < inside[0].mean() <= 1
    masks_loss, joints_loss = jit(of.masks_loss), jit(of.joints_loss)
    masks = jnp.where(inside[..., None] & (jnp.arange(1, 3) == truth.labels[:, None, None, None]), 20.0, -20.0)
    assert masks_loss(masks, truth.boxes, truth)["masks"] == pytest.approx(0, abs=1e-6)
    assert masks_loss(-masks, truth.boxes, truth)["masks"] > 5
    joints = jnp.zeros((3, size, size, 1)).at[:, size // 2, size // 2].set(20.0)
    assert joints_loss(joints, truth.boxes, truth)["joints"] < 1e-5
    assert joints_loss(jnp.zeros_like(joints), truth.boxes, truth)["joints"] == pytest.approx(np.log(size**2), rel=1e-5)
    assert joints_loss(joints, truth.boxes + 99.0, truth)["joints"] == 0  # they lie outside


def test_regions_are_drawn_around_objects_and_anywhere():
    truth = jax.tree.map(lambda x: jnp.stack([x, x]), TRUTH)
    windows = ops.clip_boxes(ops.make_anchors(4, 4, 8, (11,), (1.0,)), 32, 32)
    regions, valid = jit(lambda truth, key: detection.drawn(truth, windows, 60, (32, 32), key))(truth, jax.random.key(0))
    assert regions.shape == (2, 60, 4)
    assert (regions.min() >= 0) & (regions.max() <= 32)
    np.testing.assert_array_equal(valid[:, :30], np.tile([True, True, False], (2, 10)))
    near = np.asarray(ops.box_iou(regions[0, :30], TRUTH.boxes[:2]))
    assert 0.4 < near[::3, 0].mean() < 0.8
    assert all((windows == region).all(1).any() for region in regions[0, 30:])
    assert (regions[0] != regions[1]).any()


def test_what_moves_with_a_picture_moves_in_its_truth():
    arrays = toy_pictures.pictures(8)
    truth, config = detector.truth_of(jax.tree.map(jnp.asarray, arrays)), Config(augment=AugmentConfig(flip=True))
    change = jit(lambda truth: detector.changed(config, jnp.asarray(arrays.images), truth, jax.random.key(0)))
    images, new = change(truth)
    mirrored = np.array([(images[n] == arrays.images[n, :, ::-1]).all() for n in range(8)])
    assert 0 < mirrored.sum() < 8
    for n in range(8):
        for k in np.flatnonzero(arrays.labels[n]):
            y, x = np.nonzero(new.instances[n] == k + 1)
            np.testing.assert_allclose(new.boxes[n, k], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1e-4)
    np.testing.assert_array_equal(new.labels, arrays.labels)
    away = jnp.full((8, 3, 4), 40.0).at[..., 2:].set(50)
    assert (change(truth._replace(boxes=away))[1].labels == 0).all()


def test_joints_are_judged_by_the_surest_detection_of_their_object():
    boxes = np.array([[[0, 0, 10, 20.0], [20, 0, 30, 10]]])
    joints = np.array([[[[5, 5, 2], [5, 9, 2], [1, 1, 1]], [[25, 5, 2], [0, 0, 0], [0, 0, 0]]]], float)
    found = np.zeros((1, 3, 3, 3))
    found[0, :, 0, :2], found[0, :, 1, :2] = [[5, 6.9], [5, 5], [25, 5]], [[5, 11.1], [5, 9], [0, 0]]
    finds = np.zeros((1, 3, 2), bool)
    finds[0, :2, 0] = True  # the first object is found twice, the second not at all
    assert detector._share_near(found, finds, joints, boxes) == pytest.approx(1 / 3)


def test_segments_propose_what_is_there():
    arrays = toy_pictures.pictures(6)
    boxes, valid = proposals.of_pictures(arrays.images, 40)
    assert (boxes.shape, valid.shape) == ((6, 40, 4), (6, 40))
    for n in range(6):
        overlap = np.asarray(ops.box_iou(arrays.boxes[n], boxes[n][valid[n]])).max(1)
        assert (overlap[arrays.labels[n] > 0] > 0.7).all()


def test_segments_become_one():
    image = np.zeros((4, 6, 3), np.uint8)
    segments = np.array([[0, 0, 1, 1, 2, 2]] * 4)
    image[segments == 2] = 200
    found = proposals.merged_boxes(image, segments)
    np.testing.assert_array_equal(found, [[0, 0, 6, 4], [0, 0, 4, 4], [4, 0, 6, 4], [2, 0, 4, 4], [0, 0, 2, 4]])  # like to like


@functools.cache
def learned(method, steps):
    """The model of a method that has learned eight pictures, its parameters and the pictures."""
    few = from_tree(toy_pictures.pictures(8), "toy", class_names=toy_pictures.NAMES)
    config = Config(method=method, **OF.get(method, SMALL), total_steps=steps, ema_decay=0.9,
                    optim=OptimConfig(learning_rate=4e-3, schedule="cosine", max_grad_norm=10.0))
    detector.validate(config)
    driver = make_device_driver(lambda c: detector.make_run(c, few.spec), [config], few.on_device(), [0], quick=True)
    state, _ = driver.chunk(driver.start(), steps)
    return detector.make(config, few.spec), driver.params(state), few


@pytest.mark.parametrize("method", ["one_stage", "faster_rcnn", "mask_rcnn", "fast_rcnn", "rcnn", "sliding_windows"])
def test_each_method_has_its_losses_and_finds_as_much_as_it_is_told_to(method):
    few = from_tree(toy_pictures.pictures(8), "toy", class_names=toy_pictures.NAMES)
    config = Config(method=method, **OF.get(method, SMALL), total_steps=10)
    model = detector.make(config, few.spec)
    state = jax.eval_shape(model.learner.init, jax.random.key(0))
    _, result = jax.eval_shape(model.learner.update, state, few.arrays, jax.random.key(0))
    of_methods = {"one_stage": {"classes", "boxes"}, "faster_rcnn": {"objects", "proposals", "classes", "boxes"},
                  "mask_rcnn": {"objects", "proposals", "classes", "boxes", "masks", "joints"}}
    assert set(result.metrics) == {"loss"} | {f"loss_{name}" for name in of_methods.get(method, {"classes", "boxes"})}
    setting = detection.Setting(config, detector._network(config, 2, 1), (32, 32), 2)
    regions = (np.zeros((8, 20, 4), np.float32), np.ones((8, 20), bool)) if method in ("fast_rcnn", "rcnn") else ()
    found = jax.eval_shape(detection.make(setting).detect, state.params, few.arrays.images, *regions)
    assert (found.boxes.shape, found.labels.shape) == ((8, config.detections, 4), (8, config.detections))
    assert (found.masks is not None) == (found.joints is not None) == (method == "mask_rcnn")


SLOW = [pytest.param(m, marks=pytest.mark.slow) for m in ("faster_rcnn", "mask_rcnn", "fast_rcnn", "rcnn", "sliding_windows")]


@pytest.mark.parametrize("method", ["one_stage", *SLOW])
def test_it_learns_a_few_pictures(method):
    model, params, few = learned(method, 250)
    found = model.detect(params, few.arrays.images)
    numbers = detector.figures(found, few)
    assert numbers["ap50"] > {"rcnn": 0.8, "sliding_windows": 0.8}.get(method, 0.95)
    if method == "mask_rcnn":
        assert numbers["mask_ap50"] > 0.95
        assert numbers["pck"] > 0.9
        assert found.masks.shape == (8, 8, 32, 32)
        sure = found.scores > 0.9
        centre = (found.boxes[..., :2] + found.boxes[..., 2:]) / 2
        assert np.abs(found.joints[..., 0, :2] - centre)[sure].mean() < 1.5


def test_what_is_found_is_in_order_and_in_the_picture():
    model, params, few = learned("one_stage", 250)
    found = model.detect(params, few.arrays.images)
    there = found.labels > 0
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert (found.scores[there] >= 0.05).all()
    assert (found.scores[~there] == 0).all()
    assert (found.boxes >= 0).all() & (found.boxes <= 32).all()
    assert set(found.labels[there].tolist()) <= {1, 2}


TOY = ["--dataset", "toy_pictures:READER", "--channels", "4", "8", "--features", "8", "--anchor-sizes", "11", "--anchor-ratios",
       "1", "--batch-size", "8", "--total-steps", "4", "--quick-compile", "--schedule", "constant"]


def test_commands_train_resume_and_evaluate(capsys, tmp_path):
    where = ["train", "detector", *TOY, "--method", "one_stage"]
    assert cli.main([*where, "--out", str(tmp_path / "whole")]) == 0
    assert cli.main([*where, "--stop-step", "2", "--out", str(tmp_path / "half")]) == 0
    assert cli.main(["resume", str(tmp_path / "half"), "--total-steps", "4"]) == 0
    capsys.readouterr()
    whole, half = (run(capsys, "evaluate", tmp_path / name) for name in ("whole", "half"))
    assert whole.pop("seconds_an_image") > 0
    assert half.pop("seconds_an_image") > 0
    assert whole == half
    assert {"ap50", "ap", "num"} <= set(whole)
    assert (tmp_path / "whole" / "detections.png").stat().st_size > 10_000
    assert "learns from pictures" in refused(capsys, "train", "detector", "--dataset", "addition")
    assert "needs boxes and instances" in refused(capsys, "train", "detector", "--dataset", "digits")


def test_without_segments_nothing_is_trained_that_needs_them(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    said = refused(capsys, "train", "detector", *TOY, "--method", "fast_rcnn")
    assert "install it with pip install 'jaxdl[proposals]'" in said


@pytest.mark.parametrize(("change", "message"), [
    ({"channels": (8,)}, "channels must be 2 or more numbers above 0"),
    ({"anchor_sizes": ()}, "anchor_sizes must be 1 or more numbers"),
    ({"anchor_ratios": (-1.0,)}, "anchor_ratios must be 1 or more numbers above 0"),
    ({"regions": 1}, "regions must be between 2 and 256, got 1"),
    ({"detections": 101}, "detections must be at most 100, got 101"),
    ({"nms_threshold": 1.5}, "nms_threshold must be between 0 and 1, got 1.5"),
    ({"focal_gamma": 1.0}, "focal_gamma=1.0 is of method=one_stage"),
    ({"method": "mask_rcnn", "augment": AugmentConfig(flip=True)}, "method=mask_rcnn moves no joints along"),
    ({"method": "one_stage", "regions": 9}, "regions=9 is of method=faster_rcnn"),
    ({"method": "rcnn", "channels": (8, 8)}, "channels=.* is of method=one_stage")])
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        detector.validate(replace(Config(), **change))


def test_what_is_not_annotated_is_refused():
    with pytest.raises(UserError, match="a detector needs boxes and labels and instances and joints of each picture"):
        detector.make(Config(), DataSpec("x", 10, (8, 8, 1)))
    few = from_tree(toy_pictures.pictures(8), "toy")
    with pytest.raises(UserError, match="the dataset toy must name its classes"):
        detector.make(Config(), few.spec)
