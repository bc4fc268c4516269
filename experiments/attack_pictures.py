"""Pictures of attacks.

    examples   pictures, what was made of them, and the change
    epsilon    accuracy against the size of the change: PGD, FGSM, and noise of the same size
    restarts   error against the number of random beginnings
    classes    what is said around a picture, along the gradient and along a direction at random (the "church windows" of
               Warde-Farley & Goodfellow, "Adversarial perturbations of deep neural networks", 2016); pixels are not clipped, so
               that lines stay lines

Shapes: `N` pictures, `H W C` a picture, `Y` classes, `R` restarts, `G` points of a grid.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.adversarial import attacks, ball
from jaxdl.adversarial.attacks import Function
from jaxdl.core import files, streams
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array, Key
from jaxdl.experiments import attacking
from jaxdl.experiments.attacking import AT_ONCE, Attacked, Settings
from jaxdl.experiments.looking import Seen
from jaxdl.experiments.studies.common import COLORS, plain
from jaxdl.supervised import report

Plot = Literal["examples", "epsilon", "restarts", "classes"]
_SHOWN, _SIZES, _WINDOWS, _GRID = 8, 9, 10, 51


def draw(plot: Plot, path: Path, f: Function, seen: Seen, result: Attacked, settings: Settings) -> dict[str, Any]:
    """Write a picture of an attack on f, of which `seen.f` judges; what was measured for it is returned."""
    found: dict[str, Any] = {}
    if plot == "examples":
        figure = examples(seen, result)
    elif plot == "classes":
        figure = windows(seen.f, seen, result, settings)
    else:
        measure, show = (by_epsilon, curves) if plot == "epsilon" else (by_restarts, rising)
        found[f"{plot}_curve"] = measure(f, seen, settings)
        figure = show(found[f"{plot}_curve"], settings)
    files.write_bytes(path, report.png(figure))
    return found


def examples(seen: Seen, result: Attacked) -> Any:
    """Pictures, what was made of them, and the change, amplified so that the largest is white or black."""
    wrong = np.flatnonzero(result.clean & (result.said != seen.labels))[:_SHOWN]
    chosen = wrong if len(wrong) else np.arange(min(_SHOWN, len(result.moved)))
    figure = report.blank((1.3 * len(chosen), 4.4))
    rows = figure.subplots(3, len(chosen), squeeze=False)
    for column, i in zip(rows.T, chosen, strict=True):
        x, y = np.asarray(seen.x[i]), result.moved[i]
        change = 0.5 + (y - x) / max(2 * np.abs(y - x).max(), 1e-9)
        titles = seen.names[seen.labels[i]], seen.names[result.said[i]], "change"
        for axes, picture, title in zip(column, (x, y, change), titles, strict=True):
            axes.axis("off")
            axes.imshow(report.as_picture(picture), cmap="gray", vmin=0, vmax=255)
            axes.set_title(title[:12], fontsize=8, pad=2)
    return figure


def by_epsilon(f: Function, seen: Seen, settings: Settings) -> dict[str, list[float]]:
    """Accuracies by attack at sizes from 0 to epsilon, under "sizes"."""
    norm, steps = settings.norm, settings.steps or 40
    ways = {"noise": lambda x, y, epsilon, key: attacks.noise(f, x, y, epsilon, norm, key).x,
            "fgsm": lambda x, y, epsilon, key: attacks.fgsm(f, x, y, epsilon, norm).x,
            "pgd": lambda x, y, epsilon, key: attacks.iterated(f, x, y, epsilon, norm, steps, key=key).x}
    sizes, labels = np.linspace(0, settings.epsilon, _SIZES), jnp.asarray(seen.labels)
    key, found = streams.key(settings.seed, Purpose.EVALUATION), {"sizes": sizes.tolist()}
    for name, attack in ways.items():
        kept = jax.jit(lambda x, y, epsilon, key, attack=attack:
                       (seen.f(attack(x, y, epsilon, key)).argmax(-1) == y) & (seen.f(x).argmax(-1) == y))
        found[name] = [float(np.mean(np.concatenate([
            np.asarray(kept(seen.x[i : i + AT_ONCE], labels[i : i + AT_ONCE], epsilon, jax.random.fold_in(key, i)))
            for i in range(0, len(seen.x), AT_ONCE)]))) for epsilon in sizes.astype(np.float32)]
    return found


def curves(found: dict[str, list[float]], settings: Settings) -> Any:
    """Accuracy against the size of the change."""
    figure = report.blank((6, 4))
    axes = figure.subplots()
    for name, color in zip(("noise", "fgsm", "pgd"), COLORS, strict=False):
        axes.plot(found["sizes"], [100 * x for x in found[name]], "o-", color=color, label=name, markersize=4)
    plain(axes, "accuracy under attack", f"size of the change ({settings.norm})", "held-out pictures that are right, %")
    axes.set_ylim(-2, 102)
    axes.legend(frameon=False)
    return figure


def by_restarts(f: Function, seen: Seen, settings: Settings) -> dict[str, list[float]]:
    """Errors of each beginning by itself, and of the worst of all up to it."""
    one = dataclasses.replace(settings, restarts=1)
    keys = jax.random.split(streams.key(settings.seed, Purpose.EVALUATION), settings.restarts)

    @jax.jit
    def wrong(x: Array, labels: Array, keys: Key) -> Array:
        def body(_: None, key: Key) -> tuple[None, Array]:
            moved = attacking.of_bound(one, f, x, labels, key).x
            return None, seen.f(moved).argmax(-1) != labels

        clean = seen.f(x).argmax(-1) != labels
        return jax.lax.scan(body, None, keys)[1] | clean  # [R, N]

    labels = jnp.asarray(seen.labels)
    each = np.concatenate([np.asarray(wrong(seen.x[i : i + AT_ONCE], labels[i : i + AT_ONCE],
                                            jax.vmap(lambda key, i=i: jax.random.fold_in(key, i))(keys)))
                           for i in range(0, len(seen.x), AT_ONCE)], 1)
    return {"one": each.mean(1).tolist(), "worst": np.logical_or.accumulate(each, 0).mean(1).tolist()}


def rising(found: dict[str, list[float]], settings: Settings) -> Any:
    """Error against the number of restarts."""
    figure = report.blank((6, 4))
    axes, at = figure.subplots(), np.arange(1, len(found["one"]) + 1)
    axes.plot(at, [100 * x for x in found["worst"]], "o-", color=COLORS[1], label="the worst of so many", markersize=4)
    axes.plot(at, [100 * x for x in found["one"]], ".", color=COLORS[0], label="each by itself")
    plain(axes, f"{settings.attack} of {settings.epsilon:g} ({settings.norm})", "random beginnings",
          "held-out pictures that are wrong, %")
    axes.legend(frameon=False)
    return figure


def windows(f: Function, seen: Seen, result: Attacked, settings: Settings) -> Any:
    """What is said around pictures that are right: white is the right class."""
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    chosen = np.flatnonzero(result.clean)[:_WINDOWS]
    said = around(f, seen.x[chosen], jnp.asarray(seen.labels[chosen]), settings)
    columns = max(-(-len(chosen) // 2), 1)
    figure, colors = report.blank((1.7 * columns + 0.6, 4.0)), colormaps["tab10" if len(seen.names) <= 10 else "tab20"]
    there: set[int] = set()
    for place, axes in enumerate(figure.subplots(2, columns, squeeze=False).flat):
        if place >= len(chosen):
            axes.axis("off")
            continue
        own = seen.labels[chosen[place]]
        picture = colors(said[place] % colors.N)
        picture[said[place] == own] = 1
        there |= set(said[place].ravel().tolist()) - {own}
        axes.imshow(picture, extent=(-settings.epsilon, settings.epsilon) * 2, origin="lower")
        axes.plot(0, 0, "k+", markersize=5)
        axes.set_title(seen.names[own][:14], fontsize=9, pad=3)
        axes.set_xticks([-settings.epsilon, 0, settings.epsilon])
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
    figure.supxlabel(f"along the gradient ({settings.norm})", fontsize=9)
    figure.supylabel("along a direction at random", fontsize=9)
    colored = [Patch(color=colors(c % colors.N), label=seen.names[c][:14]) for c in sorted(there)]
    figure.legend(handles=[Patch(facecolor="white", edgecolor="black", label="right"), *colored], fontsize=8,
                  loc="outside right center", frameon=False)
    return figure


def around(f: Function, x: Array, labels: Array, settings: Settings) -> np.ndarray:
    """Classes [N, G, G] on squares of 2 epsilon around pictures: a column further along the gradient, a row at random."""
    norm = settings.norm
    uphill = ball.steepest(jax.jit(jax.grad(lambda x: attacks.loss_of(f(x), labels, "cross_entropy").sum()))(x), norm)
    random = ball.steepest(jax.random.normal(streams.key(settings.seed, Purpose.EVALUATION), x.shape), norm)
    inner = lambda a, b: ball.wide((a * b).reshape(len(a), -1).sum(-1), a)  # noqa: E731
    random = random - inner(random, uphill) / jnp.maximum(inner(uphill, uphill), 1e-12) * uphill
    at = jnp.linspace(-settings.epsilon, settings.epsilon, _GRID)

    @jax.jit
    def row(height: Array) -> Array:
        points = (x + height * random)[:, None] + at[:, None, None, None] * uphill[:, None]  # [N, G, H, W, C]
        return f(points.reshape(-1, *x.shape[1:])).argmax(-1).reshape(len(x), _GRID)

    return np.stack([np.asarray(row(height)) for height in at], 1)
