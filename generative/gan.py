"""Generative adversarial networks: a generator against a discriminator, alternating inside one program.

Goodfellow et al., "Generative adversarial nets" (2014); objectives are in `adversarial`, networks in `gan_networks`. An
update is `n_critic` steps of the discriminator, each on a batch of real images and one of generated ones, then one of the
generator. With one step the generated batch is made once: the discriminator learns from it, and the generator gets its
gradient through the updated discriminator. Samples come from a running mean of the generator's parameters and statistics
(Yazici et al., "The unusual effectiveness of averaging in GAN training", 2019).

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
from jaxdl.core.config import refuse_idle, require, require_positive, validate_untraced
from jaxdl.core.errors import UserError
from jaxdl.core.task import Curve, Latents, Sampler, Score
from jaxdl.core.types import Array, DataSpec, Examples, Key, Learner, Mean, PyTree, Run, UpdateResult
from jaxdl.data import minibatches
from jaxdl.generative import adversarial
from jaxdl.generative.gan_networks import Discriminator, Generator
from jaxdl.generative.labels import Classes
from jaxdl.generative.task import model_algorithm
from jaxdl.nn import spectral
from jaxdl.ops.pixels import to_symmetric
from jaxdl.optim import Config as OptimConfig

_PENALTY = 10.0  # weight of the gradient penalty (Gulrajani et al. 2017)
_CRITIC = 5  # steps of a critic with a gradient penalty
_SLOW = 2e-4  # learning rate of a discriminator without a gradient penalty (DCGAN)


def _of_old_conditional(value: Any) -> dict[str, Any]:
    """Fields of a config whose `conditional` still was none, projection or concatenation."""
    if not isinstance(value, str):
        return {"conditional": value}
    return {"conditional": False} if value == "none" else {"conditional": True, "class_conditioning": value}


@settings
class Config(minibatches.Config):
    """Settings of the GAN."""

    renamed: ClassVar[dict[str, Callable[[Any], dict[str, Any]]]] = {"conditional": _of_old_conditional}
    applies: ClassVar = {"class_conditioning": ("conditional",)}

    epochs: int | None = None
    """Passes of the discriminator over the training images (10 if neither this nor total_steps is given)."""
    total_steps: int | None = None
    """Updates of the generator in the planned run, in place of epochs; schedules run over it."""
    batch_size: int = 64
    """Real images in one step of the discriminator, and generated ones in a step of either."""
    objective: adversarial.Objective = "non_saturating"
    """The losses of both players."""
    network: Literal["dcgan", "resnet"] = "dcgan"
    """Strided convolutions, or residual blocks."""
    latent_size: int = 32
    """Width of the latent, Z."""
    width: int = 32
    """Channels of the convolutions at half the images' side (dcgan), at full side (resnet); half as many as one further in."""
    hidden_size: int | None = 256
    """Width of a fully connected layer of both networks where images are smallest, or None; InfoGAN has 1,024."""
    conditional: bool = False
    """Model p(x|y): both networks take the class, the generator as an embedding."""
    class_conditioning: Literal["projection", "concatenation"] = "projection"
    """How the discriminator takes the class: by a projection of its features, or as planes beside the colours."""
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
    init: nn.Initial = nn.Initial()
    """Initial weights."""


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
    refuse_idle(config)
    require_positive(config, "latent_size", "width", "hidden_size", "n_critic", "gradient_penalty",
                     "discriminator_learning_rate")
    require(config, "ema_decay", 0 <= config.ema_decay < 1, "at least 0 and below 1")
    if config.discriminator_norm == "batch" and penalty_of(config) is not None:
        raise UserError("discriminator_norm=batch makes the logit of an image depend on others, and the gradient penalty takes "
                        "each by itself; use discriminator_norm=none")
    if config.optim.remat:
        raise UserError("remat=True recomputes the blocks of deep networks (pixelcnn, pixelrnn), and a gan has none; set "
                        "remat=False, and lower batch_size to save memory")
    config.init.validate()
    optim.validate(config.optim, config.batch_size)
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
    an_epoch = minibatches.steps_per_epoch(spec.num_examples, critic_steps(config) * config.batch_size)
    return minibatches.planned_updates(config, an_epoch)


