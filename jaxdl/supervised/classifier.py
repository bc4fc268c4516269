"""Classifiers: labels from inputs, by any network of the library.

    cross_entropy   -log softmax(z)[y], with `label_smoothing` towards all classes alike (Szegedy et al. 2016)
    hinge           sum over other classes of max(0, 1 + z_c - z_y), a linear support vector machine on the features (Weston &
                    Watkins 1999)
    hierarchical    -log of the decisions on the way to y in Huffman's tree of the classes' frequencies (Morin & Bengio 2005):
                    about log2 Y of them are computed while it learns, all Y - 1 to predict
    multi_label     a logistic a label, of which an example may have several (0 and 1 [N, Y]), or none

Shapes: `N` examples, `B` batch, `Y` classes, `F` features.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import numpy as np

from jaxdl import nn
from jaxdl.adversarial import defences
from jaxdl.core import stdio
from jaxdl.core.config import config as settings
from jaxdl.core.config import require
from jaxdl.core.errors import UserError
from jaxdl.core.task import Classifier, Curve, Ensemble, Score
from jaxdl.core.types import Array, DataSpec
from jaxdl.data.dataset import Dataset
from jaxdl.data.minibatches import fold_of, run_maker
from jaxdl.metrics import classification
from jaxdl.ops import losses
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm
from jaxdl.supervised import learner, report
from jaxdl.supervised.learner import Loss
from jaxdl.supervised.networks import Variables

TOP = 5  # of top-k accuracy, where there are more classes


@settings
class Config(learner.Config):
    """Settings of the classifier."""

    renamed: ClassVar = {"max_shift": lambda value: {"augment": {"max_shift": value}}}
    applies: ClassVar = {"label_smoothing": ("loss", "cross_entropy")}

    loss: Literal["cross_entropy", "hinge", "hierarchical", "multi_label"] = "cross_entropy"
    """What is minimized: of one label an example, or of several (multi_label)."""
    label_smoothing: float | None = None
    """Share of the target that all classes have alike (cross_entropy)."""
    robust: defences.Config = defences.Config()
    """How it is made to withstand attacks."""


class Model(NamedTuple):
    """A learner, and functions of inputs [N, ...] as the dataset has them."""

    learner: Any
    logits: Callable[..., Array]  # (variables, inputs, key=None) -> [N, Y]: log-probabilities but for a constant, or margins
    features: Callable[[Variables, Array], Array]  # (variables, inputs) -> [N, F]


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    learner.validate(config)
    if config.label_smoothing is not None:
        require(config, "label_smoothing", 0 <= config.label_smoothing < 1, "at least 0 and below 1")
    if config.loss in ("hierarchical", "multi_label") and config.augment.mixup is not None:
        raise UserError(f"mixup={config.augment.mixup} mixes the losses of two labels, and loss={config.loss}; leave mixup out")
    defences.validate(config.robust)
    if config.robust.defence is not None:
        _refuse_beside_defence(config)
    if config.loss == "hierarchical" and config.network == "squeezenet":
        raise UserError("loss=hierarchical needs a last layer that is dense, and network=squeezenet has none")


def _refuse_beside_defence(config: Config) -> None:
    """Refuse settings that mean nothing where losses are those of attacks or bounds."""
    defence = config.robust.defence
    if config.loss != "cross_entropy" or config.label_smoothing is not None:
        given = f"loss={config.loss}" if config.loss != "cross_entropy" else f"label_smoothing={config.label_smoothing}"
        raise UserError(f"defence={defence} is of plain cross-entropy, and {given}; leave it out")
    if config.augment.mixup is not None:
        raise UserError(f"defence={defence} is of one label an example, and mixup={config.augment.mixup} mixes two; leave it "
                        "out")
    if defence == "interval" and config.norm is not None:
        raise UserError(f"defence=interval knows no bounds of norm={config.norm}; leave it out")


total_steps = learner.total_steps


def num_labels(config: Config, spec: DataSpec) -> int:
    """Classes that are told apart, or labels that an example may have.

    Raises:
        UserError: the dataset has none, or of the other kind.
    """
    target = spec.target_array
    several = target is not None and len(target.shape) == 1
    if config.loss == "multi_label":
        if not several:
            raise UserError(f"loss=multi_label needs targets of 0 and 1 [N, Y], and the dataset {spec.name} has "
                            f"{_in_words(target, spec)}; use loss=cross_entropy")
        return target.shape[0]
    if several and target.dtype in ("uint8", "bool", "int32"):
        raise UserError(f"loss={config.loss} is of one label an example, and the dataset {spec.name} has "
                        f"{_in_words(target, spec)}; use loss=multi_label")
    if spec.num_classes is None:
        raise UserError(f"a classifier needs labels, and the dataset {spec.name} has {_in_words(target, spec)}"
                        + ("; train a regressor" if target is not None else ""))
    return spec.num_classes


def _in_words(target: Any, spec: DataSpec) -> str:
    if target is None:
        return "none" if spec.num_classes is None else f"{spec.num_classes} classes"
    return f"targets {target.dtype}[{', '.join(map(str, ('N', *target.shape)))}]"


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its functions for a dataset.

    Raises:
        UserError: the dataset has no labels, or its inputs are not the network's.
    """
    num = num_labels(config, spec)
    tree = None
    if config.loss == "hierarchical":
        if num < 2:
            raise UserError(f"loss=hierarchical needs two classes or more, and the dataset {spec.name} has {num}")
        tree = nn.huffman(spec.class_counts or (1,) * num)
    made = learner.make(config, spec, num, _loss(config), tree, axis_name)
    return Model(made.learner, made.predict, made.features)


