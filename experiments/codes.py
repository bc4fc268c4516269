"""`jaxdl encode`: the codes of a VQ-VAE as a dataset, for a prior over them, and what draws of that prior look like.

A code c of K is kept as the byte ceil(256 c / K), of which a pixel model with K levels makes c again: a map of codes is then a
small grey image like any other, and the prior is a PixelCNN (`--dataset idx --output categorical --levels K`).

Shapes: `N` images, `h w` a map of codes, `K` codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from experiments import arguments, jobs, runs
from jaxdl import train
from jaxdl.data import SPLITS, idx
from jaxdl.errors import UserError
from jaxdl.types import Examples

_AT_ONCE = 500  # images


def encode(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl encode RUN --out FOLDER`."""

    @dataclass(frozen=True)
    class Args:
        run: Annotated[Path, tyro.conf.Positional]
        """Folder of a run of vqvae."""
        out: Path
        """Folder to make, for the codes of both splits as IDX files."""
        data_dir: Path | None = None
        """Folder with the dataset's files, where it is not the one that the run was trained from."""

    args = arguments.parse(Args, argv, "jaxdl encode", "Write the codes of a VQ-VAE as a dataset, for a prior over them.")
    if args.out.exists():
        raise UserError(f"{args.out} exists; choose another folder, or remove it")
    loaded, params, num_codes = _open(args.run, args.data_dir)
    program = jax.jit(loaded.job.model.encode)
    found = {}
    for split, dataset in zip(SPLITS, (loaded.job.train, loaded.job.test), strict=True):
        parts = [program(params, Examples(dataset.images[i : i + _AT_ONCE]), jax.random.key(0))
                 for i in range(0, len(dataset.images), _AT_ONCE)]
        found[split] = np.concatenate(parts)
    try:
        args.out.mkdir(parents=True)
    except OSError as e:
        raise UserError(f"cannot make {args.out}: {e.strerror}") from e
    for split, dataset in zip(SPLITS, (loaded.job.train, loaded.job.test), strict=True):
        idx.write_split(args.out, split, -(-found[split] * 256 // num_codes).astype(np.uint8), dataset.labels)
    height, width = found["train"].shape[1:]
    print(f"{args.out}: codes of {len(found['train'])} and {len(found['test'])} images; a prior over them:\n"
          f"jaxdl train pixelcnn --dataset idx --data-dir {args.out} --output categorical --levels {num_codes}")
    return {"out": str(args.out), "shape": [height, width], "levels": num_codes,
            "used": len(np.unique(found["train"]))}


def decoded(values: np.ndarray, levels: int, run: Path, data_dir: Path | None = None) -> np.ndarray:
    """Draws of a prior [N, h, w, 1] in [0, 1] -> the images [N, H, W, C] whose codes they are.

    Raises:
        UserError: not a run of a VQ-VAE, or one with other codes or another map of them.
    """
    loaded, params, num_codes = _open(run, data_dir)
    model = loaded.job.model
    codes = np.rint(values[..., 0] * (levels - 1)).astype(np.int32)
    expected = jax.eval_shape(model.encode, params, Examples(loaded.job.test.images[:1])).shape[1:]
    if (levels, codes.shape[1:]) != (num_codes, expected):
        raise UserError(f"decoder={run} has {num_codes} codes in maps of {list(expected)}, and the prior draws {levels} levels "
                        f"in maps of {list(codes.shape[1:])}; it must be trained on what 'jaxdl encode {run}' wrote")
    program = jax.jit(model.decode)
    return np.concatenate([program(params, codes[i : i + _AT_ONCE]) for i in range(0, len(codes), _AT_ONCE)])


def _open(run: Path, data_dir: Path | None) -> tuple[jobs.Loaded, Any, int]:
    settings = runs.open_run(run)
    if settings.algo != "vqvae":
        raise UserError(f"{run} is a run of {settings.algo}, whose latents are no codes; train one with 'jaxdl train vqvae'")
    num_codes = settings.config.num_codes
    if num_codes > 256:
        raise UserError(f"{run} has num_codes={num_codes}, and a prior over codes takes at most 256")
    loaded = jobs.load(run, data_dir=data_dir)
    return loaded, train.members_of(loaded.params, len(jobs.population(settings)))[0], num_codes
