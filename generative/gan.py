"""Generative adversarial networks: a generator against a discriminator, alternating inside one program.

Goodfellow et al., "Generative adversarial nets" (2014); objectives are in `generative/adversarial.py`, networks in
`jaxdl/nn/gan.py`. An update is `n_critic` steps of the discriminator, each on a batch of real images and one of generated ones,
then one of the generator. With one step the generated batch is made once: the discriminator learns from it, and the generator
gets its gradient through the discriminator as it is then. What is sampled is a running mean of the generator's parameters and
statistics (Yazici et al., "The unusual effectiveness of averaging in GAN training", 2019).

How this differs from DCGAN and SNGAN: networks as small as the images need, initial kernels uniform.

Shapes: `B` batch, `N` images, `H W C` an image, `Z` latent, `Y` classes, `n` steps of the discriminator.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import nn, optim
from jaxdl.core import axis
from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, DataSpec, Examples, Generative, Key, Learner, Mean, PyTree, Run, UpdateResult
from jaxdl.data import minibatches
from jaxdl.generative import adversarial
from jaxdl.generative.gan_networks import Discriminator, Generator
from jaxdl.generative.labels import Classes
from jaxdl.nn import spectral
from jaxdl.nn.precision import switched
from jaxdl.optim import Config as OptimConfig

_PENALTY = 10.0  # weight of the gradient penalty (Gulrajani et al. 2017)
_CRITIC = 5  # steps of a critic under it
_SLOW = 2e-4  # learning rate of a discriminator without one (DCGAN)


def _of_old_conditional(value: Any) -> dict[str, Any]:
    """Fields of a config whose `conditional` still was none, projection or concatenation."""
    if not isinstance(value, str):
        return {"conditional": value}
    return {"conditional": False} if value == "none" else {"conditional": True, "class_conditioning": value}


@settings
class Config(minibatches.Config):
    """Settings of the GAN."""

    renamed: ClassVar[dict[str, Callable[[Any], dict[str, Any]]]] = {"conditional": _of_old_conditional}

    epochs: int | None = None
    """Passes of the discriminator over the training images (10 if neither this nor total_steps is given)."""
    total_steps: int | None = None
    """Updates of the generator in the planned run, in place of epochs; schedules run over it."""
    batch_size: int = 64
    """Real images in one step of the discriminator, and generated ones in a step of either."""
    objective: adversarial.Objective = "non_saturating"
    """What both players minimize."""
    network: Literal["dcgan", "resnet"] = "dcgan"
    """Strided convolutions, or residual blocks."""
    latent_size: int = 32
    """Width of the latent, Z."""
    width: int = 32
    """Channels of the convolutions at half the images' side (dcgan), at full side (resnet); half as many as one further in."""
    hidden_size: int | None = 256
    """Width of a fully connected layer of both networks where images are smallest, or None; InfoGAN has 1,024."""
    conditional: bool = False
    """Model p(x|y): generator and discriminator are told the class, the generator by an embedding."""
    class_conditioning: Literal["projection", "concatenation"] = "projection"
    """How the discriminator is told the class: by a projection of its features, or as planes beside the colours."""
    n_critic: int | None = None
    """Steps of the discriminator for one of the generator; 5 for wgan_gp and 1 for the others if not given."""
    gradient_penalty: float | None = None
    """Weight of the gradient penalty; 10 for wgan_gp and none for the others if not given."""
    spectral_norm: bool = False
    """Divide each kernel of the discriminator by its largest singular value."""
    discriminator_norm: Literal["batch", "none"] | None = None
    """Normalization within the discriminator; batch for a dcgan without a penalty or spectral norm, else none, if not given."""
    ema_decay: float = 0.999
    """Decay of the running mean of the generator that is sampled; over its first updates it is shorter, (1 + t) / (10 + t)."""
    discriminator_learning_rate: float | None = None
    """Size of the discriminator's steps; the generator's for wgan_gp and 2e-4 for the others if not given (two time scales,
    Heusel et al. 2017: a generator as slow is found out, and minimax then leaves it no gradient)."""
    optim: OptimConfig = OptimConfig(learning_rate=1e-3, beta1=0.5)
    """The optimizer of each of the two, but for the discriminator's rate (DCGAN's Adam)."""


