"""explain RUN: what a network's answer depends on, by ten methods, and how far each can be trusted; of an agent a film

Shapes: `N` pictures, `H W C` a picture.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import attributions, layers, measures
from jaxdl.core import streams
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array
from jaxdl.experiments import looking, policies
from jaxdl.experiments.commands import common


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of the command."""

    method: Literal[*get_args(attributions.Method), "all"] = "integrated_gradients"
    """How it is explained; all: every method side by side, and a table of how far each can be trusted."""
    layer: str | None = None
    """The layer of grad_cam and guided_grad_cam ('jaxdl layers RUN' lists them); the last one with maps if not given."""
    target: int | None = None
    """The class that is explained; the one that the network says if not given."""
    num: int = 6
    """Held-out pictures."""
    seed: int = 0
    """Seed of the pictures and of noise."""
    out: Path = Path("explained.png")
    """The picture to write, .png; of an agent a film, .gif."""


def run(args: Args) -> dict[str, Any]:
    """Explain, draw, and judge the methods."""
    common.check_between("num", args.num, 1, 100)
    common.check_seed(args.seed)
    if (agent := policies.opened(args)) is not None:
        return policies.explained(agent, args)
    common.check_picture(args.out, ".png")
    seen = looking.open_network(args, args.num, args.seed)
    if args.target is not None:
        common.check_between("target", args.target, 0, len(seen.names) - 1)
    target = seen.f(seen.x).argmax(-1) if args.target is None else jnp.full(len(seen.x), args.target)
    every = attributions.methods(streams.key(args.seed, Purpose.EVALUATION), args.layer)
    chosen = every if args.method == "all" else {args.method: every[args.method]}
    if args.method == "all" and not _has_maps(seen):
        chosen = {name: method for name, method in chosen.items() if "grad_cam" not in name}
    maps = {name: np.asarray(attributions.as_map(jax.jit(lambda x, explain=explain: explain(seen.f, x, target))(seen.x)))
            for name, explain in chosen.items()}
    looking.draw(args.out, seen, maps, np.asarray(target).tolist())
    print(args.out)
    found = {"out": str(args.out), "targets": np.asarray(target).tolist(), "labels": seen.labels.tolist()}
    if args.method == "all":
        found["methods"] = judged(chosen, seen, target, args.seed)
        _print(found["methods"])
    return found


def _has_maps(seen: looking.Seen) -> bool:
    return any(len(out.shape) == 4 for out in layers.of(seen.f, seen.x).values())


def judged(methods: dict[str, Any], seen: looking.Seen, target: Array, seed: int) -> dict[str, dict[str, float]]:
    """Of each method the means of `measures` over the pictures."""
    key = streams.key(seed, Purpose.EVALUATION)
    last_first = tuple(name for name in reversed(layers.of(seen.f, seen.x)))
    found = {}
    for name, method in methods.items():
        def measured(x: Array, method: Any = method) -> dict[str, Array]:
            probabilities = lambda x: jax.nn.softmax(seen.f(x))  # noqa: E731
            values = method(seen.f, x, target)
            as_map = attributions.as_map(values)
            explain = lambda params: attributions.as_map(method(lambda x: seen.of(params, x), x, target))  # noqa: E731
            alike = measures.sanity(explain, seen.params, last_first[:1], key)
            every = measures.rank_correlation(as_map, explain(measures.randomized(seen.params, key, last_first)))
            return {"deletion": measures.deletion(probabilities, x, target, as_map),
                    "insertion": measures.insertion(probabilities, x, target, as_map),
                    "infidelity": measures.infidelity(seen.f, x, target, jnp.broadcast_to(
                        values if values.ndim == 4 else values[..., None], x.shape), key, 30),
                    "same_after_last_layer": alike[-1], "same_after_all_layers": every}

        found[name] = {what: float(jnp.nanmean(value)) for what, value in jax.jit(measured)(seen.x).items()}
    return found


def _print(rows: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(rows.values())))
    wide = max(map(len, rows))
    print(" " * wide, *(f"{c:>22}" for c in columns))
    for name, row in rows.items():
        print(f"{name:<{wide}}", *(f"{row[c]:>22.4f}" for c in columns))
