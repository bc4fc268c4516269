"""The learner of inputs and targets that the classifier and the regressor share: networks, augmentation, averaged weights.

Beside the weights that learn, their average may be kept, which is then what predicts:

    ema    an exponential moving average, of the statistics of batch normalization too (`optim.ema`)
    swa    the mean of the weights at the end of every epoch of the last part of the run (Izmailov et al., "Averaging weights
           leads to wider optima and better generalization", 2018), whose statistics of batch normalization are made anew:
           each batch of that part passes through the averaged weights too and moves them, in place of a pass over the data

Shapes: `B` batch, `N` examples, `...` one input or target, `K` outputs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data, nn, optim
from jaxdl.adversarial import defences
from jaxdl.core import streams, task
from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require, require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.types import Array, DataSpec, Key, Learner, Mean, PyTree, UpdateResult
from jaxdl.data import augment, minibatches
from jaxdl.data.augment import Config as AugmentConfig
from jaxdl.data.dataset import Dataset
from jaxdl.nn import cnn
from jaxdl.nn.hierarchical import Tree
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.dataset_task import in_blocks
from jaxdl.supervised import networks
from jaxdl.supervised.networks import Net, Network, Variables

BLOCK = 500  # examples that are predicted at once
MOST_SAMPLES = 10_000
_RATES = ("dropout", "input_dropout", "drop_connect", "stochastic_depth")


@settings
class Config(minibatches.Config):
    """Settings of what learns targets from inputs."""

    applies: ClassVar = {
        "conv_channels": ("network", "conv"), "hidden_sizes": ("network", "mlp", "conv"),
        "depth": ("network", "vgg", "resnet", "densenet"), "narrower": ("network", *cnn.ARCHITECTURES),
        "pool": ("network", *networks.POOLED), "stochastic_depth": ("network", "resnet"),
        "ema_decay": ("average", "ema"), "average_from": ("average", "swa")}

    batch_size: int = 64
    """Examples in one update."""
    network: networks.Name = "conv"
    """Dense layers; convolutions of stride 2 beneath one; or a network as published, in its form for small images
    (`jaxdl.nn.cnn`)."""
    hidden_sizes: tuple[int, ...] = (128,)
    """Widths of the hidden layers (mlp, conv); the outputs of the last are the features."""
    conv_channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutions (conv)."""
    depth: int | None = None
    """Layers of vgg (11, 13, 16, 19), resnet (20, 32, 44, 56, 110; 18, 34, 50, 101, 152) and densenet (40, 100; 121, 169, 201);
    the first of them if not given."""
    narrower: int | None = None
    """What published channels are divided by."""
    activation: str = "relu"
    """Nonlinearity of the layers."""
    norm: Literal["batch", "layer", "group"] | None = None
    """Normalization of hidden layers and convolutions; that which was published if not given."""
    pool: Literal["max", "fractional"] = "max"
    """Pools over 2x2, or fractional ones, whose windows are random (lenet, vgg)."""
    dropout: float | None = None
    """Share of the hidden units that are left out while it learns (of CNNs: of what goes into dense layers)."""
    input_dropout: float | None = None
    """Share of the inputs that are left out."""
    drop_connect: float | None = None
    """Share of the weights that are left out."""
    stochastic_depth: float | None = None
    """Share of the examples for which the last residual block is left out; it rises to it from the first (resnet)."""
    average: Literal["ema", "swa"] | None = None
    """Predict by averaged weights: exponentially, or evenly over the epochs of the last part of the run."""
    folds: int | None = None
    """Cross-validation: cut the training examples into so many parts, by their hash, and train as many members, each without
    one of them, by which it is judged."""
    fold: float | None = None
    """Train this fold's member alone, from 0."""
    ema_decay: float = 0.999
    """Share of the average that an update keeps (ema)."""
    average_from: float = 0.75
    """Share of the planned updates after which epochs are averaged (swa)."""
    augment: AugmentConfig = AugmentConfig()
    """How images are changed."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""
    optim: OptimConfig = OptimConfig(schedule="cosine")
    """The optimizer."""


@dataclass(frozen=True)
class Options(task.Options):
    """Settings of an evaluation."""

    mc_samples: int = 0
    """Average over so many draws of what is random while it learns (dropout, fractional pools), in place of none of it."""

    def validate(self) -> None:
        """Refuse options that make no sense.

        Raises:
            UserError: names the option.
        """
        require(self, "mc_samples", 0 <= self.mc_samples <= MOST_SAMPLES, f"between 0 and {MOST_SAMPLES:,}")


class Average(NamedTuple):
    """Averaged weights."""

    variables: Variables
    count: Array  # int32 (): updates, or averaged epochs


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    stats: PyTree
    opt: PyTree
    average: Average | None
    updates: Array  # int32 ()
    fold: Array | None  # int32 (): not learned from


class Model(NamedTuple):
    """A learner and functions of its variables. Inputs [N, ...] are as the dataset has them."""

    learner: Learner
    predict: Callable[..., Array]  # (variables, inputs, key=None: what is random is so) -> [N, K]
    features: Callable[[Variables, Array], Array]  # (variables, inputs) -> [N, F]


class Loss(NamedTuple):
    """What a kind of learner makes of outputs and targets."""

    of: Callable[[Array, Array], Array]  # (outputs, targets [B, ...]) -> [B]
    metrics: Callable[[Array, Array], dict[str, Array]]  # (outputs, targets) -> [B] each
    only: bool = False  # while it learns, the network gives the outputs of the targets alone
    defence: defences.Config | None = None  # its loss takes the place of `of`


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    refuse_idle(config)
    for field in ("hidden_sizes", "conv_channels"):
        require(config, field, bool(getattr(config, field)) and all(n > 0 for n in getattr(config, field)),
                "one or more widths above 0")
    require_positive(config, "narrower")
    if config.depth is not None:
        depths = cnn.ARCHITECTURES[config.network].depths
        require(config, "depth", config.depth in depths or _is_small_form(config), f"one of {', '.join(map(str, depths))}")
    nn.activation(config.activation)
    if config.activation == "maxout" and config.network in cnn.ARCHITECTURES:
        raise UserError(f"activation=maxout needs layers of twice the width, and network={config.network} is as published; use "
                        "network=mlp or conv")
    for field in _RATES:
        require(config, field, getattr(config, field) is None or 0 <= getattr(config, field) < 1, "at least 0 and below 1")
    for field in ("ema_decay", "average_from"):
        require(config, field, 0 <= getattr(config, field) < 1, "at least 0 and below 1")
    require(config, "folds", config.folds is None or config.folds > 1, "above 1")
    if config.fold is not None:
        if config.folds is None:
            raise UserError(f"fold={config.fold:g} is of folds; give folds too")
        require(config, "fold", config.fold in range(config.folds), f"between 0 and folds - 1 = {config.folds - 1}")
    config.init.validate()
    augment.validate(config.augment)
    optim.validate(config.optim, config.batch_size, minimizes=True)


def _is_small_form(config: Config) -> bool:
    """A depth of the kind that was published for 32x32."""
    return (config.network == "resnet" and config.depth >= 8 and config.depth % 6 == 2) or (
        config.network == "densenet" and config.depth >= 7 and config.depth % 3 == 1)


total_steps = minibatches.total_steps


def make(config: Config, spec: DataSpec, num_outputs: int, loss: Loss, tree: Tree | None = None, axis_name: str | None = None,
         net: Net | None = None) -> Model:
    """The learner of a loss, and its functions.

    Args:
        spec: of the training split.
        num_outputs: K.
        loss: of outputs and targets.
        tree: of a hierarchical softmax.
        axis_name: the mapped axis of devices.
        net: in place of the network that the config names.
    """
    net = net or _net(config, spec, num_outputs, tree, axis_name)
    optimizer = optim.make(config.optim, horizon=total_steps(config, spec))
    averaged, horizon = _averaged(config, spec, net), total_steps(config, spec)

    def init(key: Key) -> State:
        variables = net.init(key)
        average = Average(variables, jnp.zeros((), jnp.int32)) if config.average else None
        fold = None if config.folds is None else jnp.asarray(0 if config.fold is None else config.fold).astype(jnp.int32)
        opt, updates = optimizer.init(variables.params), jnp.zeros((), jnp.int32)
        return State(variables.params, variables.stats, opt, average, updates, fold)

    def update(state: State, batch: PyTree, key: Key) -> tuple[State, UpdateResult]:
        examples = data.pick(batch, spec.input), data.pick(batch, spec.target or "labels")
        loss_fn = functools.partial(_loss, config, net, loss, state.stats, state.updates / horizon)
        params, opt, (metrics, stats) = optim.minimize(optimizer, loss_fn, state.params, state.opt, examples, key,
                                                       config.optim, axis_name)
        stats = jax.tree.map(lambda mean: mean.total / mean.count, stats, is_leaf=lambda x: isinstance(x, Mean))
        variables = Variables(params, stats)
        average = averaged(state.average, variables, state.updates, examples[0], key) if config.average else None
        return State(params, stats, opt, average, state.updates + 1, state.fold), UpdateResult(metrics)

    def variables_of(state: State) -> Variables:
        learned = state.average.variables if config.average else Variables(state.params, state.stats)
        return learned._replace(fold=state.fold)

    return Model(Learner(init, update, variables_of), net.apply, net.features)


def _loss(config: Config, net: Net, loss: Loss, stats: PyTree, done: Array, params: PyTree, batch: tuple[Array, Array], key: Key
          ) -> tuple[Array, tuple[dict[str, Mean], PyTree]]:
    """The mean loss of a batch, and beside it the metrics and the new statistics, as means of their own.

    Args:
        done: share of the updates that were made.
    """
    inputs, targets = batch
    k_change, k_mix, k_drop, k_connect = jax.random.split(key, 4)
    if inputs.ndim == 4:
        inputs = augment.changed(config.augment, inputs, k_change)
    mix = None
    if config.augment.mixup is not None:
        mix = augment.mixed(networks.as_numbers(inputs), k_mix, config.augment.mixup)
        inputs = mix.inputs
    if config.drop_connect is not None:
        params = nn.drop_connect(params, config.drop_connect, k_connect)
    variables = Variables(params, stats)
    if loss.defence is not None:
        f, learn = functools.partial(net.apply, variables), lambda x: net.learn(variables, x, k_drop)
        of, found, stats = defences.learned(loss.defence, f, learn, networks.as_numbers(inputs), targets, k_mix, done)
    else:
        outputs, stats = net.learn(variables, inputs, k_drop, targets if loss.only else None)
        of, found = loss.of(outputs, targets), loss.metrics(outputs, targets)
        if mix is not None:
            of = mix.loss(of, loss.of(outputs, targets[mix.others]))
    metrics = {"loss": Mean.of(of)} | {name: Mean.of(values) for name, values in found.items()}
    return of.mean(), (metrics, jax.tree.map(lambda x: Mean(x, jnp.ones(())), stats))


def _net(config: Config, spec: DataSpec, num_outputs: int, tree: Tree | None, axis_name: str | None) -> Net:
    networks.check(config.network, spec)
    return networks.make(Network(
        config.network, num_outputs, config.hidden_sizes, config.conv_channels, config.depth, config.narrower,
        config.activation, config.norm, config.pool, config.dropout, config.input_dropout, config.stochastic_depth, tree,
        axis_name, config.optim.compute_dtype), spec.shape, config.init)


Scorer = Callable[..., np.ndarray]  # (variables, inputs [N, ...], seed=0, samples=0) -> [N, ...], on the host


def scorer(one: Callable[[Variables, Array, Key | None], Array]) -> Scorer:
    """`one`, (variables, inputs [B, ...], key or None) -> [B, ...], of any number of inputs, in blocks of `BLOCK`.

    With `samples` it is the mean over so many draws of what is random while it learns.
    """
    plain = jax.jit(lambda variables, inputs: one(variables, inputs, None))
    drawn = jax.jit(lambda variables, inputs, keys: jax.lax.map(lambda key: one(variables, inputs, key), keys).mean(0))

    def score(variables: Variables, inputs: np.ndarray, seed: int = 0, samples: int = 0) -> np.ndarray:
        if samples == 0:
            return in_blocks(functools.partial(plain, variables), BLOCK, inputs)
        key, found = streams.key(seed, Purpose.EVALUATION), []
        for i in range(0, len(inputs), BLOCK):
            found.append(drawn(variables, inputs[i : i + BLOCK], jax.random.split(jax.random.fold_in(key, i), samples)))
        return np.concatenate([np.asarray(x) for x in found])

    return score


def check_data(config: Config, splits: Mapping[str, Dataset]) -> None:
    """Refuse a dataset that cannot be learned from.

    Raises:
        UserError: numbers in it are not finite, or there are fewer examples than folds.
    """
    train = splits["train"]
    for name, split in splits.items():
        for spec, x in zip(split.spec.arrays, jax.tree.leaves(split.arrays), strict=True):
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                wrong = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(-1))
                raise UserError(f"{spec.name} of the {name} split of {train.name} must be finite, and {len(wrong):,} examples "
                                f"have numbers that are not, the first is example {wrong[0]}")
    if config.folds is not None and config.folds > train.spec.num_examples:
        raise UserError(f"folds={config.folds} is above the {train.spec.num_examples} training examples of {train.name}; lower "
                        "it")


def _held_out(config: Config, splits: Mapping[str, Dataset], variables: Variables, held: Dataset) -> Dataset:
    """The examples that judge a member: those of its fold in a cross-validation, else `held`."""
    if config.folds is None:
        return held
    train = splits["train"]
    first, after = minibatches.fold_of(train.spec.num_examples, config.folds, int(variables.fold))
    return train.part(np.arange(first, after))


def judges(config: Config, splits: Mapping[str, Dataset], score: Scorer,
           figures: Callable[[np.ndarray, np.ndarray], dict[str, float]]) -> tuple[Callable, Callable]:
    """What evaluates one network, `(variables, options, held-out examples) -> numbers`, and several, `task.Ensemble.evaluate`.

    Args:
        figures: (scores [N, ...], targets [N, ...]) -> numbers; several networks are judged by the mean of their scores.
    """
    def of(members: Sequence[Variables], options: Options, held: Dataset) -> dict[str, Any]:
        inputs = data.pick(held.arrays, held.spec.input)
        scores = np.mean([score(variables, inputs, options.seed, options.mc_samples) for variables in members], 0)
        return {"num": held.spec.num_examples} | figures(scores, held.target)

    def one(variables: Variables, options: Options, held: Dataset) -> dict[str, Any]:
        return of([variables], options, _held_out(config, splits, variables, held))

    def together(members: Sequence[Variables], options: Options) -> dict[str, Any]:
        options.validate()
        return {"networks": len(members)} | of(members, options, splits["test"])

    return one, together


def judged_by(config: Config, found: dict[str, Any]) -> str:
    """What an evaluation is of, in words."""
    held = "test examples" if config.folds is None or "networks" in found else "examples held out by folds"
    together = f", an ensemble of {found['networks']} networks" if "networks" in found else ""
    return f"{held} of {config.dataset}{together}"


def _averaged(config: Config, spec: DataSpec, net: Net) -> Callable[..., Average]:
    """`(average, variables, updates before this one, inputs, key) -> average`, after an update."""
    epoch = minibatches.steps_per_epoch(minibatches.num_learned(config, spec), config.batch_size)
    first = config.average_from * total_steps(config, spec)

    def ema(average: Average, variables: Variables, updates: Array, inputs: Array, key: Key) -> Average:
        del updates, inputs, key
        return Average(optim.ema(average.variables, variables, config.ema_decay, average.count), average.count + 1)

    def swa(average: Average, variables: Variables, updates: Array, inputs: Array, key: Key) -> Average:
        done = updates + 1
        takes = (done > first) & (done % epoch == 0)
        begun = average.count > 0
        count = average.count + takes
        share = takes / jnp.maximum(count, 1)
        mean = jax.tree.map(lambda mean, new: jnp.where(begun | takes, mean + share * (new - mean), new),
                            average.variables.params, variables.params)
        if not jax.tree.leaves(variables.stats):
            return Average(Variables(mean, variables.stats), count)
        anew = net.learn(Variables(mean, average.variables.stats), inputs, key)[1]
        stats = jax.tree.map(lambda a, b: jnp.where(begun, a, b), anew, variables.stats)
        return Average(Variables(mean, stats), count)

    return ema if config.average == "ema" else swa
