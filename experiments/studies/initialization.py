"""initialization: activations and gradients of ten layers under each initializer and activation

Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010); He et al., "Delving deep
into rectifiers" (2015). Inputs are standard normal, layers are as wide as the input, and the gradient is that of a sum over
outputs with standard normal weights, so that neither does anything of its own: what changes from layer to layer is what the
initial weights do.

- zeros: all units of a layer stay equal, whatever is learned.
- small, N(0, 0.01^2): each layer takes the signal and the gradient to a fraction, and after ten nothing is left.
- large, N(0, 1): tanh and sigmoid saturate, and most units pass on nothing; a ReLU's signal explodes.
- xavier keeps what tanh passes on, he what a ReLU passes on; orthogonal keeps lengths of linear layers, so it is near xavier.

Shapes: `B` inputs, `W` width, `L` layers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import nn, optim
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INITIALIZERS = {  # what they are called here
    "zeros": nn.Initial(initializer="zeros"), "small": nn.Initial(initializer="normal", init_scale=0.01),
    "large": nn.Initial(initializer="normal", init_scale=1.0), "xavier": nn.Initial(initializer="xavier"),
    "he": nn.Initial(initializer="he"), "lecun": nn.Initial(initializer="lecun"),
    "orthogonal": nn.Initial(initializer="orthogonal")}
ACTIVATIONS = ("tanh", "sigmoid", "relu", "elu", "gelu")  # what is drawn if nothing else is asked for
FLAT = 0.05  # an activation's slope below which a unit passes on nothing
UPDATES = 10


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    num_layers: int = 10
    """Layers."""
    width: int = 256
    """Units in each, and numbers in an input."""
    batch_size: int = 256
    """Inputs."""
    activations: tuple[str, ...] = ACTIVATIONS
    """Nonlinearities, of those that have no parameters."""


def run(args: Args) -> dict[str, Any]:
    """Measure all, write and draw it."""
    for field, most in (("num_layers", 100), ("width", 4096), ("batch_size", 65536)):
        check_between(field, getattr(args, field), 2, most)
    for name in args.activations:
        nn.activation(name)
        if name in ("prelu", "maxout"):
            raise UserError(f"activations={name} is not measured here: it has parameters or widths of its own; leave it out")
    if not args.activations:
        raise UserError("activations must name one at least")
    common.check_folder(args)
    found = measure(args.num_layers, args.width, args.batch_size, jax.random.key(args.seed), args.activations)
    last = f"layer {args.num_layers}"
    for activation, rows in found["activations"].items():
        print(f"{activation}: root mean square of activations and of gradients, share of flat units")
        common.print_table("", ["layer 1", last, "gradient 1", "flat"], {
            name: [row["signal"][0], row["signal"][-1], row["gradient"][0], row["flat"][-1]] for name, row in rows.items()})
    return common.finish("initialization", args, found, draw)


def measure(num_layers: int, width: int, batch_size: int, key: Key, activations: tuple[str, ...] = ACTIVATIONS,
            initializers: tuple[str, ...] = tuple(INITIALIZERS)) -> dict[str, Any]:
    """Of each activation and initializer, lists over layers, and how different the units of a layer are after some updates."""
    sizes = (width,) * num_layers
    k_x, k_out, k_init = jax.random.split(key, 3)
    x, direction = jax.random.normal(k_x, (batch_size, width)), jax.random.normal(k_out, (batch_size, width))

    def program(activation: str) -> dict[str, Array]:
        network = nn.MLP(sizes, activation)
        begun = [nn.init(network, k_init, x[:1], initial=INITIALIZERS[name]) for name in initializers]

        def of_one(params: PyTree) -> dict[str, Array]:
            return _layers(network, params, nn.activation(activation), x, direction) | {
                "apart": _apart(_trained(network, params, x, direction))}

        return jax.lax.map(of_one, jax.tree.map(lambda *leaves: jnp.stack(leaves), *begun))

    found: dict[str, dict] = {}
    for activation in activations:
        measured = jax.device_get(jax.jit(lambda activation=activation: program(activation), compiler_options=TRAIN_OPTIONS)())
        found[activation] = {name: {what: values[i].tolist() for what, values in measured.items()}
                             for i, name in enumerate(initializers)}
    return {"num_layers": num_layers, "width": width, "batch_size": batch_size, "activations": found}


def _layers(network: nn.MLP, params: PyTree, act: Callable[[Array], Array], x: Array, direction: Array) -> dict[str, Array]:
    """Of each layer, [L]: root mean squares of what comes out and of the gradient at what goes into the nonlinearity, and the
    share of units that are flat there.
    """
    layers = [params["params"][f"Dense_{i}"] for i in range(len(network.features))]

    def forward(taps: list[Array]) -> tuple[Array, list[Array]]:
        h, before = x, []
        for layer, tap in zip(layers, taps, strict=True):
            before.append(h @ layer["kernel"] + layer["bias"] + tap)
            h = act(before[-1])
        return (h * direction).sum(), before

    gradient, before = jax.grad(forward, has_aux=True)([jnp.zeros((len(x), width)) for width in network.features])
    slope = jax.vmap(jax.vmap(jax.grad(act)))
    return {"signal": jnp.stack([_rms(act(b)) for b in before]), "gradient": jnp.stack([_rms(g) for g in gradient]),
            "flat": jnp.stack([(jnp.abs(slope(b)) < FLAT).mean() for b in before])}


def _trained(network: nn.MLP, params: PyTree, x: Array, target: Array) -> PyTree:
    """The parameters after some updates of a regression."""
    config = optim.Config(learning_rate=1e-3)
    optimizer = optim.make(config, UPDATES)

    def loss(params: PyTree, batch: Array, key: Key) -> tuple[Array, None]:
        del key
        return jnp.square(network.apply(params, batch) - target.mean(1, keepdims=True)).mean(), None

    def update(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], None]:
        return optim.minimize(optimizer, loss, *carry, x, jax.random.key(0), config)[:2], None

    return jax.lax.scan(update, (params, optimizer.init(params)), None, UPDATES)[0][0]


def _apart(params: PyTree) -> Array:
    """How much the incoming weights and biases of a layer's units differ at most, over all layers."""
    return jnp.stack([jnp.ptp(layer["kernel"], 1).max() + jnp.ptp(layer["bias"]) for layer in params["params"].values()]).max()