class State(NamedTuple):
    """State of the learner."""

    generator: PyTree  # {"params", "batch_stats"}
    discriminator: PyTree
    vectors: list[spectral.Vectors]  # of the discriminator's kernels; none without spectral normalization
    opt_generator: PyTree
    opt_discriminator: PyTree
    ema: PyTree  # of the generator
    count: Array  # int32 (): updates


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    require_positive(config, "latent_size", "width", "hidden_size", "n_critic", "gradient_penalty",
                     "discriminator_learning_rate")
    require(config, "ema_decay", 0 <= config.ema_decay < 1, "at least 0 and below 1")
    if config.discriminator_norm == "batch" and penalty_of(config) is not None:
        raise UserError("discriminator_norm=batch ties the images of a batch together, and the gradient penalty is of each by "
                        "itself; use discriminator_norm=none")
    optim.validate(config.optim, config.batch_size)
    if config.optim.remat:
        raise UserError("remat is for networks of stacked blocks, and a gan has none; lower batch_size")
    if config.optim.grad_accumulation != 1:
        raise UserError(f"grad_accumulation={config.optim.grad_accumulation} would cut a batch whose statistics are taken as a "
                        "whole; lower batch_size")


def critic_steps(config: Config) -> int:
    """n: steps of the discriminator for one of the generator."""
    return config.n_critic or (_CRITIC if config.objective == "wgan_gp" else 1)


def penalty_of(config: Config) -> float | Array | None:
    """Weight of the gradient penalty, None where there is none."""
    return _PENALTY if config.gradient_penalty is None and config.objective == "wgan_gp" else config.gradient_penalty


