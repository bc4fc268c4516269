"""attack RUN: small changes of what a network sees that change what it says: of pictures, and of an agent's observations

Shapes: `N` pictures, `H W C` a picture, `Y` classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxdl.adversarial.attacks import Function
from jaxdl.adversarial.substitute import substitute
from jaxdl.core import streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.experiments import attack_pictures, attacking, looking, policies
from jaxdl.experiments.commands import common

_TAUGHT = 5000  # training pictures that one change for all is made on, at most


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs, attacking.Settings):
    """Flags of the command."""

    num: int | None = None
    """Held-out pictures; all if not given."""
    on: tuple[Path, ...] = ()
    """Other runs on the same pictures: what was made on RUN is measured on them too."""
    substitute: int | None = None
    """RUN only answers: the attack is made on a network that was trained on its answers about so many held-out pictures, and
    about 15 times as many that it makes of them."""
    out: Path | None = None
    """Picture to write, .png."""
    plot: attack_pictures.Plot = "examples"
    """What it shows: pictures, their changes amplified, and what is said of them; accuracy against epsilon, by noise, FGSM and
    PGD; error against restarts; or the classes that are said around pictures, along the gradient and at random."""


def run(args: Args) -> dict[str, Any]:
    """Attack, count and draw."""
    if (agent := policies.opened(args)) is not None:
        return policies.under_attack(agent, args)
    check(args)
    seen = looking.open_classifier(args, None if args.num is None else args.num + (args.substitute or 0), args.seed)
    attacking.check_fits(args, seen.x.shape[1:], len(seen.names))
    others = {str(path): other_run(args, path, seen) for path in args.on}
    more, f = {}, seen.f
    if args.substitute is not None:
        f, seen, more = substituted(args, seen)
    if args.attack == "universal":
        taught = looking.open_classifier(args, _TAUGHT, args.seed, "train")
        result = attacking.by_one_change(f, seen.x, seen.labels, (taught.x, taught.labels), args, seen.f)
    else:
        result = attacking.attacked(f, seen.x, seen.labels, args, seen.f)
    found = attacking.figures(result, seen.x, seen.labels, args) | more
    print(attacking.in_words(found))
    if others:
        found["on"] = {path: attacking.elsewhere(result, other, seen.x, seen.labels) for path, other in others.items()}
        for path, row in found["on"].items():
            print(f"on {path}: accuracy {row['accuracy']:.2%}, and {row['robust_accuracy']:.2%} under attack; "
                  f"{row['transferred']:.2%} of what broke {args.run} break it")
    if args.out is not None:
        found |= attack_pictures.draw(args.plot, args.out, f, seen, result, args)
        print(args.out)
        found["out"] = str(args.out)
    return found


def check(args: Args) -> None:
    """Refuse flags that make no sense.

    Raises:
        UserError: names the flag, what was given and what would do.
    """
    attacking.validate(args)
    if args.num is not None:
        common.check_between("num", args.num, 1, 10**9)
    if args.substitute is not None:
        common.check_between("substitute", args.substitute, 1, 10_000)
        if args.attack in ("noise", "square"):
            raise UserError(f"substitute={args.substitute} is asked for gradients, and attack={args.attack} needs none; leave "
                            "it out")
    if args.out is not None:
        common.check_picture(args.out, ".png")
    elif args.plot != "examples":
        raise UserError(f"plot={args.plot} is of a picture, and none is written; give --out FILE.png")
    if args.plot == "restarts" and (args.restarts < 2 or args.attack == "fab_t"):
        raise UserError("plot=restarts needs several restarts of pgd, apgd_ce, apgd_dlr or square, got "
                        f"restarts={args.restarts} of {args.attack}")


def other_run(args: Args, path: Path, seen: looking.Seen) -> Function:
    """Another classifier of the same pictures.

    Raises:
        UserError: its pictures or its classes are others.
    """
    other = looking.open_classifier(common.RunArgs(run=path, data_dir=args.data_dir), 1)
    for what, mine, theirs in (("pictures", seen.x.shape[1:], other.x.shape[1:]), ("classes", seen.names, other.names)):
        if mine != theirs:
            raise UserError(f"on={path} is of {what} {', '.join(map(str, theirs))}, and {args.run} of {what} "
                            f"{', '.join(map(str, mine))}; give runs on the same dataset")
    return other.f


def substituted(args: Args, seen: looking.Seen) -> tuple[Function, looking.Seen, dict[str, Any]]:
    """A network that learned the answers of RUN about the first pictures, and what is left of the pictures.

    Raises:
        UserError: none are left.
    """
    num = args.substitute
    if num >= len(seen.x):
        raise UserError(f"substitute must be less than the {len(seen.x):,} held-out pictures, of which the others are "
                        f"attacked, got {num}")
    ask = jax.jit(lambda x: seen.f(x).argmax(-1))
    made = substitute(ask, seen.x[:num], len(seen.names), streams.key(args.seed, Purpose.SAMPLES))
    left = seen._replace(x=seen.x[num:], labels=seen.labels[num:])
    agreement = float((attacking.said_of(made.f, left.x) == attacking.said_of(seen.f, left.x)).mean())
    print(f"a substitute was trained on {made.queries:,} answers; it agrees on {agreement:.2%} of the other pictures")
    return made.f, left, {"substitute": {"answers": made.queries, "agreement": agreement}}
