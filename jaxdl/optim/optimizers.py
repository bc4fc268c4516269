"""Optimizers: one function from a config to a pair of pure functions, `init` and `step`.

A step clips the gradient, adds penalties, applies the rule, decays kernels, scales by the learning rate, and brings the
incoming weights of each unit back within their norm, in this order. Rules that need the loss itself `descend` (`minimize`).
Every number may be a traced array (a population over learning rates is one program).

The chain of transforms works on all parameters as one vector (Muon's and SOAP's on kernels as matrices): on a CPU that is as
fast as on a tree, compiles in half the time, and leaves a state of few arrays, each of which costs microseconds in a call from
the host.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxdl.core import axis
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, PyTree
from jaxdl.nn.kernels import as_matrix, is_kernel, only_kernels
from jaxdl.optim.config import NEEDS_LOSS, Config
from jaxdl.optim.kfac import kfac
from jaxdl.optim.muon import scale_by_muon
from jaxdl.optim.schedules import learning_rate
from jaxdl.optim.second_order import lbfgs, newton_cg
from jaxdl.optim.soap import scale_by_soap


class Step(Protocol):
    """One update of the parameters."""

    def __call__(self, grads: PyTree, opt: PyTree, params: PyTree, axis_name: str | None = None) -> tuple[PyTree, PyTree]:
        """Parameters and state after one update with the mean of `grads` over the shards of `axis_name`."""


class Optimizer(NamedTuple):
    """An optimizer as pure functions."""

    init: Callable[[PyTree], PyTree]  # (params) -> state
    step: Step
    descend: Callable[..., tuple[PyTree, PyTree, Any]] | None = None  # of rules that need the loss: see `minimize`


def make(config: Config, horizon: int) -> Optimizer:
    """The optimizer of a config; `horizon` is the number of planned updates, past which schedules hold their end value."""
    if config.optimizer in NEEDS_LOSS:
        init, unbounded = _descending(config, horizon)

        def descend(*args: Any) -> tuple[PyTree, PyTree, Any]:
            params, opt, aux = unbounded(*args)
            return within_norm(params, config.max_norm), opt, aux

        return Optimizer(init, _needs_loss(config), descend)
    tx = transform(config, horizon)

    def step(grads: PyTree, opt: PyTree, params: PyTree, axis_name: str | None = None) -> tuple[PyTree, PyTree]:
        updates, opt = tx.update(axis.mean_over(grads, axis_name), opt, params)
        return within_norm(jax.tree.map(jnp.add, params, updates), config.max_norm), opt

    return Optimizer(tx.init, step)


def transform(config: Config, horizon: int) -> optax.GradientTransformation:
    """The optimizer as optax's transform. `update` needs the parameters, and its updates are added to them.

    Raises:
        UserError: the rule needs the loss itself.
    """
    if config.optimizer in NEEDS_LOSS:
        _needs_loss(config)()

    moments = config.beta1, config.beta2, config.eps

    def adam() -> optax.GradientTransformation:
        how = optax.scale_by_adam if config.bias_correction else _adam_uncorrected
        return how(*moments)

    rules: dict[str, Callable[[], optax.GradientTransformation]] = {
        "sgd": optax.identity,
        "momentum": lambda: optax.trace(config.momentum),
        "nesterov": lambda: optax.trace(config.momentum, nesterov=True),
        "adagrad": lambda: optax.scale_by_rss(0.0, config.eps**2),  # within the root
        "rmsprop": lambda: optax.scale_by_rms(config.rms_decay, config.eps, eps_in_sqrt=False),
        "adam": adam,
        "adamw": adam,
        "muon": lambda: scale_by_muon(config.momentum, adam()),
        "soap": lambda: scale_by_soap(*moments, config.soap_every, config.bias_correction, adam()),
    }
    chain = [*_before(config), rules[config.optimizer]()]
    decay = 0.01 if config.weight_decay is None and config.optimizer == "adamw" else config.weight_decay
    if decay is not None:
        chain.append(optax.add_decayed_weights(decay))
    chain.append(_by_rate(config, horizon))
    on = _on_tree if config.optimizer in ("muon", "soap") else _on_one_vector
    return on(optax.chain(*chain), config.penalize_biases)


def within_norm(params: PyTree, max_norm: float | Array | None) -> PyTree:
    """The parameters, each unit's incoming weights (a column of `nn.kernels.as_matrix`) at most `max_norm` long."""
    if max_norm is None:
        return params

    def shortened(path: tuple, w: Array) -> Array:
        if not is_kernel(path, w):
            return w
        matrix = as_matrix(w)
        length = jnp.linalg.norm(matrix, axis=-2, keepdims=True)
        return (matrix * jnp.minimum(1.0, max_norm / jnp.maximum(length, 1e-30))).reshape(w.shape)

    return jax.tree_util.tree_map_with_path(shortened, params)


