"""failed_defences: three defences that hide gradients, the attack that fails on each, and the one that breaks it

    distilled      a network learns the softened answers of another at a temperature, and predicts at 1 (Papernot et al. 2016):
                   its softmax is so sure that gradients of the cross-entropy are zero in float32; gradients of the margin of
                   logits are not (Carlini & Wagner 2017)
    saturated      units so steep that their gradients vanish, at the same outputs but for rounding (Nayebi & Ganguli 2017):
                   gradients of gentler units in their place lead out (Athalye, Carlini & Wagner 2018)
    quantized      pixels are rounded to a few levels, which has no gradient; that of the identity does (the same)

An MLP learns the digits, or MNIST. A row is a network; columns are its accuracy, that under steps of the gradient of the
cross-entropy (PGD), that under the attack that sees through the defence, and that under one that asks for outputs alone
(Square). "none" is without a defence.

Shapes: `N` examples, `F` numbers of an input, `Y` classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data, nn, optim
from jaxdl.adversarial import attacks
from jaxdl.adversarial.square import square
from jaxdl.core import streams
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common
from jaxdl.ops.pixels import to_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTIM = optim.Config(learning_rate=2e-3, schedule="cosine")
TEMPERATURE, STEEPNESS, LEVELS = 100.0, 1e4, 9
_HIDDEN = (200, 200)
_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    data_dir: Path | None = None
    """Folder with the files of MNIST; the digits of scikit-learn if not given."""
    epsilon: float = 0.2
    """Size of the changes (linf, of pixels from 0 to 1)."""
    updates: int = 1500
    """Of each network."""
    num: int = 300
    """Test images that are attacked."""


Function = Callable[[Array], Array]  # inputs [N, F] -> logits [N, Y]


def run(args: Args) -> dict[str, Any]:
    """Train, attack, print and draw."""
    check_between("epsilon", args.epsilon, 0, 1)
    check_between("updates", args.updates, 1, 10**6)
    check_between("num", args.num, 1, 10**4)
    common.check_folder(args)
    found = {"epsilon": args.epsilon, "updates": args.updates, "num": args.num, "rows": measure(args)}
    columns = {"clean": "clean", "pgd": "PGD", "adapted": "adapted", "square": "Square"}
    common.print_table("defence", list(columns.values()), {
        name: [row[key] for key in columns] for name, row in found["rows"].items()})
    return common.finish("failed_defences", args, found, draw)


def measure(args: Args) -> dict[str, dict[str, float]]:
    """Accuracies of each network, as it is and under each attack."""
    train, test = data.load_splits("digits" if args.data_dir is None else "mnist", args.data_dir)
    flat = lambda split: to_unit(jnp.asarray(split.images)).reshape(len(split.images), -1)  # noqa: E731
    x, y = flat(train), jnp.asarray(train.target, jnp.int32)
    side, some = test.images.shape[1], slice(args.num)
    held, labels = flat(test)[some], jnp.asarray(test.target[some], jnp.int32)
    key = streams.key(args.seed, Purpose.EVALUATION)
    k_plain, k_student, k_attack = jax.random.split(key, 3)
    network = common.Network(_HIDDEN, "relu")
    plain = learned(network, x, jax.nn.one_hot(y, 10), 1.0, args.updates, k_plain)
    teacher = learned(network, x, jax.nn.one_hot(y, 10), TEMPERATURE, args.updates, k_plain)
    soft = jax.nn.softmax(network.apply(teacher, x) / TEMPERATURE)
    student = learned(network, x, soft, TEMPERATURE, args.updates, k_student)
    gentle = common.Network(_HIDDEN, "sigmoid")
    of_sigmoids = learned(gentle, x, jax.nn.one_hot(y, 10), 1.0, args.updates, k_plain)
    steep = _steep(of_sigmoids, STEEPNESS)
    rows = {}
    for name, f, adapted, loss in (
            ("none", lambda z: network.apply(plain, z), None, "margin"),
            ("distilled", lambda z: network.apply(student, z), None, "margin"),
            ("saturated", lambda z: gentle.apply(steep, z), lambda z: gentle.apply(of_sigmoids, z), "cross_entropy"),
            ("quantized", lambda z: network.apply(plain, _rounded(z)), lambda z: network.apply(plain, _through(z)),
             "cross_entropy")):
        rows[name] = _row(f, adapted or f, loss, held, labels, side, args.epsilon, k_attack)
    return rows


def learned(network: common.Network, x: Array, targets: Array, temperature: float, updates: int, key: Key) -> PyTree:
    """Parameters that say `targets` [N, Y] of x at a temperature."""
    optimizer = optim.make(OPTIM, updates)
    k_init, k_batches = jax.random.split(key)

    def update(carry: tuple, key: Key) -> tuple[tuple, None]:
        index = jax.random.randint(key, (_BATCH,), 0, len(x))

        def loss(params: PyTree) -> Array:
            logits = network.apply(params, x[index]) / temperature
            return -(targets[index] * jax.nn.log_softmax(logits)).sum(-1).mean()

        params, opt = carry
        return optimizer.step(jax.grad(loss)(params), opt, params), None

    def learn(x: Array) -> PyTree:
        params = nn.init(network, k_init, x[:1])
        return jax.lax.scan(update, (params, optimizer.init(params)), jax.random.split(k_batches, updates))[0][0]

    return jax.jit(learn)(x)


def _steep(params: PyTree, steepness: float) -> PyTree:
    """The network whose hidden layers' weights are so many times as large: sigmoids that are steps, or nearly."""
    of = params["params"]
    return {"params": of | {"MLP_0": jax.tree.map(lambda w: steepness * w, of["MLP_0"])}}


