"""Optimizers, learning-rate schedules, clipping, decay and accumulation: one function from a config to optax.

Every number may be a traced array (a population over learning rates is one program), so schedules are written in jnp.

A schedule is a function of the share f of the planned updates (the horizon) that is done, after a linear rise over
`warmup_fraction`; with e = `final_fraction` what is left of the learning rate at f = 1, and held from there on:

    constant 1    linear 1 + f (e - 1)    cosine e + (1 - e) (1 + cos(pi f)) / 2 (Loshchilov & Hutter 2017)
    exponential e^f    inverse_time 1 / (1 + f (1/e - 1))    step e^(floor(f * lr_steps) / lr_steps)

The chain of transforms works on all parameters as one vector (Muon's on kernels as matrices): on a CPU that is as fast as on
a tree, compiles in half the time, and leaves a state of few arrays, each of which costs microseconds in a call from the host.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Key, Mean, PyTree
from jaxdl.nn.precision import switched
from jaxdl.optim.muon import scale_by_muon


@settings
class Config:
    """Settings of the optimizer. Decay and penalties are for kernels (`is_kernel`)."""

    optimizer: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon"] = "adam"
    """Rule of the update; adamw decouples weight decay from the gradient (Loshchilov & Hutter 2019), muon brings
    the singular values of kernels' updates near one another (Jordan et al. 2024)."""
    learning_rate: float = 1e-3
    """Size of a step (PyTorch's default for Adam)."""
    schedule: Literal["constant", "linear", "cosine", "exponential", "inverse_time", "step"] = "constant"
    """How the learning rate falls over the planned updates."""
    final_fraction: float = 0.0
    """Share of the learning rate that is left at the planned end; above 0 for exponential, inverse_time and step."""
    lr_steps: int = 3
    """Steps down of the step schedule, evenly over the run."""
    warmup_fraction: float | None = None
    """Share of the planned updates over which the learning rate rises linearly; of n updates, the first has 1 / n."""
    momentum: float = 0.9
    """Decay of the velocity (momentum, nesterov, muon; Jordan et al. have 0.95 for muon)."""
    beta1: float = 0.9
    """Decay of Adam's mean of gradients (Kingma & Ba 2015)."""
    beta2: float = 0.999
    """Decay of Adam's mean of squared gradients (Kingma & Ba 2015)."""
    rms_decay: float = 0.99
    """Decay of RMSProp's mean of squared gradients (PyTorch)."""
    eps: float = 1e-8
    """Added to the root in the denominator of adagrad, rmsprop and Adam (Kingma & Ba 2015)."""
    max_grad_norm: float | None = None
    """Clip the gradient to this global norm before anything else; SB3's DQN has 10."""
    weight_decay: float | None = None
    """Decoupled weight decay of kernels, per unit of learning rate (adamw, 0.01 if not given: PyTorch; muon)."""
    l1: float | None = None
    """Penalty on the absolute values of kernels, added to the loss's gradient."""
    l2: float | None = None
    """Penalty on half the squares of kernels, added to the loss's gradient."""
    accumulate: int = 1
    """Microbatches that a batch is cut into, one after the other: less memory, the same gradient."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """What dense and convolutional layers multiply in while they learn; parameters, losses and statistics stay float32."""
    remat: bool = False
    """Keep only what goes into the blocks of a network, and compute the rest again in the backward pass: less memory."""


def validate(config: Config, batch_size: int | None = None) -> None:
    """Refuse settings that make no sense, or do not fit the batch.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "learning_rate", "lr_steps", "eps", "max_grad_norm", "accumulate")
    for field in ("weight_decay", "l1", "l2"):
        value = getattr(config, field)
        require(config, field, value is None or 0 <= value < float("inf"), "0 or above")
    for field in ("momentum", "beta1", "beta2", "rms_decay", "warmup_fraction"):
        value = getattr(config, field)
        require(config, field, value is None or 0 <= value < 1, "at least 0 and below 1")
    needs = config.schedule in ("exponential", "inverse_time", "step")
    require(config, "final_fraction", 0 <= config.final_fraction <= 1 and not (needs and config.final_fraction == 0),
            f"{'above' if needs else 'at least'} 0 and at most 1 for schedule={config.schedule}")
    if config.weight_decay is not None and config.optimizer not in ("adamw", "muon"):
        raise UserError(f"weight_decay is of adamw and muon, and optimizer is {config.optimizer}; use l2, or optimizer=adamw")
    if batch_size is not None:
        _check_divides(config.accumulate, batch_size)


