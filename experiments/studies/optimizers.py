"""optimizers: the paths of all rules over a saddle, a narrow and a wide minimum, a ravine and the same ravine turned

Rules that divide each number of the gradient by its own size (AdaGrad, RMSProp, Adam) cross a ravine along an axis as if it
were round. Turned by 45 degrees it has the same curvature, but the numbers of the gradient have the same size, and the
advantage is gone; the gradient itself, momentum, L-BFGS and Newton's method do not see the axes. SOAP finds them.

The parameters are a kernel of two inputs and one output, so that Muon and SOAP treat it as one. Each rule has its best learning
rate of a grid, on each surface for itself: the one that takes the fewest updates until the value is at the goal and stays
there. Beside the narrow minimum, of which the start is within reach, a rule may end in the wide one: long steps do.

Shapes: `R` learning rates, `T` updates.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import optim
from jaxdl.core.types import Array
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RULES = {
    "sgd": optim.Config(optimizer="sgd"), "momentum": optim.Config(optimizer="momentum"),
    "nesterov": optim.Config(optimizer="nesterov"), "adagrad": optim.Config(optimizer="adagrad"),
    "rmsprop": optim.Config(optimizer="rmsprop"), "adam": optim.Config(optimizer="adam"),
    "adam, uncorrected": optim.Config(optimizer="adam", bias_correction=False), "muon": optim.Config(optimizer="muon"),
    "soap": optim.Config(optimizer="soap", soap_every=1), "lbfgs": optim.Config(optimizer="lbfgs"),
    "newton_cg": optim.Config(optimizer="newton_cg", damping=1e-6)}
NARROW, WIDE = -1.0, 1.0  # where the two minima are
_POINTS = 300  # of a path that are kept at most


class Surface(NamedTuple):
    """A function of two numbers."""

    f: Callable[[Array, Array], Array]
    start: tuple[float, float]
    goal: float  # a value at which it is done
    ranges: tuple[tuple[float, float], tuple[float, float]]  # what is drawn of x and y


def _ravine(x: Array, y: Array) -> Array:
    return 0.5 * (x**2 + 1000 * y**2)


def _turned(x: Array, y: Array) -> Array:
    return _ravine((x + y) / 2**0.5, (y - x) / 2**0.5)


def _minima(x: Array, y: Array) -> Array:
    """Two minima of about the same depth, with deviations of 0.15 and 0.6, in a wide bowl."""
    narrow = jnp.exp(-((x - NARROW) ** 2 + y**2) / (2 * 0.15**2))
    wide = jnp.exp(-((x - WIDE) ** 2 + y**2) / (2 * 0.6**2))
    return 1.1 - narrow - wide + 0.05 * (x**2 + y**2)


_AT = (2.0, 0.1)  # of the ravine's start, along and across it
SURFACES = {
    "saddle": Surface(lambda x, y: 0.5 * x**2 - 0.5 * y**2 + 0.25 * y**4, (1.0, 0.01), -0.2, ((-1.2, 1.4), (-0.4, 1.4))),
    "minima": Surface(_minima, (-1.25, 0.55), 0.2, ((-1.9, 2.0), (-1.3, 1.3))),
    "ravine": Surface(_ravine, _AT, 1e-3 * float(_ravine(*_AT)), ((-0.8, 2.4), (-0.25, 0.25))),
    "ravine, turned": Surface(_turned, ((_AT[0] - _AT[1]) / 2**0.5, (_AT[0] + _AT[1]) / 2**0.5), 1e-3 * float(_ravine(*_AT)),
                              ((-0.5, 1.8), (-0.5, 1.8)))}


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    updates: int = 3000
    """Updates of a path at most."""
    rates: int = 41
    """Learning rates from 1e-4 to 10 that are tried."""


def run(args: Args) -> dict[str, Any]:
    """Follow all paths, write and draw them."""
    check_between("updates", args.updates, 10, 100_000)
    check_between("rates", args.rates, 1, 1000)
    common.check_folder(args)
    found = measure(args.updates, args.rates)
    common.print_table("updates to the goal", list(SURFACES), {
        rule: [row[surface]["updates"] or "never" for surface in SURFACES] for rule, row in found["rules"].items()})
    common.print_table("learning rates that end in", ["narrow", "wide"], {
        rule: [row["minima"]["narrow"], row["minima"]["wide"]] for rule, row in found["rules"].items()})
    return common.finish("optimizers", args, found, draw)


def measure(updates: int, rates: int, rules: tuple[str, ...] = tuple(RULES), surfaces: tuple[str, ...] = tuple(SURFACES)
            ) -> dict[str, Any]:
    """Of each rule and surface: the best rate, updates to the goal (None: never), the path until then, and where it ends."""
    grid = jnp.logspace(-4, 1, rates)
    found: dict[str, dict] = {}
    for rule in rules:
        paths = jax.jit(lambda grid, rule=rule: {name: jax.vmap(lambda rate, name=name: path(
            replace(RULES[rule], learning_rate=rate), SURFACES[name], updates))(grid) for name in surfaces})(grid)
        found[rule] = {name: _best(*paths[name], np.asarray(grid), SURFACES[name].goal) for name in surfaces}
    return {"updates": updates, "rates": np.asarray(grid).tolist(), "rules": found}


def path(config: optim.Config, surface: Surface, updates: int) -> tuple[Array, Array]:
    """Places [T + 1, 2] and values [T + 1]."""
    optimizer = optim.make(config, updates)

    def loss(params: dict[str, Array], batch: Array, key: Array) -> tuple[Array, Array]:
        del batch, key
        value = surface.f(params["kernel"][0, 0], params["kernel"][1, 0])
        return value, value[None]

    def update(carry: tuple, _: None) -> tuple[tuple, tuple[Array, Array]]:
        params, opt, value = optim.minimize(optimizer, loss, *carry, jnp.zeros(1), jax.random.key(0), config)
        return (params, opt), (carry[0]["kernel"][:, 0], value[0])

    params = {"kernel": jnp.array(surface.start)[:, None]}
    return jax.lax.scan(update, (params, optimizer.init(params)), None, updates + 1)[1]


def _best(places: Array, values: Array, grid: np.ndarray, goal: float) -> dict[str, Any]:
    """The rate with the fewest updates to the goal, or with the lowest end if none comes to it."""
    places, values = np.asarray(places, np.float64), np.asarray(values, np.float64)  # [R, T + 1, 2], [R, T + 1]
    first = values.shape[1] - np.logical_and.accumulate(values[:, ::-1] <= goal, 1).sum(1)  # from which on it is there
    done = bool((first < values.shape[1]).any())
    k = int(first.argmin()) if done else int(np.nanargmin(values[:, -1]))
    end = int(first[k]) if done else values.shape[1] - 1
    near = [np.linalg.norm(places[:, -1] - (x, 0), axis=1) < reach for x, reach in ((NARROW, 0.3), (WIDE, 0.9))]
    way = np.round(places[k, : end + 1 : end // _POINTS + 1], 4).tolist()
    return {"rate": float(grid[k]), "updates": end if done else None, "value": float(values[k, end]),
            "narrow": int(near[0].sum()), "wide": int(near[1].sum()), "path": way}


def draw(found: dict[str, Any]) -> "Figure":
    """The surfaces with the paths on them, and under each how many updates they took."""
    figure, axes = common.new_figure(2, len(SURFACES), 16, 8)
    for (name, surface), (above, below) in zip(SURFACES.items(), axes.T, strict=True):
        x, y = (np.linspace(*r, 200) for r in surface.ranges)
        z = np.asarray(surface.f(*np.meshgrid(x, y)))
        above.contour(x, y, z, levels=np.quantile(z, np.linspace(0.01, 0.97, 16)), colors="#bbbbbb", linewidths=0.7)
        for (rule, row), color in zip(found["rules"].items(), common.COLORS, strict=False):
            way = np.array(row[name]["path"])
            above.plot(*way.T, color=color, linewidth=1.2, marker=".", markersize=3, label=rule, alpha=0.85)
        above.plot(*surface.start, "k*", markersize=9)
        above.set_xlim(surface.ranges[0])
        above.set_ylim(surface.ranges[1])
        common.plain(above, name)
        above.grid(visible=False)
        rules = list(found["rules"])
        counts = [found["rules"][rule][name]["updates"] for rule in rules]
        bars = below.barh(rules, [c or found["updates"] for c in counts], color=common.COLORS)
        below.bar_label(bars, ["never" if c is None else str(c) for c in counts], padding=3, fontsize=8)
        below.set_xscale("log")
        below.set_xlim(1, 4 * found["updates"])
        below.invert_yaxis()
        common.plain(below, "", "updates to the goal, at the best rate")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure
