"""Sequence to sequence: an encoder and a decoder learn to write the target of an input, token by token.

    loss = -sum_l log p(y_l | y_<l, x)    until the end of y

The decoder is told the tokens before (teacher forcing; Williams and Zipser, "A learning algorithm for continually running fully
recurrent neural networks", 1989), or with scheduled sampling more and more often its own draws (Bengio et al., "Scheduled
sampling for sequence prediction with recurrent neural networks", 2015): a share that rises linearly from 0. Targets are written
greedily or by beam search (`decoding`), and right where every token is.

Shapes: `B` batch, `N` examples, `S` tokens of an input, `L` of a target, `V` of the vocabulary. Token 0 ends a sequence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import nn, optim
from jaxdl.core import task
from jaxdl.core.config import config as settings
from jaxdl.core.config import require, require_positive
from jaxdl.core.errors import UserError
from jaxdl.core.task import Curve, Score, Translator
from jaxdl.core.types import Array, DataSpec, Key, Learner, Mean, PyTree, UpdateResult
from jaxdl.data import Dataset, minibatches
from jaxdl.data.pairs import Pairs
from jaxdl.ops import losses
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm, in_blocks
from jaxdl.supervised import decoding, encoder_decoder
from jaxdl.supervised.encoder_decoder import Network

_BLOCK = 500  # examples whose targets are written side by side


@settings
class Config(minibatches.Config):
    """Settings of what learns sequence to sequence."""

    dataset: str = "addition"
    """Name of the dataset (`jaxdl list`), or package.module:NAME of one of your own."""
    cell: Literal["rnn", "rnn_relu", "gru", "lstm"] = "lstm"
    """Cells of the encoder and of the decoder."""
    num_layers: int = 1
    """Layers of cells, of each."""
    hidden_size: int = 128
    """Size of a cell's state."""
    attention: Literal["none", "additive", "multiplicative"] = "none"
    """How the decoder looks at the encoder's outputs; none: it knows its last state alone."""
    scheduled_sampling: float | None = None
    """Share of the decoder's inputs that are its own draws at the end of the run, in place of the target's tokens."""
    dropout: float | None = None
    """Share of each layer's outputs that is dropped while it learns."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""
    optim: OptimConfig = OptimConfig(learning_rate=3e-3, schedule="cosine", max_grad_norm=1.0)
    """The optimizer."""


@dataclass(frozen=True)
class Options(task.Options):
    """Settings of an evaluation."""

    beam_width: int = 1
    """Hypotheses that beam search keeps; 1 writes the likeliest token each time."""

    def validate(self) -> None:
        """Refuse options that make no sense.

        Raises:
            UserError: names the option, what was given and what would do.
        """
        if not 1 <= self.beam_width <= 1000:
            raise UserError(f"beam_width must be between 1 and 1000, got {self.beam_width}")


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree
    count: Array  # int32 (): updates so far


class Model(NamedTuple):
    """A learner and its functions."""

    learner: Learner
    measure: Callable[[PyTree, Pairs, Key], dict[str, Mean]]  # (params, pairs, key) -> nll, told the truth
    write: Callable[..., Array]  # (params, inputs [N, S], beam width) -> targets [N, L]
    network: Network


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    minibatches.validate(config)
    require_positive(config, "num_layers", "hidden_size")
    for field, most in (("dropout", "below 1"), ("scheduled_sampling", "at most 1")):
        value = getattr(config, field)
        if value is not None:
            require(config, field, 0 <= value <= 1 and (value < 1 or field != "dropout"), f"at least 0 and {most}")
    config.init.validate()
    optim.validate(config.optim, config.batch_size)


total_steps = minibatches.total_steps


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its functions for pairs of sequences.

    Raises:
        UserError: the dataset holds no such pairs.
    """
    lengths = {x.name: x.shape[0] for x in spec.arrays if len(x.shape) == 1 and not x.dtype.startswith("float")}
    if spec.vocabulary is None or set(lengths) != {"inputs", "targets"}:
        raise UserError(f"seq2seq learns from pairs of sequences, and the dataset {spec.name} has none; use dataset=pairs with "
                        "your own file in data_dir, or make one with jaxdl.data.pairs.from_texts")
    network = encoder_decoder.make(config.cell, config.num_layers, config.hidden_size, len(spec.vocabulary), config.attention,
                                   config.dropout)
    horizon = total_steps(config, spec)
    optimizer = optim.make(config.optim, horizon=horizon)

    def init(key: Key) -> State:
        params = network.init(key, config.init)
        return State(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def nll_of(params: PyTree, pairs: Pairs, key: Key | None = None, dtype: str = "float32", share: Array | None = None
               ) -> tuple[Array, Array, Array]:
        """-log p of each token [B, L], which of them count, and whether each is the likeliest."""
        inputs, targets = (x.astype(jnp.int32) for x in pairs)
        keys = [None] * 3 if key is None else jax.random.split(key, 3)
        state, memory = network.encode(params, inputs, keys[0], dtype)
        if share is None:
            logits = network.decode(params, state, memory, before(targets), keys[1], dtype)
        else:
            logits = _own_draws(network, params, state, memory, targets, share, keys[1], keys[2], dtype)
        return losses.cross_entropy(logits, targets), counted(targets), logits.argmax(-1) == targets

    def loss_fn(params: PyTree, pairs: Pairs, key: Key, share: Array | None) -> tuple[Array, dict[str, Mean]]:
        nll, counts, right = nll_of(params, pairs, key, config.optim.compute_dtype, share)
        # over all places, of which as many are on each device, and not over those that count
        return jnp.where(counts, nll, 0).mean(), {"nll": Mean.of(nll, counts), "accuracy": Mean.of(right, counts)}

    def update(state: State, pairs: Pairs, key: Key) -> tuple[State, UpdateResult]:
        share = None
        if config.scheduled_sampling is not None:
            share = config.scheduled_sampling * jnp.minimum(state.count / horizon, 1)
        grads, metrics = optim.gradients(lambda *args: loss_fn(*args, share), state.params, pairs, key, config.optim)
        params, opt = optimizer.step(grads, state.opt, state.params, axis_name)
        return State(params, opt, state.count + 1), UpdateResult(metrics)

    def measure(params: PyTree, pairs: Pairs, key: Key) -> dict[str, Mean]:
        del key
        nll, counts, _ = nll_of(params, pairs)
        return {"nll": Mean.of(nll, counts)}

    def write(params: PyTree, inputs: Array, width: int = 1) -> Array:
        inputs = jnp.asarray(inputs, jnp.int32)
        num, (state, memory) = len(inputs), network.encode(params, inputs)
        if width > 1:
            state, memory = jax.tree.map(lambda x: jnp.repeat(x, width, 0), (state, memory))

        def step(state: PyTree, token: Array) -> tuple[PyTree, Array]:
            return network.step(params, state, memory, token)

        if width == 1:
            return decoding.greedy(step, state, num, lengths["targets"])[0]
        return decoding.beam_search(step, state, num, width, lengths["targets"])[0][:, 0]

    return Model(Learner(init, update, lambda state: state.params), measure, write, network)


def before(targets: Array) -> Array:
    """What the decoder is told: the token before each, [B, L]; before the first the end of nothing."""
    return jnp.pad(targets, ((0, 0), (1, 0)))[:, :-1]


def counted(targets: Array) -> Array:
    """Which tokens count: those of a target, and its end, bool [B, L]."""
    return (before(targets) != 0).at[:, 0].set(True)


def _own_draws(network: Network, params: PyTree, state: PyTree, memory: PyTree, targets: Array, share: Array, k_dropout: Key,
               key: Key, dtype: str) -> Array:
    """Logits [B, L, V] where a share of the tokens before are draws of the decoder; what is drawn has no gradient."""
    k_coin, k_token = jax.random.split(key)
    own = jax.random.uniform(k_coin, targets.T.shape) < share

    def body(now: tuple[PyTree, Array], x: tuple[Array, Array, Array]) -> tuple[tuple[PyTree, Array], Array]:
        (state, token), (truth, own, at) = now, x
        state, logits = network.step(params, state, memory, token, jax.random.fold_in(k_dropout, at), dtype)
        drawn = jax.random.categorical(jax.random.fold_in(k_token, at), logits)
        return (state, jnp.where(own, drawn, truth)), logits

    _, logits = jax.lax.scan(body, (state, jnp.zeros(len(targets), jnp.int32)), (targets.T, own, jnp.arange(targets.shape[1])))
    return logits.swapaxes(0, 1)


make_run = minibatches.run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    del config
    length = next(x.shape[0] for x in spec.arrays if x.name == "inputs")
    return {Translator: Translator(model.write, spec.vocabulary, length)}


def _evaluation(config: Config, train: Any, splits: dict[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    del splits, can
    program = jax.jit(model.write, static_argnums=2)

    def more(params: PyTree, options: Options, held: Dataset) -> dict[str, Any]:
        inputs, targets = held.arrays
        written = in_blocks(lambda x: program(params, x, options.beam_width), _BLOCK, inputs)
        right, length = (written == targets).all(1), (inputs != 0).sum(1)
        return {"exact": float(right.mean())} | {f"exact_{n}": float(right[length == n].mean()) for n in np.unique(length)}

    def in_words(found: dict[str, Any]) -> str:
        of_length = ", ".join(f"{name.removeprefix('exact_')}: {value:.2%}" for name, value in found.items()
                              if name.startswith("exact_"))
        return f"held-out pairs of {config.dataset}: {found['exact']:.2%} are exact; by tokens of the input {of_length}"

    return Evaluation(Options(train.seed), more, describe=in_words)


ALGORITHM = dataset_algorithm(
    "seq2seq", "sequences to sequences: an encoder and a decoder of recurrent cells, with attention or without", Config,
    validate, make, make_run, total_steps, Score("exact", True, "share of held-out targets that are exact"),
    (Curve("nll", False, "nats per token", "eval/nll", 0.02, "nll"),
     Curve("eval/exact", True, "share of held-out targets that are exact", None, 0.0, "exact")), abilities, "pairs",
    _evaluation)
