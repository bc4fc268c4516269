"""Classes of images that are read by glimpses: what to look at is learned by REINFORCE, what is seen by cross-entropy.

    loss = -log p(y | h_T) - location_coef * sum_t log N(l_t; mean_t, deviation^2) (R - b_t) + vf_coef * mean_t (V_t - R)^2 / 2

Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention" (2014). The reward R is 1 if the class is right after
the last glimpse, else 0; or it is log p(y | h_T). Places are drawn around the mean of the network (`glimpse_network`), and no
gradient passes through them: that of their log-density reaches the means and what the core remembers. The baselines b are those
of `ops.baselines`; `value` is V_t, of what is known before l_t is drawn. With several draws for an image, `batch` and
`leave_one_out` are over the other draws for it, else over the other images of the batch.

The cross-entropy is of places as they were drawn, and which are drawn is left to the reward. With log p as the reward and
location_coef = 1 both together are the gradient of the mean cross-entropy (Ba, Mnih & Kavukcuoglu, "Multiple object recognition
with visual attention", 2015); with 0 and 1, as in the paper, R says less of an image that is read well.

What is read by default is the image itself. With a `canvas` it lies at a random place of one, maybe among clutter
(`data.canvas`), in training anew each time, held-out images always at the same place. An evaluation looks where the means say,
and with `draws` averages what so many readings at drawn places predict.

Shapes: `N` examples, `B` batch, `D` draws, `T` glimpses, `Y` classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data, nn, optim
from jaxdl.core import axis, task
from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require, require_positive, require_unit
from jaxdl.core.errors import UserError
from jaxdl.core.task import Classifier, Curve, Film, Score
from jaxdl.core.types import Array, DataSpec, Examples, Key, Learner, Mean, PyTree, UpdateResult
from jaxdl.data import canvas, minibatches
from jaxdl.data.dataset import Dataset
from jaxdl.nn.recurrent import Kind
from jaxdl.ops import baselines, losses
from jaxdl.ops.pixels import to_unit
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm
from jaxdl.supervised import classifier, glimpse_network, glimpse_pictures, learner, report
from jaxdl.supervised.glimpse_network import Network, Reading, Sizes

MOST_DRAWS = 10_000
_LABELS = classifier.Config()  # one label an example, by a softmax


@settings
class Config(minibatches.Config):
    """Settings of what reads images by glimpses."""

    applies: ClassVar = {"baseline_decay": ("baseline", "constant"), "vf_coef": ("baseline", "value")}

    glimpse_size: int = 4
    """Side of a glimpse in pixels; the paper has 8 for MNIST, 12 on larger canvases."""
    num_scales: int = 1
    """Scales of a glimpse: each sees twice the side of the one before, at half its resolution."""
    num_glimpses: int = 6
    """Glimpses before the class is said."""
    canvas: int | None = None
    """Side of a canvas on which each image lies at a random place."""
    clutter: int = 0
    """Pieces of 8x8 pixels of other images of the batch that lie on the canvas too; the paper has 4."""
    cell: Kind = "gru"
    """Cell of the core; the paper's is rnn_relu."""
    hidden_size: int = 256
    """Size of the core's state."""
    glimpse_features: int = 128
    """Features of what is seen, and of where."""
    deviation: float = 0.1
    """Standard deviation of places around their means, in halves of the image's side."""
    reward: Literal["right", "log_prob"] = "right"
    """1 if the class is right, else 0; or the log-probability of the class in nats."""
    spread: float = 0.3
    """Standard deviation of the places where a new network looks, one for each glimpse; 0: all at the centre."""
    baseline: baselines.Name = "value"
    """What is subtracted from the reward."""
    baseline_decay: float = 0.9
    """The factor by which a batch reduces the weight of earlier rewards (constant)."""
    draws: int = 1
    """Readings of each image in an update, each at places of its own."""
    location_coef: float = 0.1
    """Weight of the reward beside the cross-entropy."""
    vf_coef: float = 0.5
    """Weight of the value's loss (value)."""
    ema_decay: float | None = None
    """Predict by an exponential moving average of the weights, of which an update keeps this share."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""
    optim: OptimConfig = OptimConfig(learning_rate=1e-3, schedule="cosine", max_grad_norm=1.0)
    """The optimizer."""


@dataclass(frozen=True)
class Options(task.Options):
    """Settings of an evaluation."""

    draws: int = 0
    """Average over so many readings at drawn places, in place of the one at their means."""

    def validate(self) -> None:
        """Refuse options that make no sense.

        Raises:
            UserError: names the option, what was given and what would do.
        """
        require(self, "draws", 0 <= self.draws <= MOST_DRAWS, f"between 0 and {MOST_DRAWS:,}")


class Average(NamedTuple):
    """Averaged weights."""

    params: PyTree
    count: Array  # int32 (): updates


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree
    rewards: Mean | None  # moving average of earlier ones, where it is the baseline
    average: Average | None


class Model(NamedTuple):
    """A learner and its functions. Images [N, H, W, C] are as the dataset has them."""

    learner: Learner
    loss: Callable[..., tuple[Array, dict[str, Mean]]]  # (params, batch, key, moving average of rewards or None) -> loss, means
    lay: Callable[..., Array]  # (images, key=the one of held-out images) -> what is looked at
    read: Callable[..., Reading]  # (params, what is looked at, key=None: at the means) -> one reading of each, D = 1
    log_probs: Callable[..., Array]  # (params, images, key=None) -> [N, Y]
    network: Network


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    refuse_idle(config)
    require_positive(config, "glimpse_size", "num_scales", "num_glimpses", "canvas", "hidden_size", "glimpse_features",
                     "deviation", "draws")
    require(config, "clutter", config.clutter >= 0, "0 or above")
    require_unit(config, "baseline_decay")
    for field in ("spread", "location_coef", "vf_coef"):
        require(config, field, 0 <= getattr(config, field) < float("inf"), "0 or above")
    require(config, "ema_decay", config.ema_decay is None or 0 <= config.ema_decay < 1, "at least 0 and below 1")
    config.init.validate()
    optim.validate(config.optim, config.batch_size)
    group = config.draws if config.draws > 1 else config.batch_size // config.optim.grad_accumulation
    if config.baseline in ("batch", "leave_one_out") and group == 1:
        raise UserError(f"baseline={config.baseline} compares a reward with others, and there is one at a time: batch_size="
                        f"{config.batch_size}, draws=1; raise draws or batch_size, or use baseline=value")


total_steps = minibatches.total_steps


def check_images(config: Config, spec: DataSpec) -> None:
    """Refuse a dataset whose images cannot be read so.

    Raises:
        UserError: it has no images or no labels, a glimpse is larger than what is looked at, a scale would see nothing more.
    """
    data.require_images(spec, "attention_reader")
    classifier.num_labels(_LABELS, spec)
    canvas.check(config.canvas, config.clutter, spec.shape)
    height, width, _ = canvas.shape_on(config.canvas, spec.shape)
    if config.glimpse_size > min(height, width):
        raise UserError(f"glimpse_size={config.glimpse_size} is above the side of what is looked at, {height}x{width}; give "
                        f"{min(height, width)} or less")
    for scale in range(1, config.num_scales):  # seen from a corner, an image is all within twice its side
        if config.glimpse_size * 2 ** (scale - 1) >= 2 * max(height, width):
            raise UserError(f"num_scales={config.num_scales} is too many: {scale} already see all of {height}x{width} from any "
                            "place; lower it")


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its functions for a dataset of images.

    Raises:
        UserError: as `check_images`.
    """
    check_images(config, spec)
    sizes = Sizes(config.cell, config.hidden_size, config.glimpse_features, spec.num_classes, config.glimpse_size,
                  config.num_scales, config.num_glimpses, config.spread, spec.shape[2], config.baseline == "value")
    network = glimpse_network.make(sizes, config.deviation)
    optimizer = optim.make(config.optim, horizon=total_steps(config, spec))

    def init(key: Key) -> State:
        params = network.init(key, config.init)
        return State(params, optimizer.init(params), baselines.none_yet() if config.baseline == "constant" else None,
                     None if config.ema_decay is None else Average(params, jnp.zeros((), jnp.int32)))

    def lay(images: Array, key: Key | None = None) -> Array:
        key = jax.random.key(0) if key is None else key
        return to_unit(canvas.drawn(images, config.canvas, config.clutter, key))

    def loss_fn(params: PyTree, batch: Examples, key: Key, rewards: Mean | None = None) -> tuple[Array, dict[str, Mean]]:
        k_lay, k_places = jax.random.split(key)
        noise = jax.random.normal(k_places, (len(batch.labels), config.draws, config.num_glimpses, 2))
        reading = network.read(params, lay(batch.images, k_lay), noise, config.optim.compute_dtype)
        logits = network.logits(params, reading.h[-1])
        labels = jnp.broadcast_to(batch.labels[:, None], logits.shape[:2])
        nll, right = losses.cross_entropy(logits, labels), (logits.argmax(-1) == labels).astype(jnp.float32)  # [B, D]
        reward = right if config.reward == "right" else -jax.lax.stop_gradient(nll)
        value = network.value(params, reading.h[:-1]) if network.value else jnp.zeros(())
        advantage = reward - jax.lax.stop_gradient(baselines.compared_with(config.baseline, reward, value, rewards, axis_name))
        log_prob = -0.5 * jnp.square((reading.places - reading.means) / config.deviation).sum(-1)  # [T, B, D] + a constant
        parts = {"loss": nll, "policy_loss": -(log_prob * advantage).sum(0)}
        weights = {"loss": 1.0, "policy_loss": config.location_coef}
        if network.value:
            parts["value_loss"], weights["value_loss"] = losses.squared(value - reward).mean(0), config.vf_coef
        metrics = {name: Mean.of(part.mean(1)) for name, part in (parts | {"accuracy": right, "reward": reward}).items()}
        return sum(weights[name] * part.mean() for name, part in parts.items()), metrics

    def update(state: State, batch: Examples, key: Key) -> tuple[State, UpdateResult]:
        grads, metrics = optim.gradients(lambda *args: loss_fn(*args, state.rewards), state.params, batch, key, config.optim)
        params, opt = optimizer.step(grads, state.opt, state.params, axis_name)
        rewards, average = state.rewards, state.average
        if rewards is not None:
            rewards = baselines.moved(rewards, axis.sum_over(metrics["reward"], axis_name), config.baseline_decay)
        if average is not None:
            average = Average(optim.ema(average.params, params, config.ema_decay, average.count), average.count + 1)
        return State(params, opt, rewards, average), UpdateResult(metrics)

    def read(params: PyTree, seen: Array, key: Key | None = None) -> Reading:
        shape = len(seen), 1, config.num_glimpses, 2
        return network.read(params, seen, jnp.zeros(shape) if key is None else jax.random.normal(key, shape))

    def log_probs(params: PyTree, images: Array, key: Key | None = None) -> Array:
        return jax.nn.log_softmax(network.logits(params, read(params, lay(images), key).h[-1, :, 0]))

    learned = Learner(init, update, lambda state: state.params if state.average is None else state.average.params)
    return Model(learned, loss_fn, lay, read, log_probs, network)


