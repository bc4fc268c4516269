"""Variational autoencoders: bounds on log p(x) of models with one or two layers of Gaussian latents.

    elbo   = E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)) <= log p(x)                  Kingma & Welling (2014)
    iwae_K = E[log 1/K sum_k w_k],  w_k = p(x, z_k) / q(z_k|x),  z_k ~ q(z|x)       Burda, Grosse & Salakhutdinov (2016)

iwae_1 is the ELBO, and the bound rises with K. Draws are mean + exp(log_var / 2) * noise, differentiable in both. With two
layers q(z_1, z_2|x) = q(z_1|x) q(z_2|z_1) and p(x, z_1, z_2) = p(z_2) p(z_1|z_2) p(x|z_1), each a Gaussian given by a network.
Of the ELBO two terms may be changed: beta weighs the KL (Higgins et al. 2017), and free bits leave the KL of each latent
number unpunished below a level, as the mean over the batch (Kingma et al. 2016, eq. 15, with groups of one).

How this differs from the papers: the KL of the ELBO is in closed form where there is one (one layer, the top one of two), and
Burda et al. take samples throughout. Everything is in nats per image.

Shapes: `B` batch, `N` images, `H W C` an image, `D` = H * W * C, `P` outputs a number of it, `Z` latent, `K` samples,
`Y` classes.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from generative import likelihoods
from jaxdl import distributions, losses, nn, optim, parallel
from jaxdl.config import config as settings
from jaxdl.config import require, require_positive
from jaxdl.errors import UserError
from jaxdl.optim import Config as OptimConfig
from jaxdl.sources import dataset
from jaxdl.types import Array, Aux, DataSpec, Examples, Generative, Key, Learner, Mean, PyTree, Run


@settings
class Config(dataset.Config):
    """Settings of the VAE."""

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
    """Model p(x|y): encoder and decoder are told the class."""
    likelihood: likelihoods.Name = "bernoulli"
    """Distribution of the pixels: bernoulli for binary images, gaussian, or discretized_logistic for the 256 values."""
    binarize: likelihoods.Binarize = "dynamic"
    """How images become binary (bernoulli): dynamic draws each pixel anew, fixed once for all, threshold cuts at a half."""
    variance: float | None = None
    """Variance of every pixel in units of their range squared (gaussian); an output of the decoder if not given."""
    objective: Literal["elbo", "iwae"] = "elbo"
    """The bound that is maximized: the ELBO, as the mean over samples, or the importance-weighted bound."""
    num_samples: int = 1
    """Samples of the latent an image and update, K."""
    beta: float = 1.0
    """Weight of the KL (elbo)."""
    free_bits: float = 0.0
    """Nats of KL of each latent number, as the batch's mean, that cost nothing (elbo)."""
    optim: OptimConfig = OptimConfig()
    """The optimizer."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree


class Draws(NamedTuple):
    """K samples of the latents of B images, and what the bounds need of them."""

    log_px: Array  # [K, B] log p(x|z)
    log_w: Array  # [K, B] log p(x, z) - log q(z|x)
    kl: list[Array]  # of each layer [K, B, Z] or [1, B, Z]: log q - log p of each number, or its expectation


class Network(linen.Module):
    """Encoder and decoder. `y` [B, Y] is the class, one-hot, or None."""

    shape: tuple[int, int, int]
    outputs: int
    config: Config

    def setup(self) -> None:
        c = self.config
        act = c.activation
        self.encoder = nn.MLP(c.hidden_sizes, activation=act)
        self.posterior = nn.GaussianHead(c.latent_size)
        self.decoder = nn.MLP(c.hidden_sizes[::-1], activation=act)
        if c.network == "conv":
            self.down = nn.ConvEncoder(c.conv_channels, act)
            self.pixels = nn.ConvDecoder((*self.shape[:2], self.outputs * self.shape[2]), c.conv_channels[::-1], act)
        else:
            self.pixels = linen.Dense(self.outputs * math.prod(self.shape), kernel_init=nn.lecun_uniform)
        if c.second_latent_size is not None:
            self.second_encoder = nn.MLP(c.second_hidden_sizes, activation=act)
            self.second_posterior = nn.GaussianHead(c.second_latent_size)
            self.second_decoder = nn.MLP(c.second_hidden_sizes[::-1], activation=act)
            self.prior = nn.GaussianHead(c.latent_size)

    def encode(self, x: Array, y: Array | None) -> tuple[Array, Array]:
        """q(z|x) of [B, D]: mean and log-variance [B, Z]."""
        if self.config.network == "conv":
            x = self.down(x.reshape(-1, *self.shape)).reshape(len(x), -1)
        return self.posterior(self.encoder(_with_class(x, y)))

    def second_encode(self, z: Array, y: Array | None) -> tuple[Array, Array]:
        """q(z_2|z_1): [..., B, Z] -> mean and log-variance [..., B, Z_2]."""
        return self.second_posterior(self.second_encoder(_with_class(z, y)))

    def second_decode(self, z: Array, y: Array | None) -> tuple[Array, Array]:
        """p(z_1|z_2): [..., B, Z_2] -> mean and log-variance [..., B, Z]."""
        return self.prior(self.second_decoder(_with_class(z, y)))

    def decode(self, z: Array, y: Array | None) -> Array:
        """What p(x|z) is made of: [..., B, Z] -> [..., B, P, D]."""
        h = self.decoder(_with_class(z, y))
        if self.config.network == "mlp":
            return self.pixels(h).reshape(*z.shape[:-1], self.outputs, -1)
        x = self.pixels(h.reshape(-1, h.shape[-1]))
        return jnp.moveaxis(x.reshape(*z.shape[:-1], -1, self.outputs, self.shape[2]), -2, -3).reshape(
            *z.shape[:-1], self.outputs, -1)

    def __call__(self, x: Array, y: Array | None) -> Array:
        z, _ = self.encode(x, y)
        if self.config.second_latent_size is not None:
            z, _ = self.second_decode(self.second_encode(z, y)[0], y)
        return self.decode(z, y)


def _with_class(x: Array, y: Array | None) -> Array:
    return x if y is None else jnp.concatenate([x, jnp.broadcast_to(y, (*x.shape[:-1], y.shape[-1]))], -1)


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    dataset.validate(config)
    require_positive(config, "latent_size", "second_latent_size", "num_samples", "variance", "beta")
    for field in ("hidden_sizes", "second_hidden_sizes", "conv_channels"):
        require(config, field, all(n > 0 for n in getattr(config, field)), "widths above 0")
    require(config, "conv_channels", config.network == "mlp" or bool(config.conv_channels), "at least one for network=conv")
    require(config, "free_bits", 0 <= config.free_bits < float("inf"), "0 or above")
    if config.objective == "iwae" and (config.beta != 1 or config.free_bits != 0):
        raise UserError(f"beta={config.beta} and free_bits={config.free_bits} change the KL, which objective=iwae does not "
                        "have; use objective=elbo")
    if config.variance is not None and config.likelihood != "gaussian":
        raise UserError(f"variance={config.variance} is of likelihood=gaussian, and likelihood is {config.likelihood}")
    nn.activation(config.activation)
    optim.validate(config.optim, config.batch_size)


def total_steps(config: Config, spec: DataSpec) -> int:
    """Updates of the planned run."""
    return dataset.total_steps(config, spec)


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Generative:
    """The learner and its model for images of a shape.

    Raises:
        UserError: a conditional model of a dataset without labels.
    """
    if config.conditional and spec.num_classes is None:
        raise UserError(f"conditional=True needs labels, and the dataset {spec.name} has none")
    likelihood = likelihoods.make(config.likelihood, config.binarize, config.variance)
    network = Network(spec.shape, likelihood.outputs, config)
    tx = optim.make(config.optim, horizon=total_steps(config, spec))
    two_layers = config.second_latent_size is not None
    sizes = (config.latent_size, *([config.second_latent_size] if two_layers else []))

    def apply(method: str, params: PyTree, x: Array, y: Array | None) -> PyTree:
        return network.apply(params, x, y, method=method)

    def classes(labels: Array | None) -> Array | None:
        return jax.nn.one_hot(labels, spec.num_classes) if config.conditional else None

    def draw(params: PyTree, x: Array, y: Array | None, posterior: tuple[Array, Array], keys: Key) -> Draws:
        """A sample of each of the B images, whose q(z_1|x) is `posterior`, for each of the K keys."""
        mean, log_var = posterior
        noise = jax.vmap(lambda key: jax.random.normal(key, (*mean.shape[:-1], sum(sizes))))(keys)
        noise, noise_2 = noise[..., : config.latent_size], noise[..., config.latent_size :]
        z = mean + jnp.exp(0.5 * log_var) * noise
        log_px = likelihood.log_prob(apply("decode", params, z, y), x)
        log_q = -0.5 * (jnp.square(noise) + log_var)  # both up to log(2 pi) / 2, which cancels
        if not two_layers:
            log_w = log_px + (-0.5 * jnp.square(z) - log_q).sum(-1)
            return Draws(log_px, log_w, [_kl_standard_normal(mean, log_var)[None]])
        second = mean_2, log_var_2 = apply("second_encode", params, z, y)
        z_2 = mean_2 + jnp.exp(0.5 * log_var_2) * noise_2
        mean_p, log_var_p = apply("second_decode", params, z_2, y)
        kl_1 = log_q + 0.5 * (jnp.square(z - mean_p) * jnp.exp(-log_var_p) + log_var_p)
        log_w = log_px - kl_1.sum(-1) + 0.5 * (jnp.square(noise_2) + log_var_2 - jnp.square(z_2)).sum(-1)
        return Draws(log_px, log_w, [kl_1, _kl_standard_normal(*second)])

    def init(key: Key) -> State:
        y = jnp.zeros((1, spec.num_classes)) if config.conditional else None
        params = nn.init(network, key, jnp.zeros((1, spec.size)), y)
        return State(params, tx.init(params))

    def bound(params: PyTree, examples: Examples, key: Key, k: int) -> tuple[Draws, dict[str, Mean]]:
        k_pixels, k_latent = jax.random.split(key)
        x, y = likelihood.target(examples.images, k_pixels), classes(examples.labels)
        draws = draw(params, x, y, apply("encode", params, x, y), jax.random.split(k_latent, k))
        reconstruction, kl = draws.log_px.mean(0), sum(kl.mean(0).sum(-1) for kl in draws.kl)
        metrics = {"elbo": Mean.of(reconstruction - kl), "reconstruction": Mean.of(reconstruction), "kl": Mean.of(kl)}
        return draws, metrics

    def loss_fn(params: PyTree, examples: Examples, key: Key) -> tuple[Array, dict[str, Mean]]:
        draws, metrics = bound(params, examples, key, config.num_samples)
        if config.objective == "iwae":
            loss = -log_mean_exp(draws.log_w).mean()
        else:
            kl = sum(_kl_above(kl.mean((0, 1)), config.free_bits, axis_name) for kl in draws.kl)
            loss = config.beta * kl - draws.log_px.mean()
        return loss, metrics | {"loss": Mean.of(loss)}

    def update(state: State, examples: Examples, key: Key) -> tuple[State, Aux]:
        grads, metrics = optim.gradients(loss_fn, state.params, examples, key, config.optim)
        updates, opt = tx.update(parallel.mean_over(grads, axis_name), state.opt, state.params)
        return State(jax.tree.map(jnp.add, state.params, updates), opt), Aux(metrics)

    def measure(params: PyTree, examples: Examples, key: Key) -> dict[str, Mean]:
        return bound(params, examples, key, 1)[1]

    def log_prob(params: PyTree, examples: Examples, key: Key, num_samples: int, chunk: int = 50) -> Array:
        """The importance-weighted bound, `chunk` samples of all images at a time; q(z_1|x) is computed once."""
        k_pixels, k_latent = jax.random.split(key)
        x, y = likelihood.target(examples.images, k_pixels), classes(examples.labels)
        posterior = apply("encode", params, x, y)

        def body(total: Array, i: Array) -> tuple[Array, None]:
            index = i * chunk + jnp.arange(chunk)
            log_w = draw(params, x, y, posterior, jax.vmap(jax.random.fold_in, (None, 0))(k_latent, index)).log_w
            log_w = jnp.where((index < num_samples)[:, None], log_w, -jnp.inf)
            return jnp.logaddexp(total, jax.nn.logsumexp(log_w, 0)), None

        total, _ = jax.lax.scan(body, jnp.full(len(x), -jnp.inf), jnp.arange(-(-num_samples // chunk)))
        return total - jnp.log(num_samples)

    def pixels(params: PyTree, z: Array, y: Array | None) -> Array:
        return likelihood.mean(apply("decode", params, z, y)).reshape(-1, *spec.shape)

    def in_turn(n: int, labels: Array | None) -> Array | None:
        return classes(jnp.arange(n) % (spec.num_classes or 1) if labels is None else labels)

    def prior(key: Key, n: int) -> Array:
        return jax.random.normal(key, (n, sizes[-1]))

    def sample(params: PyTree, key: Key, n: int, labels: Array | None = None) -> Array:
        k_top, k_first = jax.random.split(key)
        z, y = prior(k_top, n), in_turn(n, labels)
        if two_layers:
            z = distributions.gaussian_sample(k_first, *apply("second_decode", params, z, y))
        return pixels(params, z, y)

    def encode(params: PyTree, examples: Examples, key: Key) -> Array:
        """The mean of the top latent."""
        x, y = likelihood.target(examples.images, key), classes(examples.labels)
        z, _ = apply("encode", params, x, y)
        return apply("second_encode", params, z, y)[0] if two_layers else z

    def decode(params: PyTree, z: Array, labels: Array | None = None) -> Array:
        y = in_turn(len(z), labels)
        return pixels(params, apply("second_decode", params, z, y)[0] if two_layers else z, y)

    def reconstruct(params: PyTree, examples: Examples, key: Key) -> Array:
        x, y = likelihood.target(examples.images, key), classes(examples.labels)
        return pixels(params, apply("encode", params, x, y)[0], y)

    return Generative(Learner(init, update, lambda state: state.params), measure, "elbo", sample, log_prob, prior=prior,
                      encode=encode, decode=decode, reconstruct=reconstruct)


def log_mean_exp(log_w: Array) -> Array:
    """Log of the mean over the first axis: [K, ...] -> [...]."""
    return jax.nn.logsumexp(log_w, 0) - math.log(len(log_w))


def _kl_standard_normal(mean: Array, log_var: Array) -> Array:
    return losses.kl_standard_normal(mean[..., None], log_var[..., None])


def _kl_above(kl: Array, free: float | Array, axis_name: str | None) -> Array:
    """Sum of max(kl, free) [Z] with the mean over all shards in the place of kl; the gradient is a shard's own part."""
    counts = parallel.mean_over(jax.lax.stop_gradient(kl), axis_name) > free
    return jnp.where(counts, kl, free).sum()


def make_run(config: Config, spec: DataSpec, axis_name: str | None = None, shards: int = 1) -> Run:
    """A VAE on a dataset that lies on the device (`data`: `Examples`)."""
    learner = make(config, spec, axis_name).learner
    return dataset.run_of(learner, spec.num_examples, config.batch_size, axis_name, shards)
