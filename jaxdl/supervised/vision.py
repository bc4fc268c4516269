"""What learners of annotated pictures share: settings, a learner of a network and a loss, pictures moved with what is in them.

Shapes: `B` batch, `N` pictures, `H W C` a picture.
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl import nn, optim
from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, DataSpec, Key, Learner, Mean, PyTree, UpdateResult
from jaxdl.data import augment, minibatches
from jaxdl.data.augment import Config as AugmentConfig
from jaxdl.nn.norm import Kind as Norm
from jaxdl.optim import Config as OptimConfig
from jaxdl.supervised import networks
from jaxdl.supervised.networks import Variables


@settings
class Config(minibatches.Config):
    """Settings of what learns from annotated pictures."""

    usual_steps: ClassVar = 6000  # an epoch of what is made means nothing

    dataset: str = "scenes"
    """Name of the dataset (`jaxdl list`), or package.module:NAME of one of your own."""
    epochs: int | None = None
    """Passes over the training examples (6,000 updates if neither this nor total_steps is given)."""
    batch_size: int = 32
    """Pictures in one update."""
    ema_decay: float | None = 0.998
    """Share of the average of the weights, which is what predicts, that an update keeps; None: the newest predict."""
    augment: AugmentConfig = AugmentConfig()
    """How pictures are changed, and what is in them with them."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""
    optim: OptimConfig = OptimConfig(learning_rate=2e-3, schedule="cosine")
    """The optimizer."""


@settings
class ConvConfig(Config):
    """Settings of what sees by convolutions alone."""

    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of each level of convolutions; from one to the next sides are halved."""
    norm: Literal["batch", "layer", "group", "none"] = "batch"
    """Normalization of convolutions."""
    activation: str = "relu"
    """Nonlinearity of the convolutions."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    stats: PyTree  # running statistics of normalization, {} where there are none
    opt: PyTree
    average: Variables | None
    count: Array  # int32 (): updates so far


Loss = Callable[..., tuple[Array, tuple[dict[str, Mean], PyTree]]]  # (params, stats, batch, key) -> mean loss, metrics, stats


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    refuse_idle(config)
    if config.ema_decay is not None:
        require(config, "ema_decay", 0 <= config.ema_decay < 1, "at least 0 and below 1")
    augment.validate(config.augment)
    if config.augment.mixup is not None:
        raise UserError(f"mixup={config.augment.mixup} mixes pictures, and no label could be mixed alike; leave it out")
    config.init.validate()
    optim.validate(config.optim, config.batch_size, minimizes=True)


def validate_conv(config: ConvConfig) -> None:
    """The same of what sees by convolutions.

    Raises:
        UserError: as `validate`.
    """
    validate(config)
    require(config, "channels", bool(config.channels) and all(n > 0 for n in config.channels), "one or more widths above 0")
    nn.activation(config.activation)
    if config.activation == "maxout":
        raise UserError("activation=maxout needs layers of twice the width, which this network has not; use another")


def refuse_moves(config: Config, why: str) -> None:
    """Refuse changes after which what is in a picture is at other places.

    Args:
        why: the beginning of the sentence.

    Raises:
        UserError: says which to leave out.
    """
    if moves(config.augment):
        raise UserError(f"{why}; leave flip, rotate, scale, crop and max_shift out")


def norm_of(config: ConvConfig) -> Norm | None:
    """The normalization as networks have it."""
    return None if config.norm == "none" else config.norm


def require_arrays(spec: DataSpec, who: str, *names: str) -> None:
    """Refuse a dataset of pictures without what is to be learned.

    Raises:
        UserError: names what is missing.
    """
    if spec.input != "images" or len(spec.shape) != 3:
        raise UserError(f"{who} learns from pictures [N, H, W, C], and an input of the dataset {spec.name} has the shape "
                        f"{list(spec.shape)}; use dataset=scenes, or dataset=coco with your own in data_dir")
    if absent := [name for name in names if name not in {x.name for x in spec.arrays}]:
        raise UserError(f"{who} needs {' and '.join(absent)} of each picture, and the dataset {spec.name} has none; use "
                        "dataset=scenes, or dataset=coco with your own in data_dir")


def num_classes(spec: DataSpec) -> int:
    """Classes of objects, ground among them."""
    return len(spec.class_names)


