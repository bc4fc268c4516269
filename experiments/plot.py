"""Learning curves of one or many runs, from their metrics, as a picture.

Seeds of one setting (the members of a population, and runs whose settings differ only in the seed) are drawn together:
one as a line; up to five as their mean, each a thin line beside it; more as their interquartile mean with its 95 %
bootstrap interval (`jaxdl.metrics.seeds`), over the steps that all of them have. Each environment or dataset has axes of its
own.
"""

import io
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxdl.core import files
from jaxdl.core.config import from_dict, names, with_new_names
from jaxdl.core.errors import UserError
from jaxdl.core.task import Curve
from jaxdl.experiments import algorithms
from jaxdl.experiments.algorithms import PRESETS
from jaxdl.experiments.population import count, num_folds, parse
from jaxdl.metrics.seeds import bootstrap_interval, iqm
from jaxdl.runtime.run_log import read_metrics

_SUFFIXES = (".png", ".svg", ".pdf")
_MAX_CONFIG_BYTES = 1 << 20
_FEW = 5  # seeds: up to so many each is drawn
_SEVERAL = 4  # settings: of more, nothing is drawn beside
_MOST_POINTS = 400  # of an interquartile mean
_ABSENT = object()
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",  # Okabe and Ito 2008
           "#999999", "#882255", "#44AA99")


class Line(NamedTuple):
    """One metric of one seed."""

    step: np.ndarray  # [T] increasing
    value: np.ndarray  # [T] finite


class Setting(NamedTuple):
    """The runs that differ only in their seeds."""

    algo: str
    known: tuple[Curve, ...]  # what its algorithm has drawn
    subject: str  # the environment or the dataset
    unit: str  # of a step
    config: dict[str, Any]
    curves: dict[str, list[Line]]  # by metric, of each seed that has it


def plot_runs(runs: Sequence[str | Path], out: str | Path) -> None:
    """Draw the learning curves of runs, 800 pixels wide (1600 with more than three environments or datasets).

    What is drawn is the first of an algorithm's curves (`core.task.Algorithm.curves`) that the runs have. The first steps of a
    bound or a loss may lie outside the axes.

    Args:
        runs: run folders.
        out: a .png, .svg or .pdf file; written atomically.

    Raises:
        UserError: not a run, nothing to draw in it yet, another suffix, or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    out = Path(out)
    if out.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{out} must end in one of {', '.join(_SUFFIXES)}")
    if not runs:
        raise UserError("there is no run to draw; give at least one run folder")
    panels = list(_panels(_settings([Path(run) for run in runs])))
    columns = 1 if len(panels) <= 3 else 2
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(8 * columns, 5 * rows), dpi=100)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    for i, (measure, settings) in enumerate(panels):
        _draw(figure.add_subplot(rows, columns, i + 1), measure, settings)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=out.suffix[1:].lower())
    files.write_bytes(out, buffer.getvalue())


def _settings(runs: list[Path]) -> list[Setting]:
    """The runs, read and put together by setting, in the order in which they were given."""
    found: dict[str, Setting] = {}
    for run in {run.resolve(): run for run in runs}.values():
        config_file = run / "config.json"
        if not config_file.is_file():
            raise UserError(f"{run} is not a run folder: it has no config.json")
        values = files.read_json(config_file, _MAX_CONFIG_BYTES)
        algo, config = values.get("algo"), values.get("config")
        if not isinstance(algo, str) or not isinstance(config, dict):
            raise UserError(f"{config_file} is not of a run: it has no 'algo', or no 'config'")
        algorithm = algorithms.load(algo)
        if algorithm.subject not in config:
            raise UserError(f"{config_file} is not of a run of {algo}: it has no '{algorithm.subject}' in 'config'")
        swept, members = _swept(values)
        metrics = run / "metrics.jsonl"
        curves = _curves(read_metrics(metrics, members) if metrics.exists() else [])
        if not any(curve.name in curves for curve in algorithm.curves):
            raise UserError(f"{run} has nothing to draw yet: its metrics hold no finite {_in_words(algorithm.curves)}")
        config = _flat(algorithm.Config, with_new_names(algorithm.Config, config))
        config.pop("data_dir", None)  # where data lies changes nothing
        for of_each, which in swept:
            one = config | of_each
            key = json.dumps([algo, one], sort_keys=True)
            fresh = Setting(algo, algorithm.curves, _drawable(str(config[algorithm.subject])), algorithm.unit, one, {})
            setting = found.setdefault(key, fresh)
            for name, of_member in curves.items():
                setting.curves.setdefault(name, []).extend(c for m, c in of_member.items() if which is None or m in which)
    return list(found.values())


def _in_words(curves: Sequence[Curve]) -> str:
    *first, last = (curve.name for curve in curves)
    return f"{', '.join(first)} or {last}" if first else last


def _flat(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """Settings, and those within settings, by the names that they have as flags."""
    found = {}
    for name, path in names(cls).items():
        value: Any = config
        for part in path:
            value = value.get(part, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is not _ABSENT:
            found[name] = value
    return found


def _swept(values: dict[str, Any]) -> tuple[list[tuple[dict[str, float], range | None]], int]:
    """The values of the swept fields, and which members of the run have them (None is all); and how many members there are."""
    driven, config = (values.get(part) if isinstance(values.get(part), dict) else {} for part in ("train", "config"))
    seeds, sweeps = driven.get("num_seeds", 1), parse(driven.get("sweep", ()))
    folds = num_folds(SimpleNamespace(**{name: config.get(name) for name in ("folds", "fold")}))
    members = count(sweeps, seeds, folds)
    seeds *= folds  # both are of one setting
    if not sweeps:
        return [({}, None)], members
    return [(dict(zip(sweeps, combination, strict=True)), range(i * seeds, (i + 1) * seeds))
            for i, combination in enumerate(itertools.product(*sweeps.values()))], members


def _curves(rows: list[dict[str, Any]]) -> dict[str, dict[int, Line]]:
    """Each metric's curves, by member; numbers that are not finite are left out."""
    points: dict[str, dict[int, dict[int, float]]] = {}  # metric -> member -> step -> value
    for row in sorted(rows, key=lambda row: row["step"]):
        for name, value in row.items():
            for member, v in enumerate(value if isinstance(value, list) else [value]):
                if math.isfinite(v):
                    points.setdefault(name, {}).setdefault(member, {})[row["step"]] = v
    return {name: {m: Line(np.array(list(p), float), np.array(list(p.values()), float)) for m, p in members.items()}
            for name, members in points.items()}


