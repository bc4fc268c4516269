"""sample RUN: images drawn from a generative model, in a picture

Shapes: `N` images, `H W C` an image.
"""

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

from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.core.task import Codes, NoOptions, Sampler
from jaxdl.core.types import PyTree
from jaxdl.data import pictures
from jaxdl.experiments import tasks
from jaxdl.experiments.commands import common, encode
from jaxdl.rl import video

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
    num: int = 64
    """Images to draw."""
    decoder: Path | None = None
    """A run whose codes the model draws (`jaxdl encode`): the picture is of the images that it decodes them to."""


def Args(argv: Sequence[str]) -> type:
    """The flags, which depend on the model."""
    return with_options(_Args, argv)


def with_options(base: type, argv: Sequence[str]) -> type:
    """`base` with the options of the sampler of the run that a command line names."""
    named = common.run_of(argv)
    sampler = named.task.abilities.get(Sampler) if named else None
    return common.args_with(base, named, "sampler", sampler.Options() if sampler else NoOptions())


def run(args: Any) -> dict[str, Any]:
    """Draw images from a generative model."""
    opened, sampler = open_sampler(args)
    film = args.out.suffix.lower() == ".gif"
    if args.decoder is not None and (sampler.levels is None or film):
        raise UserError(f"decoder={args.decoder} is for a prior over codes that goes into a .png, and {args.run} is a run of "
                        f"{opened.settings.algo} and out={args.out}")
    decode = None
    if args.decoder is not None:
        decode = encode.decoder(args.decoder, sampler.levels, opened.task.spec.shape)
    options = asdict(args.sampler)
    drawn = draw(lambda params, key, n: sampler.draw(params, key, n, **options), opened.params, args.seed, args.num,
                 sampler.at_once)
    images = drawn.images if decode is None else decode(drawn.images)
    if film:
        save_film(args.out, images)
    else:
        pictures.save_png(args.out, pictures.grid(images))
    print(args.out)
    return {"num": args.num, "seed": args.seed} | drawn.times | {"out": str(args.out)}


def open_sampler(args: Any) -> tuple[tasks.TrainedRun, Sampler]:
    """The run and its sampler, the flags checked.

    Raises:
        UserError: a flag is out of range, or the run draws no images.
    """
    common.check_between("num", args.num, 1, 10_000)
    common.check_seed(args.seed)
    args.sampler.validate()
    if args.out.suffix.lower() not in (".png", ".gif"):
        raise UserError(f"out must end in .png or .gif, got {args.out}")
    opened = tasks.load_run(args.run, step=args.step, member=0, data_dir=args.data_dir, task=args.task)
    task, algo = opened.task, opened.settings.algo
    if Sampler not in task.abilities:
        more = ("; 'jaxdl encode' makes a dataset of its codes, for a model to draw" if Codes in task.abilities else
                f"; 'jaxdl evaluate {args.run} --video FILE.gif' films it" if task.splits is None else "")
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


def draw(f: Callable[..., jax.Array], params: PyTree, seed: int, num: int, at_once: int | None,
         given: np.ndarray | None = None) -> Drawn:
    """Draw `num` images by `f(params, key, size)`, `at_once` in a call, with a bar where stderr is a terminal.

    Args:
        given: [N, ...], of which `f` is given the rows of a call in place of their number.
    """
    size = num if at_once is None else min(num, at_once)
    keys = jax.random.split(jax.random.key(seed), -(-num // size))
    parts: Sequence[tuple] = [()] * len(keys)
    if given is not None:
        filled = np.concatenate([given, np.zeros((len(keys) * size - num, *given.shape[1:]), given.dtype)])
        parts = [(part,) for part in filled.reshape(len(keys), size, *given.shape[1:])]
    began = time.perf_counter()
    program = jax.jit(lambda params, key, *part: f(params, key, *(part or (size,))))
    program = program.lower(params, keys[0], *parts[0]).compile()
    compiled = time.perf_counter()
    made = []
    for key, part in track(zip(keys, parts, strict=True), "drawing", len(keys), console=Console(file=sys.stderr),
                           disable=len(keys) == 1 or not sys.stderr.isatty()):
        made.append(np.asarray(program(params, key, *part)))
    return Drawn(np.concatenate(made)[:num], compiled - began, time.perf_counter() - compiled)


def save_film(path: Path, images: np.ndarray, rows: int = 0) -> None:
    """Write a film of the pixels in their order, those to come grey; the complete images stay at the end for a while."""
    height, width = images.shape[1:3]
    place = np.arange(height * width).reshape(height, width, 1)
    counts = np.linspace(rows * width, height * width, _FRAMES).astype(int)
    shown = [np.where(place < count, images, 0.5) for count in [*counts, *counts[-1:].repeat(_FPS)]]
    frames = [pictures.grid(x) for x in shown]
    files.write_bytes(path, video.gif([x.repeat(3, -1) if x.shape[-1] == 1 else x for x in frames], _FPS))
