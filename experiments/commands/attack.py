"""attack RUN: small changes of held-out pictures that change what a classifier says, and how many pictures withstand them

Shapes: `N` pictures, `H W C` a picture, `Y` classes.
"""


from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.adversarial import attacks, ball
from jaxdl.adversarial.attacks import Found
from jaxdl.adversarial.auto import auto
from jaxdl.core import files, streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array, Key
from jaxdl.experiments import looking, policies
from jaxdl.experiments.commands import common
from jaxdl.supervised import report

_AT_ONCE = 500  # pictures that are attacked side by side
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of the command."""

    attack: Literal[*get_args(attacks.Attack), "auto"] = "pgd"
    """Noise of the same size, one step, or many; apgd chooses its steps by itself; auto: AutoAttack's four, one after the
    other."""
    norm: ball.Norm = "linf"
    """How changes are measured: the largest of all pixels, or the root of the sum of their squares."""
    epsilon: float = 0.1
    """Size of the change at most; pixels are from 0 to 1."""
    steps: int | None = None
    """Steps of an attack; 40 if not given, of auto 100."""
    restarts: int = 1
    """Random beginnings, of which the worst counts (pgd, apgd)."""
    target: int | None = None
    """The class that is to be said; any wrong one if not given."""
    num: int | None = None
    """Held-out pictures; all if not given."""
    seed: int = 0
    """Seed of the pictures and of random beginnings."""
    out: Path | None = None
    """Picture to write, .png: pictures that withstood least, their changes amplified, and what is said of them."""


def run(args: Args) -> dict[str, Any]:
    """Attack, count and draw."""
    if (agent := policies.opened(args)) is not None:
        return policies.under_attack(agent, args)
    most = 1.0 if args.norm == "linf" else np.inf
    if not 0 <= args.epsilon <= most:
        raise UserError(f"epsilon must be between 0 and {most:g} ({args.norm}; pixels are from 0 to 1), got {args.epsilon}")
    if args.steps is not None:
        common.check_between("steps", args.steps, 1, 100_000)
    common.check_between("restarts", args.restarts, 1, 100_000)
    if args.restarts > 1 and args.attack in ("noise", "fgsm", "bim", "momentum", "auto"):
        raise UserError(f"restarts={args.restarts} are of random beginnings, and attack={args.attack} has one way; use pgd or "
                        "apgd")
    if args.num is not None:
        common.check_between("num", args.num, 1, 10**9)
    common.check_seed(args.seed)
    if args.out is not None:
        common.check_picture(args.out, ".png")
    seen = looking.open_classifier(args, args.num, args.seed)
    if args.target is not None:
        common.check_between("target", args.target, 0, len(seen.names) - 1)
    if args.attack == "auto" and args.target is not None:
        raise UserError(f"target={args.target} is of one attack, and auto aims at all classes; leave it out")
    found, moved, said = (attacked_by_all if args.attack == "auto" else attacked)(seen, args)
    print(_in_words(found))
    if args.out is not None:
        draw(args.out, seen, moved, said)
        print(args.out)
        found["out"] = str(args.out)
    return found


def one_attack(args: Args, f: attacks.Function, x: Array, labels: Array, targets: Array | None, key: Key) -> Found:
    """The attack that flags ask for."""
    rest, steps = {"epsilon": args.epsilon, "norm": args.norm}, args.steps or 40
    if args.attack == "noise":
        return attacks.noise(f, x, labels, key=key, **rest)
    if args.attack == "fgsm":
        return attacks.fgsm(f, x, labels, targets=targets, **rest)
    if args.attack in ("bim", "momentum"):
        decay = 1.0 if args.attack == "momentum" else None
        return attacks.iterated(f, x, labels, steps=steps, targets=targets, decay=decay, **rest)

    def again(key: Key) -> Found:
        if args.attack == "pgd":
            return attacks.iterated(f, x, labels, steps=steps, targets=targets, key=key, **rest)
        loss = "dlr" if args.attack == "apgd_dlr" else "cross_entropy"
        return attacks.apgd(f, x, labels, key=key, steps=steps, targets=targets, loss=loss, **rest)

    return attacks.restarted(again, key, args.restarts)


def attacked(seen: looking.Seen, args: Args) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Numbers over all pictures, what the attack made of them, and what is said of that; those wrong as they are stay."""
    key, gradients = streams.key(args.seed, Purpose.EVALUATION), 0

    def block(x: Array, labels: Array, key: Key) -> tuple[Array, Array, Array]:
        nonlocal gradients
        targets = None if args.target is None else jnp.full(len(x), args.target)
        clean = attacks.margin(seen.f(x), labels) > 0
        found = one_attack(args, seen.f, x, labels, targets, key)
        gradients = found.gradients
        moved = jnp.where(ball.wide(clean, x), found.x, x)
        return clean, moved, seen.f(moved).argmax(-1)

    program, labels = jax.jit(block), jnp.asarray(seen.labels)
    parts = [program(seen.x[i : i + _AT_ONCE], labels[i : i + _AT_ONCE], jax.random.fold_in(key, i))
             for i in range(0, len(seen.x), _AT_ONCE)]
    clean, moved, said = (np.concatenate([np.asarray(x) for x in part]) for part in zip(*parts, strict=True))
    found = figures(seen, args, clean, moved, said) | {"gradients_an_image": gradients}
    if args.target is not None:
        found["target_said"] = float((said == args.target).mean())
    return found, moved, said


