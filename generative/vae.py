"""Variational autoencoders: bounds on log p(x) of models with one or two layers of Gaussian latents.

    elbo   = E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x)                  Kingma & Welling (2014)
    iwae_K = E[log 1/K sum_k w_k],  w_k = p(x, z_k) / q(z_k|x),  z_k ~ q(z|x)       Burda, Grosse & Salakhutdinov (2016)

iwae_1 is the ELBO, and the bound rises with K. Draws are mean + exp(log_var / 2) * noise, differentiable in both. With two
layers q(z_1, z_2|x) = q(z_1|x) q(z_2|z_1) and p(x, z_1, z_2) = p(z_2) p(z_1|z_2) p(x|z_1), each a Gaussian given by a network.
Two settings change the ELBO: beta weighs the KL (Higgins et al. 2017), and free bits leave the KL of each latent number
unpunished below a level, as the mean over the batch (Kingma et al. 2016, eq. 15, with groups of one). The gradient of iwae_K
is taken through everything, or for the encoder through the draws alone, weighted by the square of each draw's share of the
weights, which has the same mean and less noise (Tucker et al., "Doubly reparameterized gradient estimators for Monte Carlo
objectives", 2019; here of both layers' draws together).

How this differs from the papers: the KL of the ELBO is in closed form where there is one (one layer, the top one of two), and
Burda et al. take samples throughout. Everything is in nats per image.

Shapes: `B` batch, `N` images, `H W C` an image, `D` = H * W * C, `P` outputs a number of it, `Z` latent, `K` samples,
`Y` classes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import nn, optim
from jaxdl.core import axis
from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require, require_positive
from jaxdl.core.task import Curve, Density, Latents, Reconstructor, Sampler, Score
from jaxdl.core.types import Array, DataSpec, Examples, Key, Learner, Mean, PyTree, UpdateResult
from jaxdl.data import minibatches
from jaxdl.generative import estimators, likelihoods
from jaxdl.generative.labels import Classes
from jaxdl.generative.task import model_algorithm
from jaxdl.generative.vae_network import Gaussian, Network
from jaxdl.ops import distributions, losses
from jaxdl.optim import Config as OptimConfig


@settings
class Config(minibatches.Config):
    """Settings of the VAE."""

    applies: ClassVar = {
        "conv_channels": ("network", "conv"), "second_hidden_sizes": ("second_latent_size",),
        "binarize": ("likelihood", "bernoulli"), "variance": ("likelihood", "gaussian"),
        "estimator": ("objective", "iwae"), "beta": ("objective", "elbo"), "free_bits": ("objective", "elbo")}

    network: Literal["mlp", "conv"] = "mlp"
    """Dense layers, or convolutions of stride 2 beneath them."""
    conv_channels: tuple[int, ...] = (32, 64)
    """Channels of the encoder's convolutions (conv); the decoder has them in reverse."""
    hidden_sizes: tuple[int, ...] = (500,)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    activation: str = "relu"
    """Nonlinearity of the hidden layers; Burda et al. have tanh."""
    latent_size: int = 20
    """Width of the latent, Z: of the lower one, where there are two."""
    second_latent_size: int | None = None
    """Width of a second layer of latents above the first; Burda et al. have 50 above 100."""
    second_hidden_sizes: tuple[int, ...] = (100, 100)
    """Widths of the hidden layers between the two latents, either way (Burda et al.)."""
    conditional: bool = False
    """Model p(x|y): encoder and decoder take the class."""
    likelihood: likelihoods.Name = "bernoulli"
    """Distribution of the pixels: bernoulli for binary images, gaussian, or discretized_logistic for the 256 values."""
    binarize: likelihoods.Binarize = "dynamic"
    """How images become binary (bernoulli): dynamic draws each pixel every time, fixed once, threshold cuts at a half;
    none for images that are binary already, as those of the literature's fixed binarizations."""
    variance: float | None = None
    """Variance of every pixel in units of their range squared (gaussian); an output of the decoder if not given."""
    objective: Literal["elbo", "iwae"] = "elbo"
    """The bound that is maximized: the ELBO, as the mean over samples, or the importance-weighted bound."""
    estimator: Literal["reparameterized", "doubly_reparameterized"] = "reparameterized"
    """Estimator of the encoder's gradient (iwae): through everything, or with less noise (Tucker et al. 2019)."""
    num_samples: int = 1
    """Samples of the latent an image and update, K."""
    beta: float = 1.0
    """Weight of the KL (elbo)."""
    free_bits: float = 0.0
    """Nats of KL of each latent number, as the batch's mean, that cost nothing (elbo)."""
    optim: OptimConfig = OptimConfig()
    """The optimizer."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree


class Draws(NamedTuple):
    """K samples of the latents of B images, and what the bounds need of them."""

    log_px: Array  # [K, B] log p(x|z)
    log_w: Array  # [K, B] log p(x, z) - log q(z|x)
    kl: list[Array]  # of each layer, the top one first, [K, B, Z] or [1, B, Z]: log q - log p of each number, or its mean


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    refuse_idle(config)
    require_positive(config, "latent_size", "second_latent_size", "num_samples", "variance", "beta")
    for field in ("hidden_sizes", "second_hidden_sizes", "conv_channels"):
        require(config, field, all(n > 0 for n in getattr(config, field)), "widths above 0")
    require(config, "conv_channels", config.network == "mlp" or bool(config.conv_channels), "at least one for network=conv")
    require(config, "free_bits", 0 <= config.free_bits < float("inf"), "0 or above")
    nn.activation(config.activation)
    config.init.validate()
    optim.validate(config.optim, config.batch_size)


def total_steps(config: Config, spec: DataSpec) -> int:
    """Updates of the planned run."""
    return minibatches.total_steps(config, spec)


class Model(NamedTuple):
    """A network, the likelihood that its outputs parameterize, and the classes it takes."""

    network: Network
    likelihood: likelihoods.Likelihood
    classes: Classes

    def apply(self, method: str, params: PyTree, x: Array, y: Array | None) -> PyTree:
        """A method of the network."""
        return self.network.apply(params, x, y, method=method)

    def inputs(self, examples: Examples, key: Key) -> tuple[Array, Array | None]:
        """Targets x [B, D] and classes y [B, Y] of a batch."""
        return self.likelihood.target(examples.images, key), self.classes.one_hot(examples.labels)


def draw_noise(model: Model, keys: Key, n: int) -> list[Array]:
    """Standard normal noise of each layer, [K, n, Z], for each of the K keys."""
    sizes = [model.network.latent_size, *([model.network.second_latent_size] if model.network.two_layers else [])]
    noise = jax.vmap(lambda key: jax.random.normal(key, (n, sum(sizes))))(keys)
    return jnp.split(noise, sizes[:-1], -1)


def latents(model: Model, params: PyTree, y: Array | None, posterior: Gaussian, noise: list[Array]
            ) -> tuple[list[Array], list[Gaussian]]:
    """The sample of each layer [K, B, Z] that its noise makes, and the Gaussian it is drawn from."""
    q, z = [posterior], [distributions.gaussian_of_noise(noise[0], *posterior)]
    if model.network.two_layers:
        q.append(model.apply("second_encode", params, z[0], y))
        z.append(distributions.gaussian_of_noise(noise[1], *q[1]))
    return z, q


def weigh(model: Model, params: PyTree, x: Array, y: Array | None, z: list[Array], q: list[Gaussian], noise: list[Array]
          ) -> Draws:
    """What the bounds need of samples z of the Gaussians q, which `noise` makes of q."""
    log_px = model.likelihood.log_prob(model.apply("decode", params, z[0], y), x)
    # log q - log p of each number, both up to log(2 pi) / 2, which cancels
    kl = [0.5 * (jnp.square(z[-1]) - jnp.square(noise[-1]) - q[-1][1])]
    expected = [_kl_standard_normal(*q[-1])]
    if model.network.two_layers:
        mean, log_var = model.apply("second_decode", params, z[1], y)
        kl.append(0.5 * (jnp.square(z[0] - mean) * jnp.exp(-log_var) + log_var - jnp.square(noise[0]) - q[0][1]))
        expected.append(kl[1])
    log_w = log_px - sum(each.sum(-1) for each in kl)
    return Draws(log_px, log_w, [each.reshape(-1, *each.shape[-2:]) for each in expected])


def draw(model: Model, params: PyTree, x: Array, y: Array | None, posterior: Gaussian, noise: list[Array]) -> Draws:
    """Samples of each of the B images, whose q(z_1|x) is `posterior`."""
    z, q = latents(model, params, y, posterior, noise)
    return weigh(model, params, x, y, z, q, noise)


def metrics_of(draws: Draws) -> dict[str, Mean]:
    """The ELBO and its two terms, in nats per image."""
    reconstruction, kl = draws.log_px.mean(0), sum(kl.mean(0).sum(-1) for kl in draws.kl)
    return {"elbo": Mean.of(reconstruction - kl), "reconstruction": Mean.of(reconstruction), "kl": Mean.of(kl)}


def gradient(model: Model, config: Config, axis_name: str | None, params: PyTree, examples: Examples, key: Key
             ) -> tuple[PyTree, dict[str, Mean]]:
    """The gradient of the objective's negative for a batch, and metrics."""
    k_pixels, k_latent = jax.random.split(key)
    x, y = model.inputs(examples, k_pixels)
    noise = draw_noise(model, jax.random.split(k_latent, config.num_samples), len(x))

    def loss_fn(params: PyTree) -> tuple[Array, Draws]:
        draws = draw(model, params, x, y, model.apply("encode", params, x, y), noise)
        if config.objective == "iwae":
            return -estimators.log_mean_exp(draws.log_w).mean(), draws
        kl = sum(_kl_above(kl.mean((0, 1)), config.free_bits, axis_name) for kl in draws.kl)
        return config.beta * kl - draws.log_px.mean(), draws

    if config.estimator == "doubly_reparameterized":
        (loss, draws), grads = _doubly_reparameterized(model, params, x, y, noise)
    else:
        (loss, draws), grads = estimators.reparameterized(loss_fn, params)
    return grads, metrics_of(draws) | {"loss": Mean.of(loss)}