def _loss(config: Config) -> Loss:
    def right(outputs: Array, labels: Array) -> dict[str, Array]:
        return {"accuracy": outputs.argmax(-1) == labels}

    def all_right(outputs: Array, labels: Array) -> dict[str, Array]:
        return {"accuracy": ((outputs > 0) == (labels > 0)).mean(-1)}

    def cross_entropy(outputs: Array, labels: Array) -> Array:
        if config.label_smoothing is None:
            return losses.cross_entropy(outputs, labels)
        return losses.smoothed_cross_entropy(outputs, labels, config.label_smoothing)

    defence = config.robust if config.robust.defence is not None else None
    return {"cross_entropy": Loss(cross_entropy, right, defence=defence), "hinge": Loss(losses.multiclass_hinge, right),
            "hierarchical": Loss(lambda of_label, labels: -of_label, lambda of_label, labels: {}, only=True),
            "multi_label": Loss(lambda z, y: losses.binary_cross_entropy(z, y).mean(-1), all_right)}[config.loss]


make_run = run_maker(make, validate)


def probabilities(config: Config, outputs: Array) -> Array:
    """What outputs [N, Y] say of each class: probabilities, or margins of the hinge loss."""
    by = {"hinge": lambda z: z, "multi_label": jax.nn.sigmoid}
    return by.get(config.loss, jax.nn.softmax)(outputs)


def figures(config: Config, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """How good scores [N, Y] (`probabilities`) of targets [N] or [N, Y] are: the loss without smoothing, accuracy and more.

    Of one label: top_5 where there are more classes, ece (expected calibration error, not of hinge). Of several:
    mean_average_precision, and of the accuracy the mean over labels.
    """
    if config.loss == "multi_label":
        there = targets > 0
        p = np.clip(np.where(there, scores, 1 - scores), np.finfo(np.float32).tiny, 1)
        return {"loss": float(-np.log(p).mean()), "accuracy": float(((scores > 0.5) == there).mean()),
                "mean_average_precision": classification.mean_average_precision(scores, there)}
    found = {"accuracy": classification.accuracy(scores, targets)}
    if scores.shape[1] > TOP:
        found[f"top_{TOP}"] = classification.accuracy(scores, targets, TOP)
    if config.loss == "hinge":
        return {"loss": float(losses.multiclass_hinge(scores, targets).mean())} | found
    own = scores[np.arange(len(targets)), targets]
    return {"loss": float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean()), **found,
            "ece": classification.calibration(scores, targets).error}


