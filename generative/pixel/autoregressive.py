"""Models of images pixel by pixel in raster order, p(x) = prod_i p(x_i | x_<i): one learner and one sampler for all of them.

A causal network computes every p(x_i | x_<i) of a given image in one pass, which is what training needs. To draw an image,
the network is needed again after each pixel. `naive` runs the network on the whole image each time. `incremental` computes only
the new position of each layer, from kept activations of the rows above and of the pixels to the left, and computes the terms
that depend on the rows above alone for a whole row at once. An image then costs the arithmetic of one forward pass.
(Ramachandran et al., "Fast generation for convolutional autoregressive models", 2017, keep queues of pixels; rows are ours.)

Both samplers use the same uniform numbers, drawn beforehand: those of an image depend on the key and on the image's index
alone. So both draw the same image.

Shapes: `B` batch, `N` images, `H W C` an image, `Y` classes, `G` groups of channels and `P` outputs a group (`pixels`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import nn, optim
from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require, require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.task import Completer, Curve, Density, NoOptions, Sampler, Score
from jaxdl.core.types import Array, DataSpec, Examples, Key, Learner, Mean, PyTree, Run, UpdateResult
from jaxdl.data import minibatches
from jaxdl.generative import likelihoods
from jaxdl.generative.labels import Classes
from jaxdl.generative.pixel import outputs
from jaxdl.optim import Config as OptimConfig

Draw = Callable[[int, Array], Array]  # (group, outputs [N, P]) -> the values drawn, as inputs of the network [N, C / G]


class Steps(NamedTuple):
    """The incremental form of a network: a row at a time, and within it a pixel at a time, for N images."""

    above: PyTree  # memory of the rows above, at the first row
    left: PyTree  # memory of the pixels to the left, at the first pixel of each row
    row: Callable[[PyTree, Array], tuple[PyTree, PyTree]]  # (above, row) -> (above, terms of the row's pixels [W, ...])
    pixel: Callable[[PyTree, PyTree, tuple[Array, Array], Draw], tuple[PyTree, PyTree]]  # (left, the pixel's terms,
    # (row, column), draw) -> (left, kept); calls `draw` for each group in turn
    end_row: Callable[[PyTree, PyTree, Array], PyTree]  # (above, kept [W, ...], row) -> above


class Network(NamedTuple):
    """A causal network. Classes are one-hot `y` [B, Y], or None."""

    init: Callable[[Key], PyTree]
    apply: Callable[..., Array]  # (params, [B, H, W, C], y, key of dropout or None, nn.Compute) -> outputs [B, H, W, G, P]:
    # those of a pixel and group depend on the pixels and groups before them alone
    steps: Callable[[PyTree, Array | None, int], Steps]  # (params, y, N) -> the same network, step by step


@settings
class Config(minibatches.Config):
    """Settings of all models that go pixel by pixel."""

    applies: ClassVar = {"levels": ("likelihood", "categorical", "mixture"), "num_mixtures": ("likelihood", "mixture"),
                         "binarize": ("likelihood", "bernoulli")}

    batch_size: int = 32
    """Images in one update."""
    width: int = 32
    """Features of the network, F; around a block (all but gated and plusplus) there are twice as many."""
    num_blocks: int = 5
    """Residual blocks or gated layers, L; plusplus has as many at each scale, both ways."""
    window: int = 7
    """Side of the first layer's window, an odd number (all but plusplus)."""
    head_features: int = 64
    """Width of the last hidden layer (all but plusplus)."""
    conditional: bool = False
    """Model p(x|y): the class adds to what every layer computes."""
    likelihood: outputs.Name = "bernoulli"
    """Distribution of a pixel: bernoulli for binary images, categorical, or a mixture of logistics."""
    levels: int = 256
    """Values a pixel can have (categorical, mixture), 2 to 256."""
    num_mixtures: int = 10
    """Logistics in the mixture."""
    binarize: likelihoods.Binarize = "dynamic"
    """How images become binary (bernoulli): dynamic draws each pixel in every batch, fixed once for all, threshold cuts at a
    half; none for images that are binary already, as those of the literature's fixed binarizations."""
    ema_decay: float = 0.999
    """Decay of the running mean of the parameters that is evaluated and sampled; over its first updates it is shorter,
    (1 + t) / (10 + t), and 0 is no mean."""
    optim: OptimConfig = OptimConfig()
    """The optimizer."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""

    renamed: ClassVar[dict[str, str]] = {"output": "likelihood", "features": "width"}


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree
    ema: PyTree  # running mean of the parameters
    count: Array  # int32 (): updates


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    refuse_idle(config)
    require_positive(config, "width", "num_blocks", "head_features", "num_mixtures")
    require(config, "window", config.window >= 3 and config.window % 2 == 1, "an odd number, 3 or above")
    require(config, "levels", 2 <= config.levels <= 256, "2 to 256")
    require(config, "ema_decay", 0 <= config.ema_decay < 1, "at least 0 and below 1")
    config.init.validate()
    optim.validate(config.optim, config.batch_size, has_blocks=True, minimizes=True)


def output_of(config: Config, spec: DataSpec) -> outputs.Output:
    """The distribution of pixels of a config.

    Raises:
        UserError: a width that cannot be divided into a group for each channel; binarize=none of images that are not binary.
    """
    if config.likelihood == "bernoulli":
        likelihoods.check(config.binarize, spec)
    output = outputs.make(config.likelihood, spec.shape[2], config.levels, config.num_mixtures, config.binarize)
    for field in ("width", "head_features"):
        require(config, field, getattr(config, field) % output.groups == 0, f"a multiple of {output.groups}: the channels of "
                f"{spec.name} are in order (likelihood={config.likelihood}), each with its own features")
    return output


class PixelModel(NamedTuple):
    """A learner and what its model can do; its density is exact."""

    learner: Learner
    measure: Callable[[PyTree, Examples, Key], dict[str, Mean]]  # (params, examples, key) -> means over held-out examples
    sample: Callable[..., Array]  # (params, key, N, labels=None) -> images [N, H, W, C] in [0, 1]
    log_prob: Callable[..., Array]  # (params, examples, key, num_samples, chunk) -> [N] nats
    complete: Callable[..., Array]  # (params, key, images uint8, known [H, W], labels, temperature, sampler) -> images


def make(config: Config, spec: DataSpec, network: Network, output: outputs.Output, axis_name: str | None = None) -> PixelModel:
    """The learner and its model: maximum likelihood, in nats per image."""
    optimizer = optim.make(config.optim, horizon=minibatches.total_steps(config, spec))
    classes = Classes.of(config.conditional, spec)
    learning = nn.Compute(config.optim.compute_dtype, config.optim.remat)

    def init(key: Key) -> State:
        params = network.init(key)
        return State(params, optimizer.init(params), params, jnp.zeros((), jnp.int32))

    def nats(params: PyTree, examples: Examples, key: Key, train: bool) -> Array:
        """-log p(x) [B]."""
        k_values, k_dropout = jax.random.split(key)
        x = output.values(examples.images, k_values)
        dropout, compute = (k_dropout, learning) if train else (None, nn.FLOAT32)
        out = network.apply(params, output.inputs(x), classes.one_hot(examples.labels), dropout, compute)
        return -output.log_prob(out.astype(jnp.float32), x).sum((1, 2))

    def metrics_of(nll: Array) -> dict[str, Mean]:
        return {"nll": Mean.of(nll), "bits_per_dim": Mean.of(nll / (spec.size * jnp.log(2.0)))}

    def update(state: State, examples: Examples, key: Key) -> tuple[State, UpdateResult]:
        def loss_fn(params: PyTree, examples: Examples, key: Key) -> tuple[Array, dict[str, Mean]]:
            nll = nats(params, examples, key, True)
            return nll.mean(), metrics_of(nll)

        params, opt, metrics = optim.minimize(optimizer, loss_fn, state.params, state.opt, examples, key, config.optim,
                                              axis_name)
        ema = optim.ema(state.ema, params, config.ema_decay, state.count)
        return State(params, opt, ema, state.count + 1), UpdateResult(metrics)

    def measure(params: PyTree, examples: Examples, key: Key) -> dict[str, Mean]:
        return metrics_of(nats(params, examples, key, False))

    def log_prob(params: PyTree, examples: Examples, key: Key, num_samples: int = 1, chunk: int = 1) -> Array:
        del num_samples, chunk  # it is exact
        return -nats(params, examples, key, False)

    def complete(params: PyTree, key: Key, images: Array, known: Array, labels: Array | None = None,
                 temperature: float | Array = 1.0, sampler: Literal["incremental", "naive"] = "incremental") -> Array:
        """Draw images [N, H, W, C] in [0, 1] that keep the `known` pixels [H, W] of `images` uint8 [N, H, W, C].

        Known pixels of a binary model are binarized with one draw for all images and keys, so that copies stay copies.
        """
        if not isinstance(known, jax.core.Tracer):
            check_prefix(known)
        n = len(images)
        given = jax.vmap(lambda image: output.values(image[None], jax.random.key(0))[0])(images)
        shape = (*spec.shape[:2], output.groups, output.uniforms)
        noise = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), shape))(jnp.arange(n))
        y = classes.in_turn(n, labels)
        how = incremental if sampler == "incremental" else naive
        values, _ = how(network, output, params, noise, given, known, y, temperature)
        return values / (output.levels - 1)

    def sample(params: PyTree, key: Key, n: int, labels: Array | None = None, **how: Any) -> Array:
        return complete(params, key, jnp.zeros((n, *spec.shape), jnp.uint8), jnp.zeros(spec.shape[:2], bool), labels, **how)

    return PixelModel(Learner(init, update, lambda state: state.ema), measure, sample, log_prob, complete)


def bound(network: Callable[[Any, DataSpec], tuple[Network, outputs.Output]], validate: Callable[[Any], None]
          ) -> tuple[Callable[..., PixelModel], Callable[..., Run]]:
    """`make` and `make_run` of a module, from its networks `(config, spec) -> (network, output)`, whose errors they raise."""

    def make_model(config: Config, spec: DataSpec, axis_name: str | None = None) -> PixelModel:
        """The learner and its model for images of a shape."""
        return make(config, spec, *network(config, spec), axis_name)

    return make_model, minibatches.run_maker(make_model, validate)


def incremental(network: Network, output: outputs.Output, params: PyTree, noise: Array, given: Array, known: Array,
                y: Array | None, temperature: float | Array = 1.0) -> tuple[Array, Array]:
    """Draw N images, computing each layer one pixel at a time.

    Args:
        noise: uniform in [0, 1), [N, H, W, G, U].
        given: values [N, H, W, C], of which those at `known` [H, W] are kept.

    Returns:
        Values [N, H, W, C] and the outputs [N, H, W, G, P] that they were drawn from.
    """
    steps = network.steps(params, y, len(noise))
    noise, given = (x.transpose(1, 2, *range(3, x.ndim), 0) for x in (noise, given))  # [H, W, ..., N]: with N last, a pixel
    # is one contiguous slice
    size = given.shape[2] // output.groups

    def pixel(left: PyTree, place: tuple) -> tuple[PyTree, tuple]:
        before, noise, given, known, r, c = place
        values, outputs = [], []

        def draw(group: int, out: Array) -> Array:
            x = output.draw(out, noise[group].T, temperature)
            x = jnp.where(known, given[group * size : (group + 1) * size].T, x)
            values.append(x)
            outputs.append(out)
            return output.inputs(x)

        left, kept = steps.pixel(left, before, (r, c), draw)
        return left, (kept, jnp.concatenate(values, -1), jnp.stack(outputs, -2))

    def row(above: PyTree, line: tuple) -> tuple[PyTree, tuple[Array, Array]]:
        noise, given, known, r = line
        above, before = steps.row(above, r)
        columns = jnp.arange(len(known))
        _, (kept, values, outputs) = jax.lax.scan(
            pixel, steps.left, (before, noise, given, known, jnp.full_like(columns, r), columns))
        return steps.end_row(above, kept, r), (values, outputs)

    _, (values, outputs) = jax.lax.scan(row, steps.above, (noise, given, known, jnp.arange(len(known))))
    return jnp.moveaxis(values, 2, 0), jnp.moveaxis(outputs, 2, 0)


def naive(network: Network, output: outputs.Output, params: PyTree, noise: Array, given: Array, known: Array,
          y: Array | None, temperature: float | Array = 1.0) -> tuple[Array, Array]:
    """Draw as `incremental` does, running the whole network once for each pixel and group."""
    _, height, width, channels = given.shape
    size = channels // output.groups

    def step(x: Array, i: Array) -> tuple[Array, Array]:
        place, group = i // output.groups, i % output.groups
        r, c = place // width, place % width
        out = network.apply(params, output.inputs(x), y, None)[:, r, c, group]
        drawn = output.draw(out, noise[:, r, c, group], temperature)
        old = jax.lax.dynamic_slice_in_dim(x[:, r, c], group * size, size, -1)
        new = jnp.where(known[r, c], old, drawn)
        return jax.lax.dynamic_update_slice(x, new[:, None, None], (0, r, c, group * size)), out

    start = jnp.where(known[..., None], given, 0)
    x, outputs = jax.lax.scan(step, start, jnp.arange(height * width * output.groups))
    outputs = outputs.reshape(height, width, output.groups, *outputs.shape[1:])
    return x, outputs.transpose(3, 0, 1, 2, 4)


def check_prefix(known: Any) -> None:
    """Refuse known pixels [H, W] after unknown ones: a pixel is drawn given those before it alone.

    Raises:
        UserError: the known pixels are not the first ones in raster order; names the first gap.
    """
    known = np.asarray(known, bool)
    count = int(known.sum())
    gaps = np.flatnonzero(~known.reshape(-1)[:count])
    if len(gaps):
        r, c = divmod(int(gaps[0]), known.shape[1])
        raise UserError(f"known pixels must be the first ones, row by row from the top: pixel ({r}, {c}) is not known, but "
                        "later ones are, and it would be drawn without regard to them")


@dataclass(frozen=True)
class DrawOptions(NoOptions):
    """How images are drawn pixel by pixel."""

    temperature: float = 1.0
    """Below 1 likely pixels become likelier."""
    sampler: Literal["incremental", "naive"] = "incremental"
    """incremental, or naive, which asks the whole network for every pixel. The picture is the same."""

    def validate(self) -> None:
        """Refuse a temperature that is none."""
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature must be above 0, got {self.temperature}")


SCORE = Score("nll", False, "-log p(x) (nats per image)")
CURVES = (Curve("nll", False, "-log p(x) (nats per image)", "eval/nll", 0.05, "nll"),
          Curve("eval/nll", False, "-log p(x) of held-out data (nats per image)", None, 0.05, "nll"))


def abilities(config: Config, spec: DataSpec, model: PixelModel) -> dict[type, Any]:
    """What a trained model can do."""
    classes = Classes.of(config.conditional, spec).number
    sampler = Sampler(model.sample, DrawOptions, at_once=64, raster=True, levels=output_of(config, spec).levels,
                      num_classes=classes)
    return {Sampler: sampler, Completer: Completer(model.complete, classes), Density: Density(model.log_prob, exact=True)}