def _rounded(x: Array) -> Array:
    return jnp.round(x * (LEVELS - 1)) / (LEVELS - 1)


def _through(x: Array) -> Array:
    """Rounded, with the gradient of the identity: straight through."""
    return x + jax.lax.stop_gradient(_rounded(x) - x)


def _row(f: Function, adapted: Function, loss: attacks.Loss, x: Array, labels: Array, side: int, epsilon: float, key: Key
         ) -> dict[str, float]:
    """Accuracy as it is, under PGD on `f`, under PGD by gradients of `adapted` and `loss`, and under Square."""
    def accuracy(x: Array) -> Array:
        return (f(x.reshape(len(x), -1)).argmax(-1) == labels).mean()

    def pgd(f: Function, loss: attacks.Loss) -> Array:
        return attacks.iterated(f, x, labels, epsilon, "linf", 40, key=key, loss=loss).x

    def measured() -> dict[str, Array]:
        images = x.reshape(len(x), side, side, 1)
        found = square(lambda z: f(z.reshape(len(z), -1)), images, labels, epsilon, "linf", key, 1000)
        return {"clean": accuracy(x), "pgd": accuracy(pgd(f, "cross_entropy")), "adapted": accuracy(pgd(adapted, loss)),
                "square": accuracy(found.x)}

    return {name: float(value) for name, value in jax.jit(measured)().items()}


def draw(found: dict[str, Any]) -> "Figure":
    """A group of bars for each network."""
    figure, ((axes,),) = common.new_figure(1, 1, 8, 4)
    names = {"clean": "no attack", "pgd": "PGD", "adapted": "PGD through the defence", "square": "Square"}
    at = np.arange(len(found["rows"]))
    for i, (key, label) in enumerate(names.items()):
        axes.bar(at + 0.2 * (i - 1.5), [row[key] for row in found["rows"].values()], 0.19, label=label, color=common.COLORS[i])
    common.plain(axes, f"defences that hide gradients, changes of {found['epsilon']:g}", "", "accuracy")
    axes.set_xticks(at, list(found["rows"]))
    axes.set_ylim(0, 1.18)
    axes.legend(ncols=4, frameon=False, fontsize=8, loc="upper center")
    return figure
