"""Optimizers: a config of one, its schedule, its gradients."""

from jaxdl.optim.optimizers import Config, gradients, is_kernel, learning_rate, make, validate

__all__ = ["Config", "gradients", "is_kernel", "learning_rate", "make", "validate"]
