"""sample RUN: images drawn from a generative model, in a picture or as numbers; texts written by a model of text

Shapes: `N` images, `H W C` an image.
"""

import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

from jaxdl.core import files, stdio, streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.task import Codes, NoOptions, Sampler, Translator, Writer
from jaxdl.core.types import PyTree
from jaxdl.data import pictures
from jaxdl.experiments import tasks, writing
from jaxdl.experiments.commands import common, encode

_FRAMES, _FPS = 56, 14  # of a film


@dataclass(frozen=True, kw_only=True)
class DrawArgs(common.RunArgs):
    """Flags of what draws images."""

    out: Path
    """The picture to write, .png; a .gif shows in which order the pixels come, where a model draws pixel by pixel."""
    seed: int = 0
    """Seed of the draws."""


@dataclass(frozen=True, kw_only=True)
class _Args(DrawArgs):
    out: Path
    """The picture to write, .png; a .gif shows in which order the pixels come, where a model draws pixel by pixel. Into a .npy
    go the images themselves, bytes [N, H, W, C]; into a .npz as "images", and "labels" where classes were asked for."""
    num: int = 64
    """Images to draw."""
    label: tuple[int, ...] = ()
    """The classes of the images, one after the other again and again; all classes if not given. For conditional models."""
    decoder: Path | None = None
    """A run whose codes the model draws (`jaxdl encode`): the picture is of the images that it decodes them to."""


def Args(argv: Sequence[str]) -> type:
    """The flags, which depend on the model."""
    named = common.run_of(argv)
    if named and Writer in named.task.abilities:
        return common.with_run(writing.Args, named)
    if named and Translator in named.task.abilities:
        return common.with_run(writing.TranslateArgs, named)
    return with_options(_Args, named)


def with_options(base: type, named: common.Named | None) -> type:
    """`base` with the options of the sampler of the run that a command line names."""
    sampler = named.task.abilities.get(Sampler) if named else None
    return common.args_with(base, named, "sampler", sampler.Options() if sampler else NoOptions())


def run(args: Any) -> dict[str, Any]:
    """Draw images from a generative model, or write texts."""
    if isinstance(args, writing.Args | writing.TranslateArgs):
        return writing.run(args)
    opened, sampler = open_sampler(args, ".png", ".gif", ".npz", ".npy")
    labels = _labels(args, opened, sampler)
    film = args.out.suffix.lower() == ".gif"
    if args.decoder is not None and (sampler.levels is None or film):
        raise UserError(f"decoder={args.decoder} is for a prior over codes that goes into no film, and {args.run} is a run of "
                        f"{opened.settings.algo} and out={args.out}")
    decode = None
    if args.decoder is not None:
        decode = encode.decoder(args.decoder, sampler.levels, opened.task.spec.shape)
    options = asdict(args.sampler)
    drawn = draw(lambda params, key, n, *labels: sampler.draw(params, key, n, *labels, **options), opened.params, args.seed,
                 args.num, sampler.at_once, *(() if labels is None else (labels,)))
    images = drawn.images if decode is None else decode(drawn.images)
    if film:
        save_film(args.out, images)
    elif args.out.suffix.lower() in (".npz", ".npy"):
        save_arrays(args.out, images, labels)
    else:
        pictures.save_png(args.out, pictures.grid(images))
    print(args.out if labels is None or args.label else f"{args.out}; classes 0 to {sampler.num_classes - 1} in turn")
    of = {} if labels is None else {"label": list(args.label) or list(range(sampler.num_classes))}
    return {"num": args.num, "seed": args.seed} | of | drawn.times | {"out": str(args.out)}


def _labels(args: Any, opened: tasks.TrainedRun, sampler: Sampler) -> np.ndarray | None:
    """The class of each image that is to be drawn, int32 [N]; None where the model is told none."""
    if sampler.num_classes is None and not args.label:
        return None
    if sampler.num_classes is None:
        raise UserError(f"label={' '.join(map(str, args.label))} is for conditional models, and {args.run} is a run of "
                        f"{opened.settings.algo} that takes no classes; train one with --conditional")
    for label in args.label:
        common.check_between("label", label, 0, sampler.num_classes - 1)
    return np.resize(np.array(args.label or range(sampler.num_classes), np.int32), args.num)


