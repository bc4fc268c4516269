"""encode RUN: the codes of a VQ-VAE as a dataset, for a prior over them

A code c of K is kept as the byte ceil(256 c / K), of which a pixel model with K levels makes c again: a map of codes is then a
small grey image like any other, and the prior is a PixelCNN (`--dataset idx --likelihood categorical --levels K`).

Shapes: `N` images, `h w` a map of codes, `K` codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.core import stdio
from jaxdl.core.errors import UserError
from jaxdl.core.task import Codes
from jaxdl.core.types import Examples
from jaxdl.data import idx
from jaxdl.experiments import tasks
from jaxdl.experiments.commands import common
from jaxdl.runtime.dataset_task import in_blocks

_AT_ONCE = 500  # images


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of the command."""

    out: Path
    """Folder to make, for the codes of both splits as IDX files."""


def run(args: Args) -> dict[str, Any]:
    """Write the codes of a VQ-VAE as a dataset, for a prior over them."""
    if args.out.exists():
        raise UserError(f"{args.out} exists; choose another folder, or remove it")
    opened, codes = _open(args)
    encode = jax.jit(codes.encode)
    found = {split: in_blocks(lambda part: encode(opened.params, part, jax.random.key(0)), _AT_ONCE, dataset.arrays)
             for split, dataset in opened.task.splits.items()}
    try:
        args.out.mkdir(parents=True)
    except OSError as e:
        raise UserError(f"cannot make {args.out}: {e.strerror}") from e
    for split, dataset in opened.task.splits.items():
        idx.write_split(args.out, split, -(-found[split] * 256 // codes.num_codes).astype(np.uint8), dataset.labels)
    height, width = found["train"].shape[1:]
    print(f"{args.out}: codes of {len(found['train'])} and {len(found['test'])} images; a prior over them:\n"
          + stdio.command("train", "pixelcnn", "--dataset", "idx", "--data-dir", args.out, "--likelihood", "categorical",
                            "--levels", codes.num_codes))
    return {"out": str(args.out), "shape": [height, width], "levels": codes.num_codes, "used": len(np.unique(found["train"]))}


def decoder(run: Path, levels: int, shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray]:
    """What makes images [N, H, W, C] of draws [N, h, w, 1] in [0, 1] of a prior over a VQ-VAE's codes.

    Args:
        run: the VQ-VAE's.
        levels: values a pixel of the prior can have.
        shape: of one draw.

    Raises:
        UserError: not a run of a VQ-VAE, or one with other codes or another map of them.
    """
    opened, codes = _open(common.RunArgs(run=run))
    image = Examples(jax.ShapeDtypeStruct((1, *opened.task.spec.shape), np.uint8))
    expected = jax.eval_shape(codes.encode, opened.params, image, jax.random.key(0)).shape[1:]
    if (levels, shape[:2]) != (codes.num_codes, expected):
        raise UserError(f"decoder={run} has {codes.num_codes} codes in maps of {list(expected)}, and the prior draws {levels} "
                        f"levels in maps of {list(shape[:2])}; "
                        f"it must be trained on what {stdio.quoted('encode', run)} wrote")
    program = jax.jit(codes.decode)

    def decode(draws: np.ndarray) -> np.ndarray:
        drawn = np.rint(draws[..., 0] * (levels - 1)).astype(np.int32)
        return in_blocks(lambda part: program(opened.params, part), _AT_ONCE, drawn)

    return decode


def _open(args: common.RunArgs) -> tuple[tasks.TrainedRun, Codes]:
    """The run, its first member where it is a population, and its codes."""
    opened = common.open_run(args, Codes, "whose latents are no codes; train one with 'jaxdl train vqvae'")
    codes = opened.task.abilities[Codes]
    if codes.num_codes > 256:
        raise UserError(f"{args.run} has num_codes={codes.num_codes}, and a prior over codes takes at most 256")
    return opened, codes
