"""scaling_of_inputs: what happens to learning where inputs, or half of them, are a thousand times as large

A dense network learns the digits. A layer whose inputs are large begins with saturated units, and the curvature along its
weights grows with the square of the inputs, so that the learning rate which the other layers need is far too high for it: LeCun
et al., "Efficient backprop" (1998), section 4.3. Inputs that are standardized first are as they were, whatever their scale.

Each rule has the learning rate that is best for the digits as they are, and its best one of a grid on the inputs at hand.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import optim
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.types import Array
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RULES = {"sgd": optim.Config(optimizer="sgd"), "momentum": optim.Config(optimizer="momentum"),
         "adam": optim.Config(optimizer="adam")}
INPUTS = ("as they are", "all x 1000", "half x 1000", "half x 1000, standardized")
ACTIVATIONS = ("tanh", "relu")


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    factor: float = 1000.0
    """By which inputs are multiplied."""
    updates: int = 600
    """Updates of a run; a multiple of 30."""
    num_rates: int = 13
    """Learning rates from 1e-6 to 1 that are tried."""


def run(args: Args) -> dict[str, Any]:
    """Train all, write and draw it."""
    check_between("factor", args.factor, 1e-9, 1e9)
    check_between("updates", args.updates, 30, 1_000_000)
    check_between("num_rates", args.num_rates, 1, 1000)
    common.check_folder(args)
    found = measure(args)
    for activation, rows in found["activations"].items():
        print(f"{activation}: accuracy at the rate that is best for the inputs as they are, and at its own")
        common.print_table("", [f"{rule}{end}" for rule in RULES for end in ("", ", own")], {
            name: [row[rule][which] for rule in RULES for which in ("accuracy", "accuracy_at_own_rate")]
            for name, row in rows.items()})
    return common.finish("scaling_of_inputs", args, found, draw)


def measure(args: Args) -> dict[str, Any]:
    """Of each activation, kind of inputs and rule: accuracies and losses at the two rates."""
    digits, key, rates = common.digits(), jax.random.key(args.seed), jnp.logspace(-6, 0, args.num_rates)
    updates = args.updates // 30 * 30
    inputs = [digits._replace(x=x, test_x=test_x) for x, test_x in _inputs(digits, args.factor)]
    xs, tests = jnp.stack([d.x for d in inputs]), jnp.stack([d.test_x for d in inputs])
    found: dict[str, dict] = {}
    for activation in ACTIVATIONS:
        found[activation] = {name: {} for name in INPUTS}
        for rule, config in RULES.items():
            def fit(x: Array, test_x: Array, rate: Array, config: optim.Config = config, activation: str = activation) -> Any:
                return common.fit(replace(config, learning_rate=rate), digits._replace(x=x, test_x=test_x), updates, key,
                                  points=30, activation=activation)

            grid = jax.vmap(jax.vmap(fit, (None, None, 0)), (0, 0, None))
            curves = jax.device_get(jax.jit(grid, compiler_options=TRAIN_OPTIONS)(xs, tests, rates))
            ends = np.where(np.isfinite(curves["loss"][..., -1]), curves["loss"][..., -1], np.inf)  # [inputs, rates]
            best = int(ends[0].argmin())
            for i, name in enumerate(INPUTS):
                own = int(ends[i].argmin())
                found[activation][name][rule] = {
                    "rate": float(rates[best]), "own_rate": float(rates[own]),
                    "accuracy": float(curves["accuracy"][i, best, -1]),
                    "accuracy_at_own_rate": float(curves["accuracy"][i, own, -1]),
                    "losses": np.nan_to_num(curves["loss"][i, best], nan=1e30, posinf=1e30).tolist(),
                    "losses_at_own_rate": np.nan_to_num(curves["loss"][i, own], nan=1e30, posinf=1e30).tolist()}
    return {"factor": args.factor, "updates": updates, "rates": np.asarray(rates).tolist(), "activations": found}


def _inputs(digits: common.Digits, factor: float) -> list[tuple[Array, Array]]:
    """Training and test inputs of each kind."""
    half = jnp.where(jnp.arange(digits.x.shape[1]) % 2 == 0, factor, 1.0)
    x, test_x = digits.x * half, digits.test_x * half
    mean, deviation = x.mean(0), jnp.maximum(x.std(0), 1e-6)
    return [(digits.x, digits.test_x), (digits.x * factor, digits.test_x * factor), (x, test_x),
            ((x - mean) / deviation, (test_x - mean) / deviation)]


def draw(found: dict[str, Any]) -> "Figure":
    """Losses over the updates at the rate of the inputs as they are (dashed: at their own best one)."""
    figure, axes = common.new_figure(len(ACTIVATIONS), len(RULES), 13, 7)
    steps = np.linspace(0, found["updates"], 31)
    for row, (activation, kinds) in zip(axes, found["activations"].items(), strict=True):
        for one, rule in zip(row, RULES, strict=True):
            for (name, of_rule), color in zip(kinds.items(), common.COLORS, strict=False):
                one.plot(steps, np.clip(of_rule[rule]["losses"], 1e-4, 1e6), color=color, label=name)
                one.plot(steps, np.clip(of_rule[rule]["losses_at_own_rate"], 1e-4, 1e6), "--", color=color, linewidth=1)
            one.set_yscale("log")
            one.set_ylim(1e-4, 1e5)
            common.plain(one, f"{activation}, {rule}", "updates", "loss of the training examples" if one is row[0] else "")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return figure
