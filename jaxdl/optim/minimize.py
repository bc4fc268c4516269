"""One update that lowers a loss over a batch, by whichever rule the settings name.

First-order rules take the gradient and step. Rules that need more of the loss than its gradient (`config.NEEDS_LOSS`) have a
`descend` of their own, which gets the loss itself.
"""

from collections.abc import Callable
from typing import Any

from jaxdl.core.types import Array, Key, PyTree
from jaxdl.optim.config import NEEDS_WHOLE_BATCH, Config
from jaxdl.optim.gradients import gradients
from jaxdl.optim.optimizers import Optimizer


def minimize(optimizer: Optimizer, loss_fn: Callable[..., tuple[Array, Any]], params: PyTree, opt: PyTree, batch: PyTree,
             key: Key, config: Config, axis_name: str | None = None, batch_axis: PyTree = 0) -> tuple[PyTree, PyTree, Any]:
    """Parameters and state after one update, and what the loss returned beside itself at the parameters before it.

    Args:
        optimizer: what `make` gave for `config`.
        loss_fn: `(params, batch, key) -> (loss (), aux)`, as in `gradients`: a mean over the batch; `aux` holds `types.Mean`s
            and arrays [B, ...].
        params: where the update begins.
        opt: the optimizer's state.
        batch: a pytree of arrays [B, ...]; under an axis, the shard's.
        key: of the noise in the loss.
        config: the optimizer's settings.
        axis_name: the mapped axis of devices, over whose shards the loss is a mean.
        batch_axis: see `microbatches`.
    """
    if optimizer.descend is not None:
        return optimizer.descend(loss_fn, params, opt, batch, key, axis_name, batch_axis)
    grads, aux = gradients(loss_fn, params, batch, key, config, batch_axis)
    params, opt = optimizer.step(grads, opt, params, axis_name)
    return params, opt, aux


def warn_stochastic(config: Config, batch_size: int, num_examples: int) -> str | None:
    """What is to be said, once when a run opens, of a rule for the whole dataset that gets a part of it; else None."""
    if config.optimizer not in NEEDS_WHOLE_BATCH or batch_size >= num_examples:
        return None
    return (f"optimizer={config.optimizer} takes curvature and lengths of steps from a batch as if it were the whole problem, "
            f"and batch_size={batch_size} is a part of {num_examples} examples: it may not converge; give "
            f"batch_size={num_examples}, or a rule that is made for noise (adam, kfac)")
