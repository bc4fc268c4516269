"""Autoencoders, plain and denoising: a code of an image from which the image can be made again.

    loss = mean over images of sum_d |x_d - decode(encode(corrupt(x)))_d|^2,    x in [0, 1]

With corruption the code must separate an image from its damage: Vincent et al., "Extracting and composing robust
features with denoising autoencoders" (2008). `gaussian` adds noise, `mask` sets each pixel to zero with a probability.
Learned without labels, the encoder is a start for a classifier that has few (`jaxdl transfer`). How this differs from the
paper: convolutions, the squared error, one stage of training in place of a stack.

Shapes: `B` batch, `N` images, `H W C` an image, `Z` code.
"""


from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn, optim
from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require, require_positive
from jaxdl.core.task import Curve, Features, Latents, Reconstructor, Score
from jaxdl.core.types import Array, DataSpec, Examples, Key, Learner, Mean, PyTree, UpdateResult
from jaxdl.data import minibatches
from jaxdl.generative.task import model_algorithm
from jaxdl.ops.pixels import to_unit
from jaxdl.optim import Config as OptimConfig


@settings
class Config(minibatches.Config):
    """Settings of the autoencoder."""

    renamed: ClassVar[dict[str, str]] = {"code_size": "latent_size"}
    applies: ClassVar = {"conv_channels": ("network", "conv"), "corruption_level": ("corruption", "gaussian", "mask")}

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
    """Damage to images before they are encoded, in training: noise, or some pixels at zero."""
    corruption_level: float = 0.3
    """Standard deviation of the noise in units of the range of pixels (gaussian), probability of a zero (mask)."""
    optim: OptimConfig = OptimConfig()
    """The optimizer."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree


class Encoder(linen.Module):
    """Images [B, H, W, C] in [0, 1] -> codes [B, Z], or the outputs of the last hidden layer [B, F]."""

    network: Literal["mlp", "conv"]
    conv_channels: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    activation: str
    latent_size: int
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array, hidden: bool = False) -> Array:
        x = nn.encode_image(x, self.network, self.conv_channels, self.hidden_sizes, self.activation, self.dtype)
        return x if hidden else nn.Dense(self.latent_size)(x)


class Decoder(linen.Module):
    """Codes [B, Z] -> images [B, H, W, C], not bounded."""

    network: Literal["mlp", "conv"]
    conv_channels: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    activation: str
    shape: tuple[int, int, int]
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, z: Array) -> Array:
        return nn.decode_image(z, self.network, self.shape, self.conv_channels, self.hidden_sizes, self.activation, self.dtype)


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    refuse_idle(config)
    require_positive(config, "latent_size")
    for field in ("hidden_sizes", "conv_channels"):
        require(config, field, all(n > 0 for n in getattr(config, field)), "widths above 0")
    require(config, "conv_channels", config.network == "mlp" or bool(config.conv_channels), "at least one for network=conv")
    if config.corruption == "mask":
        require(config, "corruption_level", 0 <= config.corruption_level < 1, "at least 0 and below 1 for corruption=mask")
    require(config, "corruption_level", 0 <= config.corruption_level < float("inf"), "0 or above")
    nn.activation(config.activation)
    config.init.validate()
    optim.validate(config.optim, config.batch_size, minimizes=True)


def total_steps(config: Config, spec: DataSpec) -> int:
    """Updates of the planned run."""
    return minibatches.total_steps(config, spec)


def encoder(config: Config) -> Encoder:
    """The network that makes codes; its parameters are `params["encoder"]`."""
    return Encoder(config.network, config.conv_channels, config.hidden_sizes, config.activation, config.latent_size)


def corrupted(config: Config, x: Array, key: Key) -> Array:
    """Images [B, H, W, C] with noise, or with some pixels at zero."""
    if config.corruption == "gaussian":
        return x + config.corruption_level * jax.random.normal(key, x.shape)
    if config.corruption == "mask":
        return jnp.where(jax.random.uniform(key, x.shape) < config.corruption_level, 0.0, x)
    return x


class Autoencoder(NamedTuple):
    """A learner and what its model can do."""

    learner: Learner
    measure: Callable[[PyTree, Examples, Key], dict[str, Mean]]  # (params, examples, key) -> means over held-out examples
    encode: Callable[..., Array]  # (params, examples, key) -> latents [N, Z]
    decode: Callable[..., Array]  # (params, latents [N, Z], labels=None) -> images [N, H, W, C]
    reconstruct: Callable[[PyTree, Examples, Key], Array]  # (params, examples, key) -> images [N, H, W, C]


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Autoencoder:
    """The learner and its model for images of a shape."""
    down = encoder(config)
    up = Decoder(config.network, config.conv_channels[::-1], config.hidden_sizes[::-1], config.activation, spec.shape)
    optimizer = optim.make(config.optim, horizon=total_steps(config, spec))

    def init(key: Key) -> State:
        k_down, k_up = jax.random.split(key)
        params = {"encoder": nn.init(down, k_down, jnp.zeros((1, *spec.shape)), initial=config.init),
                  "decoder": nn.init(up, k_up, jnp.zeros((1, config.latent_size)), initial=config.init)}
        return State(params, optimizer.init(params))

    def errors(params: PyTree, x: Array, seen: Array, dtype: Any = "float32") -> Array:
        """Squared error [B] of each image x reconstructed from `seen`, x itself or its corrupted self."""
        z = down.clone(dtype=dtype).apply(params["encoder"], seen)
        return jnp.square(up.clone(dtype=dtype).apply(params["decoder"], z) - x).sum((1, 2, 3))

    def loss_fn(params: PyTree, examples: Examples, key: Key) -> tuple[Array, dict[str, Mean]]:
        x = to_unit(examples.images)
        loss = errors(params, x, corrupted(config, x, key), config.optim.compute_dtype)
        return loss.mean(), {"loss": Mean.of(loss)}

    def update(state: State, examples: Examples, key: Key) -> tuple[State, UpdateResult]:
        params, opt, metrics = optim.minimize(optimizer, loss_fn, state.params, state.opt, examples, key, config.optim,
                                              axis_name)
        return State(params, opt), UpdateResult(metrics)

    def measure(params: PyTree, examples: Examples, key: Key) -> dict[str, Mean]:
        """Mean squared error a pixel: of images made again from themselves, and from their corrupted selves."""
        x = to_unit(examples.images)
        found = {"mse": Mean.of(errors(params, x, x) / spec.size)}
        if config.corruption != "none":
            found["mse_corrupted"] = Mean.of(errors(params, x, corrupted(config, x, key)) / spec.size)
        return found

    def encode(params: PyTree, examples: Examples, key: Key | None = None) -> Array:
        del key
        return down.apply(params["encoder"], to_unit(examples.images))

    def decode(params: PyTree, z: Array, labels: Array | None = None) -> Array:
        del labels
        return jnp.clip(up.apply(params["decoder"], z), 0, 1)

    def reconstruct(params: PyTree, examples: Examples, key: Key) -> Array:
        """Images made again from their corrupted selves."""
        return decode(params, down.apply(params["encoder"], corrupted(config, to_unit(examples.images), key)))

    return Autoencoder(Learner(init, update, lambda state: state.params), measure, encode, decode, reconstruct)


make_run = minibatches.run_maker(make, validate)


MSE = Score("mse", False, "mean squared error of held-out data")
MSE_CURVES = (Curve("mse", False, "mean squared error a pixel", "eval/mse", 0.05, "mse"),
              Curve("eval/mse", False, "mean squared error of held-out data", None, 0.05, "mse"))


def abilities(config: Config, spec: DataSpec, model: Autoencoder) -> dict[type, Any]:
    """What a trained model can do."""
    del spec
    features = Features(encoder(config), lambda network, x: network(x, hidden=True), to_unit,
                        lambda params: params["encoder"]["params"])
    return {Latents: Latents(model.decode, model.encode), Reconstructor: Reconstructor(model.reconstruct), Features: features}


ALGORITHM = model_algorithm(
    "autoencoder", "autoencoder, plain or denoising", Config, validate, make, make_run, total_steps, MSE, MSE_CURVES, abilities)
