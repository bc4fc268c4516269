"""A trained classifier as a function of pictures, and attributions as pictures.

Shapes: `N` pictures, `H W C` a picture, `Y` classes.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.core.task import Classifier, Features
from jaxdl.core.types import Array, PyTree
from jaxdl.experiments import policies, tasks
from jaxdl.experiments.commands import common
from jaxdl.ops.pixels import to_unit
from jaxdl.supervised import report


class Seen(NamedTuple):
    """A classifier, and held-out pictures."""

    f: Callable[[Array], Array]  # pictures [N, H, W, C] in [0, 1] -> logits [N, Y]
    of: Callable[[PyTree, Array], Array]  # the same of other parameters
    params: PyTree
    x: Array  # [N, H, W, C]
    labels: np.ndarray  # [N]
    names: tuple[str, ...]  # of the classes
    algo: str


def open_classifier(args: common.RunArgs, num: int | None, seed: int = 0, split: str = "test") -> Seen:
    """The classifier that a command names, and so many held-out pictures, drawn by a seed; all in their order if None.

    Args:
        split: of the pictures; those that it learned from are "train".

    Raises:
        UserError: the run tells no classes apart, or not of pictures.
    """
    opened = common.open_run(args, Classifier, "which tells no classes apart; name a run of classifier")
    return _of_classifier(args, opened, num, seed, split)


def _of_classifier(args: common.RunArgs, opened: tasks.TrainedRun, num: int | None, seed: int, split: str) -> Seen:
    test = opened.task.splits[split]
    if len(test.spec.shape) != 3 or test.target is None or test.target.ndim != 1:
        raise UserError(f"{args.run} is not of pictures with a label each, and what explains looks at pictures")
    logits = opened.task.abilities[Classifier].logits
    at = np.arange(test.spec.num_examples) if num is None else report.some(test, num, seed)
    names = tuple(report.class_name(test.spec, c) for c in range(test.spec.num_classes))
    return Seen(lambda x: logits(opened.params, x), logits, opened.params, to_unit(jnp.asarray(test.images[at])),
                test.target[at], names, opened.settings.algo)


def open_network(args: common.RunArgs, num: int, seed: int = 0) -> Seen:
    """The network of a run of any kind and so many inputs: pictures of a classifier or an encoder, or what an agent met.

    Of an agent "classes" are its actions, and the labels those that it chooses; of an encoder they are features, and the labels
    the largest of each picture.

    Raises:
        UserError: the run has no such network.
    """
    if (agent := policies.opened(args)) is not None:
        return of_agent(agent, num, seed)
    run = tasks.load_first(args.run, step=args.step, data_dir=args.data_dir)
    can = run.task.abilities
    if Classifier in can:
        return _of_classifier(args, run, num, seed, "test")
    if Features not in can:
        raise UserError(f"{args.run} is a run of {run.settings.algo}, which has no classes, actions or features to look at; "
                        "name a run of a classifier, an agent or an autoencoder")
    encoder, test = can[Features], run.task.splits["test"]

    def of(params: PyTree, x: Array) -> Array:
        return encoder.apply(encoder.network.bind({"params": params}), encoder.prepare(255 * x))

    x = to_unit(jnp.asarray(test.images[report.some(test, num, seed)]))
    return _seen(of, encoder.learned(run.params), x, "feature", run.settings.algo)


def of_agent(agent: policies.Opened, num: int, seed: int) -> Seen:
    """An agent's network, and so many states that its greedy policy met."""
    of, x = policies.network(agent, num, seed)
    return _seen(of, agent.params, x, "action", agent.algo)


def _seen(of: Callable[[PyTree, Array], Array], params: PyTree, x: Array, what: str, algo: str) -> Seen:
    """Outputs that have numbers and no names; the label of an input is the largest."""
    f = functools.partial(of, params)
    out = jax.jit(f)(x)
    names = tuple(f"{what} {i}" for i in range(out.shape[1]))
    return Seen(f, of, params, x, np.asarray(out.argmax(-1)), names, algo)


def draw(path: Path, seen: Seen, maps: dict[str, np.ndarray], targets: Sequence[int]) -> None:
    """Write pictures, a row each, with what each method says of them: red speaks for the target, blue against it.

    Args:
        path: of the picture.
        seen: the pictures.
        maps: method -> attributions [N, H, W].
        targets: the class that is explained, of each picture.
    """
    columns = {"": None} | maps
    figure = report.blank((1.35 * len(columns), 1.45 * len(seen.x) + 0.25))
    images = [report.as_picture(np.asarray(x)) for x in seen.x]
    for i, row in enumerate(figure.subplots(len(images), len(columns), squeeze=False)):
        for axes, (name, values) in zip(row, columns.items(), strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            if values is None:
                axes.imshow(images[i], cmap="gray", vmin=0, vmax=255)
                axes.set_ylabel(seen.names[targets[i]][:14], fontsize=8)
                continue
            most = max(float(np.quantile(np.abs(values[i]), 0.99)), 1e-12)
            axes.imshow(values[i], cmap="RdBu_r", vmin=-most, vmax=most)
            if i == 0:
                axes.set_title(name.replace("_", " "), fontsize=8)
    files.write_bytes(path, report.png(figure))
