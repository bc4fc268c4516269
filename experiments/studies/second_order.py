"""second_order: L-BFGS beside Adam on all digits at once, and K-FAC beside momentum on batches of them

Left, the loss of all training examples (with a small penalty, so that there is a minimum) against how often it and its gradient
were computed: an update of Adam is one, one of L-BFGS one and those of its line search. Right, batches of 128 against updates;
one of K-FAC takes a second gradient and the inverses of its factors beside. All but L-BFGS have their best learning rate of a
grid.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdl import nn, optim
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common
from jaxdl.ops import losses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHOLE = {"lbfgs": optim.Config(optimizer="lbfgs", l2=1e-4), "adam": optim.Config(optimizer="adam", l2=1e-4),
         "momentum": optim.Config(optimizer="momentum", l2=1e-4)}
BATCHES = {"kfac": optim.Config(optimizer="kfac", damping=1e-2, max_kl=1e-2), "momentum": optim.Config(optimizer="momentum"),
           "adam": optim.Config(optimizer="adam")}
HIDDEN = (64, 64)


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    evaluations: int = 600
    """Computations of the loss and its gradient, of all examples."""
    updates: int = 500
    """Updates on batches; a multiple of 50."""
    num_rates: int = 9
    """Learning rates from 1e-4 to 1 that are tried."""


def run(args: Args) -> dict[str, Any]:
    """Train all, write and draw it."""
    check_between("evaluations", args.evaluations, 10, 100_000)
    check_between("updates", args.updates, 50, 1_000_000)
    check_between("num_rates", args.num_rates, 1, 1000)
    common.check_folder(args)
    found = measure(args)
    for what in ("whole", "batches"):
        common.print_table(what, ["rate", "loss"], {
            name: [row["rate"] or "-", row["loss"][-1]] for name, row in found[what].items()})
    return common.finish("second_order", args, found, draw)


def measure(args: Args) -> dict[str, Any]:
    """Of each rule its best rate and losses."""
    digits, key, rates = common.digits(), jax.random.key(args.seed), jnp.logspace(-4, 0, args.num_rates)
    updates = args.updates // 50 * 50

    def on_all(config: optim.Config) -> tuple[Array, Array]:
        return descend(config, digits, args.evaluations, key)

    def on_batches(config: optim.Config) -> tuple[Array, Array]:
        curve = common.fit(config, digits, updates, key, hidden_sizes=HIDDEN)["loss"]
        return curve, jnp.linspace(0, updates, len(curve))

    found = {"evaluations": args.evaluations, "updates": updates, "rates": np.asarray(rates).tolist()}
    for what, rules, fit in (("whole", WHOLE, on_all), ("batches", BATCHES, on_batches)):
        found[what] = {name: _best(config, fit, rates) for name, config in rules.items()}
    return found


def descend(config: optim.Config, digits: common.Digits, evaluations: int, key: Key) -> tuple[Array, Array]:
    """Losses with their penalty, and how often they had been computed until then; after so many it stands still."""
    network, optimizer = common.Network(HIDDEN, "tanh"), optim.make(config, evaluations)

    def loss(params: PyTree, batch: tuple[Array, Array], key: Key) -> tuple[Array, Array]:
        del key
        x, y = batch
        value = losses.cross_entropy(network.apply(params, x), y).mean()
        penalty = config.l2 / 2 * sum(jnp.square(layer["kernel"]).sum() for layer in _layers(params))
        return value, (value + penalty)[None]

    def update(carry: tuple[PyTree, PyTree, Array], _: None) -> tuple[tuple, tuple[Array, Array]]:
        params, opt, count = carry
        new, new_opt, value = optim.minimize(optimizer, loss, params, opt, (digits.x, digits.y), key, config)
        searched = optax.tree.get(new_opt, "num_linesearch_steps", 0)
        going = count < evaluations
        params, opt = jax.tree.map(lambda a, b: jnp.where(going, a, b), (new, new_opt), (params, opt))
        return (params, opt, count + jnp.where(going, 1 + searched, 0)), (value[0], count)

    params = nn.init(network, key, digits.x[:1])
    start = params, optimizer.init(params), jnp.zeros((), jnp.int32)
    return jax.lax.scan(update, start, None, evaluations)[1]


def _layers(params: PyTree) -> list[dict[str, Array]]:
    return [layer for module in params["params"].values() for layer in module.values()]


def _best(config: optim.Config, fit: Any, rates: Array) -> dict[str, Any]:
    """The curve of the rate whose end is lowest."""
    alone = config.optimizer == "lbfgs"
    with_rate = jax.jit(lambda rate: fit(replace(config, learning_rate=rate)), compiler_options=TRAIN_OPTIONS)
    k = 0
    if not alone:
        ends = np.asarray(jax.jit(jax.vmap(lambda rate: fit(replace(config, learning_rate=rate))[0][-1]),
                                  compiler_options=TRAIN_OPTIONS)(rates))
        k = int(np.where(np.isfinite(ends), ends, np.inf).argmin())
    loss, count = jax.device_get(with_rate(rates[k]))
    return {"rate": None if alone else float(rates[k]), "loss": loss.tolist(), "count": count.tolist()}


def draw(found: dict[str, Any]) -> "Figure":
    """Losses against computations of the gradient of all examples, and against updates on batches."""
    figure, ((left, right),) = common.new_figure(1, 2, 11, 4.6)
    colors = dict(zip(("lbfgs", "adam", "momentum", "kfac"), common.COLORS, strict=False))
    for axes, what in ((left, "whole"), (right, "batches")):
        for name, row in found[what].items():
            label = name if row["rate"] is None else f"{name}, rate {row['rate']:.2g}"
            axes.plot(row["count"], row["loss"], color=colors[name], label=label)
        axes.set_yscale("log")
        axes.legend(frameon=False)
    common.plain(left, "all digits at once", "computations of loss and gradient", "loss with its penalty")
    common.plain(right, "batches of 128 digits", "updates", "loss of the training examples")
    return figure
