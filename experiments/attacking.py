"""Attacks by their settings, over many pictures: what they make of them, and how many withstand.

Shapes: `N` pictures, `H W C` a picture, `Y` classes.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.adversarial import attacks, ball, nearest
from jaxdl.adversarial.attacks import Function
from jaxdl.adversarial.auto import auto, within
from jaxdl.adversarial.square import square
from jaxdl.adversarial.universal import applied, universal
from jaxdl.core import streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array, Key
from jaxdl.experiments.commands.common import check_between, check_seed

NEAREST = "deepfool", "carlini_wagner", "fab_t"  # attacks that look for the smallest change
_RANDOM = "pgd", "apgd_ce", "apgd_dlr", "fab_t", "square"  # that begin at random
_STEPS = {"universal": 400, "auto": 100, "fab_t": 100, "deepfool": 50, "carlini_wagner": 200}  # 40 of others
_QUERIES = 5000
AT_ONCE = 500  # pictures that are attacked side by side


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which attack."""

    attack: Literal[*get_args(attacks.Attack), "deepfool", "carlini_wagner", "fab_t", "square", "universal", "auto"
                    ] = "pgd"
    """Noise of the same size, one step, or many; apgd chooses its steps by itself; deepfool, carlini_wagner and fab_t look for
    the smallest change; square asks for outputs alone; universal: one change for all, made on training pictures; auto:
    AutoAttack's four, one after the other."""
    norm: ball.Norm = "linf"
    """How changes are measured: the largest of all pixels, or the root of the sum of their squares."""
    epsilon: float = 0.1
    """Size of the change at most; pixels are from 0 to 1."""
    steps: int | None = None
    """Steps of an attack; if not given 100 of auto and fab_t, 50 of deepfool, 200 of each of six searches of carlini_wagner,
    400 minibatches of universal, 40 of others."""
    queries: int | None = None
    """How often square, also that of auto, asks the network of a picture at most; 5,000 if not given."""
    restarts: int = 1
    """Random beginnings, of which the worst counts (pgd, apgd, fab_t, square)."""
    target: int | None = None
    """The class that is to be said; any wrong one if not given."""
    seed: int = 0
    """Seed of the pictures and of random beginnings."""


class Attacked(NamedTuple):
    """What an attack made of pictures; those that are wrong as they are stay."""

    clean: np.ndarray  # [N] bool: right as they are
    moved: np.ndarray  # [N, H, W, C]
    said: np.ndarray  # [N]: the class that is said of what was moved
    more: dict[str, Any]  # other figures


def validate(settings: Settings) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    attack, most = settings.attack, 1.0 if settings.norm == "linf" else float(np.finfo(np.float32).max)
    if not 0 <= settings.epsilon <= most:
        end = " and 1" if settings.norm == "linf" else " and what a picture's pixels can be moved by"
        raise UserError(f"epsilon must be between 0{end} ({settings.norm}; pixels are from 0 to 1), got {settings.epsilon}")
    if settings.steps is not None:
        check_between("steps", settings.steps, 1, 100_000)
    if settings.queries is not None:
        check_between("queries", settings.queries, 1, 10_000_000)
        if attack not in ("square", "auto"):
            raise UserError(f"queries={settings.queries} are of square and auto, and attack={attack} asks for gradients; leave "
                            "it out")
    check_between("restarts", settings.restarts, 1, 100_000)
    if settings.restarts > 1 and attack not in _RANDOM:
        raise UserError(f"restarts={settings.restarts} are of random beginnings, and attack={attack} has one way; use pgd, "
                        "apgd_ce, fab_t or square")
    if attack == "carlini_wagner" and settings.norm != "l2":
        raise UserError(f"carlini_wagner measures by norm=l2, got norm={settings.norm}; use norm=l2, or fab_t")
    if settings.target is not None and attack in ("auto", "fab_t", "deepfool", "noise"):
        aims = "aims at none" if attack == "noise" else "aims at all classes"
        raise UserError(f"target={settings.target} is of one class, and attack={attack} {aims}; leave it out")
    check_seed(settings.seed)


def check_fits(settings: Settings, shape: tuple[int, ...], num_classes: int) -> None:
    """Refuse settings that do not fit pictures [H, W, C] or the number of classes.

    Raises:
        UserError: the target is no class, or a change is larger than the whole range of pixels.
    """
    if settings.target is not None:
        check_between("target", settings.target, 0, num_classes - 1)
    most = float(np.sqrt(np.prod(shape)))
    if settings.norm == "l2" and settings.epsilon > most:
        raise UserError(f"epsilon must be between 0 and {most:g} (l2: from a black picture to a white one), got "
                        f"{settings.epsilon}")
    if settings.attack == "apgd_dlr" and num_classes < (3 if settings.target is None else 4):
        raise UserError(f"attack=apgd_dlr needs more classes, of which its ratio of differences is made, and there are "
                        f"{num_classes}; use apgd_ce")