def _before(config: Config) -> list[optax.GradientTransformation]:
    """What comes before the rule: clipping, then penalties."""
    chain = []
    if config.max_grad_norm is not None:
        chain.append(optax.clip_by_global_norm(config.max_grad_norm))
    if config.l1 is not None or config.l2 is not None:
        chain.append(optax.stateless(lambda grads, kernels: jax.tree.map(
            lambda g, w: g + _penalty_gradient(w, config.l1, config.l2), grads, kernels)))
    return chain


def _by_rate(config: Config, horizon: int) -> optax.GradientTransformation:
    """What comes last: the learning rate, and the sign."""
    if config.schedule == "constant" and config.warmup_fraction is None:
        return optax.scale(-config.learning_rate)
    rate = learning_rate(config, horizon)
    return optax.scale_by_schedule(lambda count: -rate(count))


def _descending(config: Config, horizon: int) -> tuple[Callable, Callable]:
    """`init` and `descend` of a rule that needs the loss."""
    if config.optimizer == "kfac":
        before = _on_one_vector(optax.chain(optax.identity(), *_before(config)), config.penalize_biases)
        after = _on_one_vector(optax.chain(optax.trace(config.momentum), _by_rate(config, horizon)), False)
        return kfac(config, learning_rate(config, horizon), before, after)

    def penalty(params: PyTree) -> Array:
        squares = (jnp.square(w).sum() for w in jax.tree.leaves(only_kernels(params, config.penalize_biases)))
        return jnp.zeros(()) if config.l2 is None else config.l2 / 2 * sum(squares)

    return {"lbfgs": lbfgs, "newton_cg": newton_cg}[config.optimizer](config, penalty)


def _needs_loss(config: Config) -> Callable:
    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(f"optimizer={config.optimizer} needs the loss, and a step has its gradient alone; use optim.minimize")

    return refuse


def _adam_uncorrected(beta1: float | Array, beta2: float | Array, eps: float | Array) -> optax.GradientTransformation:
    """`optax.scale_by_adam` without the correction of means that begin at zero."""
    def update(grads: PyTree, state: optax.ScaleByAdamState, params: PyTree | None = None) -> tuple[PyTree, PyTree]:
        del params
        mu = optax.tree.update_moment(grads, state.mu, beta1, 1)
        nu = optax.tree.update_moment(grads, state.nu, beta2, 2)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu), optax.ScaleByAdamState(state.count + 1, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def is_schedule(x: PyTree) -> bool:
    """Whether a part of an optimizer's state counts the updates of its schedule."""
    return isinstance(x, optax.ScaleByScheduleState)


def at_update(opt: PyTree, count: Array) -> PyTree:
    """The state of an optimizer whose schedules have come to update `count`, int32 ()."""
    return jax.tree.map(lambda x: x._replace(count=count) if is_schedule(x) else x, opt, is_leaf=is_schedule)


def _penalty_gradient(kernels: Array, l1: Array | None, l2: Array | None) -> Array:
    """Gradient of `l1 * sum |w| + l2 / 2 * sum w^2`."""
    return (0.0 if l1 is None else l1 * jnp.sign(kernels)) + (0.0 if l2 is None else l2 * kernels)


def _on_one_vector(tx: optax.GradientTransformation, biases: bool) -> optax.GradientTransformation:
    """`tx` on raveled trees; the parameters it gets are zero where they are no kernels (and, with `biases`, no biases)."""

    def update(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        grad, unravel = ravel_pytree(grads)
        step, state = tx.update(grad, state, ravel_pytree(only_kernels(params, biases))[0])
        return unravel(step), state

    return optax.GradientTransformation(lambda params: tx.init(ravel_pytree(params)[0]), update)


def _on_tree(tx: optax.GradientTransformation, biases: bool) -> optax.GradientTransformation:
    """`tx` on trees as they are; as in `_on_one_vector`, its parameters are zero where nothing is penalized."""
    return optax.GradientTransformation(
        tx.init, lambda grads, state, params: tx.update(grads, state, only_kernels(params, biases)))
