"""Algorithms that learn from a dataset, for the command line: data read, its splits at hand, held-out examples measured.

Shapes: `N` examples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl import data
from jaxdl.core import task
from jaxdl.core.errors import UserError
from jaxdl.core.task import Algorithm, Curve, Score, Task
from jaxdl.core.types import DataSpec, Key, PyTree, Run
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver

BLOCK = 100  # examples in one call of a measure


class Evaluation(NamedTuple):
    """What an evaluation has beside the measured means."""

    options: task.Options  # with their defaults
    more: Callable[[PyTree, Any], dict[str, Any]] = lambda params, options: {}  # (params, options) -> further numbers
    pictures: Mapping[str, Callable] = MappingProxyType({})  # file name -> (params, seed, path), what a finished run leaves
    describe: Callable[[dict[str, Any]], str] | None = None  # an evaluation in words; its numbers if not given


def dataset_algorithm(
    name: str,
    summary: str,
    config: type,
    validate: Callable[[Any], None],
    make: Callable[[Any, DataSpec], Any],
    make_run: Callable[..., Run],
    total_steps: Callable[[Any, DataSpec], int],
    score: Score,
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
        score: decides what is best.
        curves: what is worth drawing, the first that a run has.
        abilities: (config, spec, model) -> what else a trained model can do, by type (`core.task`).
        examples: what one example is called.
        evaluation: (config, train config, splits, model, abilities) -> what an evaluation has beside `measure`.
    """

    def opened(config: Any, train: fit.Config) -> Task:
        return with_splits(config, train, *load_splits(config))

    def reopened(config: Any, train: fit.Config, spec: DataSpec) -> Task:
        return with_splits(config, train, _Later(config, spec), spec)

    def with_splits(config: Any, train: fit.Config, splits: Mapping[str, data.Dataset], spec: DataSpec) -> Task:
        model = make(config, spec)
        can = abilities(config, spec, model)
        return _task(config, splits, total_steps(config, spec), model, lambda c, **axis: make_run(c, spec, **axis), can,
                     examples, evaluation(config, train, splits, model, can), spec)

    return Algorithm(name, summary, config, validate, opened, score, curves, "dataset", "updates", reopen=reopened)


class _Later(Mapping):
    """The splits of a dataset of which the spec is known: they are read when one is asked for."""

    def __init__(self, config: Any, spec: DataSpec):
        self._config, self._spec, self._read = config, spec, None

    def __getitem__(self, split: str) -> data.Dataset:
        if self._read is None:
            read, found = load_splits(self._config)
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


def load_splits(config: Any) -> tuple[dict[str, data.Dataset], DataSpec]:
    """The splits of the dataset that a config names, and what an algorithm must know of it.

    Raises:
        UserError: the dataset cannot be had, or it is smaller than a batch.
    """
    splits = dict(zip(data.SPLITS, data.load_splits(config.dataset, config.data_dir), strict=True))
    spec = splits["train"].spec
    if config.batch_size > spec.num_examples:
        raise UserError(f"batch_size={config.batch_size} is above the {spec.num_examples} training examples of "
                        f"{config.dataset}; lower it")
    return splits, spec


def _task(config: Any, splits: Mapping[str, data.Dataset], total_steps: int, model: Any, make_run: Callable[..., Run],
          can: dict[type, Any], examples: str, evaluation: Evaluation, spec: DataSpec) -> Task:
    measure = getattr(model, "measure", None)
    program = None if measure is None else jax.jit(measure)

    def drive(configs: Sequence[Any], seeds: Sequence[int], train: fit.Config, written_by: int | None = None) -> Any:
        return make_device_driver(make_run, list(configs), splits["train"].on_device(), seeds, quick=train.quick_compile,
                                  devices=train.devices, written_by=written_by)

    def evaluate(params: PyTree, options: Any) -> dict[str, Any]:
        options.validate()
        totals: dict[str, list] = {}
        for key, batch in blocks(splits["test"], options.seed) if program else ():
            for name, mean in program(params, batch, key).items():
                totals.setdefault(name, []).append(mean)
        found = {name: float(sum(float(t) for t, _ in means) / sum(float(n) for _, n in means))
                 for name, means in totals.items()}
        return {"num": splits["test"].spec.num_examples} | found | evaluation.more(params, options)

    def in_words(found: dict[str, Any]) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in found.items() if isinstance(value, float))
        return f"test {examples} of {config.dataset}: {numbers}"

    return Task(config.dataset, total_steps, model.learner, drive, evaluate, evaluation.options, can, evaluation.pictures,
                evaluation.describe or in_words, (config.batch_size, examples), make_run, splits, spec=spec)


def blocks(dataset: data.Dataset, seed: int, size: int = BLOCK) -> Iterator[tuple[Key, PyTree]]:
    """The examples of a dataset, `size` at a time, each block with a key of its own."""
    key = jax.random.key(seed)
    for i in range(0, dataset.spec.num_examples, size):
        yield jax.random.fold_in(key, i), dataset.rows(slice(i, i + size))


def in_blocks(f: Callable[..., Any], size: int, *arrays: PyTree) -> np.ndarray:
    """`f` of arrays [N, ...] (trees of them, None allowed), `size` rows at a time, its results put together."""
    num = len(jax.tree.leaves(arrays)[0])
    parts = (jax.tree.map(lambda x: x[i : i + size], arrays) for i in range(0, num, size))  # noqa: B023
    return np.concatenate([np.asarray(f(*part)) for part in parts])
