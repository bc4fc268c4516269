"""look RUN: filters, maps and units of a run's network, and how pictures, or states of an agent, lie in its features

Shapes: `N` pictures, `H W C` a picture, `h w K` a layer's maps, `F` features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import layers, receptive, units
from jaxdl.core import streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.data import pictures
from jaxdl.experiments import looking, looks, policies, states
from jaxdl.experiments.commands import common

_CHANNELS = 16  # that are drawn, where a layer has more
_NUM = {"filters": 64, "maps": 6, "patches": 9, "neighbours": 8, "pca": 400, "tsne": 400}
_MOST = {"filters": 1000, "maps": 50, "patches": 50, "neighbours": 50, "pca": 5000, "tsne": 5000}
_QUERIES = 1000  # pictures whose neighbours are counted
_SHOWN = 6  # of them


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of the command."""

    what: Literal["filters", "maps", "patches", "neighbours", "pca", "tsne"] = "patches"
    """filters: weights of the first layer. maps: of a layer, of some pictures. patches: what moves units most, of all
    held-out pictures. neighbours: in features and in pixels. pca, tsne: pictures laid out by their features."""
    layer: str | None = None
    """The layer ('jaxdl layers RUN' lists them); if not given the first (filters), the last with large maps (maps, patches) or
    the one before the outputs."""
    unit: int | None = None
    """Its channel or unit (patches); some of them if not given."""
    num: int | None = None
    """How many there are to be: filters, pictures, patches of a unit, neighbours, pictures on the plane."""
    grid: bool = False
    """Lay pictures on a grid, none over another (pca, tsne)."""
    seed: int = 0
    """Seed of which pictures are shown, and of t-SNE."""
    out: Path = Path("look.png")
    """The picture to write, .png."""


def run(args: Args) -> dict[str, Any]:
    """Look, and draw what is seen."""
    num = _NUM[args.what] if args.num is None else args.num
    common.check_between("num", num, 3 if args.what in ("pca", "tsne") else 1, _MOST[args.what])
    common.check_seed(args.seed)
    common.check_picture(args.out, ".png")
    if args.unit is not None and args.what != "patches":
        raise UserError(f"unit={args.unit} is of what=patches, and what={args.what} has no units to choose; leave it out")
    if args.grid and args.what not in ("pca", "tsne"):
        raise UserError(f"grid is of what=pca or tsne, and what={args.what} is in rows; leave it out")
    if (agent := policies.opened(args)) is not None:
        return _told(args, states.look(agent, args, num))
    of_all = args.what in ("patches", "neighbours")
    seen = looking.open_classifier(args, None if of_all else num, args.seed)
    look: dict[str, Callable[..., dict[str, Any]]] = {
        "filters": filters, "maps": maps, "patches": patches, "neighbours": neighbours, "pca": plane, "tsne": plane}
    return _told(args, look[args.what](seen, args, num))


def _told(args: Args, found: dict[str, Any]) -> dict[str, Any]:
    numbers = [f"{name.replace('_', ' ')} {value:.4g}" for name, value in found.items() if isinstance(value, float)]
    print(*numbers, args.out, sep="; ")
    return {"what": args.what, "out": str(args.out)} | found


def filters(seen: looking.Seen, args: Args, num: int) -> dict[str, Any]:
    """Weights of a layer on pixels: of colours as colours around grey, else red above zero and blue below."""
    layer = args.layer or next(iter(layers.of(seen.f, seen.x)))
    layers.check(layer, layers.of(seen.f, seen.x))
    found = receptive.filters(seen.f, layer, seen.x.shape[1:], streams.key(args.seed, Purpose.EVALUATION))
    shown = found[:num]
    if shown.shape[-1] == 3:
        shown = 0.5 + shown / np.maximum(2 * np.abs(shown).max((1, 2, 3), keepdims=True), 1e-12)
    else:
        shown = looks.as_colours(shown[..., 0])
    pictures.save_png(args.out, pictures.grid(shown))
    return {"layer": layer, "filters": len(found), "window": list(found.shape[1:3])}


