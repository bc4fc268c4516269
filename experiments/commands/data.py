"""data NAME --out DIR: annotated pictures of a dataset as PNG files, masks and COCO's JSON, that other tools read too"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from jaxdl import data
from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.data import coco
from jaxdl.data.dataset import Dataset
from jaxdl.data.pictures import save_png
from jaxdl.experiments.commands.common import check_between
from jaxdl.supervised.caption_report import texts

MASKS, WORDS = ("semantic", "instances"), "words.json"
_SIZES = (16, 1024)  # pixels, the smallest and the largest side


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the command."""

    name: Annotated[str, tyro.conf.Positional]
    """The dataset: scenes, scenes_single, scenes_figures, coco, or package.module:NAME of one of your own."""
    out: Path
    """Folder to write: images/, semantic/ and instances/ (a byte a pixel: the class, the object), annotations.json, and of
    scenes words.json with captions, questions and answers."""
    num: int = 64
    """Pictures to write, the first of the split."""
    split: str = "train"
    """Which part of the dataset."""
    size: int | None = None
    """Side of the pictures in pixels; of coco they are scaled to fit, with black bars."""
    data_dir: Path | None = None
    """Folder with the dataset's files: of coco, or of MNIST for the digits of scenes."""


def run(args: Args) -> dict[str, Any]:
    """Write annotated pictures."""
    check_between("num", args.num, 1, 1_000_000)
    if args.size is not None:
        check_between("size", args.size, *_SIZES)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UserError(f"out={args.out} is there already; name another folder, or remove it")
    whole = data.load(args.name, args.data_dir, args.split, args.size)
    coco.require_annotated(whole.spec)
    chosen = whole.part(np.arange(min(args.num, whole.spec.num_examples))).complete()
    coco.write(args.out, chosen)
    for name in MASKS:
        files.make_folder(args.out / name)
        for i, mask in enumerate(data.pick(chosen.arrays, name)):
            save_png(args.out / name / f"{i:06d}.png", mask)
    if getattr(chosen.arrays, "words", None) is not None:
        files.write_json(args.out / WORDS, {"pictures": [said(chosen, i) for i in range(chosen.spec.num_examples)]})
    objects = int((chosen.arrays.labels > 0).sum())
    print(f"{chosen.spec.num_examples:,} pictures of {args.name} with {objects:,} objects in {args.out}")
    return {"dataset": args.name, "split": args.split, "pictures": chosen.spec.num_examples, "objects": objects,
            "out": str(args.out)}


def said(of: Dataset, i: int) -> dict[str, Any]:
    """Captions, questions and answers of a picture."""
    words, vocabulary = of.arrays.words, of.spec.vocabulary
    questions, answers = (texts(x[i], vocabulary) for x in (words.questions, words.answers))
    return {"image_id": i, "captions": texts(words.captions[i], vocabulary),
            "questions": [{"question": q, "answer": a} for q, a in zip(questions, answers, strict=True)]}
