"""Trained agents looked into: their returns under attack, and films of what their outputs depend on.

Shapes: `N` environments, `...` one observation, `K` outputs.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import nn
from jaxdl.analysis import attributions
from jaxdl.core import files, streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.task import Task
from jaxdl.core.types import Array, PyTree
from jaxdl.experiments import run_folder, tasks
from jaxdl.experiments.commands import common
from jaxdl.rl import attacked, envs, evaluate, observations, video
from jaxdl.rl.types import Agent, EnvSpec
from jaxdl.supervised import report

_POINTS = 5  # sizes of a curve, the first is 0
_STEPS = 250  # of each environment, from which deviations are measured


class Opened(NamedTuple):
    """A trained agent on its environment."""

    agent: Agent
    params: PyTree
    config: Any
    spec: EnvSpec
    task: Task
    algo: str

    @property
    def pictures(self) -> bool:
        """Whether it sees pictures."""
        return observations.form(self.spec).picture is not None


def opened(args: common.RunArgs) -> Opened | None:
    """The agent of a run, None where it is a run of something else.

    Raises:
        UserError: no run is there.
    """
    settings = run_folder.open_run(args.run)
    settings = settings if args.data_dir is None else tasks.with_data_dir(settings, args.data_dir)
    task = tasks.reopen(settings)  # which reads no checkpoint, and no data where a run knows its spec
    if Agent not in task.abilities:
        return None
    run = tasks.load_first(args.run, step=args.step, data_dir=args.data_dir, task=task)
    config = run.settings.config
    return Opened(task.abilities[Agent], run.params, config, envs.spec(config.env_id, config.env), task,
                  run.settings.algo)


def network(of: Opened, num: int, seed: int) -> tuple[Callable[[PyTree, Array], Array], Array]:
    """The outputs of an agent as a function (params, x [N, ...]), and so many observations that its greedy policy met.

    Pictures are [N, H, W, C] in [0, 1]; a recurrent policy begins at each observation.
    """
    to_picture, back = _as_pictures(of.spec)
    seen = evaluate.observed(of.agent.greedy, of.params, of.config.env_id, steps=max(_STEPS, num), seed=seed,
                             settings=of.config.env)
    seen = seen.reshape(-1, *seen.shape[2:])
    at = np.random.default_rng(seed).choice(len(seen), num, replace=False)
    x = to_picture(attacked.as_numbers(of.spec, jnp.asarray(seen[np.sort(at)])))
    return (lambda params, x: of.agent.outputs(params, of.agent.greedy.init(len(x)), back(x))), x


def as_observation(of: Opened, x: Array) -> np.ndarray:
    """A picture [H, W, C] in [0, 1] as the environment gives it, [...]."""
    space = of.spec.observation_space
    seen = np.asarray(_as_pictures(of.spec)[1](x[None])[0])
    if space.dtype == np.uint8:
        return np.round(255 * seen).astype(np.uint8)
    return seen > 0.5 if space.dtype == bool else seen


def values(of: Opened, x: Array) -> np.ndarray:
    """What an agent expects of states as `network` has them, [N]."""
    back = _as_pictures(of.spec)[1]
    return np.asarray(jax.jit(lambda x: of.agent.value(of.params, of.agent.greedy.init(len(x)), back(x)))(x))


def deviation(of: Opened, seed: int) -> np.ndarray | None:
    """The standard deviation of each number of an observation over steps of the greedy policy; None for pictures."""
    if of.pictures:
        return None
    seen = evaluate.observed(of.agent.greedy, of.params, of.config.env_id, steps=_STEPS, seed=seed, settings=of.config.env)
    seen = np.asarray(attacked.as_numbers(of.spec, jnp.asarray(seen.reshape(-1, *seen.shape[2:]))))
    return np.maximum(seen.std(0), 1e-6)


def under_attack(of: Opened, args: Any) -> dict[str, Any]:
    """Returns of greedy episodes against the size of the attack, beside noise of the same size; a picture where one is asked.

    Raises:
        UserError: an attack that is not of policies, or a size beyond the range.
    """
    if args.attack not in get_args(attacked.Attack):
        known = ", ".join(get_args(attacked.Attack))
        raise UserError(f"attack={args.attack} is of classifiers; policies are attacked by {known}")
    for field in dataclasses.fields(args):
        if field.name in ("on", "substitute", "plot", "queries", "restarts", "target") and (
                getattr(args, field.name) != field.default):
            raise UserError(f"{field.name}={getattr(args, field.name)} is of classifiers; leave it out")
    common.check_between("epsilon", args.epsilon, 0, 1.0 if of.pictures else 1000.0)
    if args.num is not None:
        common.check_between("num", args.num, 1, 10**6)
    if args.steps is not None:
        common.check_between("steps", args.steps, 1, 10_000)
    common.check_seed(args.seed)
    if args.out is not None:
        common.check_picture(args.out, ".png")
    episodes, steps = args.num or of.task.options.episodes, args.steps or 10
    sizes = [args.epsilon * i / (_POINTS - 1) for i in range(_POINTS)]
    spread = deviation(of, args.seed)
    curves = {}
    for name in dict.fromkeys(("noise", args.attack)):
        actor = attacked.under_attack(of.agent, of.spec, name, args.norm, steps, spread)
        curves[name] = []
        for size in sizes:
            found = evaluate.evaluate(actor, (of.params, jnp.float32(size)), of.config.env_id, episodes=episodes,
                                      seed=args.seed, settings=of.config.env)
            curves[name].append({"epsilon": size, "return_mean": found.return_mean, "return_std": found.return_std})
            print(f"{name} of {size:.4g}: mean return {found.return_mean:.2f} +- {found.return_std:.2f}", flush=True)
    found = {"attack": args.attack, "norm": args.norm, "episodes": episodes, "curves": curves,
             "unit": "pixels in [0, 1]" if of.pictures else "standard deviations"}
    if args.out is not None:
        _draw(args.out, of, found)
        print(args.out)
        found["out"] = str(args.out)
    return found


def _draw(path: Path, of: Opened, found: dict[str, Any]) -> None:
    """Returns against sizes, with the deviation over episodes."""
    figure = report.blank((5, 3.4))
    axes = figure.subplots()
    for name, color in zip(found["curves"], ("#777777", "#d1495b"), strict=False):
        rows = found["curves"][name]
        at, mean, std = (np.array([row[key] for row in rows]) for key in ("epsilon", "return_mean", "return_std"))
        axes.plot(at, mean, "o-", color=color, label=name)
        axes.fill_between(at, mean - std, mean + std, color=color, alpha=0.15, linewidth=0)
    axes.set_xlabel(f"size of the change ({found['unit']}, {found['norm']})")
    axes.set_ylabel("mean return")
    axes.set_title(f"{of.config.env_id}, {found['episodes']} episodes")
    axes.legend()
    axes.grid(alpha=0.3)
    files.write_bytes(path, report.png(figure))


def explained(of: Opened, args: Any) -> dict[str, Any]:
    """Film an episode; beside each picture is what the output of the chosen action depends on, red for and blue against it.

    Raises:
        UserError: the file is no .gif, or the method means nothing of these observations.
    """
    video.check_path(args.out)
    common.check_parent(args.out)
    method = _method(of, args)
    to_picture, back = _as_pictures(of.spec)

    @jax.jit
    def attribution(carry: PyTree, obs: Array) -> Array:
        x = to_picture(attacked.as_numbers(of.spec, obs))
        f = lambda x: of.agent.outputs(of.params, carry, back(x))  # noqa: E731
        values = method(f, x, f(x).argmax(-1))
        return attributions.as_map(values)[0] if of.pictures else values[0]

    sums = []

    def beside(picture: np.ndarray, carry: PyTree, obs: Array) -> np.ndarray:
        values = np.asarray(attribution(carry, jnp.asarray(obs)))
        sums.append(np.abs(values))
        return np.concatenate([picture, (_heat if of.pictures else _bars)(values, picture.shape[0])], 1)

    video.record(of.agent.greedy, of.params, of.config.env_id, args.out, seed=args.seed, settings=of.config.env, beside=beside)
    print(args.out)
    found = {"out": str(args.out), "method": args.method, "frames": len(sums)}
    if not of.pictures:
        share = np.mean(sums, 0).ravel()
        found["shares"] = (share / max(share.sum(), 1e-12)).round(4).tolist()
        print("share of each number of the observation: " + ", ".join(f"{s:.1%}" for s in found["shares"]))
    return found


def _method(of: Opened, args: Any) -> Callable[..., Array]:
    """(f, x, target) -> attribution."""
    every = attributions.methods(streams.key(args.seed, Purpose.EVALUATION), args.layer)
    of_numbers = ("gradient", "gradient_x_input", "smoothgrad", "integrated_gradients", "deconvnet", "guided")
    known = tuple(every) if of.pictures else of_numbers
    if args.method not in known:
        raise UserError(f"method={args.method} cannot be filmed in {of.config.env_id}; use one of {', '.join(known)}")
    if args.target is not None:
        raise UserError(f"target={args.target} is of classes; a film explains the action that is chosen")
    return every[args.method]


def _as_pictures(spec: EnvSpec) -> tuple[Callable[[Array], Array], Callable[[Array], Array]]:
    """Observations [N, ...] as pictures [N, H, W, C], frames of a stack as channels, and the way back."""
    form = observations.form(spec)
    if form.picture is None:
        return (lambda x: x), (lambda x: x)
    shape = spec.observation_space.shape if form.stacked else (1, *spec.observation_space.shape)  # [F, ...]
    as_seen = {"HW": lambda x: x[..., 0], "HWC": lambda x: x, "CHW": lambda x: jnp.moveaxis(x, -1, 2)}[form.picture]

    def back(x: Array) -> Array:
        frames = jnp.moveaxis(x.reshape(*x.shape[:3], -1, shape[0]), -1, 1)  # [N, F, H, W, C]
        return as_seen(frames).reshape(len(x), *spec.observation_space.shape)

    return (lambda x: nn.as_images(x, form)), back


def _heat(values: np.ndarray, height: int) -> np.ndarray:
    """A map [H, W] as a picture of this height: red above zero, blue below."""
    most = max(float(np.quantile(np.abs(values), 0.99)), 1e-12)
    share = np.clip(values / most, -1, 1)[..., None]
    colour = np.where(share > 0, [[[209, 73, 91]]], [[[0, 114, 178]]])
    picture = (255 * (1 - np.abs(share)) + np.abs(share) * colour).astype(np.uint8)
    rows, columns = (np.arange(n) * len(values) // height for n in (height, height * values.shape[1] // values.shape[0]))
    return picture[rows][:, np.minimum(columns, values.shape[1] - 1)]


def _bars(values: np.ndarray, height: int) -> np.ndarray:
    """Numbers as bars from a line in the middle, the first on top, as wide as the largest of them."""
    from PIL import Image, ImageDraw

    numbers, width = values.ravel(), 160
    image = Image.new("RGB", (width, height), "white")
    draw, most, tall = ImageDraw.Draw(image), max(float(np.abs(numbers).max()), 1e-12), height / len(numbers)
    for i, value in enumerate(numbers):
        end, y = width / 2 + 0.4 * width * value / most, i * tall
        draw.rectangle([min(end, width / 2), y + 0.15 * tall, max(end, width / 2), y + 0.85 * tall],
                       fill=(209, 73, 91) if value > 0 else (0, 114, 178))
        if tall >= 10:
            draw.text((2, y + tall / 2 - 5), str(i), fill="black")
    draw.line([width / 2, 0, width / 2, height], fill="black")
    return np.asarray(image)