class _Made(NamedTuple):
    x: Array  # [N, H, W, C] within the bound
    size: Array | None = None  # [N] of the smallest change that was found, inf where there is none
    queries: Array | None = None  # [N]


def of_bound(settings: Settings, f: Function, x: Array, labels: Array, key: Key) -> attacks.Found:
    """An attack within a bound."""
    rest, steps = {"epsilon": settings.epsilon, "norm": settings.norm}, settings.steps or 40
    targets = None if settings.target is None else jnp.full(len(x), settings.target)
    if settings.attack == "noise":
        return attacks.noise(f, x, labels, key=key, **rest)
    if settings.attack == "fgsm":
        return attacks.fgsm(f, x, labels, targets=targets, **rest)
    if settings.attack in ("bim", "momentum"):
        decay = 1.0 if settings.attack == "momentum" else None
        return attacks.iterated(f, x, labels, steps=steps, targets=targets, decay=decay, **rest)

    def again(key: Key) -> attacks.Found:
        if settings.attack == "square":
            return square(f, x, labels, key=key, queries=settings.queries or _QUERIES, targets=targets, **rest)
        if settings.attack == "pgd":
            return attacks.iterated(f, x, labels, steps=steps, targets=targets, key=key, **rest)
        loss = "dlr" if settings.attack == "apgd_dlr" else "cross_entropy"
        return attacks.apgd(f, x, labels, key=key, steps=steps, targets=targets, loss=loss, **rest)

    return attacks.restarted(again, key, settings.restarts)


def _smallest(settings: Settings, f: Function, x: Array, labels: Array, key: Key) -> nearest.Nearest:
    """An attack that looks for the smallest change."""
    steps = settings.steps or _STEPS[settings.attack]
    if settings.attack == "deepfool":
        return nearest.deepfool(f, x, labels, settings.norm, steps)
    if settings.attack == "carlini_wagner":
        targets = None if settings.target is None else jnp.full(len(x), settings.target)
        return nearest.carlini_wagner(f, x, labels, steps, targets=targets)
    return nearest.fab_t(f, x, labels, settings.norm, key, steps, settings.restarts, settings.epsilon)


def attacked(f: Function, x: Array, labels: np.ndarray, settings: Settings, judge: Function | None = None) -> Attacked:
    """Pictures [N, H, W, C] attacked on f, and what `judge` says of them, f itself if not given."""
    judge, key = judge or f, streams.key(settings.seed, Purpose.EVALUATION)
    if settings.attack == "auto":
        return _by_all(f, x, labels, settings, judge, key)
    gradients = 0

    def block(x: Array, labels: Array, key: Key) -> dict[str, Array]:
        nonlocal gradients
        clean, size, queries = attacks.margin(judge(x), labels) > 0, None, None
        if settings.attack in NEAREST:
            found = _smallest(settings, f, x, labels, key)
            near, size = within(found, f, x, labels, settings.epsilon, settings.norm)[1], found.size
            moved = jnp.where(ball.wide(near, x), ball.project(found.x, x, settings.epsilon, settings.norm), x)
        else:
            found = of_bound(settings, f, x, labels, key)
            moved = found.x
            queries = found.queries if settings.attack == "square" else None
        gradients = found.gradients
        moved = jnp.where(ball.wide(clean, x), moved, x)
        return {"clean": clean, "moved": moved, "said": judge(moved).argmax(-1), "size": size, "queries": queries}

    program, labels = jax.jit(block), jnp.asarray(labels)
    parts = [program(x[i : i + AT_ONCE], labels[i : i + AT_ONCE], jax.random.fold_in(key, i))
             for i in range(0, len(x), AT_ONCE)]
    whole = {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]
             if parts[0][name] is not None}
    clean, more = whole["clean"], {"gradients_an_image": gradients}
    if "size" in whole:
        sizes = whole["size"][clean]
        more |= {"found": float(np.isfinite(sizes).mean()) if len(sizes) else 0.0, "median_size": _median(sizes)}
    if "queries" in whole:
        broken = clean & (whole["said"] != np.asarray(labels))
        more |= {"mean_queries": float(whole["queries"][clean].mean()) if clean.any() else 0.0,
                 "median_queries": _median(whole["queries"][broken])}
    if settings.target is not None:
        more["target_said"] = float((whole["said"] == settings.target).mean())
    return Attacked(clean, whole["moved"], whole["said"], more)


