"""Segmenter, localizer and what answers questions: updates, figures by hand, and that they learn a few scenes by heart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close, jit, random_like, same_bits
from toy_scenes import read

from jaxdl.core.types import Mean
from jaxdl.data.annotated import Annotated
from jaxdl.data.augment import Config as AugmentConfig
from jaxdl.nn import unet
from jaxdl.optim import Config as OptimConfig
from jaxdl.supervised import localizer, segmenter, vision, vision_report, vqa
from jaxdl.supervised.vqa_network import AnswerNetwork

SGD = OptimConfig(optimizer="sgd", learning_rate=1.0, schedule="constant", max_grad_norm=None)
ADAM, SLOW = OptimConfig(learning_rate=1e-2), OptimConfig(learning_rate=2e-3, max_grad_norm=1.0)


def few(content, num=4):
    scenes = read(content, "test")
    return scenes.spec, jax.tree.map(lambda x: jnp.asarray(x[:num]), scenes.arrays)


def learned(model, batch, steps):
    """The variables after so many updates with one batch, and the metrics of the first update and the last."""
    def step(state, key):
        state, result = model.learner.update(state, batch, key)
        return state, result.metrics

    begin = jit(model.learner.init)(jax.random.key(0))
    state, metrics = jit(lambda state: jax.lax.scan(step, state, jax.random.split(jax.random.key(1), steps)))(begin)
    means = {name: np.asarray(m.total / m.count) for name, m in metrics.items()}
    return model.learner.params(state), means


@pytest.mark.parametrize("kind", ["cross_entropy", "both"])
def test_an_update_of_the_segmenter_is_the_step_of_its_loss(kind):
    spec, batch = few("scenes")
    config = segmenter.Config(network="fcn", channels=(3, 4), norm="none", loss=kind, class_balance=0.5, batch_size=4,
                              total_steps=10, ema_decay=None, optim=SGD)
    model = segmenter.make(config, spec)
    state = jit(model.learner.init)(jax.random.key(0))
    state = state._replace(params=random_like(state.params))
    network = unet.PixelNetwork("fcn", 18, (3, 4), norm=None)
    truth = np.int32(batch.semantic)
    num = np.bincount(truth.ravel(), minlength=18)
    weights = np.where(num > 0, 1 / np.sqrt(np.maximum(num, 1)), 0)[truth]
    weights = weights / weights.mean()

    def loss(params):
        log_p = jax.nn.log_softmax(network.apply(params, batch.images / 127.5 - 1))
        value = -(weights * jnp.take_along_axis(log_p, truth[..., None], -1)[..., 0]).mean()
        if kind == "both":
            p = jnp.exp(log_p)
            for i in range(4):
                there = np.unique(truth[i])
                own = [(p[i, ..., c], truth[i] == c) for c in there]
                dice = [2 * (q * y).sum() / (q.sum() + y.sum()) for q, y in own]
                value += (1 - sum(dice) / len(there)) / 4
        return value

    value, grad = jit(jax.value_and_grad(loss))(state.params)
    new, result = jit(model.learner.update)(state, batch, jax.random.key(1))
    assert float(result.metrics["loss"].total) / 4 == pytest.approx(float(value), rel=1e-5)
    assert_close(new.params, jax.tree.map(jnp.subtract, state.params, grad), 1e-4, 1e-5)


@pytest.mark.parametrize("target", ["box", "joints"])
def test_the_loss_of_the_localizer_is_its_formula(target):
    content = "scenes_single" if target == "box" else "scenes_figures"
    spec, batch = few(content)
    config = localizer.Config(target=target, channels=(3,), hidden_size=4, norm="none", batch_size=4, total_steps=10,
                              ema_decay=None, optim=SGD, **({"box_weight": 3.0} if target == "box" else {}))
    model = localizer.make(config, spec)
    state = jit(model.learner.init)(jax.random.key(0))
    params = jax.tree.map(jnp.zeros_like, state.params)  # all classes alike, all places in the middle
    metrics = jit(model.learner.update)(state._replace(params=params), batch, jax.random.key(1))[1].metrics
    if target == "box":
        at = np.asarray(batch.labels).argmax(1)
        boxes = np.asarray(batch.boxes)[np.arange(4), at] / 32
        of_box = np.abs(boxes - 0.5).mean(1)
        assert float(metrics["box_loss"].total) == pytest.approx(of_box.sum(), rel=1e-5)
        assert float(metrics["class_loss"].total) == pytest.approx(4 * np.log(18), rel=1e-5)
        assert float(metrics["loss"].total) == pytest.approx(4 * np.log(18) + 3 * of_box.sum(), rel=1e-5)
    else:
        off = np.abs(np.asarray(batch.joints)[:, 0, :, :2] / 32 - 0.5).mean((1, 2))
        assert float(metrics["loss"].total) == pytest.approx(off.sum(), rel=1e-5)


@pytest.mark.parametrize(("kind", "how"), [("unet", {}), ("fcn", {"upsampling": "max_unpool", "loss": "both"}),
                                           ("unet", {"upsampling": "resize", "norm": "group"})])
def test_the_segmenter_learns_a_few_scenes_by_heart(kind, how):
    spec, batch = few("scenes", 2)
    config = segmenter.Config(network=kind, channels=(8, 16, 16), batch_size=2, total_steps=80, ema_decay=0.5, optim=ADAM,
                              **how)
    model = segmenter.make(config, spec)
    variables, means = learned(model, batch, 80)
    said = jit(model.scores)(variables, batch.images).argmax(-1)
    assert (said == batch.semantic).mean() > 0.97
    assert means["pixel_accuracy"][-1] > 0.97


@pytest.mark.parametrize(("target", "coordinates"), [("box", "dense"), ("box", "soft_argmax"), ("joints", "dense"),
                                                     ("joints", "soft_argmax")])
def test_the_localizer_learns_a_few_scenes_by_heart(target, coordinates):
    spec, batch = few("scenes_single" if target == "box" else "scenes_figures")
    config = localizer.Config(target=target, coordinates=coordinates, channels=(8, 16), hidden_size=64, batch_size=4,
                              total_steps=250, ema_decay=0.5, optim=SLOW)
    model = localizer.make(config, spec)
    variables, _ = learned(model, batch, 250)
    logits, places = jit(model.find)(variables, batch.images)
    found = localizer.figures(config, logits if logits is None else np.asarray(logits), np.asarray(places),
                              jax.tree.map(np.asarray, batch))
    assert found.get("localized", 1) > 0.99
    assert found.get("pixels", 0) < 3  # joints are about 8 from their mean


def test_figures_of_the_segmenter_by_hand():
    found = segmenter.figures(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]), ("ground", "a", "b"))
    assert found == pytest.approx({"mean_iou": (6 / 9 + 3 / 6) / 2, "pixel_accuracy": 9 / 12, "iou_ground": 6 / 9,
                                   "iou_a": 3 / 6})


def annotated(boxes, labels, joints=None):
    return Annotated(None, None, None, np.float32(boxes), np.uint8(labels), None if joints is None else np.float32(joints))


def test_figures_of_boxes_by_hand():
    """The larger of two counts; right and near enough; right, a third of it alone; a box that is turned over; a wrong class."""
    boxes = [[[0, 0, 2, 2], [0, 0, 4, 4]]] + 3 * [[[0, 0, 4, 4], [0, 0, 0, 0]]]
    held = annotated(boxes, [[1, 2], [1, 0], [1, 0], [1, 0]])
    logits = np.eye(3)[[2, 1, 1, 2]]
    places = np.float32([[[0, 0], [4, 3]], [[2, 0], [6, 4]], [[4, 4], [0, 0]], [[0, 0], [4, 4]]])
    found = localizer.figures(localizer.Config(), logits, places, held)
    assert found == pytest.approx({"localized": 1 / 4, "accuracy": 3 / 4, "iou": (3 / 4 + 1 / 3 + 0 + 1) / 4})
    np.testing.assert_array_equal(localizer.largest(held.boxes, held.labels), [1, 0, 0, 0])


def test_figures_of_joints_by_hand():
    """A box of 20x10: below 2 pixels is right. A joint that is hidden does not count; the first object that has joints does."""
    joints = np.zeros((1, 2, 4, 3))
    joints[0, 1] = [[5, 5, 2], [10, 5, 2], [15, 5, 1], [20, 5, 2]]
    held = annotated([[[0, 0, 90, 90], [0, 0, 20, 10]]], [[1, 2]], joints)
    places = np.float32([[[5, 6.9], [10, 7.1], [0, 0], [23, 9]]])
    found = localizer.figures(localizer.Config(target="joints", box_weight=10.0), None, places, held)
    assert found == pytest.approx({"pck": 1 / 3, "pixels": (1.9 + 2.1 + 5) / 3})


def test_what_is_moved_with_a_picture_is_where_it_was():
    """Maps of classes and boxes go with the pictures: each pixel keeps its class."""
    _, batch = few("scenes_single")
    pictures = jnp.repeat(batch.semantic[..., None], 3, -1)  # the class as the colour
    config = AugmentConfig(max_shift=5, flip=True)
    moved = vision.changed(config, jax.random.key(2), pictures, batch.semantic, batch.boxes)
    np.testing.assert_array_equal(moved.images[..., 0], moved.semantic)
    assert (moved.semantic != batch.semantic).any((1, 2)).all()
    of = (np.asarray(moved.semantic), np.asarray(moved.boxes), np.asarray(batch.labels).argmax(1))
    for one, boxes, k in zip(*of, strict=True):
        y, x = np.nonzero(one)
        np.testing.assert_allclose(boxes[k], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1e-4)
    same_bits(vision.changed(AugmentConfig(), jax.random.key(2), pictures), vision.Moved(pictures))


def test_colours_of_classes_differ():
    found = vision_report.colours(81)
    assert len(np.unique(found, axis=0)) == 81
    assert not found[0].any()


@pytest.mark.parametrize("fusion", ["film", "concat"])
def test_answers_to_a_few_questions_are_learned_by_heart(fusion):
    spec, batch = few("scenes")
    config = vqa.Config(fusion=fusion, hidden_size=32, embedding_size=16, channels=(8, 16), batch_size=4, total_steps=200,
                        ema_decay=0.5, optim=OptimConfig(learning_rate=5e-3, max_grad_norm=1.0),
                        **({"features": 16, "blocks": 1} if fusion == "film" else {}))
    model = vqa.make(config, spec)
    variables, means = learned(model, batch, 200)
    said = jit(model.answer)(variables, batch.images, batch.words.questions)
    assert (said == batch.words.answers).all(-1).mean() > 0.9
    assert means["loss"][0] > 3 > 0.3 > means["loss"][-1]


@pytest.mark.parametrize("fusion", ["film", "concat"])
@pytest.mark.parametrize("without", ["nothing", "picture", "question"])
def test_what_is_left_out_is_not_seen(fusion, without):
    _, batch = few("scenes")
    network = AnswerNetwork(90, fusion, without, "gru", 8, 4, (3, 4), 5, 1, None)
    images, questions = batch.images / 127.5 - 1, batch.words.questions.astype(jnp.int32)
    params = random_like(jit(network.init)(jax.random.key(0), images, questions))
    encode = jit(lambda *x: network.apply(params, *x, method="encode"))
    state = encode(images, questions)
    assert state.shape == (4 * 6, 8)
    assert bool((encode(jnp.roll(images, 1, 0), questions) == state).all()) == (without == "picture")
    assert bool((encode(images, jnp.roll(questions, 1, 1)) == state).all()) == (without == "question")
    assert_close(encode(images, jnp.pad(questions, ((0, 0), (0, 0), (0, 2)))), state)  # what fills a row changes nothing
    each = encode(images, questions[:, 2:3]).reshape(4, 8)  # and questions do not know of each other
    assert_close(each, state.reshape(4, 6, 8)[:, 2], 1e-4, 1e-5)


def test_the_loss_of_answers_is_of_words_up_to_their_end():
    spec, batch = few("scenes")
    config = vqa.Config(fusion="concat", hidden_size=4, embedding_size=3, channels=(3,), norm="none", batch_size=4,
                        total_steps=10, ema_decay=None, optim=SGD)
    model = vqa.make(config, spec)
    state = jit(model.learner.init)(jax.random.key(0))
    zeros = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))  # all words alike
    metrics = jit(model.learner.update)(zeros, batch, jax.random.key(1))[1].metrics
    num = (np.asarray(batch.words.answers) > 0).sum(-1) + 1
    assert float(metrics["loss"].total) == pytest.approx(np.log(len(spec.vocabulary)) * num.mean(1).sum(), rel=1e-5)
    assert isinstance(metrics["accuracy"], Mean)