def open_sampler(args: Any, *suffixes: str) -> tuple[tasks.TrainedRun, Sampler]:
    """The run and its sampler, the flags checked: `out` must have one of the suffixes, .png and .gif if none is given.

    Raises:
        UserError: a flag is out of range, or the run draws no images.
    """
    common.check_between("num", args.num, 1, 10_000)
    common.check_seed(args.seed)
    args.sampler.validate()
    common.check_picture(args.out, *(suffixes or (".png", ".gif")))
    opened = tasks.load_first(args.run, step=args.step, data_dir=args.data_dir, task=args.task)
    task, algo = opened.task, opened.settings.algo
    if Sampler not in task.abilities:
        more = ("; 'jaxdl encode' makes a dataset of its codes, for a model to draw" if Codes in task.abilities else
                f"; {stdio.quoted('evaluate', args.run, '--video', 'FILE.gif')} films it" if task.splits is None else "")
        raise UserError(f"{args.run} is a run of {algo}, which draws no images{more}")
    sampler = task.abilities[Sampler]
    if args.out.suffix.lower() == ".gif" and not sampler.raster:
        raise UserError(f"out={args.out} is a film of models that draw pixel by pixel, and {args.run} is a run of {algo}")
    return opened, sampler


class Drawn(NamedTuple):
    """Images and what they took."""

    images: np.ndarray  # [N, H, W, C] in [0, 1]
    compile_s: float
    sample_s: float

    @property
    def times(self) -> dict[str, float]:
        """The times, as --json prints them."""
        return {"compile_s": round(self.compile_s, 3), "sample_s": round(self.sample_s, 4),
                "images_per_s": round(len(self.images) / self.sample_s, 2)}


def draw(f: Callable[..., jax.Array], params: PyTree, seed: int, num: int, at_once: int | None, *given: np.ndarray) -> Drawn:
    """Draw `num` images by `f(params, key, size, *given)`, `at_once` in a call, with a bar where stderr is a terminal.

    Args:
        given: arrays [N, ...], of which `f` is given the rows of a call; those of images too many, of the last, are zeros.
    """
    size = num if at_once is None else min(num, at_once)
    keys = jax.random.split(streams.key(seed, Purpose.SAMPLES), -(-num // size))
    filled = [np.concatenate([x, np.zeros((len(keys) * size - num, *x.shape[1:]), x.dtype)]) for x in given]
    parts = [tuple(x[i * size : (i + 1) * size] for x in filled) for i in range(len(keys))]
    began = time.perf_counter()
    program = jax.jit(lambda params, key, *part: f(params, key, size, *part))
    program = program.lower(params, keys[0], *parts[0]).compile()
    compiled = time.perf_counter()
    made = []
    for key, part in track(zip(keys, parts, strict=True), "drawing", len(keys), console=Console(file=sys.stderr),
                           disable=len(keys) == 1 or not stdio.is_terminal(sys.stderr)):
        made.append(np.asarray(program(params, key, *part)))
    return Drawn(np.concatenate(made)[:num], compiled - began, time.perf_counter() - compiled)


def save_arrays(path: Path, images: np.ndarray, labels: np.ndarray | None) -> None:
    """Write images [N, H, W, C] in [0, 1] as the bytes of a dataset, uint8, into a .npy or a .npz file."""
    buffer, values = io.BytesIO(), np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
    if path.suffix.lower() == ".npy":
        np.save(buffer, values)
    else:
        np.savez(buffer, images=values, **({} if labels is None else {"labels": labels}))
    files.write_bytes(path, buffer.getvalue())


def save_film(path: Path, images: np.ndarray, rows: int = 0) -> None:
    """Write a film of the pixels in their order, those to come grey; the complete images stay at the end for a while."""
    height, width = images.shape[1:3]
    place = np.arange(height * width).reshape(height, width, 1)
    counts = np.linspace(rows * width, height * width, _FRAMES).astype(int)
    shown = [np.where(place < count, images, 0.5) for count in [*counts, *counts[-1:].repeat(_FPS)]]
    frames = [pictures.grid(x) for x in shown]
    files.write_bytes(path, pictures.gif([x.repeat(3, -1) if x.shape[-1] == 1 else x for x in frames], _FPS))
