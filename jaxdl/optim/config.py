"""Settings of an optimizer: its rule, its schedule, and how gradients are computed for it."""

from typing import ClassVar, Literal

from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive
from jaxdl.core.errors import UserError

NEEDS_LOSS: tuple[str, ...] = ()  # rules that a gradient is not enough for: `minimize`
NEEDS_WHOLE_BATCH: tuple[str, ...] = ()  # rules that take the batch for the whole problem


@settings
class Config:
    """Settings of the optimizer. Decay and penalties are for kernels (`is_kernel`)."""

    renamed: ClassVar[dict[str, str]] = {"accumulate": "grad_accumulation", "compute": "compute_dtype"}
    applies: ClassVar = {
        "final_fraction": ("schedule", "linear", "cosine", "exponential", "inverse_time", "step"),
        "lr_steps": ("schedule", "step"),
        "momentum": ("optimizer", "momentum", "nesterov", "muon"), "rms_decay": ("optimizer", "rmsprop"),
        "beta1": ("optimizer", "adam", "adamw", "muon"), "beta2": ("optimizer", "adam", "adamw", "muon"),
        "eps": ("optimizer", "adagrad", "rmsprop", "adam", "adamw", "muon")}

    optimizer: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon"] = "adam"
    """Rule of the update; adamw decouples weight decay from the gradient (Loshchilov & Hutter 2019), muon orthogonalizes the
    update of each kernel (Jordan et al. 2024)."""
    learning_rate: float = 1e-3
    """Size of a step (PyTorch's default for Adam)."""
    schedule: Literal["constant", "linear", "cosine", "exponential", "inverse_time", "step"] = "constant"
    """How the learning rate falls over the planned updates."""
    final_fraction: float = 0.0
    """Share of the learning rate that is left at the planned end; above 0 for exponential, inverse_time and step."""
    lr_steps: int = 3
    """Steps down of the step schedule, evenly over the run."""
    warmup_fraction: float | None = None
    """Share of the planned updates over which the learning rate rises linearly; the first of n has 1 / n of it."""
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
    grad_accumulation: int = 1
    """Microbatches that a batch is cut into, computed one after the other: less memory, the same gradient."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """What dense and convolutional layers multiply in while they learn; parameters, losses and statistics stay float32."""
    remat: bool = False
    """Keep only the inputs of a network's blocks, and compute the rest again in the backward pass: less memory. For networks
    of stacked blocks (pixelcnn, pixelrnn)."""


def validate(config: Config, batch_size: int | None = None, has_blocks: bool = False, minimizes: bool = False) -> None:
    """Refuse settings that make no sense, do not fit the batch or the learner.

    Args:
        config: the settings.
        batch_size: examples in one update, if it is known.
        has_blocks: whether the network has blocks to compute again.
        minimizes: whether the learner updates by `minimize`, so that rules which need its loss can be had.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    require_positive(config, "learning_rate", "lr_steps", "eps", "max_grad_norm", "grad_accumulation")
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
        raise UserError(f"weight_decay={config.weight_decay} is for adamw and muon, and optimizer={config.optimizer}; use "
                        "l2, or optimizer=adamw")
    if config.optimizer in NEEDS_LOSS and not minimizes:
        raise UserError(f"optimizer={config.optimizer} needs a loss that is one function of the parameters, and "
                        "what learns here gives gradients alone; use optimizer=adam, or another rule of first order")
    if config.remat and not has_blocks:
        raise UserError("remat=True recomputes the blocks of deep networks (pixelcnn, pixelrnn), and this network has none; "
                        "set remat=False, and grad_accumulation=2 or more to save memory")
    if batch_size is not None:
        check_divides(config.grad_accumulation, batch_size)


def check_divides(grad_accumulation: int, batch_size: int) -> None:
    """Refuse a number of microbatches that does not divide the batch.

    Raises:
        UserError: names both.
    """
    if batch_size % grad_accumulation:
        raise UserError(f"grad_accumulation={grad_accumulation} must divide the batch of {batch_size}")
