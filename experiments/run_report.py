"""What a finished run leaves to look at: a learning curve, the sweep, and the task's own pictures; its evaluation in words."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.core import stdio
from jaxdl.core.errors import in_a_sentence
from jaxdl.core.stdio import command
from jaxdl.core.task import Sampler, Task
from jaxdl.core.types import PyTree
from jaxdl.experiments import plot, run_folder, tasks
from jaxdl.experiments.population import in_words
from jaxdl.runtime import fit


def save_pictures(folder: Path, settings: run_folder.Settings, task: Task, params: PyTree) -> list[Path]:
    """Write the pictures of a run; one that cannot be made (no renderer, say) is left out with a word why."""
    of_each = tasks.population(settings)
    params = fit.members_of(params, len(of_each))[0]
    if len(of_each) > 1 and task.pictures:
        print(f"{' and '.join(task.pictures)} show {in_words(of_each, 0)}")
    wanted = {"curve.png": lambda path: plot.plot_runs([folder], path)}
    if settings.train.sweep:
        wanted["sweep.png"] = lambda path: plot.plot_sweep(folder, path)
    for name, draw in task.pictures.items():
        wanted[name] = lambda path, draw=draw: draw(params, of_each[0].seed, path)
    made = []
    for name, write in wanted.items():
        try:
            write(folder / name)
            made.append(folder / name)
        except Exception as e:  # a renderer, a font, the disk: nothing of it may cost the run its end
            print(f"no {name}: {in_a_sentence(e)}")
    return made


def of_members(settings: run_folder.Settings, found: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """Evaluations of all members as one: of a population the mean, and each member's own numbers.

    Numbers that JSON has not are said here: it holds null for them.
    """
    wrong = {f"{name} is {value}" for each in found or () for name, value in each.items()
             if isinstance(value, float) and not math.isfinite(value)}
    if wrong:
        stdio.say(f"jaxdl: of the evaluation {', '.join(sorted(wrong))}, which is null in JSON")
    if found is None or len(found) == 1:
        return found and found[0]
    members = [{"seed": member.seed} | member.values | numbers
               for member, numbers in zip(tasks.population(settings), found, strict=True)]
    same = {name: value for name, value in found[0].items() if isinstance(value, int) and all(m[name] == value for m in found)}
    means = {name: sum(m[name] for m in found) / len(found) for name, value in found[0].items() if not isinstance(value, str)}
    return means | same | {"members": members}


def summary_line(settings: run_folder.Settings, task: Task, found: dict[str, Any] | None) -> str:
    """An evaluation in words; of a population its mean, and how far seeds and folds are apart by the score."""
    if found is None:
        return "not evaluated"
    if "members" not in found:
        return task.describe(found)
    score = settings.algorithm.score_of(settings.config)
    values = [m[score.name] for m in found["members"] if m.get(score.name) is not None and not settings.train.sweep]
    spread = f", standard deviation of {score.name} {np.std(values):.4g}" if values else ""
    return f"{task.describe(found)}, mean over {len(found['members'])} members{spread}"


def best_line(settings: run_folder.Settings, found: dict[str, Any] | None) -> list[str]:
    """Which of the swept values are best, by the mean of the score over seeds and folds; nothing where nothing is swept."""
    if not found or not settings.train.sweep:
        return []
    score, means = settings.algorithm.score_of(settings.config), {}
    for member, numbers in zip(tasks.population(settings), found["members"], strict=True):
        values = ", ".join(f"{name}={value:g}" for name, value in member.values.items() if name != "fold")
        means.setdefault(values, []).append(score.sign * numbers.get(score.name, math.nan))
    means = {values: float(np.mean(of_each)) for values, of_each in means.items()}
    finite = {values: mean for values, mean in means.items() if math.isfinite(mean)}
    if not finite:
        return []
    best = max(finite, key=finite.get)
    return [f"best of {len(means)} settings: {best}, {score.name} {score.sign * finite[best]:.4g}"]


def last_lines(folder: Path, settings: run_folder.Settings, task: Task, summary: dict[str, Any], pictures: list[Path]
               ) -> list[str]:
    """The last lines of a training: what it took, how good it is, what it left, and what to do next."""
    lines = [f"{summary['steps']:,} steps in {summary['train_s']:.1f} s after {summary['compile_s']:.1f} s of compiling "
             f"({summary['steps_per_s']:,.0f} steps/s)",
             summary_line(settings, task, summary["eval"]),
             *best_line(settings, summary["eval"])]
    lines += [f"  {path}" for path in [folder / "checkpoints", folder / "metrics.jsonl", *pictures]]
    more = ("sample", folder, "--num", 64, "--out", "samples.png") if Sampler in task.abilities else ("evaluate", folder)
    return [*lines, f"next: {command(*more)}", f"      {command('--logdir', folder, program='tensorboard')}",
            f"      {command('train', settings.algo, '--help')}"]
