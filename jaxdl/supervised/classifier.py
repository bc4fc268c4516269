"""A small classifier of images, whose features also serve to compare pictures.

Convolutions of stride 2 (or dense layers), a hidden layer whose outputs are the features, and a linear layer to the logits;
the cross-entropy is minimized on images that are moved by a few pixels each time they are seen (LeCun et al. 1998).

Shapes: `B` batch, `N` images, `H W C` an image, `F` features, `Y` classes.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from flax import linen

from jaxdl import nn, optim
from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require, require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.task import Classifier, Curve, Score
from jaxdl.core.types import Array, DataSpec, Examples, Key, Learner, Mean, PyTree, UpdateResult
from jaxdl.data import minibatches
from jaxdl.data.augment import shifted
from jaxdl.ops import losses
from jaxdl.ops.pixels import to_unit
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.dataset_task import dataset_algorithm


@settings
class Config(minibatches.Config):
    """Settings of the classifier."""

    applies: ClassVar = {"conv_channels": ("network", "conv")}

    batch_size: int = 100
    """Images in one update."""
    network: Literal["mlp", "conv"] = "conv"
    """Dense layers, or convolutions of stride 2 beneath one."""
    conv_channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutions (conv)."""
    hidden_sizes: tuple[int, ...] = (128,)
    """Widths of the hidden layers; the outputs of the last are the features."""
    max_shift: int = 2
    """Pixels by which an image is moved at most, up or down and left or right, in training."""
    optim: OptimConfig = OptimConfig(schedule="cosine")
    """The optimizer."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree


class Model(NamedTuple):
    """A learner, and functions of uint8 images [N, H, W, C]."""

    learner: Learner
    measure: Callable[[PyTree, Examples, Key], dict[str, Mean]]  # (params, examples, key) -> loss and accuracy
    logits: Callable[[PyTree, Array], Array]  # (params, images) -> [N, Y]
    features: Callable[[PyTree, Array], Array]  # (params, images) -> [N, F]


class Network(linen.Module):
    """[B, H, W, C] in [0, 1] -> features [B, F] and logits [B, Y]."""

    network: Literal["mlp", "conv"]
    conv_channels: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    num_classes: int
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        features = nn.encode_image(x, self.network, self.conv_channels, self.hidden_sizes, dtype=self.dtype)
        return features, nn.CategoricalHead(self.num_classes)(features)


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    refuse_idle(config)
    for field in ("hidden_sizes", "conv_channels"):
        require(config, field, bool(getattr(config, field)) and all(n > 0 for n in getattr(config, field)),
                "one or more widths above 0")
    require(config, "max_shift", config.max_shift >= 0, "0 or above")
    require_positive(config, "batch_size")
    optim.validate(config.optim, config.batch_size)


def total_steps(config: Config, spec: DataSpec) -> int:
    """Updates of the planned run."""
    return minibatches.total_steps(config, spec)


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its functions for images of a shape.

    Raises:
        UserError: the dataset has no labels.
    """
    if spec.num_classes is None:
        raise UserError(f"a classifier needs labels, and the dataset {spec.name} has none")
    network = Network(config.network, config.conv_channels, config.hidden_sizes, spec.num_classes)
    optimizer = optim.make(config.optim, horizon=total_steps(config, spec))

    def apply(params: PyTree, images: Array) -> tuple[Array, Array]:
        return network.apply(params, to_unit(images))

    def metrics_of(loss: Array, logits: Array, examples: Examples) -> dict[str, Mean]:
        return {"loss": Mean.of(loss), "accuracy": Mean.of(logits.argmax(-1) == examples.labels)}

    def init(key: Key) -> State:
        params = nn.init(network, key, jnp.zeros((1, *spec.shape)))
        return State(params, optimizer.init(params))

    def loss_fn(params: PyTree, examples: Examples, key: Key) -> tuple[Array, dict[str, Mean]]:
        images = to_unit(shifted(examples.images, key, config.max_shift))
        _, logits = network.clone(dtype=config.optim.compute_dtype).apply(params, images)
        loss = losses.cross_entropy(logits, examples.labels)
        return loss.mean(), metrics_of(loss, logits, examples)

    def update(state: State, examples: Examples, key: Key) -> tuple[State, UpdateResult]:
        grads, metrics = optim.gradients(loss_fn, state.params, examples, key, config.optim)
        return State(*optimizer.step(grads, state.opt, state.params, axis_name)), UpdateResult(metrics)

    def measure(params: PyTree, examples: Examples, key: Key) -> dict[str, Mean]:
        del key
        _, logits = apply(params, examples.images)
        return metrics_of(losses.cross_entropy(logits, examples.labels), logits, examples)

    return Model(Learner(init, update, lambda state: state.params), measure, lambda params, images: apply(params, images)[1],
                 lambda params, images: apply(params, images)[0])


make_run = minibatches.run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    del config, spec
    return {Classifier: Classifier(model.logits)}


ALGORITHM = dataset_algorithm(
    "classifier", "classes of images: dense or convolutional layers on images that are shifted", Config, validate, make,
    make_run, total_steps, Score("accuracy", True, "accuracy on held-out data"),
    (Curve("accuracy", True, "accuracy", "eval/accuracy", 0.0, "accuracy"),
     Curve("eval/accuracy", True, "accuracy on held-out data", None, 0.0, "accuracy")), abilities, "images")
