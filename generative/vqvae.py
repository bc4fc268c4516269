"""VQ-VAE: images as small maps of codes from a codebook.

    z = encode(x) [h, w, E],   c = argmin_k |z - e_k|^2,   loss = |x - decode(z + sg(e_c - z))|^2 / (2 v) + beta |z - sg(e_c)|^2

van den Oord et al., "Neural discrete representation learning" (2017). The gradient goes straight through the choice of the
code (sg: it stops there). The codebook has no gradient: each code is the running mean of the encodings that chose it (their
appendix A.1), with n_k and m_k the running number and sum of those,

    n_k <- d n_k + (1 - d) |{z: c(z) = k}|,   m_k <- d m_k + (1 - d) sum z,   e_k = m_k / n_k.

A code that is hardly chosen is soon never chosen: one whose n_k falls below a part of an even share begins again at an encoding
of the batch (Dhariwal et al., "Jukebox", 2020, section 3.1). Perplexity, exp of the entropy of the codes chosen in a batch, is
the number of codes in use. `v` is the variance of a Gaussian likelihood, in units of the range of pixels squared.

Sampling needs a prior over codes, which is a model of its own: a PixelCNN learns the codes that `encode` gives (`jaxdl
encode`), and `decode` makes images of its draws (`jaxdl sample --decoder`).

Shapes: `B` batch, `N` images, `H W C` an image, `h w` a map of codes, `E` width of a code, `K` codes.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import nn, optim
from jaxdl.core import axis
from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive
from jaxdl.core.task import Codes, Reconstructor
from jaxdl.core.types import Array, DataSpec, Examples, Key, Learner, Mean, PyTree, UpdateResult
from jaxdl.data import minibatches
from jaxdl.generative.autoencoder import MSE, MSE_CURVES
from jaxdl.generative.task import model_algorithm
from jaxdl.ops.pixels import to_unit
from jaxdl.optim import Config as OptimConfig

_DEAD = 0.1  # of an even share of the choices: a code with fewer begins again


@settings
class Config(minibatches.Config):
    """Settings of the VQ-VAE."""

    renamed: ClassVar[dict[str, str]] = {"code_size": "embedding_size"}

    conv_channels: tuple[int, ...] = (32, 64)
    """Channels of the encoder's convolutions, each of which halves the sides; the decoder has them in reverse."""
    activation: str = "relu"
    """Nonlinearity of the hidden layers."""
    num_codes: int = 128
    """Codes in the codebook, K."""
    embedding_size: int = 16
    """Width of a code, E."""
    decay: float = 0.99
    """Decay of the running means of the codebook, d (van den Oord et al.)."""
    commitment: float = 0.25
    """Weight of the encodings' distance to their codes, beta (van den Oord et al.)."""
    variance: float = 0.05
    """Variance of pixels that scales the squared error, in units of their range squared."""
    optim: OptimConfig = OptimConfig()
    """The optimizer of encoder and decoder."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""


class Codebook(NamedTuple):
    """Running numbers and sums of the encodings that chose each code."""

    count: Array  # [K]
    total: Array  # [K, E]

    @property
    def codes(self) -> Array:
        """e_k [K, E]."""
        return self.total / self.count[:, None]


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree
    codebook: Codebook


class Encoder(linen.Module):
    """Images [B, H, W, C] in [0, 1] -> encodings [B, h, w, E]."""

    channels: tuple[int, ...]
    embedding_size: int
    activation: str = "relu"
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, x: Array) -> Array:
        how = {"kernel_init": nn.lecun_uniform, "dtype": self.dtype}
        act, k = nn.activation(self.activation), nn.pieces(self.activation)
        x = nn.ConvEncoder(self.channels, self.activation, dtype=self.dtype)(x)
        x = act(nn.Conv(k * self.channels[-1], (3, 3), **how)(x))
        return nn.Conv(self.embedding_size, (1, 1), kernel_init=nn.lecun_uniform)(x)


class Decoder(linen.Module):
    """Codes [B, h, w, E] -> images [B, H, W, C], not bounded."""

    channels: tuple[int, ...]
    shape: tuple[int, int, int]
    activation: str = "relu"
    dtype: Any = "float32"

    @linen.compact
    def __call__(self, z: Array) -> Array:
        how = {"kernel_init": nn.lecun_uniform, "dtype": self.dtype}
        act, k = nn.activation(self.activation), nn.pieces(self.activation)
        x = act(nn.Conv(k * self.channels[0], (3, 3), **how)(z))
        for channels in self.channels[1:]:
            x = act(nn.ConvTranspose(k * channels, (4, 4), (2, 2), **how)(x))
        x = nn.ConvTranspose(self.shape[2], (4, 4), (2, 2), kernel_init=nn.lecun_uniform)(x)
        return x[:, : self.shape[0], : self.shape[1]]


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    require_positive(config, "num_codes", "embedding_size", "variance")
    require(config, "conv_channels", bool(config.conv_channels) and all(n > 0 for n in config.conv_channels),
            "one or more widths above 0")
    require(config, "decay", 0 < config.decay < 1, "above 0 and below 1")
    require(config, "commitment", 0 <= config.commitment < float("inf"), "0 or above")
    nn.activation(config.activation)
    config.init.validate()
    optim.validate(config.optim, config.batch_size)


def total_steps(config: Config, spec: DataSpec) -> int:
    """Updates of the planned run."""
    return minibatches.total_steps(config, spec)


def nearest(z: Array, codes: Array) -> Array:
    """The code nearest to each encoding: [..., E] and [K, E] -> int32 [...]."""
    distance = jnp.square(codes).sum(-1) - 2 * z @ codes.T  # less |z|^2, which all codes share
    return jnp.argmin(distance, -1).astype(jnp.int32)


def moved(codebook: Codebook, z: Array, chosen: Array, key: Key, decay: float | Array, axis_name: str | None = None
          ) -> tuple[Codebook, Array]:
    """The codebook after encodings z [M, E] chose codes [M], and the share of all choices that each code had [K].

    Dead codes begin again at encodings drawn from z (the first shard's, where there are several).
    """
    size = len(codebook.count)
    one_hot = jax.nn.one_hot(chosen, size)
    count, total = axis.sum_over((one_hot.sum(0), one_hot.T @ z), axis_name)
    new = Codebook(decay * codebook.count + (1 - decay) * count, decay * codebook.total + (1 - decay) * total)
    drawn = z[jax.random.randint(key, (size,), 0, len(z))]
    if axis_name is not None:
        drawn = jax.lax.psum(jnp.where(jax.lax.axis_index(axis_name) == 0, drawn, 0), axis_name)
    even = count.sum() / size
    dead = new.count < _DEAD * even
    return Codebook(jnp.where(dead, even, new.count), jnp.where(dead[:, None], even * drawn, new.total)), count / count.sum()


def perplexity(share: Array) -> Array:
    """Exp of the entropy of shares [..., K]: the number of codes in use, 1 to K."""
    return jnp.exp(jax.scipy.special.entr(share).sum(-1))


class Model(NamedTuple):
    """Both networks. Their parameters are `params["encoder"]` and `params["decoder"]`, the codes `params["codes"]` [K, E]."""

    encoder: Encoder
    decoder: Decoder

    def encode(self, params: PyTree, examples: Examples, key: Key | None = None) -> Array:
        """Codes int32 [N, h, w]."""
        del key
        return nearest(self.encoder.apply(params["encoder"], to_unit(examples.images)), params["codes"])

    def decode(self, params: PyTree, z: Array, labels: Array | None = None) -> Array:
        """Images [N, H, W, C] in [0, 1] of codes [N, h, w]."""
        del labels
        return jnp.clip(self.decoder.apply(params["decoder"], params["codes"][z]), 0, 1)

    def reconstruct(self, params: PyTree, examples: Examples, key: Key | None = None) -> Array:
        """Images made again from their codes."""
        return self.decode(params, self.encode(params, examples, key))

    def measure(self, params: PyTree, examples: Examples, key: Key) -> dict[str, Mean]:
        """Mean squared error a pixel, and the perplexity of the codes of these examples."""
        z, codes = self.encode(params, examples, key), params["codes"]
        again = self.decoder.apply(params["decoder"], codes[z])
        share = jnp.bincount(z.reshape(-1), length=len(codes)) / z.size
        return {"mse": Mean.of(jnp.square(again - to_unit(examples.images)).mean((1, 2, 3))),
                "perplexity": Mean.of(perplexity(share))}


def losses(model: Model, config: Config, codes: Array, params: PyTree, images: Array
           ) -> tuple[Array, tuple[dict[str, Mean], Array, Array]]:
    """The mean loss of a batch, and metrics, encodings [B, h, w, E] and chosen codes [B, h, w]."""
    x = to_unit(images)
    z = model.encoder.apply(params["encoder"], x)
    chosen = nearest(jax.lax.stop_gradient(z), codes)
    quantized = codes[chosen]
    again = model.decoder.apply(params["decoder"], z + jax.lax.stop_gradient(quantized - z))
    error = jnp.square(again - x).sum((1, 2, 3))
    away = jnp.square(z - quantized).sum((1, 2, 3))
    loss = error / (2 * config.variance) + config.commitment * away
    metrics = {"loss": Mean.of(loss), "mse": Mean.of(error / x[0].size), "commitment": Mean.of(away)}
    return loss.mean(), (metrics, z, chosen)


class VQVAE(NamedTuple):
    """A learner and what its model can do; latents are codes, int32 [N, h, w]."""

    learner: Learner
    measure: Callable[[PyTree, Examples, Key], dict[str, Mean]]  # (params, examples, key) -> means over held-out examples
    encode: Callable[..., Array]  # (params, examples, key) -> latents [N, Z]
    decode: Callable[..., Array]  # (params, latents [N, Z], labels=None) -> images [N, H, W, C]
    reconstruct: Callable[[PyTree, Examples, Key], Array]  # (params, examples, key) -> images [N, H, W, C]


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> VQVAE:
    """The learner and its model for images of a shape; codes int32 [N, h, w] are its latents."""
    model = Model(Encoder(config.conv_channels, config.embedding_size, config.activation),
                  Decoder(config.conv_channels[::-1], spec.shape, config.activation))
    learning = Model(*(network.clone(dtype=config.optim.compute_dtype) for network in model))
    optimizer = optim.make(config.optim, horizon=total_steps(config, spec))
    sides = nn.smallest(spec.shape, len(config.conv_channels))

    def init(key: Key) -> State:
        k_down, k_up, k_codes = jax.random.split(key, 3)
        params = {"encoder": nn.init(model.encoder, k_down, jnp.zeros((1, *spec.shape)), initial=config.init),
                  "decoder": nn.init(model.decoder, k_up, jnp.zeros((1, *sides, config.embedding_size)), initial=config.init)}
        even = jnp.full(config.num_codes, config.batch_size * sides[0] * sides[1] / config.num_codes, jnp.float32)
        codes = jax.random.normal(k_codes, (config.num_codes, config.embedding_size))
        return State(params, optimizer.init(params), Codebook(even, even[:, None] * codes))

    def update(state: State, examples: Examples, key: Key) -> tuple[State, UpdateResult]:
        codes = state.codebook.codes
        grads, (metrics, z, chosen) = optim.gradients(
            lambda params, images, _: losses(learning, config, codes, params, images), state.params, examples.images, key,
            config.optim)
        params, opt = optimizer.step(grads, state.opt, state.params, axis_name)
        codebook, share = moved(state.codebook, z.reshape(-1, config.embedding_size), chosen.reshape(-1), key, config.decay,
                                axis_name)
        metrics["perplexity"] = Mean.of(perplexity(share))
        return State(params, opt, codebook), UpdateResult(metrics)

    def params_of(state: State) -> PyTree:
        return state.params | {"codes": state.codebook.codes}

    return VQVAE(Learner(init, update, params_of), model.measure, model.encode, model.decode, model.reconstruct)


make_run = minibatches.run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: VQVAE) -> dict[type, Any]:
    """What a trained model can do."""
    del spec
    return {Codes: Codes(model.encode, model.decode, config.num_codes), Reconstructor: Reconstructor(model.reconstruct)}


ALGORITHM = model_algorithm(
    "vqvae", "images as maps of codes out of a codebook", Config, validate, make, make_run, total_steps, MSE,
    MSE_CURVES, abilities)
