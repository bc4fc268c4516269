"""Attacks by gradients.

    noise      a uniform point of the ball: the control
    fgsm       x + epsilon sign(grad)                                  Goodfellow, Shlens & Szegedy 2015
    bim        steps of fgsm, each projected into the ball             Kurakin, Goodfellow & Bengio 2017
    pgd        the same from random points, the worst of R restarts    Madry et al. 2018
    momentum   bim along a sum of gradients, each of length 1 in l1    Dong et al. 2018
    apgd       steps that are halved when they no longer help, with momentum (Croce & Hein 2020), by cross-entropy or by the
               difference of logits ratio,

        DLR = -(z_y - max_{c != y} z_c) / (z_(1) - z_(3))              z_(i) the i-th largest
        towards t: -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2)

Each loss rises where the right class becomes less likely, or with `targets` where the other class becomes more likely. What is
returned is, of all points that were seen, the one that is wrong by most, within the ball to the last bit (`ball`).

Shapes: `N` inputs, `...` one input, `Y` classes, `R` restarts, `T` steps.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.adversarial import ball
from jaxdl.adversarial.ball import Norm
from jaxdl.core.types import Array, Key
from jaxdl.ops import losses

Function = Callable[[Array], Array]  # inputs [N, ...] -> logits [N, Y]
Loss = Literal["cross_entropy", "dlr", "margin"]
Attack = Literal["noise", "fgsm", "bim", "pgd", "momentum", "apgd_ce", "apgd_dlr"]


class Found(NamedTuple):
    """What an attack found."""

    x: Array  # [N, ...]
    margin: Array  # [N]: z_y - max_{c != y} z_c, below 0 where the attack succeeded
    gradients: int  # of one input that were computed
    queries: Array | int = 0  # [N]: how often the network was asked until the attack succeeded, of attacks that ask alone


def margin(logits: Array, labels: Array) -> Array:
    """z_y - max_{c != y} z_c, [N]: below 0 where another class is said."""
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.where(own, logits, 0).sum(-1) - jnp.where(own, -jnp.inf, logits).max(-1)


def likeliest_others(logits: Array, labels: Array, num: int) -> Array:
    """The `num` classes that are said to be likeliest but for the right one, [N, num]; fewer where there are fewer."""
    own = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.argsort(-jnp.where(own, -jnp.inf, logits), -1)[:, : min(num, logits.shape[-1] - 1)]


def loss_of(logits: Array, labels: Array, loss: Loss) -> Array:
    """What an attack raises, [N]."""
    if loss == "cross_entropy":
        return losses.cross_entropy(logits, labels)
    if loss == "margin":
        return -margin(logits, labels)
    top = jax.lax.top_k(logits, 3)[0]
    return -margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_loss(logits: Array, labels: Array, targets: Array, loss: Loss) -> Array:
    """What an attack towards a class raises, [N]; dlr needs four classes."""
    if loss != "dlr":
        return -loss_of(logits, targets, loss)
    top = jax.lax.top_k(logits, 4)[0]
    own, other = (jnp.take_along_axis(logits, c[:, None], 1)[:, 0] for c in (labels, targets))
    return -(own - other) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def _gradient(f: Function, x: Array, labels: Array, targets: Array | None, loss: Loss) -> tuple[Array, Array, Array]:
    """The loss [N], its gradient [N, ...], and the margin of the right class [N]."""
    def total(x: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = f(x)
        of = loss_of(logits, labels, loss) if targets is None else targeted_loss(logits, labels, targets, loss)
        return of.sum(), (of, margin(logits, labels))

    grad, (of, far) = jax.grad(total, has_aux=True)(x)
    return of, grad, far


def _worse(best: tuple[Array, Array], x: Array, far: Array) -> tuple[Array, Array]:
    """Of each input the point with the lower margin."""
    worse = far < best[1]
    return jnp.where(ball.wide(worse, x), x, best[0]), jnp.where(worse, far, best[1])


def ascended(loss: Callable[[Array], Array], start: Array, near: Array, epsilon: float | Array, norm: Norm, steps: int,
             length: float | Array, project: Callable[..., Array] = ball.project) -> Array:
    """Where steps of steepest ascent of a loss [N] end, each projected into the ball around `near`."""
    def step(_: int, x: Array) -> Array:
        return project(x + length * ball.steepest(jax.grad(lambda x: loss(x).sum())(x), norm), near, epsilon, norm)

    return jax.lax.fori_loop(0, steps, step, start)


def noise(f: Function, x: Array, labels: Array, epsilon: float | Array, norm: Norm, key: Key) -> Found:
    """A uniform point of the ball."""
    moved = ball.random(key, x, epsilon, norm)
    return Found(moved, margin(f(moved), labels), 0)


def iterated(f: Function, x: Array, labels: Array, epsilon: float | Array, norm: Norm, steps: int = 40,
             step: float | Array | None = None, key: Key | None = None, targets: Array | None = None,
             loss: Loss = "cross_entropy", decay: float | None = None) -> Found:
    """Steps of steepest ascent, each projected into the ball: fgsm (one step of epsilon), bim, pgd (with a key), momentum.

    Args:
        step: length of each; 2.5 epsilon / T if not given (Madry et al. 2018).
        key: begin at a random point of the ball.
        targets: classes [N] that are to be said; any wrong one if not given.
        loss: that is raised.
        decay: of the sum of gradients (momentum); None: each by itself.
    """
    length = 2.5 * epsilon / steps if step is None else step
    start = x if key is None else ball.random(key, x, epsilon, norm)

    def body(state: tuple, _: None) -> tuple[tuple, None]:
        now, best, total = state
        _, grad, far = _gradient(f, now, labels, targets, loss)
        best = _worse(best, now, far)
        if decay is not None:
            total = decay * total + grad / jnp.maximum(jnp.abs(grad).sum(tuple(range(1, x.ndim)), keepdims=True), 1e-30)
            grad = total
        now = ball.project(now + length * ball.steepest(grad, norm), x, epsilon, norm)
        return (now, best, total), None

    begin = start, (x, jnp.full(len(x), jnp.inf)), jnp.zeros_like(x) if decay is not None else None
    (now, best, _), _ = jax.lax.scan(body, begin, length=steps)
    best = _worse(best, now, margin(f(now), labels))
    return Found(*best, steps)


def fgsm(f: Function, x: Array, labels: Array, epsilon: float | Array, norm: Norm, targets: Array | None = None) -> Found:
    """One step of length epsilon; what it gives is the step's end, whatever was seen before."""
    _, grad, _ = _gradient(f, x, labels, targets, "cross_entropy")
    moved = ball.project(x + epsilon * ball.steepest(grad, norm), x, epsilon, norm)
    return Found(moved, margin(f(moved), labels), 1)


