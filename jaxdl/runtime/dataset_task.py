"""Algorithms that learn from a dataset, for the command line: data read, its splits at hand, held-out examples measured.

Shapes: `N` examples.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxdl import data
from jaxdl.core import task
from jaxdl.core.errors import UserError
from jaxdl.core.task import Algorithm, Curve, Score, Task
from jaxdl.core.types import DataSpec, Key, Learner, Metrics, PyTree, Run
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver

BLOCK = 100  # examples in one call of a measure


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
) -> Algorithm:
    """The algorithm of a model that learns from a dataset, of any tree of arrays.

    Args:
        config: has `dataset`, `data_dir` and `batch_size` (`data.minibatches.Config`).
        validate: refuses settings that make no sense.
        make: (config, spec) -> the model: its `learner`, and `measure`, (params, examples, key) -> means over examples.
        make_run: (config, spec, axis_name=, shards=) -> the run.
        total_steps: (config, spec) -> updates of the planned run.
        score: decides what is best.
        curves: what is worth drawing, the first that a run has.
        abilities: (config, spec, model) -> what else a trained model can do, by type (`core.task`).
        examples: what one example is called.
    """

    def opened(config: Any, train: fit.Config) -> Task:
        splits, spec = load_splits(config)
        model = make(config, spec)
        return dataset_task(
            config, splits, total_steps(config, spec), model.learner, lambda c, **axis: make_run(c, spec, **axis),
            model.measure, task.Options(train.seed), abilities(config, spec, model), examples=examples)

    return Algorithm(name, summary, config, validate, opened, score, curves, "dataset", "updates")


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


def dataset_task(
    config: Any,
    splits: dict[str, data.Dataset],
    total_steps: int,
    learner: Learner,
    make_run: Callable[..., Run],
    measure: Callable[[PyTree, PyTree, Key], Metrics] | None,
    options: task.Options,
    abilities: dict[type, Any],
    pictures: dict[str, Callable] | None = None,
    describe: Callable[[dict[str, Any]], str] | None = None,
    more: Callable[[PyTree, Any], dict[str, Any]] = lambda params, options: {},
    examples: str = "examples",
) -> Task:
    """The task of a learner on a dataset.

    Args:
        config: has `dataset`, `data_dir` and `batch_size`.
        splits: "train" and "test".
        make_run: (config, axis_name=, shards=) -> the run.
        measure: (params, examples, key) -> means over held-out examples; None where there are none to take.
        options: of the evaluation, with defaults.
        abilities: what else a trained model can do.
        pictures: file name -> (params, seed, path), what a finished run leaves.
        describe: an evaluation in words; its numbers if not given.
        more: (params, options) -> further numbers of an evaluation.
        examples: what one example is called, for rates.
    """
    program = None if measure is None else jax.jit(measure)

    def drive(configs: Sequence[Any], seeds: Sequence[int], train: fit.Config, written_by: int | None = None) -> Any:
        return make_device_driver(make_run, list(configs), splits["train"].on_device(), seeds, quick=train.quick_compile,
                                    devices=train.devices, written_by=written_by)

    def evaluate(params: PyTree, options: Any) -> dict[str, Any]:
        totals: dict[str, list] = {}
        for key, batch in blocks(splits["test"], options.seed) if program else ():
            for name, mean in program(params, batch, key).items():
                totals.setdefault(name, []).append(mean)
        found = {name: float(sum(float(t) for t, _ in means) / sum(float(n) for _, n in means))
                 for name, means in totals.items()}
        return {"num": splits["test"].spec.num_examples} | found | more(params, options)

    def in_words(found: dict[str, Any]) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in found.items() if isinstance(value, float))
        return f"test {examples} of {config.dataset}: {numbers}"

    return Task(config.dataset, total_steps, learner, drive, evaluate, options, abilities, pictures or {},
                describe or in_words, (config.batch_size, examples), make_run, splits)


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