class Model(NamedTuple):
    """Both networks, and the classes they take."""

    config: Config
    generator: Generator
    discriminator: Discriminator
    classes: Classes

    def with_dtype(self, dtype: str) -> "Model":
        """The same networks in another precision."""
        return self._replace(generator=self.generator.clone(dtype=dtype), discriminator=self.discriminator.clone(dtype=dtype))

    def generate(self, params: PyTree, stats: PyTree, z: Array, y: Array | None) -> tuple[Array, PyTree]:
        """Images in [-1, 1], as in training, and new running statistics."""
        images, new = self.generator.apply({"params": params, "batch_stats": stats}, z, y, True, mutable=["batch_stats"])
        return images, new["batch_stats"]

    def judge(self, params: PyTree, vectors: list[spectral.Vectors], x: Array, y: Array | None) -> Array:
        """Logits [B] of images in [-1, 1]."""
        if self.config.spectral_norm:
            params = spectral.normalize(params, vectors)
        return self.discriminator.apply({"params": params}, x, y, mutable=["batch_stats"])[0]  # its statistics are never used

    def prior(self, key: Key, n: int) -> Array:
        """Latents [n, Z]."""
        return jax.random.normal(key, (n, self.config.latent_size))

    def decode(self, params: PyTree, z: Array, labels: Array | None = None) -> Array:
        """Images in [0, 1] of latents, by the running statistics."""
        return (self.generator.apply(params, z, self.classes.in_turn(len(z), labels), False) + 1) / 2

    def sample(self, params: PyTree, key: Key, n: int, labels: Array | None = None) -> Array:
        """Images [n, H, W, C] in [0, 1]."""
        return self.decode(params, self.prior(key, n), labels)


def networks(config: Config, spec: DataSpec, axis_name: str | None) -> Model:
    """The networks for images of a shape.

    Raises:
        UserError: a conditional model of a dataset without labels.
    """
    norm = config.discriminator_norm or (
        "batch" if config.network == "dcgan" and penalty_of(config) is None and not config.spectral_norm else "none")
    return Model(config, Generator(spec.shape, config.network, config.width, config.hidden_size, axis_name),
                 Discriminator(config.network, config.width, norm == "batch", config.class_conditioning, config.hidden_size,
                               axis_name), Classes.of(config.conditional, spec))


def optimizers(config: Config, horizon: int) -> tuple[optim.Optimizer, optim.Optimizer]:
    """Those of the generator and of the discriminator; `horizon` is the planned updates of the generator."""
    rate = config.discriminator_learning_rate
    if rate is None:
        rate = config.optim.learning_rate if config.objective == "wgan_gp" else _SLOW
    return (optim.make(config.optim, horizon),
            optim.make(replace(config.optim, learning_rate=rate), horizon * critic_steps(config)))


def discriminator_gradient(model: Model, vectors: list[spectral.Vectors], params: PyTree, real: Array, fake: Array,
                           y: Array | None, key: Key) -> tuple[PyTree, dict[str, Mean]]:
    """Gradient of the discriminator's loss on real and generated images [B, H, W, C] of classes y, and metrics."""
    penalty = penalty_of(model.config)

    def loss_fn(params: PyTree) -> tuple[Array, dict[str, Mean]]:
        logits_real, logits_fake = model.judge(params, vectors, real, y), model.judge(params, vectors, fake, y)
        loss = adversarial.discriminator_loss(model.config.objective, logits_real, logits_fake)
        metrics = {"loss_discriminator": Mean.of(loss), "logit_real": Mean.of(logits_real), "logit_fake": Mean.of(logits_fake)}
        if penalty is None:
            return loss.mean(), metrics
        slope = adversarial.gradient_penalty(lambda x: model.judge(params, vectors, x, y), real, fake, key)
        return (loss + penalty * slope).mean(), metrics | {"penalty": Mean.of(slope)}

    return jax.grad(loss_fn, has_aux=True)(params)