def restarted(attack: Callable[[Key], Found], key: Key, num: int) -> Found:
    """The worst of `num` attacks, each with a key of its own; one after the other, in one program."""
    keys = jax.random.split(key, num)
    first = attack(keys[0])

    def body(state: tuple[Array, Array, Array], key: Key) -> tuple[tuple[Array, Array, Array], None]:
        x, far, asked = state
        found = attack(key)
        return (*_worse((x, far), found.x, found.margin), asked + jnp.where(far > 0, found.queries, 0)), None

    asked = jnp.zeros(len(first.x), jnp.int32) + first.queries
    (x, far, asked), _ = jax.lax.scan(body, (first.x, first.margin, asked), keys[1:])
    return Found(x, far, num * first.gradients, asked)


def apgd(f: Function, x: Array, labels: Array, epsilon: float | Array, norm: Norm, key: Key, steps: int = 100,
         targets: Array | None = None, loss: Loss = "cross_entropy", momentum: float = 0.75, least: float = 0.75) -> Found:
    """Auto-PGD: steps begin at 2 epsilon, and are halved at checkpoints after which the loss rose too seldom, or no more.

    Checkpoints come at shares 0, 0.22, 0.41, ... of the steps, each distance 0.03 shorter than the one before and 0.06 at
    least; where the step is halved the search goes on from its best point (Croce & Hein 2020, algorithm 1).

    Args:
        key: of the random start.
        momentum: share of a step that is new, alpha.
        least: share of the steps between two checkpoints in which the loss must rise, rho.
    """
    at = jnp.asarray(_checkpoints(steps))
    start = ball.random(key, x, epsilon, norm)
    of, grad, far = _gradient(f, start, labels, targets, loss)
    num = len(x)

    class State(NamedTuple):
        now: Array
        before: Array
        grad: Array
        of: Array
        top: Array  # the point with the highest loss
        top_grad: Array
        top_of: Array
        length: Array  # [N]
        rises: Array  # [N] since the checkpoint
        same_length: Array  # [N] bool: the step was not halved at the last checkpoint
        top_then: Array  # [N] highest loss at the last checkpoint
        worst: tuple[Array, Array]

    def body(state: State, k: Array) -> tuple[State, None]:
        stride = ball.wide(state.length, x)
        ahead = ball.project(state.now + stride * ball.steepest(state.grad, norm), x, epsilon, norm)
        share = jnp.where(k == 0, 1.0, momentum)
        new = ball.project(state.now + share * (ahead - state.now) + (1 - share) * (state.now - state.before), x, epsilon, norm)
        of, grad, far = _gradient(f, new, labels, targets, loss)
        higher = of > state.top_of
        top, top_grad = (jnp.where(ball.wide(higher, x), a, b) for a, b in ((new, state.top), (grad, state.top_grad)))
        top_of, rises = jnp.where(higher, of, state.top_of), state.rises + (of > state.of)
        check = (at == k + 1).any()
        since = (k + 1 - jnp.where(at < k + 1, at, 0).max()).astype(jnp.float32)
        halve = check & ((rises < least * since) | (state.same_length & (state.top_then == top_of)))
        back = ball.wide(halve, x)
        return State(jnp.where(back, top, new), jnp.where(back, top, state.now), jnp.where(back, top_grad, grad),
                     jnp.where(halve, top_of, of), top, top_grad, top_of, jnp.where(halve, state.length / 2, state.length),
                     jnp.where(check, 0, rises), jnp.where(check, ~halve, state.same_length),
                     jnp.where(check, top_of, state.top_then), _worse(state.worst, new, far)), None

    begin = State(start, start, grad, of, start, grad, of, jnp.full(num, 2.0 * epsilon), jnp.zeros(num, jnp.int32),
                  jnp.zeros(num, bool), of, _worse((x, jnp.full(num, jnp.inf)), start, far))
    end, _ = jax.lax.scan(body, begin, jnp.arange(steps))
    return Found(*end.worst, steps + 1)


def _checkpoints(steps: int) -> list[int]:
    """Steps after which the length may be halved."""
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return sorted({-(-round(share * steps * 1e6) // 1_000_000) for share in shares if 0 < share <= 1})
