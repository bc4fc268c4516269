"""invert RUN: what each layer of a run's network keeps of held-out pictures: pictures that it takes for them, made from noise

Shapes: `N` pictures, `H W C` a picture.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import inversion
from jaxdl.core import streams
from jaxdl.core.streams import Purpose
from jaxdl.experiments import looking, looks, makings
from jaxdl.experiments.commands import common


@dataclass(frozen=True, kw_only=True)
class Args(makings.Args):
    """Flags of the command."""

    layers: tuple[str, ...] = ()
    """The layers ('jaxdl layers RUN' lists them); if not given all but normalizations."""
    num: int = 4
    """Held-out pictures."""
    variation: float = 1.0
    """Weight of the total variation: how much smoother pictures are preferred."""
    steps: int = 300
    """Steps of Adam."""


def run(args: Args) -> dict[str, Any]:
    """Invert each layer, and draw the pictures, a depth a column."""
    makings.check(args, args.steps)
    common.check_between("num", args.num, 1, 50)
    common.check_between("variation", args.variation, 0, 1000)
    seen = looking.open_classifier(args, args.num, args.seed)
    key, columns, rows = streams.key(args.seed, Purpose.SAMPLES), [np.asarray(seen.x)], {}
    said = seen.f(seen.x).argmax(-1)
    for name in makings.inner_layers(seen, args.layers):
        made = jax.jit(lambda x, name=name: inversion.invert(seen.f, name, x, key, args.variation, steps=args.steps))(seen.x)
        columns.append(np.asarray(made.x))
        rows[name] = {"before": float(made.losses[0].mean()), "after": float(made.losses[1].mean()),
                      "pixels": float(jnp.sqrt(((made.x - seen.x) ** 2).mean())),
                      "same_class": float((seen.f(made.x).argmax(-1) == said).mean())}
    wide = max(map(len, rows))
    print(" " * wide, *(f"{name:>12}" for name in next(iter(rows.values()))))
    for name, row in rows.items():
        print(f"{name:<{wide}}", *(f"{value:>12.4g}" for value in row.values()))
    titles = ["", *(name.rpartition("/")[2] for name in rows)]
    looks.draw_rows(args.out, np.stack(columns, 1), [seen.names[label][:14] for label in seen.labels], titles)
    print(args.out)
    return {"layers": rows, "out": str(args.out)}
