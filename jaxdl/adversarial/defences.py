"""Learning that makes a classifier withstand attacks.

    fgsm       the loss at x + one step from a random point of the ball          Wong, Rice & Kolter 2020
    pgd        the loss at the worst point that several steps find               Madry et al. 2018
    trades     loss(x) + weight KL(p(x) || p(x')), x' where KL is largest        Zhang et al. 2019
    interval   share loss(x) + (1 - share) loss(the worst that bounds allow)     Gowal et al. 2018 (`intervals`)
    noise      the loss at x + normal noise, for randomized smoothing            Cohen, Rosenfeld & Kolter 2019 (`smoothing`)

Attacks are on the network as it predicts (running statistics, nothing dropped); it learns from what they found as it learns
from anything. With `ramp` epsilon, and of `interval` the share of the bounds, rise evenly from zero.

Without `random_start` fgsm begins at x itself, and what it learns withstands fgsm alone ("catastrophic overfitting").

Shapes: `B` batch, `...` one input, `Y` classes.
"""

from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.adversarial import attacks, ball, intervals
from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require
from jaxdl.core.types import Array, Key, PyTree
from jaxdl.ops import losses

Function = Callable[[Array], Array]  # inputs [B, ...] -> logits [B, Y]
Learn = Callable[[Array], tuple[Array, PyTree]]  # inputs -> outputs and new statistics, as the network is while it learns


@settings
class Config:
    """How it is made to withstand."""

    applies: ClassVar = {
        "epsilon": ("defence", "fgsm", "pgd", "trades", "interval", "noise"), "attack_steps": ("defence", "pgd", "trades"),
        "attack_step": ("defence", "fgsm", "pgd", "trades"), "random_start": ("defence", "fgsm", "pgd"),
        "trades_weight": ("defence", "trades"), "natural": ("defence", "interval"),
        "ramp": ("defence", "fgsm", "pgd", "trades", "interval"), "defence_norm": ("defence", "fgsm", "pgd", "trades")}

    defence: Literal["fgsm", "pgd", "trades", "interval", "noise"] | None = None
    """Learn to withstand changes of the inputs: by attacks of one step or several, by both losses of TRADES, by bounds on what
    any change could do, or by noise (for randomized smoothing)."""
    epsilon: float = 0.1
    """Size of the changes, of pixels from 0 to 1; of noise its deviation."""
    defence_norm: ball.Norm = "linf"
    """How changes are measured."""
    attack_steps: int = 10
    """Steps of the attacks."""
    attack_step: float | None = None
    """Length of each; 2.5 epsilon / attack_steps if not given, of fgsm 1.25 epsilon."""
    random_start: bool = True
    """Attacks begin at a random point of the ball."""
    trades_weight: float = 6.0
    """Weight of the divergence."""
    natural: float = 0.5
    """Share of the loss that is of inputs as they are, at last."""
    ramp: float = 0.0
    """Share of the updates, from the first, over which epsilon rises to its value."""


class Learned(NamedTuple):
    """What an update minimizes and reports."""

    loss: Array  # [B]
    metrics: dict[str, Array]  # [B] each
    stats: PyTree


def validate(config: Config) -> None:
    """Refuse settings that make no sense.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    refuse_idle(config)
    most = 1.0 if config.defence_norm == "linf" and config.defence != "noise" else jnp.inf
    require(config, "epsilon", 0 < config.epsilon <= most, f"above 0 and at most {most:g}: pixels are from 0 to 1")
    require(config, "attack_steps", 0 < config.attack_steps <= 10_000, "between 1 and 10,000")
    require(config, "attack_step", config.attack_step is None or config.attack_step > 0, "above 0")
    require(config, "trades_weight", config.trades_weight >= 0, "0 or above")
    require(config, "natural", 0 <= config.natural <= 1, "between 0 and 1")
    require(config, "ramp", 0 <= config.ramp <= 1, "between 0 and 1")


def learned(config: Config, f: Function, learn: Learn, inputs: Array, labels: Array, key: Key, done: Array) -> Learned:
    """The loss of a batch under a defence.

    Args:
        config: whose `defence` is not None.
        f: the network as it predicts.
        learn: the network as it learns.
        inputs: in [0, 1].
        labels: int [B].
        key: of random points and noise.
        done: share of the updates that were made, 0 to 1.
    """
    grown = jnp.minimum(1.0, (done + 1e-9) / jnp.maximum(config.ramp, 1e-9))
    epsilon, num = config.epsilon * grown, len(inputs)
    right = lambda outputs: outputs.argmax(-1) == labels  # noqa: E731
    if config.defence == "interval":
        outputs, stats = learn(inputs)
        worst = intervals.worst_margins(lambda x: learn(x)[0], inputs, labels, epsilon)
        of, of_worst = losses.cross_entropy(outputs, labels), losses.cross_entropy(worst, labels)
        share = 1 - (1 - config.natural) * grown
        others = jnp.where(jax.nn.one_hot(labels, worst.shape[-1], dtype=bool), -jnp.inf, worst)
        metrics = {"accuracy": right(outputs), "certified_accuracy": others.max(-1) < 0}
        return Learned(share * of + (1 - share) * of_worst, metrics, stats)
    if config.defence == "noise":
        outputs, stats = learn(inputs + config.epsilon * jax.random.normal(key, inputs.shape))
        return Learned(losses.cross_entropy(outputs, labels), {"noisy_accuracy": right(outputs)}, stats)
    moved = jax.lax.stop_gradient(_worst(config, f, inputs, labels, epsilon, key))
    if config.defence == "trades":
        outputs, stats = learn(jnp.concatenate([inputs, moved]))
        plain, under = outputs[:num], outputs[num:]
        of = losses.cross_entropy(plain, labels) + config.trades_weight * divergence(plain, under)
        return Learned(of, {"accuracy": right(plain), "robust_accuracy": right(under)}, stats)
    outputs, stats = learn(moved)
    return Learned(losses.cross_entropy(outputs, labels), {"robust_accuracy": right(outputs)}, stats)


def divergence(logits: Array, others: Array) -> Array:
    """KL(softmax(logits) || softmax(others)), [B]."""
    p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    return (jnp.exp(p) * (p - q)).sum(-1)


def _worst(config: Config, f: Function, inputs: Array, labels: Array, epsilon: Array, key: Key) -> Array:
    """The points that are learned from."""
    norm, steps = config.defence_norm, 1 if config.defence == "fgsm" else config.attack_steps
    length = 1.25 * epsilon if config.defence == "fgsm" else 2.5 * epsilon / steps
    if config.attack_step is not None:
        length = config.attack_step * epsilon / config.epsilon
    elif config.defence == "fgsm" and not config.random_start:
        length = epsilon
    if config.defence == "trades":  # from a little beside the inputs, where the divergence is 0
        said = f(inputs)
        loss = lambda x: divergence(said, f(x))  # noqa: E731
        start = ball.project(inputs + 1e-3 * jax.random.normal(key, inputs.shape), inputs, epsilon, norm)
    else:
        loss = lambda x: losses.cross_entropy(f(x), labels)  # noqa: E731
        start = ball.random(key, inputs, epsilon, norm) if config.random_start else inputs
    return attacks.ascended(loss, start, inputs, epsilon, norm, steps, length)