def total_steps(config: Config, spec: DataSpec) -> int:
    """Updates of the generator in the planned run."""
    if config.total_steps is not None:
        return config.total_steps
    return (config.epochs or minibatches.DEFAULT_EPOCHS) * minibatches.steps_per_epoch(
        spec.num_examples, critic_steps(config) * config.batch_size)


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Generative:
    """The learner and its model for images of a shape. A batch of the learner has n * B images.

    Raises:
        UserError: sides that cannot be halved twice, or a conditional model of a dataset without labels.
    """
    if spec.shape[0] % 4 or spec.shape[1] % 4:
        raise UserError(f"a gan makes images whose sides are divisible by 4, and those of {spec.name} are {spec.shape[0]} x "
                        f"{spec.shape[1]}")
    classes = Classes.of(config.conditional, spec)
    steps, penalty, objective = critic_steps(config), penalty_of(config), config.objective
    norm = config.discriminator_norm or (
        "batch" if config.network == "dcgan" and penalty is None and not config.spectral_norm else "none")
    generator = Generator(spec.shape, config.network, config.width, config.hidden_size, axis_name)
    discriminator = Discriminator(config.network, config.width, norm == "batch", config.class_conditioning, config.hidden_size,
                                  axis_name)
    horizon = total_steps(config, spec)
    rate = config.discriminator_learning_rate
    rate = (config.optim.learning_rate if objective == "wgan_gp" else _SLOW) if rate is None else rate
    optim_d = replace(config.optim, learning_rate=rate)
    optimizer_g, optimizer_d = optim.make(config.optim, horizon), optim.make(optim_d, horizon * steps)

    def switch(f: Callable) -> Callable:
        return switched(f, config.optim.compute_dtype, remat=False)

    def generate(params: PyTree, stats: PyTree, z: Array, y: Array | None) -> tuple[Array, PyTree]:
        images, new = generator.apply({"params": params, "batch_stats": stats}, z, y, True, mutable=["batch_stats"])
        return images, new["batch_stats"]

    def judge(params: PyTree, vectors: list[spectral.Vectors], x: Array, y: Array | None) -> Array:
        if config.spectral_norm:
            params = spectral.normalize(params, vectors)
        return discriminator.apply({"params": params}, x, y, mutable=["batch_stats"])[0]  # its statistics are never used

    def prior(key: Key, n: int) -> Array:
        return jax.random.normal(key, (n, config.latent_size))

    def init(key: Key) -> State:
        k_generator, k_discriminator, k_vectors = jax.random.split(key, 3)
        y = classes.example()
        made = nn.init(generator, k_generator, jnp.zeros((1, config.latent_size)), y, True)
        against = nn.init(discriminator, k_discriminator, jnp.zeros((1, *spec.shape)), y)["params"]
        vectors = spectral.start(against, k_vectors) if config.spectral_norm else []
        return State(made, against, vectors, optimizer_g.init(made["params"]), optimizer_d.init(against), made,
                     jnp.zeros((), jnp.int32))

    def discriminator_step(state: State, real: Array, fake: Array, y: Array | None, key: Key) -> tuple[State, dict[str, Mean]]:
        vectors = spectral.advance(state.discriminator, state.vectors) if config.spectral_norm else []

        def loss_fn(params: PyTree) -> tuple[Array, dict[str, Mean]]:
            logits_real, logits_fake = judge(params, vectors, real, y), judge(params, vectors, fake, y)
            loss = adversarial.discriminator_loss(objective, logits_real, logits_fake)
            metrics = {"loss_discriminator": Mean.of(loss), "logit_real": Mean.of(logits_real),
                       "logit_fake": Mean.of(logits_fake)}
            if penalty is None:
                return loss.mean(), metrics
            slope = adversarial.gradient_penalty(lambda x: judge(params, vectors, x, y), real, fake, key)
            return (loss + penalty * slope).mean(), metrics | {"penalty": Mean.of(slope)}

        grads, metrics = jax.grad(switch(loss_fn), has_aux=True)(state.discriminator)
        params, opt = optimizer_d.step(grads, state.opt_discriminator, state.discriminator, axis_name)
        return state._replace(discriminator=params, vectors=vectors, opt_discriminator=opt), metrics

    def update(state: State, examples: Examples, key: Key) -> tuple[State, UpdateResult]:
        k_steps, k_latent, k_penalty = jax.random.split(key, 3)
        real = examples.images.astype(jnp.float32) / 127.5 - 1
        y = classes.one_hot(examples.labels)
        size = len(real) // steps
        params, stats = state.generator["params"], state.generator["batch_stats"]
        y_last = None if y is None else y[-size:]
        fake, pull, new_stats = jax.vjp(
            switch(lambda params: generate(params, stats, prior(k_latent, size), y_last)), params, has_aux=True)
        if steps == 1:
            state, metrics = discriminator_step(state, real, fake, y, k_penalty)
        else:
            def body(state: State, part: tuple[Array, Array | None, Key]) -> tuple[State, dict[str, Mean]]:
                real, y, key = part
                k_latent, k_penalty = jax.random.split(key)
                fake, _ = generate(params, stats, prior(k_latent, size), y)
                return discriminator_step(state, real, fake, y, k_penalty)

            parts = jax.tree.map(lambda x: x.reshape(steps, size, *x.shape[1:]), (real, y))
            state, metrics = jax.lax.scan(body, state, (*parts, jax.random.split(k_steps, steps)))
            metrics = jax.tree.map(lambda x: x.sum(0), metrics)

        def loss_of(fake: Array) -> tuple[Array, Array]:
            loss = adversarial.generator_loss(objective, judge(state.discriminator, state.vectors, fake, y_last))
            return loss.mean(), loss

        slope, loss = jax.grad(switch(loss_of), has_aux=True)(fake)
        (grads,) = pull(slope)
        params, opt = optimizer_g.step(grads, state.opt_generator, params, axis_name)
        new = {"params": params, "batch_stats": new_stats}
        ema = optim.ema(state.ema, new, config.ema_decay, state.count)
        metrics |= {"loss_generator": Mean.of(loss)}
        return state._replace(generator=new, opt_generator=opt, ema=ema, count=state.count + 1), UpdateResult(metrics)

    def decode(params: PyTree, z: Array, labels: Array | None = None) -> Array:
        y = classes.in_turn(len(z), labels)
        return (generator.apply(params, z, y, False) + 1) / 2

    def sample(params: PyTree, key: Key, n: int, labels: Array | None = None) -> Array:
        return decode(params, prior(key, n), labels)

    return Generative(Learner(init, update, lambda state: state.ema), None, "-fid", sample, prior=prior, decode=decode)


def make_run(config: Config, spec: DataSpec, axis_name: str | None = None, shards: int = 1) -> Run:
    """A GAN on a dataset that lies on the device (`data`: `Examples`)."""
    learner = make(config, spec, axis_name).learner
    axis.check_share("batch_size", config.batch_size, shards)
    return minibatches.run_of(learner, spec.num_examples, critic_steps(config) * config.batch_size, axis_name, shards)