def _check_divides(accumulate: int, batch_size: int) -> None:
    if batch_size % accumulate:
        raise UserError(f"accumulate={accumulate} must divide the batch of {batch_size}")


def learning_rate(config: Config, horizon: int) -> Callable[[Array], Array]:
    """`updates done -> learning rate`; both may be traced. `horizon` is the number of planned updates."""

    def rate(count: Array) -> Array:
        count = jnp.asarray(count, jnp.float32)
        warmup = 0.0 if config.warmup_fraction is None else config.warmup_fraction * horizon  # updates
        f = jnp.clip((count - warmup) / (horizon - warmup), 0.0, 1.0)
        e = jnp.asarray(config.final_fraction, jnp.float32)
        left = {
            "constant": lambda: jnp.ones(()),
            "linear": lambda: 1.0 + f * (e - 1.0),
            "cosine": lambda: e + (1.0 - e) * 0.5 * (1.0 + jnp.cos(jnp.pi * f)),
            "exponential": lambda: e**f,
            "inverse_time": lambda: 1.0 / (1.0 + f * (1.0 / e - 1.0)),
            "step": lambda: e ** (jnp.floor(f * config.lr_steps) / config.lr_steps),
        }[config.schedule]()
        if config.warmup_fraction is not None:
            left = left * jnp.minimum((count + 1.0) / jnp.maximum(warmup, 1.0), 1.0)
        return config.learning_rate * left

    return rate


def make(config: Config, horizon: int) -> optax.GradientTransformation:
    """The optimizer, as a chain of optax's transforms: clip, penalize, precondition, decay, scale.

    `horizon` is the number of planned updates; schedules hold their end value past it. `update` needs the parameters,
    and what it returns is added to them.
    """
    rules: dict[str, Callable[[], optax.GradientTransformation]] = {
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(config.momentum),
        "nesterov": lambda: optax.trace(config.momentum, nesterov=True),
        "adagrad": lambda: optax.scale_by_rss(0.0, config.eps**2),  # within the root
        "rmsprop": lambda: optax.scale_by_rms(config.rms_decay, config.eps, eps_in_sqrt=False),
        "adam": lambda: optax.scale_by_adam(config.beta1, config.beta2, config.eps),
        "adamw": lambda: optax.scale_by_adam(config.beta1, config.beta2, config.eps),
        "muon": lambda: scale_by_muon(
            config.momentum, optax.scale_by_adam(config.beta1, config.beta2, config.eps), is_kernel),
    }
    chain = []
    if config.max_grad_norm is not None:
        chain.append(optax.clip_by_global_norm(config.max_grad_norm))
    if config.l1 is not None or config.l2 is not None:
        chain.append(optax.stateless(lambda grads, kernels: jax.tree.map(
            lambda g, w: g + _penalty_gradient(w, config.l1, config.l2), grads, kernels)))
    chain.append(rules[config.optimizer]())
    decay = 0.01 if config.weight_decay is None and config.optimizer == "adamw" else config.weight_decay
    if decay is not None:
        chain.append(optax.add_decayed_weights(decay))
    if config.schedule == "constant" and config.warmup_fraction is None:
        chain.append(optax.scale(-config.learning_rate))
    else:
        rate = learning_rate(config, horizon)
        chain.append(optax.scale_by_schedule(lambda count: -rate(count)))
    return (_on_matrices if config.optimizer == "muon" else _on_one_vector)(optax.chain(*chain))


