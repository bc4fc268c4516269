"""`jaxdl encode`: the codes of a VQ-VAE as a dataset, for a prior over them, and what draws of that prior look like.

A code c of K is kept as the byte ceil(256 c / K), of which a pixel model with K levels makes c again: a map of codes is then a
small grey image like any other, and the prior is a PixelCNN (`--dataset idx --likelihood categorical --levels K`).

Shapes: `N` images, `h w` a map of codes, `K` codes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro

from jaxdl.core.errors import UserError
from jaxdl.core.types import Examples
from jaxdl.data import SPLITS, idx
from jaxdl.experiments import arguments, run_folder, tasks

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
    loaded, num_codes = _open(args.run, args.data_dir)
    program, splits = jax.jit(loaded.job.model.encode), dict(zip(SPLITS, (loaded.job.train, loaded.job.test), strict=True))
    found = {}
    for split, dataset in splits.items():
        parts = [program(loaded.params, Examples(dataset.images[i : i + _AT_ONCE]), jax.random.key(0))
                 for i in range(0, len(dataset.images), _AT_ONCE)]
        found[split] = np.concatenate(parts)
    try:
        args.out.mkdir(parents=True)
    except OSError as e:
        raise UserError(f"cannot make {args.out}: {e.strerror}") from e
    for split, dataset in splits.items():
        idx.write_split(args.out, split, -(-found[split] * 256 // num_codes).astype(np.uint8), dataset.labels)
    height, width = found["train"].shape[1:]
    print(f"{args.out}: codes of {len(found['train'])} and {len(found['test'])} images; a prior over them:\n"
          f"jaxdl train pixelcnn --dataset idx --data-dir {args.out} --likelihood categorical --levels {num_codes}")
    return {"out": str(args.out), "shape": [height, width], "levels": num_codes,
            "used": len(np.unique(found["train"]))}


def decoder(run: Path, levels: int, shape: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """What makes images [N, H, W, C] of draws [N, h, w, 1] in [0, 1] of a prior over a VQ-VAE's codes.

    Args:
        run: the VQ-VAE's.
        levels: values a pixel of the prior can have.
        shape: of one draw.

    Raises:
        UserError: not a run of a VQ-VAE, or one with other codes or another map of them.
    """
    loaded, num_codes = _open(run, None)
    model, params = loaded.job.model, loaded.params
    expected = jax.eval_shape(model.encode, params, Examples(loaded.job.test.images[:1])).shape[1:]
    if (levels, shape[:2]) != (num_codes, expected):
        raise UserError(f"decoder={run} has {num_codes} codes in maps of {list(expected)}, and the prior draws {levels} levels "
                        f"in maps of {list(shape[:2])}; it must be trained on what 'jaxdl encode {run}' wrote")

    def decode(draws: np.ndarray) -> np.ndarray:
        codes, program = np.rint(draws[..., 0] * (levels - 1)).astype(np.int32), jax.jit(model.decode)
        return np.concatenate([program(params, codes[i : i + _AT_ONCE]) for i in range(0, len(codes), _AT_ONCE)])

    return decode


def _open(run: Path, data_dir: Path | None) -> tuple[tasks.Loaded, int]:
    """The run, its first member where it is a population, and K."""
    settings = run_folder.open_run(run)
    if settings.algo != "vqvae":
        raise UserError(f"{run} is a run of {settings.algo}, whose latents are no codes; train one with 'jaxdl train vqvae'")
    num_codes = settings.config.num_codes
    if num_codes > 256:
        raise UserError(f"{run} has num_codes={num_codes}, and a prior over codes takes at most 256")
    return tasks.load(run, member=0, data_dir=data_dir), num_codes