def attacked_by_all(seen: looking.Seen, args: Args) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The same by AutoAttack."""
    key = streams.key(args.seed, Purpose.EVALUATION)
    result = auto(seen.f, seen.x, jnp.asarray(seen.labels), args.epsilon, args.norm, key, args.steps or 100,
                  say=lambda line: print(line, flush=True))
    said = np.concatenate([np.asarray(seen.f(jnp.asarray(result.x[i : i + _AT_ONCE])).argmax(-1))
                           for i in range(0, len(result.x), _AT_ONCE)])
    found = figures(seen, args, result.clean, result.x, said)
    return found | {"withstood": result.withstood, "gradients_an_image": None}, result.x, said


def figures(seen: looking.Seen, args: Args, clean: np.ndarray, moved: np.ndarray, said: np.ndarray) -> dict[str, Any]:
    """How many pictures withstood, and how far they were moved."""
    withstood = said == seen.labels
    change = moved - np.asarray(seen.x)
    sizes = {norm: np.asarray(ball.size(jnp.asarray(change), norm))[clean] for norm in ("linf", "l2")}
    return {"attack": args.attack, "norm": args.norm, "epsilon": args.epsilon, "num": len(clean),
            "accuracy": float(clean.mean()), "robust_accuracy": float(withstood.mean()),
            "success": float(1 - withstood[clean].mean()) if clean.any() else 0.0,
            **{f"mean_{norm}": float(size.mean()) if len(size) else 0.0 for norm, size in sizes.items()},
            **{f"largest_{norm}": float(size.max(initial=0)) for norm, size in sizes.items()}}


def _in_words(found: dict[str, Any]) -> str:
    return (f"{found['attack']} of {found['epsilon']:g} ({found['norm']}) on {found['num']:,} pictures: accuracy "
            f"{found['accuracy']:.2%}, and {found['robust_accuracy']:.2%} under attack; changes are {found['mean_linf']:.4f} "
            f"(linf) and {found['mean_l2']:.3f} (l2) in the mean"
            + (f", {found['gradients_an_image']} gradients a picture" if found["gradients_an_image"] is not None else ""))


def draw(path: Path, seen: looking.Seen, moved: np.ndarray, said: np.ndarray) -> None:
    """Pictures, what was made of them, and the change, amplified so that the largest is white or black."""
    wrong = np.flatnonzero(said != seen.labels)[:_SHOWN]
    chosen = wrong if len(wrong) else np.arange(min(_SHOWN, len(moved)))
    figure = report.blank((1.3 * len(chosen), 4.4))
    rows = figure.subplots(3, len(chosen), squeeze=False)
    for column, i in zip(rows.T, chosen, strict=True):
        x, y = np.asarray(seen.x[i]), moved[i]
        change = 0.5 + (y - x) / max(2 * np.abs(y - x).max(), 1e-9)
        titles = seen.names[seen.labels[i]], seen.names[said[i]], "change"
        for axes, picture, title in zip(column, (x, y, change), titles, strict=True):
            axes.axis("off")
            axes.imshow(report.as_picture(picture), cmap="gray", vmin=0, vmax=255)
            axes.set_title(title[:12], fontsize=8, pad=2)
    files.write_bytes(path, report.png(figure))