def _doubly_reparameterized(model: Model, params: PyTree, x: Array, y: Array | None, noise: list[Array]
                            ) -> tuple[tuple[Array, Draws], PyTree]:
    def of_params(params: PyTree) -> tuple[list[Array], Gaussian]:
        posterior = model.apply("encode", params, x, y)
        return latents(model, params, y, posterior, noise)[0], posterior

    def log_weights(params: PyTree, z: list[Array], posterior: Gaussian) -> tuple[Array, Draws]:
        q = [posterior]
        if model.network.two_layers:
            q.append(model.apply("second_encode", jax.lax.stop_gradient(params), z[0], y))
        noise = [(z - mean) * jnp.exp(-0.5 * log_var) for z, (mean, log_var) in zip(z, q, strict=True)]
        draws = weigh(model, params, x, y, z, q, noise)
        return draws.log_w, draws

    return estimators.doubly_reparameterized(of_params, log_weights, params)


def measure(model: Model, num_weighted: int | None, params: PyTree, examples: Examples, key: Key) -> dict[str, Mean]:
    """The ELBO and its terms, of one sample an image, or of `num_weighted`, and their importance-weighted bound `iwae`."""
    k_pixels, k_latent = jax.random.split(key)
    x, y = model.inputs(examples, k_pixels)
    noise = draw_noise(model, jax.random.split(k_latent, num_weighted or 1), len(x))
    draws = draw(model, params, x, y, model.apply("encode", params, x, y), noise)
    return metrics_of(draws) | ({} if num_weighted is None else {"iwae": Mean.of(estimators.log_mean_exp(draws.log_w))})