def scorer(config: Config, model: Model) -> learner.Scorer:
    """`(variables, inputs, seed=0, samples=0) -> scores [N, Y]` (`probabilities`)."""
    return learner.scorer(lambda variables, inputs, key: probabilities(config, model.logits(variables, inputs, key)))


def check_data(config: Config, splits: Mapping[str, Dataset]) -> None:
    """Refuse a dataset from which no classes can be learned, and say where no figure is of one.

    Raises:
        UserError: it has one class, a class of which there is no example to learn from, labels that are not 0 and 1
            (multi_label), or what `learner.check_data` refuses.
    """
    learner.check_data(config, splits)
    train, test = splits["train"], splits["test"]
    if config.loss == "multi_label":
        for name, split in splits.items():
            if not np.isin(split.target, (0, 1)).all():
                raise UserError(f"loss=multi_label needs targets of 0 and 1, and the {name} split of {train.name} has others")
        return
    num = train.spec.num_classes
    if num < 2:
        raise UserError(f"a classifier needs two classes or more, and the dataset {train.name} has one")
    for words, labels in _learned_parts(config, train):
        if absent := np.flatnonzero(np.bincount(labels, minlength=num) == 0).tolist():
            raise UserError(f"the {words} of {train.name} have none of {report.class_words(train.spec, absent)}, which cannot "
                            "be learned from them; give some, or leave the class out")
    if absent := np.flatnonzero(np.bincount(test.target, minlength=num) == 0).tolist():
        stdio.say(f"jaxdl: the test split of {train.name} has none of {report.class_words(train.spec, absent)}: no figure is "
                  "of them")


def _learned_parts(config: Config, train: Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """Labels that members learn from, with a name each."""
    labels = train.target
    if config.folds is None:
        yield "training examples", labels
        return
    for k in range(config.folds):
        first, after = fold_of(len(labels), config.folds, k)
        yield f"training examples without fold {k}", np.concatenate([labels[:first], labels[after:]])


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    del config, spec
    return {Classifier: Classifier(model.logits)}


def _evaluation(config: Config, train: Any, splits: Mapping[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    score = scorer(config, model)

    measured, together = learner.judges(config, splits, score, functools.partial(figures, config))

    def in_words(found: dict[str, Any]) -> str:
        first = (f"mean average precision {found['mean_average_precision']:.4f}, " if config.loss == "multi_label" else "")
        more = "".join(f", {name} {found[name]:.4g}" for name in ("loss", "top_5", "ece") if name in found)
        return f"{learner.judged_by(config, found)}: {first}accuracy {100 * found['accuracy']:.2f} %{more}"

    can[Ensemble] = Ensemble(together)
    pictures = report.pictures(config, splits, score) if config.loss != "multi_label" else {}
    return Evaluation(learner.Options(train.seed), measured, pictures, in_words, lambda: check_data(config, splits))


def _score(config: Config) -> Score:
    if config.loss == "multi_label":
        return Score("mean_average_precision", True, "mean average precision on held-out data")
    return Score("accuracy", True, "accuracy on held-out data")


ALGORITHM = dataset_algorithm(
    "classifier", "labels from inputs: MLP to DenseNet, softmax, hinge, hierarchical or several labels an example", Config,
    validate, make, make_run, total_steps, _score,
    (Curve("accuracy", True, "accuracy", "eval/accuracy", 0.05, "accuracy"),
     Curve("loss", False, "loss", "eval/loss", 0.05, "loss", panel=True),
     Curve("eval/accuracy", True, "accuracy on held-out data", None, 0.0, "accuracy")), abilities, "examples", _evaluation)