def by_one_change(f: Function, x: Array, labels: np.ndarray, taught: tuple[Array, np.ndarray], settings: Settings,
                  judge: Function | None = None) -> Attacked:
    """Pictures with one change for all of them, which training pictures and their labels taught; wrong ones move too."""
    k_made, k_random = jax.random.split(streams.key(settings.seed, Purpose.EVALUATION))
    epsilon, norm, judge = settings.epsilon, settings.norm, judge or f
    steps = settings.steps or _STEPS["universal"]
    make = jax.jit(lambda x, y, key: universal(f, x, y, epsilon, norm, key, steps, target=settings.target))
    change = make(taught[0], jnp.asarray(taught[1]), k_made)
    way = ball.steepest(jax.random.normal(k_random, (1, *x.shape[1:])), norm)[0]
    moved, control, known = (applied(d, to, epsilon, norm) for d, to in (
        (change, x), (epsilon * way, x), (change, taught[0])))
    said = said_of(judge, moved)
    more = {"made_on": len(taught[0]), "made_on_accuracy": float((said_of(judge, known) == taught[1]).mean()),
            "random_accuracy": float((said_of(judge, control) == labels).mean())}
    if settings.target is not None:
        more["target_said"] = float((said == settings.target).mean())
    return Attacked(said_of(judge, x) == labels, np.asarray(moved), said, more)


def _median(values: np.ndarray) -> float | None:
    """None where it is not finite."""
    found = float(np.median(values)) if len(values) else np.inf
    return found if np.isfinite(found) else None


def _by_all(f: Function, x: Array, labels: np.ndarray, settings: Settings, judge: Function, key: Key) -> Attacked:
    """The same by AutoAttack."""
    result = auto(f, x, jnp.asarray(labels), settings.epsilon, settings.norm, key, settings.steps or _STEPS["auto"],
                  settings.queries or _QUERIES, say=lambda line: print(line, flush=True))
    clean = result.clean if judge is f else said_of(judge, x) == labels
    moved = np.where(clean[:, None, None, None], result.x, np.asarray(x))
    return Attacked(clean, moved, said_of(judge, moved), {"withstood": result.withstood, "gradients_an_image": None})


def said_of(f: Function, x: Array | np.ndarray) -> np.ndarray:
    """The classes that f says of pictures, [N]."""
    say = jax.jit(lambda x: f(x).argmax(-1))
    return np.concatenate([np.asarray(say(jnp.asarray(x[i : i + AT_ONCE]))) for i in range(0, len(x), AT_ONCE)])


def elsewhere(result: Attacked, f: Function, x: Array, labels: np.ndarray) -> dict[str, float]:
    """What pictures that were made for one classifier do to another.

    Of those that broke the first and were right as they are for both, `transferred` is the share that breaks the second.
    """
    clean, withstood = said_of(f, x) == labels, said_of(f, result.moved) == labels
    broken = result.clean & (result.said != labels) & clean
    return {"accuracy": float(clean.mean()), "robust_accuracy": float(withstood.mean()),
            "transferred": float(1 - withstood[broken].mean()) if broken.any() else 0.0}


def figures(result: Attacked, x: Array, labels: np.ndarray, settings: Settings) -> dict[str, Any]:
    """How many pictures withstood, and how far they were moved."""
    clean, withstood = result.clean, result.said == labels
    change = jnp.asarray(result.moved - np.asarray(x))
    sizes = {norm: np.asarray(ball.size(change, norm))[clean] for norm in ("linf", "l2")}
    return {"attack": settings.attack, "norm": settings.norm, "epsilon": settings.epsilon, "num": len(clean),
            "accuracy": float(clean.mean()), "robust_accuracy": float(withstood.mean()),
            "success": float(1 - withstood[clean].mean()) if clean.any() else 0.0,
            **{f"mean_{norm}": float(size.mean()) if len(size) else 0.0 for norm, size in sizes.items()},
            **{f"largest_{norm}": float(size.max(initial=0)) for norm, size in sizes.items()}, **result.more}


def in_words(found: dict[str, Any]) -> str:
    """Figures as a sentence."""
    words = (f"{found['attack']} of {found['epsilon']:g} ({found['norm']}) on {found['num']:,} pictures: accuracy "
             f"{found['accuracy']:.2%}, and {found['robust_accuracy']:.2%} under attack; changes are {found['mean_linf']:.4f} "
             f"(linf) and {found['mean_l2']:.3f} (l2) in the mean")
    if found.get("median_size") is not None:
        words += f"; the median of the smallest is {found['median_size']:.4g} ({found['norm']})"
    if "random_accuracy" in found:
        words += f"; one change for all, made on {found['made_on']:,} training pictures, where one at random leaves "
        return words + f"{found['random_accuracy']:.2%}"
    if "mean_queries" in found:
        half = "" if found["median_queries"] is None else f", {found['median_queries']:,.0f} in the median of those that broke"
        return words + f"; {found['mean_queries']:,.0f} queries a picture in the mean{half}"
    return words + (f", {found['gradients_an_image']:,} gradients a picture" if found.get("gradients_an_image") else "")
