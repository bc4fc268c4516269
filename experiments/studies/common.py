"""What studies share: their folder, pictures as bytes, colours, the digits in memory, and a network that learns them.

No study.

Shapes: `N` examples, `B` a batch, `F` numbers of an input.
"""

import dataclasses
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import data, nn, optim
from jaxdl.core import files, stdio
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.ops import losses
from jaxdl.ops.pixels import to_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#882255", "#44AA99",
          "#AA7700", "#6633CC")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of every study."""

    out: Path | None = None
    """Folder for the table, NAME.json, and the picture, NAME.png; nothing is written if not given."""
    seed: int = 0
    """Seed of all that is drawn."""


def finish(name: str, args: Args, found: dict[str, Any], draw: Callable[[dict[str, Any]], "Figure"]) -> dict[str, Any]:
    """What a study found, after it was written and drawn where that is asked for."""
    if args.out is not None:
        given = [word for f in dataclasses.fields(args) if f.name not in ("out", "name") and getattr(args, f.name) != f.default
                 for word in (f"--{f.name.replace('_', '-')}", *_words(getattr(args, f.name)))]
        whole = {"command": stdio.command("study", name, *given, "--out", "FOLDER"), "seed": args.seed} | found
        files.write_json(args.out / f"{name}.json", whole)
        files.write_bytes(args.out / f"{name}.png", as_png(draw(found)))
        print(f"wrote {args.out / name}.json and .png")
    return found


def _words(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def check_folder(args: Args) -> None:
    """Make the folder that is written into, before anything is computed."""
    if args.out is not None:
        files.make_folder(args.out)


def print_table(title: str, columns: list[str], rows: dict[str, list[Any]]) -> None:
    """Print rows of numbers under the names of their columns."""
    wide = max(map(len, [title, *rows]))
    print("  ".join([f"{title:<{wide}}", *(f"{c:>12}" for c in columns)]))
    for name, row in rows.items():
        print("  ".join([f"{name:<{wide}}", *(f"{x:>12.4g}" if isinstance(x, float) else f"{x!s:>12}" for x in row)]))


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple["Figure", Any]:
    """A figure of so many axes, [rows, columns]; sizes in inches, a hundred pixels each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure, figure.subplots(rows, columns, squeeze=False)


def plain(axes: "Axes", title: str, x: str = "", y: str = "") -> None:
    """Axes as all studies have them."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def as_png(figure: "Figure") -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


class Digits(NamedTuple):
    """The digits of scikit-learn: numbers in [0, 1]."""

    x: Array  # [N, 64]
    y: Array  # [N]
    test_x: Array
    test_y: Array


def digits() -> Digits:
    """The digits, flat."""
    return Digits(*(part for split in data.load_splits("digits")
                    for part in (to_unit(jnp.asarray(split.images)).reshape(len(split.images), -1), jnp.asarray(split.labels))))


class Network(linen.Module):
    """Numbers [B, F] -> logits [B, 10]."""

    hidden_sizes: tuple[int, ...]
    activation: str

    @linen.compact
    def __call__(self, x: Array) -> Array:
        return nn.CategoricalHead(10)(nn.MLP(self.hidden_sizes, self.activation)(x))


def fit(config: optim.Config, digits: Digits, updates: int, key: Key, batch_size: int | None = 128, points: int = 50,
        hidden_sizes: tuple[int, ...] = (64, 64), activation: str = "tanh") -> dict[str, Array]:
    """Learn the digits with a dense network; may be mapped over the numbers of `config`.

    Args:
        config: of the optimizer.
        digits: what is learned; any numbers.
        updates: in all; `points` divides it.
        key: of the initial weights and the batches.
        batch_size: examples in an update, drawn with replacement; None: all of them.
        points: how often the loss is measured.

    Returns:
        Arrays [points + 1]: "loss" of all training examples, "accuracy" on the test examples.
    """
    network, optimizer = Network(hidden_sizes, activation), optim.make(config, updates)
    k_init, k_batches = jax.random.split(key)

    def loss(params: PyTree, batch: tuple[Array, Array], key: Key) -> tuple[Array, None]:
        del key
        x, y = batch
        return losses.cross_entropy(network.apply(params, x), y).mean(), None

    def update(carry: tuple, key: Key) -> tuple[tuple, None]:
        k_index, k_loss = jax.random.split(key)
        batch = digits.x, digits.y
        if batch_size is not None:
            index = jax.random.randint(k_index, (batch_size,), 0, len(digits.x))
            batch = digits.x[index], digits.y[index]
        return optim.minimize(optimizer, loss, *carry, batch, k_loss, config)[:2], None

    def measured(params: PyTree) -> dict[str, Array]:
        right = network.apply(params, digits.test_x).argmax(-1) == digits.test_y
        return {"loss": loss(params, (digits.x, digits.y), key)[0], "accuracy": right.mean()}

    def part(carry: tuple, keys: Key) -> tuple[tuple, dict[str, Array]]:
        carry, _ = jax.lax.scan(update, carry, keys)
        return carry, measured(carry[0])

    params = nn.init(network, k_init, digits.x[:1])
    keys = jax.random.split(k_batches, (points, updates // points))
    _, curves = jax.lax.scan(part, (params, optimizer.init(params)), keys)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), measured(params), curves)
