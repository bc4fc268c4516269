"""complete RUN: the rest of test images of which the first rows are given (models that draw pixel by pixel)"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl.core.errors import UserError
from jaxdl.core.task import Completer
from jaxdl.data import pictures
from jaxdl.experiments.commands import common
from jaxdl.experiments.commands.sample import DrawArgs, draw, open_sampler, save_film, with_options


@dataclass(frozen=True, kw_only=True)
class _Args(DrawArgs):
    rows: int | None = None
    """Rows from the top that are given; half of them if not given."""
    num: int = 8
    """Test images to complete, one a row of the picture: it, and after it its completions."""
    draws: int = 8
    """Completions of each."""


def Args(argv: Sequence[str]) -> type:
    """The flags, which depend on the model."""
    return with_options(_Args, common.run_of(argv))


def run(args: Any) -> dict[str, Any]:
    """Draw the rest of test images of which the first rows are given."""
    common.check_between("draws", args.draws, 1, 100)
    opened, sampler = open_sampler(args)
    if Completer not in opened.task.abilities:
        raise UserError(f"{args.run} is a run of {opened.settings.algo}, which draws all pixels at once and cannot complete "
                        "images")
    test = opened.task.splits["test"].images
    rows = test.shape[1] // 2 if args.rows is None else args.rows
    common.check_between("rows", rows, 0, test.shape[1] - 1)
    if args.num > len(test):
        raise UserError(f"num must be at most {len(test)}, the test images, got {args.num}")
    which = np.random.default_rng(args.seed).choice(len(test), args.num, replace=False)
    known = np.zeros(test.shape[1:3], bool)
    known[:rows] = True
    completer, options = opened.task.abilities[Completer], asdict(args.sampler)
    told = {} if completer.num_classes is None else {"classes": opened.task.splits["test"].labels[which].tolist()}
    given = [x.repeat(args.draws, 0) for x in (test[which], *map(np.asarray, told.values()))]
    drawn = draw(lambda params, key, n, images, *labels: completer.complete(params, key, images, jnp.asarray(known), *labels,
                                                                            **options),
                 opened.params, args.seed, args.num * args.draws, sampler.at_once, *given)
    if args.out.suffix.lower() == ".gif":
        save_film(args.out, drawn.images, rows)
    else:
        completed = drawn.images.reshape(args.num, args.draws, *test.shape[1:])
        table = np.concatenate([test[which, None] / 255, completed], 1)
        pictures.save_png(args.out, pictures.table(table.reshape(-1, *test.shape[1:]), 1 + args.draws))
    print(args.out, *(f"told the images' classes: {', '.join(map(str, each))}" for each in told.values()), sep="; ")
    return ({"num": args.num, "rows": rows, "draws": args.draws, "seed": args.seed} | drawn.times | {"out": str(args.out)}
            | told)
