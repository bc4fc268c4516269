"""Algorithms that learn from a dataset, for the command line: data read, its splits at hand, held-out examples measured.

Shapes: `N` examples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from jaxdl import data, optim
from jaxdl.core import stdio, streams, task
from jaxdl.core.config import config as settings
from jaxdl.core.config import of_kind, require
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.task import Algorithm, Curve, Score, Task
from jaxdl.core.types import DataSpec, Key, PyTree, Run
from jaxdl.data import minibatches
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver

BLOCK = 100  # examples in one call of a measure
_DARK = 16  # a byte below which all of a dataset are hardly by intent
_HELD_OUT = 10  # every so many training examples one is to validate


@settings
class TrainConfig(fit.Config):
    """How the run of what learns from a dataset is driven."""

    earlier: ClassVar = {"validation": 0}

    validation: int | None = None
    """Training examples that are not learned from where eval_every is given, and decide what is best and when to stop; a tenth
    if not given. 0: the test examples decide, and then judge their own choice."""
    validation_fraction: float | None = None
    """The same as a share of the training examples."""


@dataclass(frozen=True)
class Options(task.Options):
    """Settings of an evaluation on a dataset that may have more than one held-out split."""

    split: str = "test"
    """The examples that judge: test, or another split of the dataset (scenes have "hard")."""


class Evaluation(NamedTuple):
    """What an evaluation has beside the measured means."""

    options: task.Options  # with their defaults
    more: Callable[..., dict[str, Any]] = lambda params, options, held: {}  # (params, options, held-out examples) -> numbers
    pictures: Mapping[str, Callable] = MappingProxyType({})  # file name -> (params, seed, path), what a finished run leaves
    describe: Callable[[dict[str, Any]], str] | None = None  # an evaluation in words; its numbers if not given
    check: Callable[[], None] = lambda: None  # refuses, before it is trained, what could not be evaluated


def dataset_algorithm(
    name: str,
    summary: str,
    config: type,
    validate: Callable[[Any], None],
    make: Callable[[Any, DataSpec], Any],
    make_run: Callable[..., Run],
    total_steps: Callable[[Any, DataSpec], int],
    score: Score | Callable[[Any], Score],
    curves: tuple[Curve, ...],
    abilities: Callable[[Any, DataSpec, Any], dict[type, Any]] = lambda config, spec, model: {},
    examples: str = "examples",
    evaluation: Callable[..., Evaluation] = lambda config, train, splits, model, can: Evaluation(task.Options(train.seed)),
) -> Algorithm:
    """The algorithm of a model that learns from a dataset, of any tree of arrays.

    Args:
        config: has `dataset`, `data_dir` and `batch_size` (`data.minibatches.Config`).
        validate: refuses settings that make no sense.
        make: (config, spec) -> the model: its `learner`, and `measure`, (params, examples, key) -> means over examples, where
            held-out examples say how good it is.
        make_run: (config, spec, axis_name=, shards=) -> the run.
        total_steps: (config, spec) -> updates of the planned run.
        score: decides what is best, or a function of the config.
        curves: what is worth drawing, the first that a run has.
        abilities: (config, spec, model) -> what else a trained model can do, by type (`core.task`).
        examples: what one example is called.
        evaluation: (config, train config, splits, model, abilities) -> what an evaluation has beside `measure`; the splits are
            "train" and "test", and "validation" where a part of "train" is held out.
    """

    def opened(config: Any, train: fit.Config) -> Task:
        splits = _load_splits(config)
        if sentence := too_dark(splits["train"], config):
            stdio.say(f"jaxdl: {sentence}")
        learned, held = _parts(splits["train"], config, train)
        num = minibatches.num_learned(config, learned.spec)
        if config.batch_size > num:
            of = f" without a fold of {config.folds}" if getattr(config, "folds", None) else ""
            raise UserError(f"batch_size={config.batch_size} is above the {num} training examples of {config.dataset}{of}; "
                            "lower it")
        for optimizer in of_kind(config, optim.Config):
            if sentence := optim.warn_stochastic(optimizer, config.batch_size, num):
                stdio.say(f"jaxdl: {sentence}")
        return with_splits(config, train, splits, learned.spec, learned, held)

    def reopened(config: Any, train: fit.Config, spec: DataSpec) -> Task:
        return with_splits(config, train, _Later(config, spec), spec)

    def with_splits(config: Any, train: fit.Config, splits: Mapping[str, data.Dataset], spec: DataSpec,
                    learned: data.Dataset | None = None, held: data.Dataset | None = None) -> Task:
        model = make(config, spec)
        can = abilities(config, spec, model)
        judged = evaluation(config, train, {**splits, "validation": held} if held else splits, model, can)
        measured = _measured(model, judged)
        if learned:
            judged.check()

        def run(config: Any, **axis: Any) -> Run:
            return make_run(config, spec, **axis)

        def drive(configs: Sequence[Any], seeds: Sequence[int], train: fit.Config, written_by: int | None = None) -> Any:
            mine = learned or _parts(splits["train"], config, train)[0]
            return make_device_driver(run, list(configs), mine.on_device(), seeds, quick=train.quick_compile,
                                      devices=train.devices, written_by=written_by)

        def evaluate(params: PyTree, options: Any) -> dict[str, Any]:
            return measured(params, options, held_out_split(config, splits, options))

        def choose(params: PyTree) -> dict[str, Any]:
            return measured(params, judged.options, held)

        def in_words(found: dict[str, Any]) -> str:
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in found.items() if isinstance(value, float))
            return f"test {examples} of {config.dataset}: {numbers}"

        return Task(config.dataset, total_steps(config, spec), model.learner, drive, evaluate, judged.options, can,
                    judged.pictures, judged.describe or in_words, (config.batch_size, examples), run, splits,
                    choose=choose if held else None, spec=spec)

    return Algorithm(name, summary, config, validate, opened, score, curves, "dataset", "updates", TrainConfig, reopened)


def held_out_split(config: Any, splits: Mapping[str, data.Dataset], options: Any) -> data.Dataset:
    """The examples that an evaluation asks for.

    Raises:
        UserError: there is no such split, or it is what was learned from.
    """
    split = getattr(options, "split", "test")
    if split == "test":
        return splits["test"]
    known = [name for name in data.reader(config.dataset).splits if name != "train"]
    if split not in known:
        raise UserError(f"split must be a held-out one of {config.dataset}, {' or '.join(known)}, got {split!r}")
    return data.load(config.dataset, config.data_dir, split)


def _load_splits(config: Any) -> dict[str, data.Dataset]:
    train, test = data.load_splits(config.dataset, config.data_dir)
    if getattr(config, "folds", None):  # folds are parts in this order
        train = train.part(data.drawn(train, "folds"))
    return {"train": train, "test": test}


class _Later(Mapping):
    """The splits of a dataset of which the spec is known: they are read when one is asked for."""

    def __init__(self, config: Any, spec: DataSpec):
        self._config, self._spec, self._read = config, spec, None

    def __getitem__(self, split: str) -> data.Dataset:
        if self._read is None:
            read = _load_splits(self._config)
            found = read["train"].spec
            if _form(found) != _form(self._spec) or (found.num_classes or 0) > (self._spec.num_classes or 0):
                raise UserError(f"the dataset {self._config.dataset} is not the one that the run learned from: it has "
                                f"{_in_numbers(found)}, and that one had {_in_numbers(self._spec)}")
            self._read = read
        return self._read[split]

    def __iter__(self) -> Iterator[str]:
        return iter(data.SPLITS)

    def __len__(self) -> int:
        return len(data.SPLITS)


def _form(spec: DataSpec) -> tuple:
    """What a model's networks depend on, but for the classes, of which other data may have fewer."""
    return spec.shape, spec.input, spec.vocabulary


