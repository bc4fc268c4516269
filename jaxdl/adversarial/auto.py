"""AutoAttack: four attacks that need no settings, each on what withstood those before (Croce & Hein, "Reliable evaluation of
adversarial robustness with an ensemble of diverse parameter-free attacks", 2020).

    apgd_ce    Auto-PGD by cross-entropy, 100 steps
    apgd_t     Auto-PGD by the targeted difference of logits ratio, 100 steps towards each of the 9 likeliest other classes
    fab_t      FAB, 100 steps towards each of them
    square     5,000 queries; of pictures alone

Shapes: `N` inputs, `Y` classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.adversarial import attacks, ball, nearest
from jaxdl.adversarial.attacks import Function
from jaxdl.adversarial.ball import Norm
from jaxdl.adversarial.square import square
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key

_BLOCK = 200  # inputs that are attacked side by side, at most


class Result(NamedTuple):
    """What withstood."""

    x: np.ndarray  # [N, ...] the inputs as they are after the attacks
    clean: np.ndarray  # [N] bool: right before any attack
    broken_by: np.ndarray  # [N] object: the attack's name, "" where nothing broke it
    withstood: dict[str, float]  # share of all inputs that are right after each attack


def auto(f: Function, x: Array, labels: Array, epsilon: float, norm: Norm, key: Key, steps: int = 100, queries: int = 5000,
         say: Callable[[str], None] = lambda line: None) -> Result:
    """Attack inputs [N, ...] in [0, 1] with all four.

    Args:
        steps: of each attack by gradients.
        queries: of square.
        say: told what withstood each attack.

    Raises:
        UserError: there are fewer than four classes, which the ratio of differences needs.
    """
    num_classes = jax.eval_shape(f, x[:1]).shape[-1]
    if num_classes < 4:
        raise UserError(f"auto needs four classes or more, of which its ratio of differences is made, and there are "
                        f"{num_classes}; use pgd or apgd_ce")
    of = {"apgd_ce": lambda x, y, k: _bounded(attacks.apgd(f, x, y, epsilon, norm, k, steps)),
          "apgd_t": lambda x, y, k: towards_each(f, x, y, lambda t, k: _bounded(
              attacks.apgd(f, x, y, epsilon, norm, k, steps, t, "dlr")), k),
          "fab_t": lambda x, y, k: towards_each(f, x, y, lambda t, k: within(
              nearest.fab(f, x, y, t, norm, steps), f, x, y, epsilon, norm), k)}
    if x.ndim == 4:
        of["square"] = lambda x, y, k: _bounded(square(f, x, y, epsilon, norm, k, queries))
    moved, labels_there = np.array(x), np.asarray(labels)
    clean = np.concatenate([np.asarray(f(x[i : i + _BLOCK]).argmax(-1)) for i in range(0, len(x), _BLOCK)]) == labels_there
    standing, broken_by, withstood = clean.copy(), np.full(len(x), "", object), {"no attack": float(clean.mean())}
    for n, (name, attack) in enumerate(of.items()):
        program = jax.jit(attack)
        left = np.flatnonzero(standing)
        size = -(-len(left) // max(-(-len(left) // _BLOCK), 1))  # the same for each block: in the last one some come twice
        for i in range(0, len(left), max(size, 1)):
            rows = np.resize(left[i : i + size], size)
            new, wrong = (np.asarray(v) for v in program(x[rows], labels[rows], jax.random.fold_in(key, n * len(x) + i)))
            hit = rows[wrong]
            moved[hit], standing[hit], broken_by[hit] = new[wrong], False, name
        withstood[name] = float(standing.mean())
        say(f"{name}: {standing.mean():.2%} withstand")
    return Result(moved, clean, broken_by, withstood)


def _bounded(found: attacks.Found) -> tuple[Array, Array]:
    return found.x, found.margin < 0


def within(found: nearest.Nearest, f: Function, x: Array, labels: Array, epsilon: float, norm: Norm) -> tuple[Array, Array]:
    """Points that are near enough; what rounding left a hair outside is drawn in, and asked again."""
    inside = ball.project(found.x, x, epsilon, norm)
    near = found.size <= epsilon * (1 + 1e-5)
    return inside, near & (attacks.margin(f(inside), labels) < 0)


def towards_each(f: Function, x: Array, labels: Array, attack: Callable[[Array, Key], tuple[Array, Array]], key: Key
                 ) -> tuple[Array, Array]:
    """An attack towards each of the likeliest other classes in turn: the first point that is wrong, and which there are."""
    order = attacks.likeliest_others(f(x), labels, nearest.TARGETS)

    def body(state: tuple[Array, Array], at: tuple[Array, Key]) -> tuple[tuple[Array, Array], None]:
        kept, wrong = state
        new, hit = attack(*at)
        return (jnp.where(ball.wide(hit & ~wrong, x), new, kept), wrong | hit), None

    keys = jax.random.split(key, order.shape[1])
    return jax.lax.scan(body, (x, jnp.zeros(len(x), bool)), (order.T, keys))[0]
