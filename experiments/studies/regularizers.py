"""regularizers: what each regularizer saves where labels are few, alone and together: MNIST with 1,000 labels, and the digits

An MLP of two layers learns as many labels of each class, five seeds of initial values and orders as one program. A row is its
error on all test images: mean and standard deviation over seeds, beside the same without any. Early stopping is by a fifth of
the labels, which are then not learned from.

Shapes: `K` seeds, `N` examples, `Y` classes.
"""

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import data
from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.data.augment import Config as AugmentConfig
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime import fit
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import classifier

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
COLORS = ("#0072B2", "#D55E00")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the study."""

    out: Path
    """Folder for the table and the picture."""
    data_dir: Path | None = None
    """Folder with the files of MNIST; without it the digits alone."""
    num_labels: int = 1000
    """Labels of MNIST that are learned from."""
    num_seeds: int = 5
    """Seeds 0, 1, ... of each row."""
    epochs: int = 60
    """Passes over the labels."""


def run(args: Args) -> dict[str, Any]:
    """The table of test errors; also written as JSON and as a picture."""
    if args.num_seeds < 1 or args.epochs < 1:
        raise UserError(f"num_seeds and epochs must be above 0, got {args.num_seeds} and {args.epochs}")
    subjects = {"digits": data.load_splits("digits")}
    if args.data_dir is not None:
        train, test = data.load_splits("mnist", args.data_dir)
        subjects = {f"MNIST, {args.num_labels:,} labels": (balanced(train, args.num_labels), test)} | subjects
    files.make_folder(args.out)
    found: dict[str, dict[str, Any]] = {}
    for subject, (train, test) in subjects.items():
        found[subject] = {}
        for name, settings in (ALONE | {"together": TOGETHER}).items():
            small = FEW_PIXELS if "max_shift" in settings and subject == "digits" else {}
            config = configured(settings | small, args.epochs)
            errors = errors_of(config, train, test, args.num_seeds, stop_early=name == "early stopping")
            found[subject][name] = {"error_mean": float(np.mean(errors)), "error_std": float(np.std(errors)),
                                    "errors": errors.tolist()}
            print(f"{subject}, {name}: test error {100 * np.mean(errors):.2f} %, standard deviation over {args.num_seeds} "
                  f"seeds {100 * np.std(errors):.2f}", flush=True)
    result = {"epochs": args.epochs, "num_seeds": args.num_seeds, "errors": found}
    files.write_json(args.out / "regularizers.json", result)
    files.write_bytes(args.out / "regularizers.png", draw(found))
    print(args.out / "regularizers.png")
    return result


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


def errors_of(config: classifier.Config, train: data.Dataset, test: data.Dataset, num_seeds: int, stop_early: bool = False
              ) -> np.ndarray:
    """Shares of the test examples that are wrong [K]."""
    held = None
    if stop_early:
        train, held = data.split_off(train, train.spec.num_examples // 5, "validation")
    spec, seeds = train.spec, range(num_seeds)
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


def draw(found: dict[str, dict[str, Any]]) -> bytes:
    """The picture of the table, a PNG."""
    from matplotlib.figure import Figure

    names = list(next(iter(found.values())))
    figure = Figure(figsize=(5.2 * len(found), 5.4), dpi=100)
    figure.set_layout_engine("constrained")
    for axes, (subject, rows), color in zip(np.atleast_1d(figure.subplots(1, len(found), sharey=True)), found.items(), COLORS,
                                            strict=False):
        mean, spread = (100 * np.array([rows[name][what] for name in names]) for what in ("error_mean", "error_std"))
        axes.barh(range(len(names)), mean, 0.7, xerr=spread, color=color, alpha=0.85, error_kw={"elinewidth": 1, "capsize": 2})
        axes.axvline(mean[0], color="black", linestyle=":", linewidth=1)
        for i, (x, s) in enumerate(zip(mean, spread, strict=True)):
            axes.text(x + s + 0.01 * mean.max(), i, f"{x:.2f}", va="center", fontsize=8)
        axes.set_title(subject)
        axes.set_xlabel("test error, %: mean and standard deviation over seeds")
        axes.grid(axis="x", alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
