"""Attacks that look for the smallest change: what they find is as near as they can, and a bound is asked of it afterwards.

    deepfool          steps onto the nearest of the linearized boundaries             Moosavi-Dezfooli, Fawzi & Frossard 2016
    carlini_wagner    min ||d||_2^2 + c max(margin, -kappa) over pixels tanh(w), c searched for by halves     Carlini & Wagner
                      2017
    fab               steps onto the linearized boundary of one other class, between those from the point at hand and those
                      from the input, then back towards the input          Croce & Hein, "Minimally distorted ...", 2020 (FAB-T)
    fab_t             fab towards each of the likeliest other classes

Shapes: `N` inputs, `...` one input, `Y` classes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdl.adversarial import ball
from jaxdl.adversarial.attacks import Function, likeliest_others, margin
from jaxdl.adversarial.ball import Norm
from jaxdl.core.types import Array, Key

TARGETS = 9  # classes that fab_t aims at, at most
_HALVINGS = 40  # of an interval in which a number is searched for


class Nearest(NamedTuple):
    """The nearest wrong points that were found."""

    x: Array  # [N, ...]; the input itself where none was
    size: Array  # [N] in the norm, inf where none was found
    gradients: int  # of one input that were computed


def _closer(best: tuple[Array, Array], x: Array, near: Array, wrong: Array, norm: Norm) -> tuple[Array, Array]:
    size = ball.size(x - near, norm)
    closer = wrong & (size < best[1])
    return jnp.where(ball.wide(closer, x), x, best[0]), jnp.where(closer, size, best[1])


def deepfool(f: Function, x: Array, labels: Array, norm: Norm = "l2", steps: int = 50, overshoot: float = 0.02) -> Nearest:
    """DeepFool, the same steps for all inputs; a point that is wrong stays."""
    num_classes = jax.eval_shape(f, x).shape[-1]
    own = jax.nn.one_hot(labels, num_classes, dtype=bool)

    def jacobian(x: Array) -> tuple[Array, Array]:
        logits, back = jax.vjp(f, x)
        rows = jax.vmap(lambda c: back(jnp.broadcast_to(c, logits.shape))[0])(jnp.eye(num_classes))
        return logits, rows  # [Y, N, ...]

    def body(state: tuple, _: None) -> tuple[tuple, None]:
        now, best = state
        logits, rows = jacobian(now)
        mine = (labels[None] == jnp.arange(num_classes)[:, None])[..., None]
        flat = rows.reshape(*rows.shape[:2], -1)
        way = flat - (flat * mine).sum(0)  # [Y, N, F] of z_c - z_y
        gap = (logits - jnp.where(own, logits, 0).sum(-1, keepdims=True)).T
        length = jnp.abs(way).sum(-1) if norm == "linf" else jnp.sqrt((way**2).sum(-1))
        far = jnp.where(mine[..., 0], jnp.inf, jnp.abs(gap) / jnp.maximum(length, 1e-12))
        nearest = far.argmin(0)[None, :, None]
        way = jnp.take_along_axis(way, nearest, 0)[0]
        far, length = (jnp.take_along_axis(v, nearest[..., 0], 0)[0][:, None] for v in (far, length))
        step = (far + 1e-4) * (jnp.sign(way) if norm == "linf" else way / jnp.maximum(length, 1e-12))
        wrong = margin(logits, labels) < 0
        moved = jnp.where(ball.wide(wrong, now), now, jnp.clip(now + step.reshape(now.shape), 0, 1))
        beyond = jnp.clip(x + (1 + overshoot) * (moved - x), 0, 1)
        return (moved, _closer(best, beyond, x, margin(f(beyond), labels) < 0, norm)), None

    (_, best), _ = jax.lax.scan(body, (x, (x, jnp.full(len(x), jnp.inf))), length=steps)
    return Nearest(*best, steps * num_classes)


def carlini_wagner(f: Function, x: Array, labels: Array, steps: int = 200, rate: float = 0.05, searches: int = 6,
                   first: float = 1.0, kappa: float = 0.0, targets: Array | None = None) -> Nearest:
    """Carlini and Wagner's l2 attack, by Adam; c rises tenfold until something wrong is found, then is searched by halves.

    Args:
        steps: of each search.
        rate: of Adam.
        searches: of c.
        first: the first c.
        kappa: by how much another class must be said.
        targets: classes [N] that are to be said; any wrong one if not given.
    """
    inside = jnp.clip(x, 1e-6, 1 - 1e-6)
    start = jnp.arctanh((2 * inside - 1) * 0.999999)
    optimizer = optax.adam(rate)

    def search(state: tuple, _: None) -> tuple[tuple, None]:
        c, low, high, best = state

        def loss(w: Array) -> tuple[Array, tuple[Array, Array]]:
            point = (jnp.tanh(w) + 1) / 2
            logits = f(point)
            far = margin(logits, labels) if targets is None else -margin(logits, targets)
            size = jnp.square(point - x).reshape(len(x), -1).sum(-1)
            return (size + c * jnp.maximum(far, -kappa)).sum(), (point, far)

        def step(state: tuple, _: None) -> tuple[tuple, None]:
            w, opt, best, found = state
            grad, (point, far) = jax.grad(loss, has_aux=True)(w)
            wrong = far < -kappa
            updates, opt = optimizer.update(grad, opt)
            return (w + updates, opt, _closer(best, point, x, wrong, "l2"), found | wrong), None

        begin = start, optimizer.init(start), best, jnp.zeros(len(x), bool)
        (_, _, best, found), _ = jax.lax.scan(step, begin, length=steps)
        high, low = jnp.where(found, jnp.minimum(c, high), high), jnp.where(found, low, jnp.maximum(c, low))
        c = jnp.where(jnp.isinf(high), 10 * c, (low + high) / 2)
        return (c, low, high, best), None

    num = len(x)
    begin = jnp.full(num, first), jnp.zeros(num), jnp.full(num, jnp.inf), (x, jnp.full(num, jnp.inf))
    (_, _, _, best), _ = jax.lax.scan(search, begin, length=searches)
    return Nearest(*best, steps * searches)


def onto_plane(x: Array, way: Array, gap: Array, norm: Norm) -> Array:
    """The points of [0, 1] nearest to x where way . (z - x) = gap, or as far as the pixels' range lets it: [N, F].

    Args:
        x: [N, F].
        way: [N, F], the plane's normal.
        gap: [N].

    The more a point moves, the nearer it comes: how far is searched for by halves.
    """
    way, gap = way * jnp.sign(gap)[:, None], jnp.abs(gap)

    def moved(far: Array) -> Array:
        step = jnp.sign(way) if norm == "linf" else way
        return jnp.clip(x + far[:, None] * step, 0, 1)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        enough = (way * (moved(middle) - x)).sum(-1) >= gap
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    most = 1.0 if norm == "linf" else 1 / jnp.maximum(jnp.abs(way).max(-1), 1e-12) * jnp.sqrt(way.shape[-1])
    return moved(jax.lax.fori_loop(0, _HALVINGS, halve, (jnp.zeros(len(x)), jnp.zeros(len(x)) + most))[1])


def fab(f: Function, x: Array, labels: Array, targets: Array, norm: Norm = "linf", steps: int = 100, most: float = 0.1,
        beyond: float = 1.05, back: float = 0.9, start: Array | None = None) -> Nearest:
    """FAB towards the class `targets` [N].

    Args:
        most: share of the step that is from the input, alpha's maximum.
        beyond: how far over the boundary, eta.
        back: how near to the point that was found the search goes on, beta.
        start: points [N, ...] to begin at; the inputs if not given.
    """
    num, shape = len(x), x.shape
    origin = x.reshape(num, -1)

    def gap_of(z: Array) -> Array:
        logits = f(z.reshape(shape))
        pick = functools.partial(jnp.take_along_axis, logits, axis=1)
        return (pick(labels[:, None]) - pick(targets[:, None]))[:, 0]

    def body(state: tuple, _: None) -> tuple[tuple, None]:
        now, best = state
        gap, pull = jax.vjp(gap_of, now)
        way = pull(jnp.ones(num))[0]
        near = onto_plane(now, way, -gap, norm)
        of_origin = onto_plane(origin, way, -(gap + (way * (origin - now)).sum(-1)), norm)
        a, b = (ball.size(p - q, norm) for p, q in ((near, now), (of_origin, origin)))
        alpha = jnp.minimum(a / jnp.maximum(a + b, 1e-12), most)[:, None]
        new = (1 - alpha) * (now + beyond * (near - now)) + alpha * (origin + beyond * (of_origin - origin))
        new = jnp.clip(new, 0, 1)
        wrong = margin(f(new.reshape(shape)), labels) < 0
        best = _closer(best, new, origin, wrong, norm)
        new = jnp.where(wrong[:, None], (1 - back) * origin + back * new, new)
        return (new, best), None

    begin = origin if start is None else start.reshape(num, -1)
    (_, best), _ = jax.lax.scan(body, (begin, (origin, jnp.full(num, jnp.inf))), length=steps)
    return Nearest(best[0].reshape(shape), best[1], steps)


def fab_t(f: Function, x: Array, labels: Array, norm: Norm, key: Key, steps: int = 100, restarts: int = 1, within: float = 0.1
          ) -> Nearest:
    """The nearest of what FAB finds towards each of the likeliest other classes.

    Args:
        restarts: rounds over the classes: the first begins at the inputs, others at random points near them.
        within: those points are at most half as far away; the size of change that one has in mind.
    """
    order = likeliest_others(f(x), labels, TARGETS)
    num = order.shape[1]

    def body(best: tuple[Array, Array], at: tuple[Array, Array, Key]) -> tuple[tuple[Array, Array], None]:
        i, targets, key = at
        start = jnp.where(i < num, x, ball.random(key, x, within / 2, norm))
        found = fab(f, x, labels, targets, norm, steps, start=start)
        closer = found.size < best[1]
        return (jnp.where(ball.wide(closer, x), found.x, best[0]), jnp.where(closer, found.size, best[1])), None

    rounds = jnp.arange(num * restarts), jnp.tile(order.T, (restarts, 1)), jax.random.split(key, num * restarts)
    best, _ = jax.lax.scan(body, (x, jnp.full(len(x), jnp.inf)), rounds)
    return Nearest(*best, steps * num * restarts)
