"""Settings of an optimizer: its rule, its schedule, and how gradients are computed for it."""

from typing import ClassVar, Literal

from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive
from jaxdl.core.errors import UserError

NEEDS_LOSS = ("lbfgs", "newton_cg", "kfac")  # rules that a gradient is not enough for: `minimize`
NEEDS_WHOLE_BATCH = ("lbfgs", "newton_cg")  # those that take the batch for the whole problem, and search along a line
_STEPS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon", "soap", "kfac")  # the others

Rule = Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon", "soap", "kfac", "lbfgs",
               "newton_cg"]


@settings
class Config:
    """Settings of the optimizer. Decay and penalties are for kernels (`is_kernel`), and biases if they are asked for.

    l1 and l2 together are the elastic net (Zou & Hastie 2005).
    """

    renamed: ClassVar[dict[str, str]] = {"accumulate": "grad_accumulation", "compute": "compute_dtype"}
    applies: ClassVar = {
        "learning_rate": ("optimizer", *_STEPS), "schedule": ("optimizer", *_STEPS), "warmup_fraction": ("optimizer", *_STEPS),
        "max_grad_norm": ("optimizer", *_STEPS), "l1": ("optimizer", *_STEPS), "max_norm": ("optimizer", *_STEPS),
        "final_fraction": ("schedule", "linear", "cosine", "exponential", "inverse_time", "step", "cyclic"),
        "lr_steps": ("schedule", "step"), "lr_cycles": ("schedule", "cyclic"), "lr_cycle_growth": ("schedule", "cyclic"),
        "momentum": ("optimizer", "momentum", "nesterov", "muon", "kfac"), "rms_decay": ("optimizer", "rmsprop"),
        "beta1": ("optimizer", "adam", "adamw", "muon", "soap"), "beta2": ("optimizer", "adam", "adamw", "muon", "soap"),
        "bias_correction": ("optimizer", "adam", "adamw", "muon", "soap"),
        "eps": ("optimizer", "adagrad", "rmsprop", "adam", "adamw", "muon", "soap"),
        "soap_every": ("optimizer", "soap"), "lbfgs_memory": ("optimizer", "lbfgs"), "cg_steps": ("optimizer", "newton_cg"),
        "damping": ("optimizer", "newton_cg", "kfac"), "curvature_decay": ("optimizer", "kfac"),
        "max_kl": ("optimizer", "kfac")}

    optimizer: Rule = "adam"
    """Rule of the update; adamw decouples weight decay from the gradient (Loshchilov & Hutter 2019), muon orthogonalizes the
    update of each kernel (Jordan et al. 2024), soap is Adam in the axes along which gradients vary (Vyas et al. 2024), kfac the
    natural gradient (Martens & Grosse 2015). lbfgs and newton_cg (conjugate gradients) search along a line, for batches that
    are the whole dataset. The last three are for learners of a plain loss."""
    learning_rate: float = 1e-3
    """Size of a step (PyTorch's default for Adam)."""
    schedule: Literal["constant", "linear", "cosine", "exponential", "inverse_time", "step", "cyclic"] = "constant"
    """How the learning rate falls over the planned updates; cyclic falls as a cosine, and restarts (SGDR)."""
    final_fraction: float = 0.0
    """Share of the learning rate that is left at the planned end (cyclic: of each cycle); above 0 for exponential, inverse_time
    and step."""
    lr_steps: int = 3
    """Steps down of the step schedule, evenly over the run."""
    lr_cycles: int = 5
    """Cycles of the cyclic schedule in the run (Loshchilov & Hutter 2017)."""
    lr_cycle_growth: float = 1.0
    """How many times as long each cycle is as the one before; Loshchilov & Hutter have 1 or 2."""
    warmup_fraction: float | None = None
    """Share of the planned updates over which the learning rate rises linearly; the first of n has 1 / n of it."""
    momentum: float = 0.9
    """Decay of the velocity (momentum, nesterov, muon, kfac; Jordan et al. have 0.95 for muon)."""
    beta1: float = 0.9
    """Decay of Adam's mean of gradients (Kingma & Ba 2015)."""
    beta2: float = 0.999
    """Decay of Adam's mean of squared gradients (Kingma & Ba 2015)."""
    bias_correction: bool = True
    """Divide Adam's means, which begin at zero, by the share of gradients that is in them (Kingma & Ba 2015, section 3)."""
    rms_decay: float = 0.99
    """Decay of RMSProp's mean of squared gradients (PyTorch)."""
    eps: float = 1e-8
    """Added to the root in the denominator of adagrad, rmsprop and Adam (Kingma & Ba 2015)."""
    soap_every: int = 10
    """Updates from one basis of soap to the next (Vyas et al. 2024)."""
    lbfgs_memory: int = 10
    """Changes of the parameters and the gradient that lbfgs remembers."""
    cg_steps: int = 20
    """Products with the Hessian in one update of newton_cg, at most."""
    damping: float = 1e-3
    """Added to the curvature (newton_cg, kfac): steps become shorter, and turn to the gradient's."""
    curvature_decay: float = 0.95
    """Decay of kfac's means of factors (Martens & Grosse 2015)."""
    max_kl: float = 1e-3
    """How far an update of kfac may move what the model predicts, as a Kullback-Leibler divergence in nats (Ba et al. 2017)."""
    max_grad_norm: float | None = None
    """Clip the gradient to this global norm before anything else; SB3's DQN has 10."""
    weight_decay: float | None = None
    """Decoupled weight decay of kernels, per unit of learning rate (adamw, 0.01 if not given: PyTorch; muon, soap)."""
    l1: float | None = None
    """Penalty on the absolute values of kernels, added to the loss's gradient."""
    l2: float | None = None
    """Penalty on half the squares of kernels, added to the loss's gradient; with l1 too it is the elastic net."""
    penalize_biases: bool = False
    """Let decay and penalties act on biases too."""
    max_norm: float | None = None
    """Shorten the incoming weights of each unit to this length after every update (Srivastava et al. 2014 have 3 to 4)."""
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
    require_positive(config, "learning_rate", "lr_steps", "lr_cycles", "lr_cycle_growth", "eps", "soap_every", "lbfgs_memory",
                     "cg_steps", "damping", "max_kl", "max_grad_norm", "max_norm", "grad_accumulation")
    for field in ("weight_decay", "l1", "l2"):
        value = getattr(config, field)
        require(config, field, value is None or 0 <= value < float("inf"), "0 or above")
    for field in ("momentum", "beta1", "beta2", "rms_decay", "curvature_decay", "warmup_fraction"):
        value = getattr(config, field)
        require(config, field, value is None or 0 <= value < 1, "at least 0 and below 1")
    needs = config.schedule in ("exponential", "inverse_time", "step")
    require(config, "final_fraction", 0 <= config.final_fraction <= 1 and not (needs and config.final_fraction == 0),
            f"{'above' if needs else 'at least'} 0 and at most 1 for schedule={config.schedule}")
    if config.weight_decay is not None and config.optimizer not in ("adamw", "muon", "soap"):
        raise UserError(f"weight_decay={config.weight_decay} is for adamw, muon and soap, and optimizer={config.optimizer}; "
                        "use l2, or optimizer=adamw")
    if config.penalize_biases and config.l1 is config.l2 is config.weight_decay is None and config.optimizer != "adamw":
        raise UserError("penalize_biases=True is of l1, l2 and weight_decay, and none is given; leave it out, or give one")
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
