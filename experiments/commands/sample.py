"""`jaxdl sample` and `jaxdl complete`: images drawn from a generative model, whole ones and the rest of given ones.

Shapes: `N` images, `H W C` an image.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.core.types import Generative, PyTree
from jaxdl.experiments import arguments, pictures, run_folder, tasks
from jaxdl.experiments.commands import encode
from jaxdl.generative.pixel import autoregressive
from jaxdl.rl import video

Sampler = Literal["incremental", "naive"]

_AT_ONCE = 64  # images of a model that draws pixel by pixel
_FRAMES, _FPS = 56, 14  # of a film


class Drawn(NamedTuple):
    """Images and what they took."""

    images: np.ndarray  # [N, H, W, C] in [0, 1]
    compile_s: float
    sample_s: float

    @property
    def times(self) -> dict[str, float]:
        """What `--json` says of it."""
        return {"compile_s": round(self.compile_s, 3), "sample_s": round(self.sample_s, 4),
                "images_per_s": round(len(self.images) / self.sample_s, 2)}


def draw(model: Generative, params: PyTree, seed: int, num: int, *, temperature: float = 1.0, sampler: Sampler = "incremental",
         given: np.ndarray | None = None, rows: int = 0) -> Drawn:
    """Draw `num` images; of a model that goes pixel by pixel in parts, with a bar where stderr is a terminal.

    Args:
        temperature, sampler: of such a model.
        given: images uint8 [N, H, W, C] whose first `rows` are kept (such a model).
    """
    size = num if model.complete is None else min(num, _AT_ONCE)
    keys = jax.random.split(jax.random.key(seed), -(-num // size))
    if given is None:
        if model.complete is None:
            program = jax.jit(lambda params, key, temperature: model.sample(params, key, size))
        else:
            program = jax.jit(lambda params, key, temperature: model.sample(params, key, size, temperature=temperature,
                                                                            sampler=sampler))
        parts: list[tuple] = [()] * len(keys)
    else:
        known = np.zeros(given.shape[1:3], bool)
        known[:rows] = True
        program = jax.jit(lambda params, key, temperature, images: model.complete(
            params, key, images, jnp.asarray(known), temperature=temperature, sampler=sampler))
        filled = np.concatenate([given, np.zeros((len(keys) * size - num, *given.shape[1:]), np.uint8)])
        parts = [(part,) for part in filled.reshape(len(keys), size, *given.shape[1:])]
    began = time.perf_counter()
    program = program.lower(params, keys[0], np.float32(temperature), *parts[0]).compile()
    compiled = time.perf_counter()
    made = []
    for key, part in track(zip(keys, parts, strict=True), "drawing", len(keys), console=Console(file=sys.stderr),
                           disable=len(keys) == 1 or not sys.stderr.isatty()):
        made.append(np.asarray(program(params, key, np.float32(temperature), *part)))
    return Drawn(np.concatenate(made)[:num], compiled - began, time.perf_counter() - compiled)


@dataclass(frozen=True)
class _Common:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    out: Path
    """The picture to write, .png; a .gif shows in which order the pixels come (models that go pixel by pixel)."""
    seed: int = 0
    """Seed of the draws."""
    temperature: float | None = None
    """Below 1 likely pixels become likelier (models that go pixel by pixel)."""
    sampler: Sampler | None = None
    """How to draw pixel by pixel: incremental, or naive, which asks the whole network for every pixel. The picture is the
    same (models that go pixel by pixel)."""
    data_dir: Path | None = None
    """Folder with the dataset's files, where it is not the one that the run was trained from."""


