"""learning_rate: rates that are too low, right and too high, and schedules that let a high one fall

A dense network learns the digits by momentum, in small batches. Of constant rates the low ones are late, and beyond a highest
one the loss grows and stays up; a run that begins there and lets its rate fall comes back and is done in the same time.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import optim
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = optim.Config(optimizer="momentum")
SCHEDULES = {"constant": {}, "linear": {}, "cosine": {}, "exponential": {"final_fraction": 1e-3}, "inverse_time":
             {"final_fraction": 1e-2}, "step": {"final_fraction": 1e-3}, "cyclic": {"lr_cycles": 4},
             "warm-up and cosine": {"schedule": "cosine", "warmup_fraction": 0.1}}


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    updates: int = 2000
    """Updates of a run; a multiple of 50."""
    batch_size: int = 8
    """Examples in one."""
    num_rates: int = 11
    """Constant rates from 1e-4 to 10 that are tried."""
    high_rate: float = 0.1
    """The rate from which the schedules fall."""


def run(args: Args) -> dict[str, Any]:
    """Train all, write and draw it."""
    check_between("updates", args.updates, 50, 1_000_000)
    check_between("batch_size", args.batch_size, 1, 1000)
    check_between("num_rates", args.num_rates, 1, 1000)
    check_between("high_rate", args.high_rate, 1e-12, 1e6)
    common.check_folder(args)
    found = measure(args)
    for what in ("rates", "schedules"):
        common.print_table(what, ["loss", "lowest loss", "accuracy"], {
            name: [row["loss"][-1], min(row["loss"]), row["accuracy"][-1]] for name, row in found[what].items()})
    return common.finish("learning_rate", args, found, draw)


def measure(args: Args) -> dict[str, Any]:
    """Losses and accuracies of each constant rate, and of each schedule from the high one."""
    digits, key = common.digits(), jax.random.key(args.seed)
    updates = args.updates // 50 * 50
    rates = jnp.logspace(-4, 1, args.num_rates)

    def fit(config: optim.Config) -> dict[str, jax.Array]:
        return common.fit(config, digits, updates, key, args.batch_size)

    jit = lambda f: jax.jit(f, compiler_options=TRAIN_OPTIONS)  # noqa: E731
    constant = jit(jax.vmap(lambda rate: fit(replace(BASE, learning_rate=rate))))(rates)
    found = {"updates": updates, "batch_size": args.batch_size, "high_rate": args.high_rate,
             "rates": {f"{rate:.2g}": _lists(constant, i) for i, rate in enumerate(np.asarray(rates))}, "schedules": {}}
    for name, how in SCHEDULES.items():
        config = replace(BASE, learning_rate=args.high_rate, **({"schedule": name} | how))
        found["schedules"][name] = _lists(jit(lambda config=config: fit(config))())
    return found


def _lists(curves: dict[str, jax.Array], index: Any = ...) -> dict[str, list[float]]:
    """Curves as lists; a loss that is no number is the highest one."""
    top = float(np.finfo(np.float32).max)
    return {name: np.nan_to_num(np.asarray(x[index], np.float64), nan=top, posinf=top).tolist() for name, x in curves.items()}


def draw(found: dict[str, Any]) -> "Figure":
    """Losses of constant rates over the updates, their ends against the rate, and losses under schedules."""
    from matplotlib import colormaps

    figure, ((left, middle, right),) = common.new_figure(1, 3, 15, 4.6)
    steps = np.linspace(0, found["updates"], 51)
    for i, (rate, row) in enumerate(found["rates"].items()):
        left.plot(steps, np.minimum(row["loss"], 1e3), color=colormaps["viridis"](i / len(found["rates"])), label=rate)
    ends = [min(row["loss"][-1], 1e3) for row in found["rates"].values()]
    middle.loglog([float(rate) for rate in found["rates"]], ends, "o-", color=common.COLORS[0])
    for (name, row), color in zip(found["schedules"].items(), common.COLORS, strict=False):
        right.plot(steps, np.minimum(row["loss"], 1e3), color=color, label=name)
    common.plain(left, "constant rates", "updates", "loss of the training examples")
    common.plain(middle, "at the end", "learning rate", "")
    common.plain(right, f"schedules from {found['high_rate']:g}", "updates", "")
    for axes in (left, right):
        axes.set_yscale("log")
        axes.legend(fontsize=8, ncols=2, frameon=False)
    left.set_ylim(5e-4, 2e2)
    middle.set_ylim(top=2e2)
    right.set_ylim(top=2e2)
    return figure
