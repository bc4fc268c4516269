"""The reader by glimpses: its gradient against the exact one, what it looks at, that it learns; what is refused."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tools import assert_close, jit, random_like, refused, run, same_bits

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.core.types import ArraySpec, DataSpec, Examples, Mean
from jaxdl.experiments import cli
from jaxdl.ops.glimpses import glimpses
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import attention_reader
from jaxdl.supervised.attention_reader import Config

RNG = np.random.default_rng(0)
SPEC = DataSpec("small", 100, (4, 4, 1), 2, arrays=(ArraySpec("labels", (), "int32"),), target="labels")
IMAGES = np.uint8(RNG.integers(0, 256, (3, 4, 4, 1)))
LABELS = np.int32([0, 1, 1])
SMALL = ["--hidden-size", "8", "--glimpse-features", "4", "--num-glimpses", "3", "--batch-size", "16", "--total-steps", "6",
         "--quick-compile"]


def config(**how):
    return Config(**{"glimpse_size": 2, "num_glimpses": 2, "hidden_size": 4, "glimpse_features": 3, "deviation": 0.4,
                     "cell": "rnn_relu", "batch_size": 3, "total_steps": 10} | how)


@functools.cache
def weights():
    """Of a network with a value, which others leave out, for which the classes are about as likely."""
    made = attention_reader.make(config(baseline="value"), SPEC)
    params = random_like(made.network.init(jax.random.key(0)), 2)["params"]
    noise = jax.random.normal(jax.random.key(0), (3, 1000, 2, 2))
    logits = made.network.logits({"params": params}, made.network.read({"params": params}, IMAGES / 255.0, noise).h[-1])
    head = {"kernel": params["head"]["kernel"], "bias": params["head"]["bias"] - logits.mean((0, 1))}
    return {"params": params | {"head": head}}


def weights_of(baseline):
    """Without a value where there is none."""
    return {"params": {name: x for name, x in weights()["params"].items() if name != "to_value" or baseline == "value"}}


def places_part(tree):
    """The parameters of the means, which the reward alone moves."""
    part = tree["params"]["locate"]
    return np.concatenate([np.ravel(part["kernel"]), np.ravel(part["bias"])])


@functools.cache
def exact():
    """The gradient of the mean reward by the parameters of the means, by quadrature over both glimpses' noise:

    grad E[R] = sum of p(e_1) p(e_2) R(e_1, e_2) (sum_t (e_t / deviation) . grad mean_t)
    """
    how = config(baseline="value")
    made = attention_reader.make(how, SPEC)
    edges = np.linspace(-3.2, 3.2, 23)
    at = (edges[1:] + edges[:-1]) / 2
    weight = np.exp(-at**2 / 2) / np.exp(-at**2 / 2).sum()
    grid = np.stack(np.meshgrid(at, at, at, at, indexing="ij"), -1).reshape(1, -1, 2, 2).astype(np.float32)
    p = np.prod(np.stack(np.meshgrid(weight, weight, weight, weight, indexing="ij"), -1), -1).reshape(-1).astype(np.float32)

    def weighted(params, image, label):
        reading = made.network.read(params, image[None] / 255.0, grid)
        reward = made.network.logits(params, reading.h[-1, 0]).argmax(-1) == label
        score = (jax.lax.stop_gradient((reading.places - reading.means) / how.deviation**2) * reading.means).sum((0, 3))[0]
        return (p * reward * score).sum(), (p * reward).sum()

    grads, rewards = jit(jax.vmap(jax.grad(weighted, has_aux=True), (None, 0, 0)))(weights(), jnp.float32(IMAGES), LABELS)
    assert np.all((rewards > 0.1) & (rewards < 0.9))
    return np.mean([places_part(jax.tree.map(lambda x: x[i], grads)) for i in range(3)], 0)  # noqa: B023


CASES = [("none", 1, 1.0), ("constant", 1, 1.0), ("batch", 1, 2 / 3), ("leave_one_out", 1, 1.0), ("value", 1, 1.0),
         ("batch", 4, 3 / 4), ("leave_one_out", 4, 1.0)]


@pytest.mark.parametrize(("baseline", "draws", "share"), CASES)
def test_the_mean_of_the_gradients_is_the_exact_one(baseline, draws, share):
    """Of the mean reward of three images; with the batch's mean as the baseline it is (1 - 1/n) of it."""
    made = attention_reader.make(config(baseline=baseline, draws=draws), SPEC)
    params = weights_of(baseline)
    earlier = Mean(jnp.float32(1.2), jnp.float32(2.0)) if baseline == "constant" else None
    batch = Examples(jnp.asarray(IMAGES), jnp.asarray(LABELS))
    grad = jax.vmap(lambda key: jax.grad(lambda p: made.loss(p, batch, key, earlier)[0])(params)["params"]["locate"])
    found = jit(grad)(jax.random.split(jax.random.key(1), 20_000))
    found = -np.concatenate([np.asarray(found["kernel"]).reshape(20_000, -1), found["bias"]], 1)
    error = found.std(0) / len(found) ** 0.5
    assert np.linalg.norm(error) < 0.06 * np.linalg.norm(exact())
    assert np.all(np.abs(found.mean(0) - share * exact()) < 4.5 * error + 0.01 * np.linalg.norm(exact()))