def log_prob(model: Model, params: PyTree, examples: Examples, key: Key, num_samples: int, chunk: int = 50) -> Array:
    """The importance-weighted bound [N], `chunk` samples of all images at a time; q(z_1|x) is computed once."""
    k_pixels, k_latent = jax.random.split(key)
    x, y = model.inputs(examples, k_pixels)
    posterior = model.apply("encode", params, x, y)

    def body(total: Array, i: Array) -> tuple[Array, None]:
        index = i * chunk + jnp.arange(chunk)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(k_latent, index)
        log_w = draw(model, params, x, y, posterior, draw_noise(model, keys, len(x))).log_w
        log_w = jnp.where((index < num_samples)[:, None], log_w, -jnp.inf)
        return jnp.logaddexp(total, jax.nn.logsumexp(log_w, 0)), None

    total, _ = jax.lax.scan(body, jnp.full(len(x), -jnp.inf), jnp.arange(-(-num_samples // chunk)))
    return total - jnp.log(num_samples)


def pixels(model: Model, params: PyTree, z: Array, y: Array | None) -> Array:
    """Expected images [N, H, W, C] in [0, 1] of latents of the first layer [N, Z]."""
    return model.likelihood.mean(model.apply("decode", params, z, y)).reshape(-1, *model.network.shape)


def prior(model: Model, key: Key, n: int) -> Array:
    """Draws of the top latent, [n, Z]."""
    return jax.random.normal(key, (n, model.network.second_latent_size or model.network.latent_size))


def sample(model: Model, params: PyTree, key: Key, n: int, labels: Array | None = None) -> Array:
    """Images [n, H, W, C] drawn from the model, but for their pixels, which are expected values."""
    k_top, k_first = jax.random.split(key)
    z, y = prior(model, k_top, n), model.classes.in_turn(n, labels)
    if model.network.two_layers:
        z = distributions.gaussian_sample(k_first, *model.apply("second_decode", params, z, y))
    return pixels(model, params, z, y)


def encode(model: Model, params: PyTree, examples: Examples, key: Key) -> Array:
    """Means of the top latent, [N, Z]."""
    x, y = model.inputs(examples, key)
    z, _ = model.apply("encode", params, x, y)
    return model.apply("second_encode", params, z, y)[0] if model.network.two_layers else z


def decode(model: Model, params: PyTree, z: Array, labels: Array | None = None) -> Array:
    """Expected images of top latents [N, Z], with the mean of the first layer where there are two."""
    y = model.classes.in_turn(len(z), labels)
    return pixels(model, params, model.apply("second_decode", params, z, y)[0] if model.network.two_layers else z, y)


def reconstruct(model: Model, params: PyTree, examples: Examples, key: Key) -> Array:
    """Expected images of the mean of the first layer."""
    x, y = model.inputs(examples, key)
    return pixels(model, params, model.apply("encode", params, x, y)[0], y)


class VAE(NamedTuple):
    """A learner and what its model can do."""

    learner: Learner
    measure: Callable[[PyTree, Examples, Key], dict[str, Mean]]  # (params, examples, key) -> means over held-out examples
    sample: Callable[..., Array]  # (params, key, N, labels=None) -> images [N, H, W, C] in [0, 1]
    log_prob: Callable[..., Array]  # (params, examples, key, num_samples, chunk) -> [N] nats
    prior: Callable[[Key, int], Array]  # (key, N) -> latents [N, Z]
    encode: Callable[..., Array]  # (params, examples, key) -> latents [N, Z]
    decode: Callable[..., Array]  # (params, latents [N, Z], labels=None) -> images [N, H, W, C]
    reconstruct: Callable[[PyTree, Examples, Key], Array]  # (params, examples, key) -> images [N, H, W, C]


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> VAE:
    """The learner and its model for images of a shape.

    Raises:
        UserError: a conditional model of a dataset without labels; binarize=none of images that are not binary.
    """
    if config.likelihood == "bernoulli":
        likelihoods.check(config.binarize, spec)
    likelihood = likelihoods.make(config.likelihood, config.binarize, config.variance)
    network = Network(spec.shape, likelihood.outputs, config.network, config.conv_channels, config.hidden_sizes,
                      config.activation, config.latent_size, config.second_latent_size, config.second_hidden_sizes)
    model = Model(network, likelihood, Classes.of(config.conditional, spec))
    learning = model._replace(network=network.clone(dtype=config.optim.compute_dtype))
    optimizer = optim.make(config.optim, horizon=total_steps(config, spec))

    def init(key: Key) -> State:
        params = nn.init(network, key, jnp.zeros((1, spec.size)), model.classes.example(), initial=config.init)
        return State(params, optimizer.init(params))

    def update(state: State, examples: Examples, key: Key) -> tuple[State, UpdateResult]:
        grads, metrics = optim.microbatches(partial(gradient, learning, config, axis_name), state.params, examples, key,
                                            config.optim.grad_accumulation)
        return State(*optimizer.step(grads, state.opt, state.params, axis_name)), UpdateResult(metrics)

    weighted = config.num_samples if config.objective == "iwae" else None
    abilities = (partial(f, model) for f in (sample, log_prob, prior, encode, decode, reconstruct))
    return VAE(Learner(init, update, lambda state: state.params), partial(measure, model, weighted), *abilities)


def _kl_standard_normal(mean: Array, log_var: Array) -> Array:
    return losses.kl_standard_normal(mean[..., None], log_var[..., None])


def _kl_above(kl: Array, free: float | Array, axis_name: str | None) -> Array:
    """Sum of max(kl, free) [Z] with the mean over all shards in the place of kl; the gradient is a shard's own part.

    With nothing free it is the sum of kl, of which a mean of samples may be below 0.
    """
    counts = (axis.mean_over(jax.lax.stop_gradient(kl), axis_name) > free) | (jnp.asarray(free) == 0)
    return jnp.where(counts, kl, free).sum()


make_run = minibatches.run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: VAE) -> dict[type, Any]:
    """What a trained model can do."""
    classes = Classes.of(config.conditional, spec).number
    return {Sampler: Sampler(model.sample, num_classes=classes), Density: Density(model.log_prob, exact=False),
            Latents: Latents(model.decode, model.encode, model.prior, classes), Reconstructor: Reconstructor(model.reconstruct)}


def score(config: Config) -> Score:
    """What is best: by the bound that is maximized."""
    if config.objective == "iwae":
        return Score("iwae", True, f"importance-weighted bound of {config.num_samples} samples (nats per example)")
    return Score("elbo", True, "ELBO (nats per example)")


ALGORITHM = model_algorithm(
    "vae", "variational autoencoder; importance-weighted, two layers, conditional", Config, validate, make, make_run,
    total_steps, score,
    (Curve("elbo", True, "ELBO (nats per example)", "eval/elbo", 0.05, "elbo"),
     Curve("eval/elbo", True, "ELBO of held-out data (nats per example)", None, 0.05, "elbo")), abilities)