make_run = minibatches.run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    del config, spec
    return {Classifier: Classifier(model.log_probs)}


def _evaluation(config: Config, train: Any, splits: Mapping[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    score = learner.scorer(lambda params, images, key: jnp.exp(model.log_probs(params, images, key)))
    readings = jax.jit(lambda params, images: _shown(model, params, images))

    def shown(params: PyTree, num: int) -> glimpse_pictures.Shown:
        """Readings of the first held-out images, which lie where they do in an evaluation."""
        found = readings(params, splits["test"].images[: learner.BLOCK])
        return jax.tree.map(lambda x: np.asarray(x[:num]), found)

    def more(params: PyTree, options: Options, held: Dataset) -> dict[str, Any]:
        found = classifier.figures(_LABELS, score(params, held.images, options.seed, options.draws), held.labels)
        return {"error": 1 - found["accuracy"]} | found

    def in_words(found: dict[str, Any]) -> str:
        return (f"test examples of {config.dataset}: error {100 * found['error']:.2f} %, accuracy "
                f"{100 * found['accuracy']:.2f} %, loss {found['loss']:.4g}")

    def drawn(draw: Callable, num: int) -> Callable[[PyTree, int, Path], None]:
        return lambda params, seed, path: draw(shown(params, num), splits["test"], config.glimpse_size, config.num_scales, path)

    film = drawn(glimpse_pictures.film, glimpse_pictures.FEW)
    can[Film] = Film(film)
    pictures = {"glimpses.png": drawn(glimpse_pictures.draw, glimpse_pictures.MANY), "glimpses.gif": film}
    pictures |= report.pictures(_LABELS, splits, score)
    return Evaluation(Options(train.seed), more, pictures, in_words, lambda: classifier.check_data(_LABELS, splits))


def _shown(model: Model, params: PyTree, images: Array) -> glimpse_pictures.Shown:
    seen = model.lay(images)
    reading = model.read(params, seen)
    said = jax.nn.softmax(model.network.logits(params, reading.h[1:, :, 0]))
    return glimpse_pictures.Shown(seen, reading.places[:, :, 0].swapaxes(0, 1), said.swapaxes(0, 1))


ALGORITHM = dataset_algorithm(
    "attention_reader", "labels of images from a few glimpses, whose places are learned by REINFORCE", Config, validate, make,
    make_run, total_steps, Score("error", False, "share of held-out images that are wrong"),
    (Curve("accuracy", True, "accuracy", "eval/accuracy", 0.05, "accuracy"),
     Curve("loss", False, "loss", "eval/loss", 0.05, "loss", panel=True),
     Curve("eval/accuracy", True, "accuracy on held-out data", None, 0.0, "accuracy")), abilities, "images", _evaluation)