def plot_sweep(run: str | Path, out: str | Path) -> None:
    """Draw the score of a finished population against the values of its first swept field, a line for each of the others'.

    A point is the interquartile mean over seeds with its 95 % bootstrap interval, beside it each seed.

    Args:
        run: the run's folder, with its summary.json.
        out: as `plot_runs`.

    Raises:
        UserError: not a run, not one of a sweep, not finished, or the picture cannot be written.
    """
    from matplotlib.figure import Figure

    run, out = Path(run), Path(out)
    if out.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{out} must end in one of {', '.join(_SUFFIXES)}")
    for name in ("config.json", "summary.json"):
        if not (run / name).is_file():
            raise UserError(f"{run} is no finished run: it has no {name}")
    values, summary = (files.read_json(run / name, _MAX_CONFIG_BYTES) for name in ("config.json", "summary.json"))
    swept, members = _swept(values)
    found = summary["eval"].get("members") if isinstance(summary.get("eval"), dict) else None
    if not swept[0][0] or not isinstance(found, list):
        raise UserError(f"{run} is no run of a sweep that was evaluated")
    algorithm = algorithms.load(values["algo"])
    score = algorithm.score_of(from_dict(algorithm.Config, values["config"], f"{run / 'config.json'}: config"))
    if len(found) != members or not all(
            isinstance(m, dict) and isinstance(m.get(score.name, ""), int | float | None) for m in found):  # None: not finite
        raise UserError(f"{run} has no {score.name} of each of its {members} members, by which they are compared")
    field, *others = swept[0][0]
    lines: dict[str, list[tuple[float, np.ndarray]]] = {}
    for combination, members in swept:
        label = ", ".join(f"{name}={combination[name]:g}" for name in others)
        lines.setdefault(label, []).append((combination[field], np.array([found[m][score.name] for m in members], float)))
    centres = [score.sign * float(iqm(np.array([found[m][score.name] for m in members], float))) for _, members in swept]
    if not np.isfinite(centres).any():
        raise UserError(f"{run} has no finite {score.name} in its evaluations")
    top = int(np.nanargmax(np.where(np.isfinite(centres), centres, np.nan)))
    best, top = swept[top][0], score.sign * centres[top]
    figure = Figure(figsize=(8, 5), dpi=100)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    axes = figure.add_subplot()
    for i, (label, points) in enumerate(lines.items()):
        points, color = sorted(points, key=lambda point: point[0]), _COLORS[i % len(_COLORS)]
        x, centre = [p[0] for p in points], [float(iqm(p[1])) for p in points]
        for value, scores in points:
            axes.plot([value] * len(scores), scores, "o", color=color, alpha=0.3, markersize=4, linewidth=0)
        if len(points[0][1]) > 1:
            low, high = np.transpose([bootstrap_interval(scores) for _, scores in points])
            axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        runs = len(points[0][1])
        what = "seeds" if not values["config"].get("folds") else "folds" if values["train"].get("num_seeds") == 1 else "runs"
        name = f"interquartile mean and 95 % interval of {runs} {what}" if runs > 1 else "one seed"
        axes.plot(x, centre, "-", color=color, linewidth=1.8, label=f"{label}: {name}" if label else name)
    name = ", ".join(f"{name}={value:g}" for name, value in best.items())
    axes.plot([best[field]], [top], "*", color="black", markersize=12, linewidth=0, label=f"best: {name}, {top:,.4g}")
    if min(x) > 0 and max(x) / min(x) > 8:
        axes.set_xscale("log")
    axes.set_title(_drawable(f"{values['algo']} on {values['config'].get(algorithm.subject)}, {summary['steps']:,} steps"))
    axes.set_xlabel(field)
    axes.set_ylabel(score.label)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=out.suffix[1:].lower())
    files.write_bytes(out, buffer.getvalue())


