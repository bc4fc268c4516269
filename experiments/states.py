"""States that an agent met: laid out by what its network makes of them, and those that move its units most.

Shapes: `N` states, `...` one state, `F` features, `K` units.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import layers, receptive, units
from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.experiments import looking, looks, policies
from jaxdl.rl import video
from jaxdl.supervised import report

_MET = 2000  # states among which those that move units are looked for
_SIDE = 75  # pixels of a state, about
_UNITS = 16  # that are shown, where a layer has more


def look(of: policies.Opened, args: Any, num: int) -> dict[str, Any]:
    """Draw states on a plane, coloured by value (pca, tsne), or those that move units most (patches).

    Raises:
        UserError: what is asked for is of pictures alone.
    """
    if args.what not in ("patches", "pca", "tsne"):
        raise UserError(f"what={args.what} is of pictures with classes; of the states of an agent look at patches, pca or tsne")
    if args.grid:
        raise UserError("grid lays pictures out, and states of an agent are points; leave it out")
    seen = looking.of_agent(of, _MET if args.what == "patches" else num, args.seed)
    layer = args.layer or _last_wide(seen)
    layers.check(layer, layers.of(seen.f, seen.x[:1]))
    features = units.in_blocks(lambda x: units.as_features(receptive.maps_of(seen.f, layer)(x)), seen.x)
    if args.what == "patches":
        return _strongest(of, args, seen, layer, features, num)
    places, told = looks.laid_out(jnp.asarray(features), args.what, args.seed)
    value = policies.values(of, seen.x)
    figure = report.blank((5.6, 4.6))
    axes = figure.subplots()
    dots = axes.scatter(*places.T, c=value, s=9, cmap="viridis")
    figure.colorbar(dots, ax=axes, label="value")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{of.config.env_id}, {len(places):,} states by {layer}", fontsize=10)
    files.write_bytes(args.out, report.png(figure))
    centred = places - places.mean(0)
    design = np.concatenate([centred, np.ones((len(centred), 1))], 1)
    left = value - design @ np.linalg.lstsq(design, value, rcond=None)[0]
    return {"layer": layer, "states": len(places), "value_explained": float(1 - left.var() / max(value.var(), 1e-12))} | told


def _last_wide(seen: looking.Seen) -> str:
    """The last layer with more numbers than there are outputs: the features that actions are chosen by, or values."""
    found = {name: int(np.prod(out.shape[1:])) for name, out in layers.of(seen.f, seen.x[:1]).items()}
    wide = [name for name, size in found.items() if size > len(seen.names)]
    return wide[-1] if wide else next(iter(found))


def _strongest(of: policies.Opened, args: Any, seen: looking.Seen, layer: str, features: np.ndarray, num: int
               ) -> dict[str, Any]:
    """The states that move each unit most: as pictures, or the mean of their numbers in deviations from the mean of all."""
    chosen = range(min(features.shape[1], _UNITS))
    if args.unit is not None:
        looks.check_unit(args.unit, layer, features.shape[1])
        chosen = [args.unit]
    best = np.argsort(-features[:, list(chosen)], 0)[:num].T  # [K, num]
    found = {"layer": layer, "states": len(features), "units": features.shape[1], "shown": list(chosen)}
    names = [f"unit {c}" for c in chosen]
    if of.pictures:
        shown = np.stack([[video.image_of(of.spec, policies.as_observation(of, seen.x[i])) for i in row] for row in best])
        every = max(shown.shape[2] // _SIDE, 1)
        looks.draw_rows(args.out, shown[:, :, ::every, ::every] / 255, names)
        return found
    x = np.asarray(seen.x).reshape(len(features), -1)
    means = ((x[best] - x.mean(0)) / np.maximum(x.std(0), 1e-6)).mean(1)
    figure = report.blank((1.6 + 0.5 * means.shape[1], 0.9 + 0.27 * len(names)))
    axes = figure.subplots()
    most = max(float(np.abs(means).max()), 1e-6)
    shades = axes.imshow(means, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xticks(range(means.shape[1]))
    axes.set_xlabel("number of the observation")
    figure.colorbar(shades, ax=axes, label="deviations")
    files.write_bytes(args.out, report.png(figure))
    return found | {"deviations": means.round(4).tolist()}
