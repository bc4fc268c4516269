"""regularizers: what each regularizer saves where labels are few, alone and all together

An MLP of two layers learns 1,000 labels of MNIST, as many of each class, and the digits; seeds of initial values and orders are
one program. A row is its error on all test images: mean and standard deviation over seeds, beside the same without any. Early
stopping is by a fifth of the labels, which are then not learned from.

Shapes: `K` seeds, `N` examples, `Y` classes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.data.augment import Config as AugmentConfig
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = classifier.Config(network="mlp", hidden_sizes=(256, 256), batch_size=50, optim=OptimConfig(
    learning_rate=1e-3, schedule="cosine"))
ALONE: dict[str, dict[str, Any]] = {  # a row -> settings; those of the optimizer and of the images go where they belong
    "none": {},
    "L2": {"l2": 1e-3},
    "L1": {"l1": 3e-5},
    "elastic": {"l1": 2e-5, "l2": 3e-4},
    "max-norm": {"max_norm": 1.0},
    "dropout": {"dropout": 0.5, "input_dropout": 0.2},
    "DropConnect": {"drop_connect": 0.3},
    "batch norm": {"norm": "batch"},
    "layer norm": {"norm": "layer"},
    "label smoothing": {"label_smoothing": 0.1},
    "averaged weights": {"average": "swa", "average_from": 0.5},
    "shifts": {"max_shift": 2},
    "mixup": {"mixup": 0.4},
    "early stopping": {},
}
TOGETHER = {"dropout": 0.3, "input_dropout": 0.1, "norm": "batch", "max_norm": 2.0, "label_smoothing": 0.1, "max_shift": 2}
FEW_PIXELS = {"max_shift": 1}  # of images of 8x8


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    data_dir: Path | None = None
    """Folder with the files of MNIST; without it the digits alone."""
    num_labels: int = 1000
    """Labels of MNIST that are learned from."""
    num_seeds: int = 5
    """Seeds from `seed` on, of each row."""
    epochs: int = 60
    """Passes over the labels."""


def run(args: Args) -> dict[str, Any]:
    """Train all, write and draw the test errors."""
    check_between("num_seeds", args.num_seeds, 1, 1000)
    check_between("epochs", args.epochs, 1, 100_000)
    subjects = {"digits": data.load_splits("digits")}
    if args.data_dir is not None:
        train, test = data.load_splits("mnist", args.data_dir)
        subjects = {f"MNIST, {args.num_labels:,} labels": (balanced(train, args.num_labels), test)} | subjects
    common.check_folder(args)
    found: dict[str, dict[str, Any]] = {}
    for subject, (train, test) in subjects.items():
        found[subject] = {}
        for name, settings in (ALONE | {"together": TOGETHER}).items():
            small = FEW_PIXELS if "max_shift" in settings and subject == "digits" else {}
            config = configured(settings | small, args.epochs)
            errors = errors_of(config, train, test, range(args.seed, args.seed + args.num_seeds), name == "early stopping")
            found[subject][name] = {"error_mean": float(np.mean(errors)), "error_std": float(np.std(errors)),
                                    "errors": errors.tolist()}
        common.print_table(f"{subject}: test error, %", ["mean", "deviation"], {
            name: [100 * row["error_mean"], 100 * row["error_std"]] for name, row in found[subject].items()})
    return common.finish("regularizers", args, {"errors": found}, draw)


def balanced(train: data.Dataset, num: int) -> data.Dataset:
    """`num` examples, as many of each class, chosen by their bytes.

    Raises:
        UserError: a class has not enough.
    """
    order, each = data.drawn(train, "labels"), num // train.spec.num_classes
    rows = [order[train.labels[order] == c][:each] for c in range(train.spec.num_classes)]
    if not each or min(map(len, rows)) < each:
        raise UserError(f"num_labels must be at least {train.spec.num_classes}, and no more of a class than there are, "
                        f"got {num}")
    return train.part(np.sort(np.concatenate(rows)))


def configured(settings: dict[str, Any], epochs: int) -> classifier.Config:
    """The classifier with the settings of a row."""
    config = dataclasses.replace(BASE, epochs=epochs)
    for name, value in settings.items():
        for within, kind in (("optim", OptimConfig), ("augment", AugmentConfig)):
            if name in {field.name for field in dataclasses.fields(kind)}:
                name, value = within, dataclasses.replace(getattr(config, within), **{name: value})
                break
        config = dataclasses.replace(config, **{name: value})
    return config


def errors_of(config: classifier.Config, train: data.Dataset, test: data.Dataset, seeds: Sequence[int],
              stop_early: bool = False) -> np.ndarray:
    """Shares of the test examples that are wrong [K]."""
    held = None
    if stop_early:
        train, held = data.split_off(train, train.spec.num_examples // 5, "validation")
    spec, num_seeds = train.spec, len(seeds)
    driver = make_device_driver(lambda c: classifier.make_run(c, spec), [config] * num_seeds, train.on_device(), list(seeds))
    score = classifier.scorer(config, classifier.make(config, spec))

    def error(params: Any, of: data.Dataset) -> float:
        return float((score(params, of.images).argmax(-1) != of.labels).mean())

    if held is None:
        state, _ = driver.chunk(driver.start(), classifier.total_steps(config, spec))
        return np.array([error(params, test) for params in fit.members_of(driver.params(state), num_seeds)])
    return np.array(stopped_early(driver, config, spec, num_seeds, lambda params: error(params, held),
                                  lambda params: error(params, test)))


def stopped_early(driver: Any, config: classifier.Config, spec: Any, num_seeds: int, choose: Callable[[Any], float],
                  judge: Callable[[Any], float]) -> list[float]:
    """The test error of each seed where its own held-out error was lowest, which is looked at once an epoch."""
    state, best, judged = driver.start(), [np.inf] * num_seeds, [np.nan] * num_seeds
    for _ in range(config.epochs):
        state, _ = driver.chunk(state, classifier.total_steps(config, spec) // config.epochs)
        for k, params in enumerate(fit.members_of(driver.params(state), num_seeds)):
            if (now := choose(params)) < best[k]:
                best[k], judged[k] = now, judge(params)
    return judged


def draw(found: dict[str, Any]) -> "Figure":
    """The picture of the table."""
    found = found["errors"]
    names = list(next(iter(found.values())))
    figure, panels = common.new_figure(1, len(found), 5.2 * len(found), 5.4)
    for axes, (subject, rows), color in zip(panels[0], found.items(), common.COLORS, strict=False):
        mean, spread = (100 * np.array([rows[name][what] for name in names]) for what in ("error_mean", "error_std"))
        axes.barh(range(len(names)), mean, 0.7, xerr=spread, color=color, alpha=0.85, error_kw={"elinewidth": 1, "capsize": 2})
        axes.axvline(mean[0], color="black", linestyle=":", linewidth=1)
        for i, (x, s) in enumerate(zip(mean, spread, strict=True)):
            axes.text(x + s + 0.01 * mean.max(), i, f"{x:.2f}", va="center", fontsize=8)
        common.plain(axes, subject, "test error, %: mean and standard deviation over seeds")
        axes.set_axisbelow(True)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
    return figure