def _panels(settings: list[Setting]) -> Iterator[tuple[Curve, list[Setting]]]:
    """What is drawn on each axes: a subject's settings together if they have a metric in common, and more metrics of them."""
    subjects: dict[str, list[Setting]] = {}
    for setting in settings:
        subjects.setdefault(setting.subject, []).append(setting)
    for members in subjects.values():
        shared = _best(members)
        if shared is None:
            yield from ((_best([setting]), [setting]) for setting in members)
            continue
        yield shared, members
        yield from ((curve, members) for curve in members[0].known
                    if curve.panel and curve is not shared and all(curve.name in s.curves for s in members))


def _best(settings: list[Setting]) -> Curve | None:
    """The first curve that every setting has; else the first of which each has a point."""
    for points in (2, 1):
        for measure in settings[0].known:
            if all(any(len(c.step) >= points for c in s.curves.get(measure.name, [])) for s in settings):
                return measure
    return None


def _winner(measure: Curve, settings: list[Setting]) -> Setting | None:
    """Of one algorithm's settings, several seeds each, the one whose interquartile mean is best over the last half."""
    curves = [s.curves[measure.name] for s in settings]
    if len(settings) < 2 or len({s.algo for s in settings}) > 1 or any(len(of_seeds) < 2 for of_seeds in curves):
        return None
    end = min(c.step[-1] for of_seeds in curves for c in of_seeds)
    grid = np.linspace(end / 2, end, 50)
    means = [float(iqm(np.stack([np.interp(grid, *c) for c in of_seeds])).mean()) for of_seeds in curves]
    return settings[int(np.argmax(means) if measure.higher else np.argmin(means))]


def _draw(axes: Any, measure: Curve, settings: list[Setting]) -> None:
    winner = _winner(measure, settings)
    for i, setting in enumerate(settings):
        color, label = _COLORS[i % len(_COLORS)], _label(setting, settings) + (" (best)" if setting is winner else "")
        _draw_seeds(axes, setting.curves[measure.name], color, label, "-")
        if measure.beside in setting.curves and len(settings) <= _SEVERAL:
            _draw_seeds(axes, setting.curves[measure.beside], color, f"{label}, evaluated", "--")
    names = (measure.name, measure.beside)[: 1 + (len(settings) <= _SEVERAL)]
    curves = [c for s in settings for name in names for c in s.curves.get(name, [])]
    begin, end = min(c.step[0] for c in curves), max(c.step[-1] for c in curves)
    if measure.skip and end > begin:
        late = np.concatenate([c.value[c.step >= begin + measure.skip * (end - begin)] for c in curves])
        margin = 0.05 * np.ptp(late) or 1.0
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, late.min() - margin), min(high, late.max() + margin))
    _shade_gap(axes, measure, settings)
    axes.set_title(settings[0].subject)
    axes.set_xlabel(settings[0].unit)
    axes.set_ylabel(measure.label)
    axes.locator_params(axis="x", integer=True)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    lines, labels = axes.get_legend_handles_labels()
    what = {label.rpartition(": ")[2] for label in labels}
    if len(settings) > _SEVERAL and len(what) == 1:  # what all lines are is said once
        axes.legend(lines, [label.rpartition(": ")[0] or label for label in labels], title=what.pop(), frameon=False)
    else:
        axes.legend(frameon=False)


