"""Variational autoencoder with a Gaussian posterior and a Bernoulli likelihood.

    elbo(x) = E_q(z|x)[log p(x|z)] - KL(q(z|x) || N(0, I)) <= log p(x)

Kingma & Welling, "Auto-Encoding Variational Bayes" (2014): encoder and decoder are MLPs, q(z|x) = N(mean, exp(log_var)) is
sampled as mean + exp(log_var / 2) * noise. Images are binarized anew each time they are seen (dynamic binarization: a pixel
is 1 with the probability of its intensity; Salakhutdinov & Murray 2008, Burda et al. 2016), and reported numbers are nats
per binary image. How this differs from the paper: ReLU in place of tanh, Adam in place of AdaGrad.

Shapes: `B` batch, `N` images, `H W C` an image, `D` = H * W * C, `Z` latent, `K` importance samples.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen

from jaxdl import distributions, losses, nn, optim, parallel
from jaxdl.config import config as settings
from jaxdl.config import require, require_positive
from jaxdl.errors import UserError
from jaxdl.optim import Config as OptimConfig
from jaxdl.run import compose
from jaxdl.sources import dataset
from jaxdl.types import Array, Aux, DataSpec, Key, Learner, Mean, PyTree, Run

DEFAULT_EPOCHS = 10


@settings
class Config:
    """Settings of the VAE."""

    dataset: str = "digits"
    """Name of the dataset (`jaxdl list`)."""
    data_dir: str | None = None
    """Folder with the dataset's files; without it a known dataset is fetched."""
    epochs: int | None = None
    """Passes over the training images (10 if neither this nor total_steps is given)."""
    total_steps: int | None = None
    """Updates of the planned run, in place of epochs; schedules run over it."""
    batch_size: int = 128
    """Images in one update."""
    latent_size: int = 20
    """Width of the latent, Z."""
    hidden_sizes: tuple[int, ...] = (500,)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    activation: str = "relu"
    """Nonlinearity of the hidden layers."""
    binarize: Literal["dynamic", "threshold"] = "dynamic"
    """How images become binary: dynamic draws each pixel anew, threshold cuts at one half."""
    optim: OptimConfig = OptimConfig()
    """The optimizer."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree


class Vae(NamedTuple):
    """A learner with what its model can do. Images come in as uint8 [N, H, W, C] and go out as floats in [0, 1]."""

    learner: Learner
    sample: Callable[[PyTree, Key, int], Array]  # (params, key, N) -> pixel means [N, H, W, C]
    reconstruct: Callable[[PyTree, Array, Key], Array]  # (params, images, key) -> pixel means [N, H, W, C]
    elbo: Callable[[PyTree, Array, Key], dict[str, Mean]]  # (params, images, key) -> elbo, reconstruction, kl
    log_prob: Callable[..., Array]  # (params, images, key, num_samples, chunk) -> log p(x) from below, [N] nats


class Network(linen.Module):
    """Encoder and decoder."""

    size: int
    latent_size: int
    hidden_sizes: tuple[int, ...]
    activation: str

    def setup(self) -> None:
        self.encoder = nn.MLP(self.hidden_sizes, activation=self.activation)
        self.posterior = nn.GaussianHead(self.latent_size)
        self.decoder = nn.MLP(self.hidden_sizes[::-1], activation=self.activation)
        self.pixels = linen.Dense(self.size)

    def encode(self, x: Array) -> tuple[Array, Array]:
        """[B, D] in {0, 1} -> mean [B, Z], log-variance [B, Z]."""
        return self.posterior(self.encoder(x))

    def decode(self, z: Array) -> Array:
        """[..., Z] -> logits of the pixels [..., D]."""
        return self.pixels(self.decoder(z))

    def __call__(self, x: Array) -> tuple[Array, Array, Array]:
        mean, log_var = self.encode(x)
        return mean, log_var, self.decode(mean)


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    if config.epochs is not None and config.total_steps is not None:
        raise UserError(f"epochs={config.epochs} and total_steps={config.total_steps} both say how long to train; give one")
    require_positive(config, "epochs", "total_steps", "batch_size", "latent_size")
    require(config, "hidden_sizes", all(n > 0 for n in config.hidden_sizes), "widths above 0")
    nn.activation(config.activation)
    optim.validate(config.optim, config.batch_size)


def total_steps(config: Config, spec: DataSpec) -> int:
    """Updates of the planned run."""
    if config.total_steps is not None:
        return config.total_steps
    return (config.epochs or DEFAULT_EPOCHS) * dataset.steps_per_epoch(spec.num_examples, config.batch_size)


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Vae:
    """The learner and its model for images of a shape."""
    size = spec.size
    network = Network(size, config.latent_size, config.hidden_sizes, config.activation)
    tx = optim.make(config.optim, horizon=total_steps(config, spec))

    def binarized(images: Array, key: Key) -> Array:
        x = images.reshape(-1, size)
        if config.binarize == "threshold":
            return (x > 127).astype(jnp.float32)
        words = jax.random.bits(key, (-(-x.size // 2),))  # 16 bits a pixel: asked for as uint16, jax would hash 64 for each
        threshold = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size].reshape(x.shape) % 255
        return (threshold < x).astype(jnp.float32)  # 1 with probability x / 255, to 2**-16

    def terms(params: PyTree, images: Array, key: Key) -> tuple[Array, Array]:
        k_pixels, k_latent = jax.random.split(key)
        x = binarized(images, k_pixels)
        mean, log_var = network.apply(params, x, method="encode")
        z = distributions.gaussian_sample(k_latent, mean, log_var)
        logits = network.apply(params, z, method="decode")
        reconstruction = -losses.binary_cross_entropy(logits, x).sum(-1)
        return reconstruction, losses.kl_standard_normal(mean, log_var)

    def elbo(params: PyTree, images: Array, key: Key) -> dict[str, Mean]:
        reconstruction, kl = terms(params, images, key)
        return {"elbo": Mean.of(reconstruction - kl), "reconstruction": Mean.of(reconstruction), "kl": Mean.of(kl)}

    def init(key: Key) -> State:
        params = nn.init(network, key, jnp.zeros((1, size)))
        return State(params, tx.init(params))

    def loss_fn(params: PyTree, images: Array, key: Key) -> tuple[Array, dict[str, Mean]]:
        metrics = elbo(params, images, key)
        loss = -metrics["elbo"].total / metrics["elbo"].count
        return loss, metrics | {"loss": Mean.of(loss)}

    def update(state: State, images: Array, key: Key) -> tuple[State, Aux]:
        grads, metrics = optim.gradients(loss_fn, state.params, images, key, config.optim.accumulate)
        updates, opt = tx.update(parallel.mean_over(grads, axis_name), state.opt, state.params)
        return State(jax.tree.map(jnp.add, state.params, updates), opt), Aux(metrics)

    def images_of(logits: Array) -> Array:
        return jax.nn.sigmoid(logits).reshape(-1, *spec.shape)

    def sample(params: PyTree, key: Key, n: int) -> Array:
        return images_of(network.apply(params, jax.random.normal(key, (n, config.latent_size)), method="decode"))

    def reconstruct(params: PyTree, images: Array, key: Key) -> Array:
        mean, _ = network.apply(params, binarized(images, key), method="encode")
        return images_of(network.apply(params, mean, method="decode"))

    def log_prob(params: PyTree, images: Array, key: Key, num_samples: int, chunk: int = 50) -> Array:
        """Log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) (Burda et al. 2016, eq. 8), `chunk` samples of all images at a time."""
        k_pixels, k_latent = jax.random.split(key)
        x = binarized(images, k_pixels)
        mean, log_var = network.apply(params, x, method="encode")

        def log_weights(i: Array) -> Array:
            z = distributions.gaussian_sample(jax.random.fold_in(k_latent, i), mean, log_var)
            log_px = -losses.binary_cross_entropy(network.apply(params, z, method="decode"), x).sum(-1)
            log_pz = distributions.gaussian_log_prob(z, jnp.zeros(()), jnp.zeros(()))
            return log_px + (log_pz - distributions.gaussian_log_prob(z, mean, log_var)).sum(-1)

        def body(total: Array, i: Array) -> tuple[Array, None]:
            index = i * chunk + jnp.arange(chunk)
            weights = jnp.where((index < num_samples)[:, None], jax.vmap(log_weights)(index), -jnp.inf)
            return jnp.logaddexp(total, jax.nn.logsumexp(weights, 0)), None

        chunks = -(-num_samples // chunk)
        total, _ = jax.lax.scan(body, jnp.full(x.shape[0], -jnp.inf), jnp.arange(chunks))
        return total - jnp.log(num_samples)

    return Vae(Learner(init, update, lambda state: state.params), sample, reconstruct, elbo, log_prob)


def make_run(config: Config, spec: DataSpec, axis_name: str | None = None) -> Run:
    """A VAE on a dataset that lies on the device (`data`: uint8 [N, H, W, C])."""
    vae = make(config, spec, axis_name)
    return compose(vae.learner, dataset.dataset(spec.num_examples, config.batch_size), stride=1, axis_name=axis_name)