class GAN(NamedTuple):
    """A learner and what its generator can do."""

    learner: Learner
    sample: Callable[..., Array]  # (params, key, N, labels=None) -> images [N, H, W, C] in [0, 1]
    prior: Callable[[Key, int], Array]  # (key, N) -> latents [N, Z]
    decode: Callable[..., Array]  # (params, latents [N, Z], labels=None) -> images [N, H, W, C]


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> GAN:
    """The learner and its model for images of a shape. A batch of the learner has n * B images.

    Raises:
        UserError: as `networks`.
    """
    model, steps = networks(config, spec, axis_name), critic_steps(config)
    learning = model.with_dtype(config.optim.compute_dtype)
    of_generator, of_discriminator = optimizers(config, total_steps(config, spec))

    def init(key: Key) -> State:
        k_generator, k_discriminator, k_vectors = jax.random.split(key, 3)
        y = model.classes.example()
        made = nn.init(model.generator, k_generator, jnp.zeros((1, config.latent_size)), y, True, initial=config.init)
        against = nn.init(model.discriminator, k_discriminator, jnp.zeros((1, *spec.shape)), y, initial=config.init)["params"]
        vectors = spectral.start(against, k_vectors) if config.spectral_norm else []
        return State(made, against, vectors, of_generator.init(made["params"]), of_discriminator.init(against), made,
                     jnp.zeros((), jnp.int32))

    def discriminator_step(state: State, real: Array, fake: Array, y: Array | None, key: Key) -> tuple[State, dict[str, Mean]]:
        vectors = spectral.advance(state.discriminator, state.vectors) if config.spectral_norm else []
        grads, metrics = discriminator_gradient(learning, vectors, state.discriminator, real, fake, y, key)
        params, opt = of_discriminator.step(grads, state.opt_discriminator, state.discriminator, axis_name)
        return state._replace(discriminator=params, vectors=vectors, opt_discriminator=opt), metrics

    def update(state: State, examples: Examples, key: Key) -> tuple[State, UpdateResult]:
        k_steps, k_latent, k_penalty = jax.random.split(key, 3)
        real, y = to_symmetric(examples.images), model.classes.one_hot(examples.labels)
        size = len(real) // steps
        params, stats = state.generator["params"], state.generator["batch_stats"]
        y_last = None if y is None else y[-size:]
        fake, pull, new_stats = jax.vjp(
            lambda params: learning.generate(params, stats, model.prior(k_latent, size), y_last), params, has_aux=True)
        if steps == 1:
            state, metrics = discriminator_step(state, real, fake, y, k_penalty)
        else:
            def body(state: State, part: tuple[Array, Array | None, Key]) -> tuple[State, dict[str, Mean]]:
                real, y, key = part
                k_latent, k_penalty = jax.random.split(key)
                fake, _ = model.generate(params, stats, model.prior(k_latent, size), y)
                return discriminator_step(state, real, fake, y, k_penalty)

            parts = jax.tree.map(lambda x: x.reshape(steps, size, *x.shape[1:]), (real, y))
            state, metrics = jax.lax.scan(body, state, (*parts, jax.random.split(k_steps, steps)))
            metrics = jax.tree.map(lambda x: x.sum(0), metrics)

        def loss_fn(fake: Array) -> tuple[Array, Array]:
            loss = adversarial.generator_loss(
                config.objective, learning.judge(state.discriminator, state.vectors, fake, y_last))
            return loss.mean(), loss

        slope, loss = jax.grad(loss_fn, has_aux=True)(fake)
        new, opt = of_generator.step(*pull(slope), state.opt_generator, params, axis_name)
        new = {"params": new, "batch_stats": new_stats}
        ema = optim.ema(state.ema, new, config.ema_decay, state.count)
        return (state._replace(generator=new, opt_generator=opt, ema=ema, count=state.count + 1),
                UpdateResult(metrics | {"loss_generator": Mean.of(loss)}))

    return GAN(Learner(init, update, lambda state: state.ema), model.sample, model.prior, model.decode)


def make_run(config: Config, spec: DataSpec, axis_name: str | None = None, shards: int = 1) -> Run:
    """A GAN on a dataset on the device (`data`: `Examples`)."""
    validate_untraced(validate, config)
    learner = make(config, spec, axis_name).learner
    axis.check_share("batch_size", config.batch_size, shards)
    return minibatches.run_of(learner, spec.num_examples, critic_steps(config) * config.batch_size, axis_name, shards)


def abilities(config: Config, spec: DataSpec, model: GAN) -> dict[type, Any]:
    """What a trained model can do."""
    classes = Classes.of(config.conditional, spec).number
    return {Sampler: Sampler(model.sample, num_classes=classes),
            Latents: Latents(model.decode, prior=model.prior, num_classes=classes)}


ALGORITHM = model_algorithm(
    "gan", "generative adversarial network, five objectives", Config, validate, make, make_run, total_steps,
    Score("fid", False, "Frechet distance of in-domain features"),
    (Curve("eval/fid", False, "Frechet distance of in-domain features", None, 0.05, "fid"),
     Curve("loss_discriminator", False, "loss of the discriminator", None, 0.05, "loss")), abilities)