def test_baselines_that_know_more_have_less_variance():
    """An image's other draws tell more than the batch, and any of them more than nothing."""
    def variance(baseline, draws):
        made = attention_reader.make(config(baseline=baseline, draws=draws), SPEC)
        params = weights_of(baseline)
        batch = Examples(jnp.asarray(IMAGES), jnp.asarray(LABELS))
        grad = jax.vmap(lambda key: jax.grad(lambda p: made.loss(p, batch, key)[0])(params)["params"]["locate"]["bias"])
        return np.asarray(jit(grad)(jax.random.split(jax.random.key(1), 2000))).var(0).sum()

    assert variance("leave_one_out", 4) < 0.8 * variance("none", 4)


def test_a_reading_is_the_formula():
    made = attention_reader.make(config(num_scales=2), SPEC)
    params = random_like(made.network.init(jax.random.key(0)))
    noise = jax.random.normal(jax.random.key(1), (3, 2, 2, 2))
    images = jnp.float32(IMAGES) / 255
    reading = jit(made.network.read)(params, images, noise)
    p = jax.tree.map(np.asarray, params["params"])
    dense = lambda name, x: x @ p[name]["kernel"] + p[name]["bias"]  # noqa: E731
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    for b, d in np.ndindex(3, 2):
        h = np.zeros(4)
        for t in range(2):
            mean = np.tanh(dense("locate", h))
            place = np.float32(mean + 0.4 * np.asarray(noise[b, d, t]))
            seen = np.asarray(glimpses(images[b : b + 1], jnp.asarray(place)[None], 2, 2)).ravel()
            both = np.concatenate([relu(dense("what", seen)), relu(dense("where", place))])
            hidden = p["core"]["hidden"]
            h = relu(relu(dense("both", both)) @ p["core"]["inputs"]["kernel"] + h @ hidden["kernel"] + hidden["bias"])
            assert_close(reading.means[t, b, d], mean, 1e-4)
            assert_close(reading.places[t, b, d], place, 1e-4)
            assert_close(reading.h[t + 1, b, d], h, 1e-4, 1e-5)
    assert_close(made.network.logits(params, reading.h[-1]), dense("head", np.asarray(reading.h[-1])), 1e-4, 1e-5)
    assert not np.asarray(reading.h[0]).any()


def test_no_gradient_passes_through_a_place_or_from_the_value_to_the_core():
    made = attention_reader.make(config(location_coef=0.0), SPEC)
    batch = Examples(jnp.asarray(IMAGES), jnp.asarray(LABELS))
    key = jax.random.key(1)
    grad = jit(jax.grad(lambda p: made.loss(p, batch, key)[0]))(weights())["params"]
    assert not places_part({"params": grad}).any()
    assert np.abs(grad["to_value"]["bias"]).max() > 1e-4
    without = attention_reader.make(config(location_coef=0.0, vf_coef=0.0), SPEC)
    same_bits(grad["core"], jit(jax.grad(lambda p: without.loss(p, batch, key)[0]))(weights())["params"]["core"])
    assert np.abs(grad["core"]["hidden"]["kernel"]).max() > 1e-4


