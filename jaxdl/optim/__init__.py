"""Optimizers: their settings, schedules, gradients, steps, and moving averages of parameters."""

from jaxdl.nn.kernels import is_kernel
from jaxdl.optim.check import check_gradient
from jaxdl.optim.config import Config, validate
from jaxdl.optim.ema import ema
from jaxdl.optim.gradients import gradients, microbatches
from jaxdl.optim.minimize import minimize, warn_stochastic
from jaxdl.optim.optimizers import Optimizer, at_update, is_schedule, make, transform, within_norm
from jaxdl.optim.schedules import learning_rate

__all__ = ["Config", "Optimizer", "at_update", "check_gradient", "ema", "gradients", "is_kernel", "is_schedule",
           "learning_rate", "make", "microbatches", "minimize", "transform", "validate", "warn_stochastic", "within_norm"]