def _penalty_gradient(kernels: Array, l1: Array | None, l2: Array | None) -> Array:
    """Gradient of `l1 * sum |w| + l2 / 2 * sum w^2`."""
    return (0.0 if l1 is None else l1 * jnp.sign(kernels)) + (0.0 if l2 is None else l2 * kernels)


def _on_one_vector(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx` on trees, raveled; what it gets as parameters is zero where they are no kernels."""

    def update(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        grad, unravel = ravel_pytree(grads)
        step, state = tx.update(grad, state, ravel_pytree(_kernels(params))[0])
        return unravel(step), state

    return optax.GradientTransformation(lambda params: tx.init(ravel_pytree(params)[0]), update)


def _on_matrices(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx` on the trees as they are; as in `_on_one_vector`, its parameters are zero where they are no kernels."""
    return optax.GradientTransformation(tx.init, lambda grads, state, params: tx.update(grads, state, _kernels(params)))


def is_kernel(path: tuple, leaf: Array) -> bool:
    """Whether a parameter maps inputs to outputs: of two or more axes, and no bias or scale of layers that are stacked."""
    return leaf.ndim > 1 and not str(getattr(path[-1], "key", "") if path else "").endswith(("bias", "scale"))


def _kernels(params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, p: p if is_kernel(path, p) else jnp.zeros_like(p), params)


def gradients(loss_fn: Callable[..., tuple[Array, Any]], params: PyTree, batch: PyTree, key: Key, config: Config,
              batch_axis: PyTree = 0) -> tuple[PyTree, Any]:
    """Gradient of a loss that is a mean over the batch, and what the loss says beside it.

    Microbatches are scanned (`optax.MultiSteps` has a `cond` inside). Each has a key of its own, so noise differs from
    that of the whole batch.

    Args:
        loss_fn: `(params, batch, key) -> (loss (), aux)`; `aux` holds `types.Mean`s and arrays [B, ...].
        batch: a pytree of arrays [B, ...].
        config: how: `accumulate` microbatches, which must divide B, in `compute`, with `remat`.
        batch_axis: the axis of B in each array, like `in_axes` of `jax.vmap`: an integer, or a prefix of `batch` of integers.

    Returns:
        The gradient, a tree like `params`, and `aux` of the whole batch: means merged, arrays put together.

    Raises:
        UserError: `accumulate` does not divide the batch.
    """
    grad, accumulate = jax.grad(switched(loss_fn, config.compute, config.remat), has_aux=True), config.accumulate
    if accumulate == 1:
        return grad(params, batch, key)

    def cut(axis: int, part: PyTree) -> PyTree:
        """Microbatches of arrays, stacked along a new first axis."""
        def of_one(x: Array) -> Array:
            _check_divides(accumulate, x.shape[axis])
            return jnp.moveaxis(x.reshape(*x.shape[:axis], accumulate, -1, *x.shape[axis + 1:]), axis, 0)

        return jax.tree.map(of_one, part)

    parts = jax.tree.map(cut, batch_axis, batch)

    def body(total: PyTree, part: tuple[PyTree, Key]) -> tuple[PyTree, Any]:
        grads, aux = grad(params, *part)
        return jax.tree.map(jnp.add, total, grads), aux

    def whole(x: Mean | Array) -> Mean | Array:
        return Mean(*(v.sum(0) for v in x)) if isinstance(x, Mean) else x.reshape(-1, *x.shape[2:])

    total, aux = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, params), (parts, jax.random.split(key, accumulate)))
    grads = jax.tree.map(lambda g: g / accumulate, total)
    return grads, jax.tree.map(whole, aux, is_leaf=lambda x: isinstance(x, Mean))