def bright_spots(split):
    """A spot at one of four places of an empty image; what is beside it is the class, and is seen from near alone."""
    rng = np.random.default_rng(split == "test")
    images, labels = np.zeros((400, 12, 12), np.uint8), rng.integers(0, 2, 400)
    for image, label, where in zip(images, labels, rng.integers(0, 4, 400), strict=True):
        y, x = 2 + 6 * (where // 2), 2 + 6 * (where % 2)
        image[y : y + 2, x : x + 2] = [[255, 0], [0, 255]] if label else [[0, 255], [255, 0]]
    return Examples(images[..., None], labels.astype(np.int32))


def test_it_learns_where_to_look():
    """Seen coarsely the classes are alike: the finest scale must be brought to the spot, which the reward alone does."""
    train, test = (data.from_arrays(*bright_spots(split), "spots") for split in ("train", "test"))
    rewarded = Config(glimpse_size=4, num_scales=3, num_glimpses=2, hidden_size=32, glimpse_features=32, deviation=0.3,
                      cell="gru", batch_size=50, draws=4, baseline="leave_one_out", total_steps=600,
                      optim=OptimConfig(learning_rate=1e-2))
    both = [rewarded, replace(rewarded, location_coef=0.0)]
    driver = make_device_driver(lambda c: attention_reader.make_run(c, train.spec), both, train.on_device(), [0, 0], quick=True)
    state, _ = driver.chunk(driver.start(), 600)
    made = attention_reader.make(rewarded, train.spec)
    said = jit(jax.vmap(lambda p: made.log_probs(p, jnp.asarray(test.images)).argmax(-1)))(driver.params(state))
    right, by_chance = (said == test.labels).mean(1)
    assert right > 0.98
    assert by_chance < 0.7


def test_commands_train_resume_and_evaluate(capsys, tmp_path):
    flags = [*SMALL, "--canvas", "12", "--clutter", "1", "--baseline", "constant", "--ema-decay", "0.9"]
    assert cli.main(["train", "attention_reader", *flags, "--out", str(tmp_path / "whole")]) == 0
    assert cli.main(["train", "attention_reader", *flags, "--stop-step", "2", "--out", str(tmp_path / "half")]) == 0
    assert cli.main(["resume", str(tmp_path / "half"), "--total-steps", "6"]) == 0
    capsys.readouterr()
    half = run(capsys, "evaluate", tmp_path / "half")
    whole = run(capsys, "evaluate", tmp_path / "whole", "--video", tmp_path / "film.gif")
    assert whole == half  # bit for bit, and held-out images lie where they did
    assert {"error", "accuracy", "loss", "num"} < set(whole)
    assert whole["error"] == pytest.approx(1 - whole["accuracy"])
    assert run(capsys, "evaluate", tmp_path / "whole", "--draws", 2)["loss"] != whole["loss"]
    assert {"glimpses.png", "glimpses.gif", "confusion.png", "classes.csv"} <= {p.name for p in (tmp_path / "whole").iterdir()}
    film = (tmp_path / "film.gif").read_bytes()
    assert film[:6] == b"GIF89a"
    assert film == (tmp_path / "whole" / "glimpses.gif").read_bytes()
    assert "draws must be between 0 and 10,000, got -1" in refused(capsys, "evaluate", tmp_path / "whole", "--draws", -1)


@pytest.mark.parametrize(("flags", "sentence"), [
    (("--glimpse-size", 9), "glimpse_size=9 is above the side of what is looked at, 8x8"),
    (("--num-scales", 4), "num_scales=4 is too many: 3 already see all of 8x8"),
    (("--canvas", 7), "canvas=7 is below the images of 8x8"), (("--clutter", 4), "clutter=4 is of a canvas"),
    (("--draws", 0), "draws must be above 0, got 0"), (("--deviation", 0), "deviation must be above 0"),
    (("--baseline", "leave_one_out", "--batch-size", 1), "baseline=leave_one_out compares a reward with others"),
    (("--baseline", "batch", "--batch-size", 4, "--grad-accumulation", 4), "baseline=batch compares a reward with others"),
    (("--baseline", "batch", "--vf-coef", 1), "vf_coef=1.0 is of baseline=value"),
    (("--baseline-decay", 0.5), "baseline_decay=0.5 is of baseline=constant"), (("--ema-decay", 1), "ema_decay must be"),
    (("--dataset", "diabetes"), "attention_reader learns from images"), (("--optimizer", "lbfgs"), "optimizer=lbfgs"),
    (("--dataset", "addition"), "attention_reader learns from images")])
def test_what_makes_no_sense_is_one_sentence(flags, sentence, capsys, tmp_path):
    assert sentence in refused(capsys, "train", "attention_reader", *flags, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_without_labels_are_refused():
    with pytest.raises(UserError, match="needs labels, and the dataset small has none"):
        attention_reader.make(config(), SPEC._replace(num_classes=None, target=None, arrays=()))
