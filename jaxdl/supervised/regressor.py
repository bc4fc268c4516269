"""Regressors: measured numbers from inputs, by any network of the library.

    l2      (y - t)^2 / 2        l1      |y - t|        huber   l2 near, l1 beyond `huber_delta` (Huber 1964)

Losses are of targets with mean 0 and deviation 1, as those of the training split have them; predictions and figures are in the
units of the dataset.

Shapes: `N` examples, `K` numbers of a target.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np

from jaxdl.core.config import config as settings
from jaxdl.core.config import require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.task import Curve, Ensemble, Score
from jaxdl.core.types import Array, DataSpec, Key
from jaxdl.data.dataset import Dataset
from jaxdl.data.minibatches import run_maker
from jaxdl.metrics import classification
from jaxdl.ops import losses
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm
from jaxdl.supervised import learner, networks, report
from jaxdl.supervised.learner import Loss, Model
from jaxdl.supervised.networks import Variables


@settings
class Config(learner.Config):
    """Settings of the regressor."""

    applies: ClassVar = {"huber_delta": ("loss", "huber")}

    dataset: str = "diabetes"
    """Name of the dataset (`jaxdl list`), or package.module:NAME of one of your own."""
    network: networks.Name = "mlp"
    """Dense layers; convolutions of stride 2 beneath one; or a network as published, in its form for small images
    (`jaxdl.nn.cnn`)."""
    loss: Literal["l2", "l1", "huber"] = "l2"
    """What is minimized."""
    huber_delta: float = 1.0
    """Error from which on the loss is linear, in deviations of the target (huber)."""


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    learner.validate(config)
    require_positive(config, "huber_delta")


total_steps = learner.total_steps


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its functions for a dataset; predictions are [N, K], in the units of the targets.

    Raises:
        UserError: the dataset has no targets that are measured, or its inputs are not the network's.
    """
    target = spec.target_array
    if target is None or not target.dtype.startswith("float"):
        what = f"{target.dtype} labels; train a classifier" if target else "none"
        raise UserError(f"a regressor needs targets that are measured (float), and the dataset {spec.name} has {what}")
    mean, deviation = (np.array(x, np.float32) for x in spec.target_scale)
    deviation = np.where(deviation > 0, deviation, 1)
    by_error = {"l2": losses.squared, "l1": jnp.abs,
                "huber": lambda error: losses.huber(error, config.huber_delta)}[config.loss]

    def error(outputs: Array, targets: Array) -> Array:
        return outputs - (targets.reshape(len(targets), -1) - mean) / deviation

    loss = Loss(lambda outputs, targets: by_error(error(outputs, targets)).mean(-1), lambda outputs, targets: {
        "absolute_error": jnp.abs(deviation * error(outputs, targets)).mean(-1)})
    made = learner.make(config, spec, math.prod(target.shape), loss, axis_name=axis_name)

    def predict(variables: Variables, inputs: Array, key: Key | None = None) -> Array:
        return mean + deviation * made.predict(variables, inputs, key)

    return made._replace(predict=predict)


make_run = run_maker(make, validate)


def figures(predicted: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """How good predictions [N, K] of targets [N, ...] are, in their units."""
    targets = targets.reshape(predicted.shape)
    error = predicted - targets
    return {"r2": classification.r2(predicted, targets), "absolute_error": float(np.abs(error).mean()),
            "root_mean_squared_error": float(np.sqrt((error**2).mean()))}


def _evaluation(config: Config, train: Any, splits: Mapping[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    score = learner.scorer(model.predict)

    measured, together = learner.judges(config, splits, score, figures)

    def in_words(found: dict[str, Any]) -> str:
        return (f"{learner.judged_by(config, found)}: R2 {found['r2']:.4f}, absolute error {found['absolute_error']:.4g}, "
                f"root mean squared error {found['root_mean_squared_error']:.4g}")

    can[Ensemble] = Ensemble(together)
    pictures = report.pictures(config, splits, score, of_numbers=True)
    return Evaluation(learner.Options(train.seed), measured, pictures, in_words, lambda: learner.check_data(config, splits))


ALGORITHM = dataset_algorithm(
    "regressor", "measured numbers from inputs: MLP to DenseNet, by L2, L1 or Huber's loss", Config, validate, make, make_run,
    total_steps, Score("r2", True, "R2 on held-out data"),
    (Curve("loss", False, "loss", None, 0.05, "loss"),
     Curve("absolute_error", False, "absolute error", "eval/absolute_error", 0.05, "error", panel=True),
     Curve("eval/r2", True, "R2 on held-out data", None, 0.05, "r2", panel=True)), examples="examples", evaluation=_evaluation)