def _rms(x: Array) -> Array:
    return jnp.sqrt(jnp.square(x).mean())


def draw(found: dict[str, Any]) -> "Figure":
    """By layer: above the signal, then the gradient, below how many units are flat; an activation a column."""
    figure, axes = common.new_figure(3, len(found["activations"]), max(3 * len(found["activations"]), 8), 8.5)
    layers = np.arange(1, found["num_layers"] + 1)
    widths = {"xavier": 5.0, "lecun": 3.0}  # they lie on each other where layers are as wide as their inputs
    for column, (activation, rows) in zip(axes.T, found["activations"].items(), strict=True):
        for one, what in zip(column, ("signal", "gradient", "flat"), strict=True):
            for (name, row), color in zip(rows.items(), common.COLORS, strict=False):
                values = row[what] if what == "flat" else np.maximum(row[what], 1e-12)
                one.plot(layers, values, color=color, label=name, marker="o", markersize=3, linewidth=widths.get(name, 1.4))
            if what == "flat":
                one.set_ylim(-0.05, 1.05)
            else:
                one.set_yscale("log")
                one.set_ylim(1e-9, 1e9 if what == "gradient" else 1e6)
            common.plain(one, activation if what == "signal" else "", "layer" if what == "flat" else "")
    for one, what in zip(axes[:, 0], ("root mean square\nof activations", "root mean square\nof gradients",
                                      f"share of units whose\nslope is below {FLAT}"), strict=True):
        one.set_ylabel(what)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7, frameon=False)
    return figure