def _in_numbers(spec: DataSpec) -> str:
    classes = f", {spec.num_classes} classes" if spec.num_classes else ""
    return f"{spec.input} of shape {list(spec.shape)}{classes}"


def _parts(train: data.Dataset, config: Any, driven: fit.Config) -> tuple[data.Dataset, data.Dataset | None]:
    """The training examples to learn from, and those that choose while it trains; with folds each fold chooses by itself."""
    if not getattr(config, "folds", None):
        return for_validation(train, driven)
    for field in ("validation", "validation_fraction"):
        if getattr(driven, field, None):
            raise UserError(f"{field}={getattr(driven, field)} and folds={config.folds} both hold examples out; give one")
    return train, None


def for_validation(train: data.Dataset, config: fit.Config) -> tuple[data.Dataset, data.Dataset | None]:
    """The training examples to learn from, and those that choose while it trains, where anything is chosen.

    Raises:
        UserError: too many are asked for, or nothing is evaluated while it trains.
    """
    num, most = getattr(config, "validation", None), train.spec.num_examples - 1
    share = getattr(config, "validation_fraction", None)
    if share is not None:
        require(config, "validation_fraction", 0 <= share < 1, "at least 0 and below 1")
        if num is not None:
            raise UserError(f"validation={num} and validation_fraction={share} both say how many are held out; give one")
        if config.eval_every is None and share:
            raise UserError(f"validation_fraction={share} is of eval_every: without it nothing is chosen; give eval_every too")
        num = min(round(share * train.spec.num_examples), most)
    if num is not None:
        require(config, "validation", 0 <= num <= most, f"at least 0 and at most {most}, of the training examples")
    if config.eval_every is None:
        if num:
            raise UserError(f"validation={num} is of eval_every: without it nothing is chosen; give eval_every too")
        return train, None
    num = max(1, train.spec.num_examples // _HELD_OUT) if num is None else num
    return data.split_off(train, num, "validation") if 0 < num <= most else (train, None)


def too_dark(dataset: data.Dataset, config: Any) -> str | None:
    """What is to be said of images whose bytes hardly begin to be grey, as 0 and 1 in the place of 0 and 255; else None."""
    if getattr(config, "binarize", None) == "none" or dataset.spec.input != "images" or dataset.is_made:
        return None
    if dataset.images.dtype != np.uint8:
        return None
    top = int(dataset.images.max())
    if not 0 < top < _DARK:
        return None
    binary = ", or --binarize none, which takes 0 and 1 as they are, if a model has it" if top == 1 else ""
    return (f"the images of {dataset.spec.name} have bytes from 0 to {top}, and 255 is white: they are nearly black, so every "
            f"figure is of black images, whatever --levels says; if {top} is meant to be white, multiply them by {255 // top}"
            f"{binary}")


def _measured(model: Any, evaluation: Evaluation) -> Callable[[PyTree, Any, data.Dataset], dict[str, Any]]:
    """`(params, options, held-out examples) -> numbers`."""
    measure = getattr(model, "measure", None)
    program = None if measure is None else jax.jit(measure)

    def evaluate(params: PyTree, options: Any, held: data.Dataset) -> dict[str, Any]:
        options.validate()
        totals: dict[str, list] = {}
        for key, batch in blocks(held, options.seed) if program else ():
            for name, mean in program(params, batch, key).items():
                totals.setdefault(name, []).append(mean)
        found = {name: float(sum(float(t) for t, _ in means) / sum(float(n) for _, n in means))
                 for name, means in totals.items()}
        return {"num": held.spec.num_examples} | found | evaluation.more(params, options, held)

    return evaluate


def blocks(dataset: data.Dataset, seed: int, size: int = BLOCK) -> Iterator[tuple[Key, PyTree]]:
    """The examples of a dataset, `size` at a time, each block with a key of its own."""
    key = streams.key(seed, Purpose.EVALUATION)
    for i in range(0, dataset.spec.num_examples, size):
        yield jax.random.fold_in(key, i), dataset.rows(slice(i, i + size))


def in_blocks(f: Callable[..., Any], size: int, *arrays: PyTree) -> np.ndarray:
    """`f` of arrays [N, ...] (trees of them, None allowed), `size` rows at a time, its results put together."""
    num = len(jax.tree.leaves(arrays)[0])
    parts = (jax.tree.map(lambda x: x[i : i + size], arrays) for i in range(0, num, size))  # noqa: B023
    return np.concatenate([np.asarray(f(*part)) for part in parts])
