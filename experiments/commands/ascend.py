"""ascend RUN: pictures that classes, or units of a layer, of a run's network answer to most

Shapes: `N` pictures, `H W C` a picture.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import ascent, layers
from jaxdl.analysis.ascent import Priors
from jaxdl.analysis.receptive import maps_of
from jaxdl.core import streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.experiments import looking, looks, makings

_MOST = 16  # units, if none are named
_KEEP = Priors(decay=0.005, variation=0.4, jitter=2, even=0.5)
_ALONE = {"nothing": Priors(), "decay": Priors(decay=0.02), "blur": Priors(blur=0.7),
          "clips": Priors(decay=0.01, clip_pixels=0.3, clip_gradients=0.3), "variation": Priors(variation=0.5),
          "jitter": Priors(jitter=2), "even": Priors(even=1.0)}
_ASKED = "as asked"


@dataclass(frozen=True, kw_only=True)
class Args(makings.Args):
    """Flags of the command."""

    layer: str | None = None
    """The layer of the units ('jaxdl layers RUN' lists them); the outputs, which are classes, if not given."""
    unit: tuple[int, ...] = ()
    """Classes, or units or channels of the layer; all (16 at most) if not given."""
    keep: Priors = _KEEP
    """What keeps a picture from being noise."""
    compare: bool = False
    """A row for each prior alone, beside that of the ones that are given."""
    steps: int = 200
    """Steps of ascent."""
    rate: float = 0.05
    """How far the first step goes."""


def run(args: Args) -> dict[str, Any]:
    """Go up, and draw what comes."""
    makings.check(args, args.steps)
    args.keep.validate()
    if not 0 < args.rate <= 10:
        raise UserError(f"rate must be above 0 and at most 10, got {args.rate}")
    seen = looking.open_classifier(args, 200, args.seed)
    if args.layer is None:
        chosen = _units(args, "the outputs", len(seen.names))
        objective, names = ascent.of_class(seen.f, chosen), [seen.names[c][:14] for c in chosen]
    else:
        layers.check(args.layer, layers.of(seen.f, seen.x[:1]))
        chosen = _units(args, args.layer, jax.eval_shape(maps_of(seen.f, args.layer), seen.x[:1]).shape[-1])
        objective, names = ascent.of_unit(seen.f, args.layer, chosen), [f"unit {c}" for c in chosen]
    k_begin, k_move = jax.random.split(streams.key(args.seed, Purpose.SAMPLES))
    grey = seen.x.mean((0, 1, 2))
    begin = jnp.clip(grey + 0.02 * jax.random.normal(k_begin, (len(chosen), *seen.x.shape[1:])), 0, 1)
    rows, found = {}, {}
    for name, keep in ((_ALONE if args.compare else {}) | {_ASKED: args.keep}).items():
        up = functools.partial(ascent.ascend, objective, keep=keep, steps=args.steps, rate=args.rate, grey=grey)
        made = jax.jit(up)(begin, key=k_move)
        rows[name] = np.asarray(made.x)
        before, after = np.asarray(made.values[jnp.array([0, -1])])
        found[name] = {"before": before.tolist(), "after": after.tolist()}
        print(f"{name:>9}: {before.mean():.4g} before, {after.mean():.4g} after")
    looks.draw_rows(args.out, np.stack(list(rows.values())), list(rows) if args.compare else [""], names)
    print(args.out)
    return {"layer": args.layer, "units": np.asarray(chosen).tolist(), "out": str(args.out), "values": found}


def _units(args: Args, layer: str, num: int) -> jax.Array:
    for unit in args.unit:
        looks.check_unit(unit, layer, num)
    return jnp.asarray(args.unit or range(min(num, _MOST)))