def sample(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl sample RUN --num N --out FILE.png`."""

    @dataclass(frozen=True)
    class Args(_Common):
        num: int = 64
        """Images to draw."""
        decoder: Path | None = None
        """A run of vqvae whose codes the model draws (`jaxdl encode`): the picture is of the images."""

    args = arguments.parse(Args, argv, "jaxdl sample", "Draw images from a generative model.")
    loaded = _open(args)
    if loaded.job.model.sample is None:
        raise UserError(f"{args.run} is a run of {loaded.settings.algo}, which has no prior to draw from"
                        + ("; 'jaxdl encode' makes a dataset of its codes, for one" if loaded.settings.algo == "vqvae" else ""))
    if args.decoder is not None and (loaded.job.model.complete is None or args.out.suffix.lower() == ".gif"):
        raise UserError(f"decoder={args.decoder} is for a prior over codes that goes into a .png, and {args.run} is a run of "
                        f"{loaded.settings.algo} and out={args.out}")
    decode = None
    if args.decoder is not None:
        spec = loaded.job.train.spec
        levels = autoregressive.output_of(loaded.settings.config, spec).levels
        decode = encode.decoder(args.decoder, levels, spec.shape)
    drawn = draw(loaded.job.model, loaded.params, args.seed, args.num, **_how(args))
    if decode is not None:
        drawn = drawn._replace(images=decode(drawn.images))
    if args.out.suffix.lower() == ".gif":
        _film(args.out, drawn.images)
    else:
        pictures.save_png(args.out, pictures.grid(drawn.images))
    print(args.out)
    return {"num": args.num, "seed": args.seed} | drawn.times | {"out": str(args.out)}


def complete(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl complete RUN --rows R --num N --out FILE.png`."""

    @dataclass(frozen=True)
    class Args(_Common):
        rows: int | None = None
        """Rows from the top that are given; half of them if not given."""
        num: int = 8
        """Test images to complete, one a row of the picture: it, and after it its completions."""
        draws: int = 8
        """Completions of each."""

    args = arguments.parse(Args, argv, "jaxdl complete", "Draw the rest of test images of which the first rows are given.")
    if not 1 <= args.draws <= 100:
        raise UserError(f"draws must be between 1 and 100, got {args.draws}")
    loaded = _open(args)
    model, test = loaded.job.model, loaded.job.test.images
    if model.complete is None:
        raise UserError(f"{args.run} is a run of {loaded.settings.algo}, which draws all pixels at once and cannot complete "
                        "images")
    rows = test.shape[1] // 2 if args.rows is None else args.rows
    if not 0 <= rows < test.shape[1]:
        raise UserError(f"rows must be between 0 and {test.shape[1] - 1}, got {rows}")
    if args.num > len(test):
        raise UserError(f"num must be at most {len(test)}, the test images, got {args.num}")
    which = np.random.default_rng(args.seed).choice(len(test), args.num, replace=False)
    drawn = draw(model, loaded.params, args.seed, args.num * args.draws, given=test[which].repeat(args.draws, 0), rows=rows,
                 **_how(args))
    whole = drawn.images.reshape(args.num, args.draws, *test.shape[1:])
    if args.out.suffix.lower() == ".gif":
        _film(args.out, drawn.images, rows)
    else:
        table = np.concatenate([test[which, None] / 255, whole], 1)
        pictures.save_png(args.out, pictures.table(table.reshape(-1, *test.shape[1:]), 1 + args.draws))
    print(args.out)
    return {"num": args.num, "rows": rows, "draws": args.draws, "seed": args.seed} | drawn.times | {"out": str(args.out)}


def _how(args: _Common) -> dict[str, Any]:
    return {name: getattr(args, name) for name in ("temperature", "sampler") if getattr(args, name) is not None}


def _open(args: Any) -> tasks.Loaded:
    """The run, read back; its first member where it is a population."""
    if not 1 <= args.num <= 10_000:
        raise UserError(f"num must be between 1 and 10000, got {args.num}")
    if not 0 <= args.seed < 2**32:
        raise UserError(f"seed must be between 0 and 2**32 - 1, got {args.seed}")
    if args.temperature is not None and not 0 < args.temperature < float("inf"):
        raise UserError(f"temperature must be above 0, got {args.temperature}")
    if args.out.suffix.lower() not in (".png", ".gif"):
        raise UserError(f"out must end in .png or .gif, got {args.out}")
    settings = run_folder.open_run(args.run)
    if settings.algorithm.kind != "generative":
        raise UserError(f"{args.run} is a run of {settings.algo}, which cannot draw images; 'jaxdl evaluate {args.run} "
                        "--video FILE.gif' films it")
    loaded = tasks.load(args.run, member=0, data_dir=args.data_dir)
    if loaded.job.model.complete is None:
        for name, given in [*_how(args).items(), *([("out", args.out)] if args.out.suffix.lower() == ".gif" else [])]:
            raise UserError(f"{name}={given} is for models that go pixel by pixel, and {args.run} is a run of {settings.algo}")
    return loaded


def _film(path: Path, images: np.ndarray, rows: int = 0) -> None:
    """A film of the pixels in their order, those to come grey; the whole images at the end for a while."""
    height, width = images.shape[1:3]
    place = np.arange(height * width).reshape(height, width, 1)
    counts = np.linspace(rows * width, height * width, _FRAMES).astype(int)
    shown = [np.where(place < count, images, 0.5) for count in [*counts, *counts[-1:].repeat(_FPS)]]
    frames = [pictures.grid(x) for x in shown]
    files.write_bytes(path, video.gif([x.repeat(3, -1) if x.shape[-1] == 1 else x for x in frames], _FPS))