def make_learner(config: Config, spec: DataSpec, init: Callable[[Key], Variables], loss: Loss, axis_name: str | None
                 ) -> Learner:
    """The learner of a loss.

    Args:
        spec: of the training split.
        init: key -> variables.
        loss: of parameters and statistics.
        axis_name: the mapped axis of devices.
    """
    optimizer = optim.make(config.optim, horizon=minibatches.total_steps(config, spec))

    def begin(key: Key) -> State:
        variables = init(key)
        average = None if config.ema_decay is None else variables
        return State(variables.params, variables.stats, optimizer.init(variables.params), average, jnp.zeros((), jnp.int32))

    def update(state: State, batch: PyTree, key: Key) -> tuple[State, UpdateResult]:
        def loss_fn(params: PyTree, batch: PyTree, key: Key) -> tuple[Array, tuple[dict[str, Mean], PyTree]]:
            value, (metrics, stats) = loss(params, state.stats, batch, key)
            return value, (metrics, jax.tree.map(lambda x: Mean(x, jnp.ones(())), stats))

        params, opt, (metrics, stats) = optim.minimize(optimizer, loss_fn, state.params, state.opt, batch, key, config.optim,
                                                       axis_name)
        stats = jax.tree.map(lambda mean: mean.total / mean.count, stats, is_leaf=lambda x: isinstance(x, Mean))
        average = state.average
        if average is not None:
            average = optim.ema(average, Variables(params, stats), config.ema_decay, state.count)
        return State(params, stats, opt, average, state.count + 1), UpdateResult(metrics)

    def variables_of(state: State) -> Variables:
        return Variables(state.params, state.stats) if state.average is None else state.average

    return Learner(begin, update, variables_of)


def moves(config: AugmentConfig) -> bool:
    """Whether what is in a picture is at other places after its change."""
    return augment.is_affine(config) or config.max_shift > 0 or config.flip


class Moved(NamedTuple):
    """Pictures, and what is in them where they are given."""

    images: Array  # [B, H, W, C]
    semantic: Array | None = None  # [B, H, W]
    boxes: Array | None = None  # [B, K, 4]


def changed(config: AugmentConfig, key: Key, images: Array, semantic: Array | None = None, boxes: Array | None = None) -> Moved:
    """Pictures changed each in its own way, and maps of classes and boxes moved along."""
    k_move, k_colour, k_cut = jax.random.split(key, 3)
    if moves(config):
        drawn = augment.draw(config, k_move, images.shape)
        if boxes is not None:
            boxes = augment.moved_boxes(boxes, drawn, images.shape)
        if semantic is not None:
            semantic = augment.moved(semantic[..., None], drawn, nearest=True)[..., 0]
        images = augment.moved(images, drawn)
    if config.colour is not None:
        images = augment.coloured(images, k_colour, config.colour)
    if config.cutout is not None:
        images = augment.cut(images, k_cut, config.cutout)
    return Moved(images, semantic, boxes)


def bound(network: Any, variables: Variables) -> Callable[..., Any]:
    """`network.apply` with these variables, for methods that take no pictures."""
    return functools.partial(network.apply, networks.joined(variables))


def trained(network: Any, variables: Variables) -> Callable[..., Any]:
    """The same of a trained network, in float32."""
    return bound(network.clone(dtype="float32"), variables)


def apply(network: Any, variables: Variables, images: Array, *rest: Any, **more: Any) -> Any:
    """A trained network, in float32, on pictures as the dataset has them."""
    return trained(network, variables)(as_numbers(images), *rest, **more)


def learn(network: Any, params: PyTree, stats: PyTree, images: Array, *rest: Any, **more: Any) -> tuple[Any, PyTree]:
    """What a network gives while it learns, and its new statistics."""
    out, new = bound(network, Variables(params, stats))(as_numbers(images), *rest, mutable=["batch_stats"], **more)
    return out, new.get("batch_stats", {})


def init_of(network: Any, config: Config, *inputs: Any) -> Callable[[Key], Variables]:
    """Key -> the variables of a network that takes these inputs."""
    return functools.partial(networks.begin, network.clone(axis_name=None, dtype="float32"), config.init, inputs)


def as_numbers(images: Array) -> Array:
    """Bytes as numbers between -1 and 1."""
    return images.astype(jnp.float32) / 127.5 - 1