def maps(seen: looking.Seen, args: Args, num: int) -> dict[str, Any]:
    """Maps of the channels that vary most, a picture a row."""
    layer = looks.map_layer(seen, args.layer, "use what=neighbours, pca or tsne")
    found = np.asarray(jax.jit(receptive.maps_of(seen.f, layer))(seen.x))
    channels = np.sort(np.argsort(-found.std((0, 1, 2)), kind="stable")[:_CHANNELS])
    size = (*found.shape[:1], *seen.x.shape[1:3], len(channels))
    shown = np.asarray(jax.image.resize(jnp.asarray(found[..., channels]), size, "nearest"))
    shown = looks.as_colours(shown.transpose(0, 3, 1, 2))
    first = np.broadcast_to(np.asarray(seen.x), (*seen.x.shape[:3], 3))[:, None]
    looks.draw_rows(args.out, np.concatenate([first, shown], 1), [seen.names[label][:14] for label in seen.labels],
                    ["", *map(str, channels)])
    return {"layer": layer, "channels": channels.tolist(), "shape": list(found.shape[1:])}


def patches(seen: looking.Seen, args: Args, num: int) -> dict[str, Any]:
    """What moves units most over all held-out pictures, a unit a row: what they see of it, and nothing more."""
    layer = args.layer or looks.map_layer(seen, None, "name a dense layer by --layer", 1 / 3)
    layers.check(layer, layers.of(seen.f, seen.x[:1]))
    fields = receptive.fields(seen.f, layer, seen.x.shape[1:], streams.key(args.seed, Purpose.EVALUATION))
    best = units.strongest(receptive.maps_of(seen.f, layer), seen.x, num)
    channels = range(min(len(best.values), _CHANNELS))
    if args.unit is not None:
        looks.check_unit(args.unit, layer, len(best.values))
        channels = [args.unit]
    x = np.asarray(seen.x)
    rows = np.stack([[receptive.cut(x[i], fields, place) for i, place in zip(best.pictures[c], best.places[c], strict=True)]
                     for c in channels])
    looks.draw_rows(args.out, rows, [f"unit {c}" for c in channels])
    own = seen.labels[best.pictures]
    purity = (own[..., None] == np.arange(len(seen.names))).mean(1).max(-1)
    return {"layer": layer, "receptive_field": list(fields.size), "pictures": len(x), "units": len(best.values),
            "shown": list(channels), "share_of_one_class": float(purity.mean()),
            "values": [best.values[c].tolist() for c in channels]}


def neighbours(seen: looking.Seen, args: Args, num: int) -> dict[str, Any]:
    """The nearest held-out pictures in features and in pixels, and how many are of the same class."""
    layer = looks.feature_layer(seen, args.layer)
    features = units.in_blocks(lambda x: units.as_features(receptive.maps_of(seen.f, layer)(x)), seen.x)
    queries = np.random.default_rng(args.seed).permutation(len(features))[:_QUERIES]
    if num >= len(features):
        raise UserError(f"num must be below {len(features)}, the held-out pictures, got {num}")
    found = {}
    for space, values in {"features": jnp.asarray(features), "pixels": seen.x.reshape(len(seen.x), -1)}.items():
        found[space] = np.asarray(jax.jit(units.nearest, static_argnums=2)(values[queries], values, num, queries))
    x, shown = np.asarray(seen.x), slice(0, _SHOWN)
    gap = np.ones_like(x[queries[shown]])[:, None]
    row = np.concatenate([x[queries[shown]][:, None], gap, x[found["features"][shown]], gap, x[found["pixels"][shown]]], 1)
    half = ["", *["features"] * num, "", *["pixels"] * num]
    titles = [title if i in (2 + num // 2 - 1, 3 + num + num // 2 - 1) else "" for i, title in enumerate(["", *half])]
    looks.draw_rows(args.out, row, [seen.names[label][:14] for label in seen.labels[queries[shown]]], titles)
    same = {f"same_class_in_{space}": float((seen.labels[at] == seen.labels[queries][:, None]).mean())
            for space, at in found.items()}
    return {"layer": layer, "neighbours": num, "pictures": len(x)} | same


def plane(seen: looking.Seen, args: Args, num: int) -> dict[str, Any]:
    """Pictures laid out by their features, and how often the nearest one there is of the same class."""
    layer = looks.feature_layer(seen, args.layer)
    features = units.in_blocks(lambda x: units.as_features(receptive.maps_of(seen.f, layer)(x)), seen.x)
    places, told = looks.laid_out(jnp.asarray(features), args.what, args.seed)
    looks.draw_plane(args.out, places, np.asarray(seen.x), seen.labels, args.grid)
    at = jnp.arange(len(places))
    near = np.asarray(units.nearest(jnp.asarray(places), jnp.asarray(places), 1, at))[:, 0]
    return {"layer": layer, "pictures": len(places), "same_class_as_nearest": float((seen.labels[near] == seen.labels).mean())
            } | told