def _shade_gap(axes: Any, measure: Curve, settings: list[Setting]) -> None:
    """Between training and held-out examples, where one setting is drawn whose metric is of both."""
    if len(settings) > 1 or measure.beside != f"eval/{measure.name}" or measure.beside not in settings[0].curves:
        return
    learned, held = (settings[0].curves[name] for name in (measure.name, measure.beside))
    grid = _common_steps([*learned, *held])
    if len(grid) > 1:
        means = [np.mean([np.interp(grid, *curve) for curve in curves], 0) for curves in (learned, held)]
        gap = abs(means[1] - means[0])[-1]
        axes.fill_between(grid, *means, color="black", alpha=0.07, linewidth=0, label=f"gap, {gap:.3g} at the end")


def _draw_seeds(axes: Any, curves: list[Line], color: str, label: str, style: str) -> None:
    grid = _common_steps(curves)
    many = len(curves) > _FEW and len(grid) > 1
    if len(curves) == 1 or len(grid) < 2:
        for i, (step, value) in enumerate(curves):
            form = style if len(step) > 1 else "o"
            axes.plot(step, value, form, color=color, label="_" * (i > 0) + label, linewidth=1.8)
        return
    values = np.stack([np.interp(grid, *curve) for curve in curves])
    centre = iqm(values) if many else values.mean(axis=0)
    if many:
        low, high = bootstrap_interval(values)
        axes.fill_between(grid, low, high, color=color, alpha=0.2, linewidth=0)
    else:
        for step, value in curves:
            axes.plot(step, value, style, color=color, alpha=0.35, linewidth=0.8)
    name = "interquartile mean and 95 % interval" if many else "mean"
    axes.plot(grid, centre, style, color=color, label=f"{label}: {name} of {len(curves)} seeds", linewidth=1.8)


def _common_steps(curves: list[Line]) -> np.ndarray:
    """The steps from the latest first to the earliest last one, thinned out evenly where there are too many."""
    begin, end = max(c.step[0] for c in curves), min(c.step[-1] for c in curves)
    steps = np.unique(np.concatenate([c.step for c in curves]))
    steps = steps[(begin <= steps) & (steps <= end)]
    return steps if len(steps) <= _MOST_POINTS else np.linspace(begin, end, _MOST_POINTS)


def _label(setting: Setting, others: list[Setting]) -> str:
    """The algorithm, or its preset, and what sets it apart from the others of its name.

    Of more than two settings only what most of them do not have is said.
    """
    name, known = _preset(setting)
    others = [other.config for other in others if other.algo == setting.algo and _preset(other)[0] == name]
    differing = []
    for field, value in setting.config.items():
        same = sum(other.get(field) == value for other in others)
        if field not in known and same < len(others) and (len(others) <= 2 or same <= len(others) / 2):
            differing.append(f"{field}={value}")
    return _drawable(", ".join([name, *differing]))


def _drawable(text: str) -> str:
    """The text with what is no Unicode (bytes in the name of a file) escaped: fonts have no such letters."""
    return text.encode("utf-8", "backslashreplace").decode()


def _preset(setting: Setting) -> tuple[str, set[str]]:
    """The name of the largest preset that the setting has, else of its algorithm, and the fields that the preset sets.

    Presets that choose an environment are none: they tell runs of one environment not apart.
    """
    presets = {name: preset.config for name, preset in PRESETS.items()
               if preset.algo == setting.algo and preset.config and "env_id" not in preset.config}
    cls = algorithms.load(setting.algo).Config
    presets = {name: _flat(cls, config) for name, config in presets.items()}
    fits = [name for name, config in presets.items() if all(setting.config.get(f) == v for f, v in config.items())]
    if not fits:
        return setting.algo, set()
    name = max(fits, key=lambda name: len(presets[name]))
    return name, set(presets[name])
