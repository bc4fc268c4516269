"""Autoencoders, plain and denoising: a code of an image from which it can be put together again.

    loss = mean over images of sum_d |x_d - decode(encode(corrupt(x)))_d|^2,    x in [0, 1]

With corruption the code must hold what tells an image from its damage: Vincent et al., "Extracting and composing robust
features with denoising autoencoders" (2008). `gaussian` adds noise, `mask` sets each pixel to zero with a probability.
Learned without labels, the encoder is a start for a classifier that has few (`jaxdl transfer`). How this differs from the
paper: convolutions, the squared error, one stage of training in place of a stack.

Shapes: `B` batch, `N` images, `H W C` an image, `Z` code.
"""

import math
from typing import ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn, optim
from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive
from jaxdl.core.types import Array, DataSpec, Examples, Generative, Key, Learner, Mean, PyTree, Run, UpdateResult
from jaxdl.data import minibatches
from jaxdl.optim import Config as OptimConfig


@settings
class Config(minibatches.Config):
    """Settings of the autoencoder."""

    renamed: ClassVar[dict[str, str]] = {"code_size": "latent_size"}

    network: Literal["mlp", "conv"] = "conv"
    """Dense layers, or convolutions of stride 2 beneath them."""
    conv_channels: tuple[int, ...] = (32, 64)
    """Channels of the encoder's convolutions (conv); the decoder has them in reverse."""
    hidden_sizes: tuple[int, ...] = (256,)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    activation: str = "relu"
    """Nonlinearity of the hidden layers."""
    latent_size: int = 64
    """Width of the code, Z."""
    corruption: Literal["none", "gaussian", "mask"] = "none"
    """What is done to an image before it is encoded, in training."""
    corruption_level: float = 0.3
    """Standard deviation of the noise in units of the range of pixels (gaussian), probability of a zero (mask)."""
    optim: OptimConfig = OptimConfig()
    """The optimizer."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree


class Encoder(linen.Module):
    """Images [B, H, W, C] in [0, 1] -> codes [B, Z], or what the last hidden layer makes of them [B, F]."""

    network: str
    conv_channels: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    activation: str
    latent_size: int

    @linen.compact
    def __call__(self, x: Array, hidden: bool = False) -> Array:
        if self.network == "conv":
            x = nn.ConvEncoder(self.conv_channels, self.activation)(x)
        x = nn.MLP(self.hidden_sizes, activation=self.activation)(x.reshape(len(x), -1))
        if hidden:
            return x
        return linen.Dense(self.latent_size, kernel_init=nn.lecun_uniform)(x)


class Decoder(linen.Module):
    """Codes [B, Z] -> images [B, H, W, C], not bounded."""

    network: str
    conv_channels: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    activation: str
    shape: tuple[int, int, int]

    @linen.compact
    def __call__(self, z: Array) -> Array:
        x = nn.MLP(self.hidden_sizes, activation=self.activation)(z)
        if self.network == "conv":
            return nn.ConvDecoder(self.shape, self.conv_channels, self.activation)(x)
        return linen.Dense(math.prod(self.shape), kernel_init=nn.lecun_uniform)(x).reshape(-1, *self.shape)


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    require_positive(config, "latent_size")
    for field in ("hidden_sizes", "conv_channels"):
        require(config, field, all(n > 0 for n in getattr(config, field)), "widths above 0")
    require(config, "conv_channels", config.network == "mlp" or bool(config.conv_channels), "at least one for network=conv")
    if config.corruption == "mask":
        require(config, "corruption_level", 0 <= config.corruption_level < 1, "at least 0 and below 1 for corruption=mask")
    require(config, "corruption_level", 0 <= config.corruption_level < float("inf"), "0 or above")
    nn.activation(config.activation)
    optim.validate(config.optim, config.batch_size)


def total_steps(config: Config, spec: DataSpec) -> int:
    """Updates of the planned run."""
    return minibatches.total_steps(config, spec)


def encoder(config: Config) -> Encoder:
    """The network that makes codes; its parameters are `params["encoder"]`."""
    return Encoder(config.network, config.conv_channels, config.hidden_sizes, config.activation, config.latent_size)


def pixels(images: Array) -> Array:
    """uint8 [B, H, W, C] -> float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Generative:
    """The learner and its model for images of a shape."""
    down = encoder(config)
    up = Decoder(config.network, config.conv_channels[::-1], config.hidden_sizes[::-1], config.activation, spec.shape)
    optimizer = optim.make(config.optim, horizon=total_steps(config, spec))

    def corrupted(x: Array, key: Key) -> Array:
        if config.corruption == "gaussian":
            return x + config.corruption_level * jax.random.normal(key, x.shape)
        if config.corruption == "mask":
            return jnp.where(jax.random.uniform(key, x.shape) < config.corruption_level, 0.0, x)
        return x

    def init(key: Key) -> State:
        k_down, k_up = jax.random.split(key)
        params = {"encoder": nn.init(down, k_down, jnp.zeros((1, *spec.shape))),
                  "decoder": nn.init(up, k_up, jnp.zeros((1, config.latent_size)))}
        return State(params, optimizer.init(params))

    def errors(params: PyTree, x: Array, seen: Array) -> Array:
        """Squared error of each image, [B]."""
        again = up.apply(params["decoder"], down.apply(params["encoder"], seen))
        return jnp.square(again - x).sum((1, 2, 3))

    def loss_fn(params: PyTree, examples: Examples, key: Key) -> tuple[Array, dict[str, Mean]]:
        x = pixels(examples.images)
        loss = errors(params, x, corrupted(x, key))
        return loss.mean(), {"loss": Mean.of(loss)}

    def update(state: State, examples: Examples, key: Key) -> tuple[State, UpdateResult]:
        grads, metrics = optim.gradients(loss_fn, state.params, examples, key, config.optim)
        return State(*optimizer.step(grads, state.opt, state.params, axis_name)), UpdateResult(metrics)

    def measure(params: PyTree, examples: Examples, key: Key) -> dict[str, Mean]:
        """Mean squared error a pixel: of images as they are, and of them from their corrupted selves."""
        x = pixels(examples.images)
        found = {"mse": Mean.of(errors(params, x, x) / spec.size)}
        if config.corruption != "none":
            found["mse_corrupted"] = Mean.of(errors(params, x, corrupted(x, key)) / spec.size)
        return found

    def encode(params: PyTree, examples: Examples, key: Key | None = None) -> Array:
        del key
        return down.apply(params["encoder"], pixels(examples.images))

    def decode(params: PyTree, z: Array, labels: Array | None = None) -> Array:
        del labels
        return jnp.clip(up.apply(params["decoder"], z), 0, 1)

    def reconstruct(params: PyTree, examples: Examples, key: Key) -> Array:
        """Images from their corrupted selves."""
        return decode(params, down.apply(params["encoder"], corrupted(pixels(examples.images), key)))

    return Generative(Learner(init, update, lambda state: state.params), measure, "-mse", encode=encode, decode=decode,
                      reconstruct=reconstruct)


def make_run(config: Config, spec: DataSpec, axis_name: str | None = None, shards: int = 1) -> Run:
    """An autoencoder on a dataset that lies on the device (`data`: `Examples`)."""
    learner = make(config, spec, axis_name).learner
    return minibatches.run_of(learner, spec.num_examples, config.batch_size, axis_name, shards)
