"""transfer_attacks: what is made to fool one way of learning fools others that never saw it

Five classifiers learn MNIST, or the digits: logistic regression, an MLP, two convolutional networks that are not alike, and k
nearest neighbours. Pictures are attacked on each, and all five are asked about what came of them; a row of noise of the same
size and one of pictures as they are say what is no attack (Papernot, McDaniel & Goodfellow, "Transferability in machine
learning", 2016).

Neighbours have no gradient. What is attacked in their place is soft: every training picture x_i of class y_i votes,

    z_c(x) = log sum_{i: y_i = c} exp(-|x - x_i|^2 / tau)       tau: mean squared distance to the nearest other picture

and what answers are the neighbours themselves.

Shapes: `N` pictures, `H W C` a picture, `M` training pictures, `Y` classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from jaxdl import data
from jaxdl.adversarial import attacks
from jaxdl.adversarial.attacks import Function
from jaxdl.core.types import Array
from jaxdl.experiments import attacking
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common
from jaxdl.ops.pixels import to_unit
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.device_driver import make_device_driver
from jaxdl.supervised import classifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORKS = {  # of pictures of 28x28, and of 8x8, for which LeNet's windows are too large
    "MLP": ({"network": "mlp", "hidden_sizes": (256, 128)}, {"network": "mlp", "hidden_sizes": (64,)}),
    "LeNet": ({"network": "lenet"}, {"network": "conv", "conv_channels": (12,), "hidden_sizes": (48,)}),
    "conv": ({"network": "conv", "conv_channels": (32, 64), "hidden_sizes": (128,), "norm": "batch"},
             {"network": "conv", "conv_channels": (16, 32), "hidden_sizes": (64,), "norm": "batch"})}
NAMES = ("logistic", *NETWORKS, "kNN")
_AT_ONCE = 250


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    data_dir: Path | None = None
    """Folder with the files of MNIST; without it the digits."""
    num_train: int = 10_000
    """Training pictures, drawn from them all."""
    num: int = 1000
    """Test pictures that are attacked."""
    epochs: int = 15
    """Passes over the training pictures."""
    neighbours: int = 5
    """Training pictures that have a vote."""
    epsilon: float = 0.25
    """Size of the change in l-infinity; pixels are from 0 to 1."""
    attack: Literal["fgsm", "momentum"] = "fgsm"
    """One step, or 20 with momentum."""


class Model(NamedTuple):
    """A classifier that can be attacked, and asked."""

    f: Function  # pictures [N, H, W, C] in [0, 1] -> logits [N, Y], of which gradients are taken
    say: Callable[[np.ndarray], np.ndarray]  # pictures -> classes [N]


def run(args: Args) -> dict[str, Any]:
    """Train, attack, write and draw it."""
    check_between("num_train", args.num_train, 100, 10**6)
    check_between("num", args.num, 1, 10**6)
    check_between("epochs", args.epochs, 1, 100_000)
    check_between("neighbours", args.neighbours, 1, 100)
    check_between("epsilon", args.epsilon, 0, 1)
    common.check_folder(args)
    train, test = data.load_splits("digits") if args.data_dir is None else data.load_splits("mnist", args.data_dir)
    train, test = (split.part(data.drawn(split, "transfer")[:num])
                   for split, num in ((train, args.num_train), (test, args.num)))
    found = {"dataset": train.name, "num": test.spec.num_examples, "epsilon": args.epsilon, "attack": args.attack,
             "errors": measure(learned(args, train), to_unit(jnp.asarray(test.images)), test.labels, args)}
    common.print_table("error, %; made on", list(NAMES), {
        source: [100 * row[target] for target in NAMES] for source, row in found["errors"].items()})
    return common.finish("transfer_attacks", args, found, draw)


def learned(args: Args, train: data.Dataset) -> dict[str, Model]:
    """The five classifiers by name."""
    x, labels = to_unit(jnp.asarray(train.images)), train.labels
    flat = np.asarray(x).reshape(len(x), -1)
    models = {"logistic": _logistic(flat, labels)}
    small = min(train.spec.shape[:2]) < 28
    for name, of_size in NETWORKS.items():
        models[name] = _network(classifier.Config(batch_size=64, epochs=args.epochs, optim=OptimConfig(
            learning_rate=3e-3, schedule="cosine"), **of_size[small]), train, args.seed)
    near = KNeighborsClassifier(args.neighbours).fit(flat, labels)
    models["kNN"] = Model(soft_neighbours(jnp.asarray(flat), jnp.asarray(labels), train.spec.num_classes),
                          lambda x: near.predict(np.asarray(x).reshape(len(x), -1)))
    return models


def _logistic(flat: np.ndarray, labels: np.ndarray) -> Model:
    of = LogisticRegression(max_iter=200).fit(flat, labels)
    weights, bias = jnp.asarray(of.coef_.T, jnp.float32), jnp.asarray(of.intercept_, jnp.float32)
    return _asked(lambda x: x.reshape(len(x), -1) @ weights + bias)


def _network(config: classifier.Config, train: data.Dataset, seed: int) -> Model:
    spec = train.spec
    driver = make_device_driver(lambda c: classifier.make_run(c, spec), [config], train.on_device(), [seed])
    state, _ = driver.chunk(driver.start(), classifier.total_steps(config, spec))
    params, logits = driver.params(state), classifier.make(config, spec).logits
    return _asked(lambda x: logits(params, x))


def soft_neighbours(known: Array, labels: Array, num_classes: int) -> Function:
    """Logits [N, Y] of pictures [N, ...] by the votes of all training pictures [M, F], the nearer the louder."""
    square = lambda a: jnp.square(a).sum(-1)  # noqa: E731
    some = known[:1000]
    apart = square(some)[:, None] + square(some)[None] - 2 * some @ some.T + jnp.diag(jnp.full(len(some), jnp.inf))
    tau = jnp.maximum(apart.min(-1).mean(), 1e-6)
    own = jax.nn.one_hot(labels, num_classes, dtype=bool)  # [M, Y]

    def f(x: Array) -> Array:
        flat = x.reshape(len(x), -1)
        near = -(square(flat)[:, None] + square(known)[None] - 2 * flat @ known.T) / tau  # [N, M]
        return jnp.stack([jax.nn.logsumexp(near, -1, where=own[:, c]) for c in range(num_classes)], -1)

    return f


def _asked(f: Function) -> Model:
    return Model(f, lambda x: attacking.said_of(f, x))


def measure(models: dict[str, Model], x: Array, labels: np.ndarray, args: Args) -> dict[str, dict[str, float]]:
    """Errors of each model on what was made on each, and on what was made on none: {made on: {model: share}}."""
    signs = jax.random.rademacher(jax.random.key(args.seed), x.shape, jnp.float32)
    made = {"nothing": np.asarray(x), "noise": np.asarray(jnp.clip(x + args.epsilon * signs, 0, 1))}
    for name, model in models.items():
        one = jax.jit(lambda x, y, f=model.f: _moved(f, x, y, args))
        made[name] = np.concatenate([np.asarray(one(x[i : i + _AT_ONCE], jnp.asarray(labels[i : i + _AT_ONCE])))
                                     for i in range(0, len(x), _AT_ONCE)])
    return {source: {target: float((model.say(moved) != labels).mean()) for target, model in models.items()}
            for source, moved in made.items()}


def _moved(f: Function, x: Array, labels: Array, args: Args) -> Array:
    if args.attack == "fgsm":
        return attacks.fgsm(f, x, labels, args.epsilon, "linf").x
    return attacks.iterated(f, x, labels, args.epsilon, "linf", 20, decay=1.0).x


def draw(found: dict[str, Any]) -> "Figure":
    """Errors as a map, those of what was made on none above."""
    rows = list(found["errors"])
    share = np.array([[found["errors"][source][target] for target in NAMES] for source in rows])
    figure, ((axes,),) = common.new_figure(1, 1, 6.6, 5.2)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, k), value in np.ndenumerate(share):
        axes.text(k, i, f"{100 * value:.0f}", ha="center", va="center", color="white" if value > 0.55 else "black")
    axes.axhline(1.5, color="white", linewidth=4)
    axes.set_xticks(range(len(NAMES)), NAMES)
    axes.set_yticks(range(len(rows)), ["as they are", *rows[1:]])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("asked")
    axes.set_ylabel("made on")
    axes.set_title(f"error in %, {found['dataset']}: {found['attack']} of {found['epsilon']:g} (l-infinity)", fontsize=10)
    return figure
