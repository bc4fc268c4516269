"""Language models: the probability of the next character, by recurrent layers or a transformer.

    nll = -log p(x_t | x_<t)    in nats a character, and over ln 2 in bits

Windows of several streams of the text are read side by side; gradients end at a window, the state of recurrent layers goes on
into the next one (`data.sequences`; Mikolov et al., "Recurrent neural network based language model", 2010; characters as in
Karpathy, "The unreasonable effectiveness of recurrent neural networks", 2015). A transformer sees its window alone.

Shapes: `T` time, `B` texts, `N` characters of a text, `P` characters of a prompt, `V` of the vocabulary.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import nn, optim
from jaxdl.core import task
from jaxdl.core.config import config as settings
from jaxdl.core.config import refuse_idle, require, require_positive, validate_untraced
from jaxdl.core.errors import UserError
from jaxdl.core.task import Curve, Score, Writer
from jaxdl.core.types import Array, DataSpec, Key, Learner, Mean, PyTree, Run, UpdateResult
from jaxdl.data import Dataset, sequences
from jaxdl.generative.text import recurrent, transformer
from jaxdl.generative.text.network import Network
from jaxdl.ops import losses
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm

NUM_HEADS = 4  # of a transformer, where none are given
_STREAMS = 64  # in which held-out text is read
_KNOWN = 128  # characters that each of them but the first sees before it is judged


@settings
class Config(sequences.Config):
    """Settings of a language model."""

    applies: ClassVar = {"num_heads": ("cell", "transformer")}

    cell: Literal["rnn", "rnn_relu", "gru", "lstm", "transformer"] = "lstm"
    """What reads the text: recurrent cells, or a transformer that sees one window."""
    num_layers: int = 2
    """Layers of cells, or blocks of the transformer."""
    hidden_size: int = 256
    """Size of a cell's state, or features of the transformer."""
    num_heads: int | None = None
    """Heads of the transformer's attention, 4 if not given."""
    dropout: float | None = None
    """Share of each layer's outputs that is dropped while it learns."""
    init: nn.Initial = nn.Initial()
    """Initial weights."""
    optim: OptimConfig = OptimConfig(learning_rate=2e-3, schedule="cosine", final_fraction=0.05, max_grad_norm=1.0)
    """The optimizer."""


class State(NamedTuple):
    """State of the learner."""

    params: PyTree
    opt: PyTree


class Model(NamedTuple):
    """A learner and its network."""

    learner: Learner
    network: Network


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the text.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    sequences.validate(config)
    refuse_idle(config)
    require_positive(config, "num_layers", "hidden_size", "num_heads")
    if config.cell == "transformer":
        heads = config.num_heads or NUM_HEADS
        require(config, "hidden_size", config.hidden_size % (2 * heads) == 0,
                f"a multiple of {2 * heads}, twice num_heads={heads}")
    if config.dropout is not None:
        require(config, "dropout", 0 <= config.dropout < 1, "at least 0 and below 1")
    config.init.validate()
    optim.validate(config.optim, config.batch_size)


total_steps = sequences.total_steps


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its network for a vocabulary.

    Raises:
        UserError: the dataset is no text, or has one character alone.
    """
    if spec.vocabulary is None or spec.shape:
        what = "no vocabulary" if spec.vocabulary is None else f"examples of shape {list(spec.shape)}, and is no stream"
        raise UserError(f"a language model learns from text, and the dataset {spec.name} has {what}; use "
                        "dataset=text with your own file in data_dir")
    if len(spec.vocabulary) < 2:
        raise UserError(f"a language model needs two different characters or more, and {spec.name} has {len(spec.vocabulary)}")
    size = len(spec.vocabulary)
    if config.cell == "transformer":
        network = transformer.make(config.num_layers, config.hidden_size, config.num_heads or NUM_HEADS, size, config.window,
                                   config.dropout)
    else:
        network = recurrent.make(config.cell, config.num_layers, config.hidden_size, size, config.dropout)
    optimizer = optim.make(config.optim, horizon=total_steps(config, spec))

    def init(key: Key) -> State:
        params = network.init(key, config.init)
        return State(params, optimizer.init(params))

    def loss_fn(params: PyTree, part: tuple[Array, Array, PyTree], key: Key) -> tuple[Array, tuple[dict[str, Mean], PyTree]]:
        tokens, following, carry = part
        carry, logits = network.apply(params, tokens, carry, key, config.optim.compute_dtype)
        nll = losses.cross_entropy(logits, following)
        return nll.mean(), ({"nll": Mean.of(nll)}, carry)

    def update(state: State, batch: sequences.Windows, key: Key) -> tuple[State, UpdateResult]:
        part = _tokens(batch.inputs), _tokens(batch.targets), batch.carry
        grads, (metrics, carry) = optim.gradients(loss_fn, state.params, part, key, config.optim, (1, 1, 0))
        return State(*optimizer.step(grads, state.opt, state.params, axis_name)), UpdateResult(metrics, carry)

    return Model(Learner(init, update, lambda state: state.params), network)


def make_run(config: Config, spec: DataSpec, axis_name: str | None = None, shards: int = 1) -> Run:
    """The run on a text that lies on the device."""
    validate_untraced(validate, config)
    model = make(config, spec, axis_name)
    return sequences.run_of(model.learner, spec.num_examples, config, model.network.initial, axis_name=axis_name,
                            shards=shards)


def held_out(network: Network, window: int, num: int) -> Callable[[PyTree, Array], Array]:
    """`(params, tokens [N]) -> the mean nll of all tokens but the first`, in nats.

    The text is read in streams side by side, window by window. A stream begins before the characters that it is judged by, so
    that recurrent layers have read something; every character is judged once.

    Raises:
        UserError: the text has one token.
    """
    _check_judged(num)
    window = min(window, num - 1)
    streams = max(min(_STREAMS, (num - 1) // (4 * (_KNOWN + window))), 1)
    windows = (num - 1) // window if streams == 1 else -(-(num - 1 + (streams - 1) * _KNOWN) // (streams * window))
    length = windows * window
    ends = np.linspace(length, num - 1, streams).astype(int)
    index = (ends - length) + np.arange(length)[:, None]  # [T, B]
    judged = index >= np.concatenate([[0], ends[:-1]])
    rest = np.arange(ends[-1], num - 1)  # of a single stream, less than a window

    def measure(params: PyTree, tokens: Array) -> Array:
        tokens = tokens.astype(jnp.int32)

        def nll_of(carry: PyTree, at: Array) -> tuple[PyTree, Array]:
            carry, logits = network.apply(params, tokens[at], carry)
            return carry, losses.cross_entropy(logits, tokens[at + 1])

        carry, nll = jax.lax.scan(nll_of, network.initial(streams), index.reshape(-1, window, streams))
        total = jnp.where(judged.reshape(-1, window, streams), nll, 0).sum()
        if len(rest):
            total += nll_of(carry, rest[:, None])[1].sum()
        return total / (num - 1)

    return measure


def _check_judged(num: int) -> None:
    if num < 2:
        raise UserError(f"a language model is judged by two characters or more, and the held-out text has {num}; give a longer "
                        "text")


def writer(network: Network, vocabulary: tuple[str, ...]) -> Writer:
    """What continues texts."""

    def extend(params: PyTree, state: PyTree, key: Key, num: int, temperature: float = 1.0, top_k: int | None = None
               ) -> tuple[PyTree, Array]:
        def body(state: PyTree, noise: Array) -> tuple[PyTree, Array]:
            carry, logits = state
            if top_k is not None and top_k < len(vocabulary):
                logits = jnp.where(logits >= jax.lax.top_k(logits, top_k)[0][..., -1:], logits, -jnp.inf)
            token = (logits + temperature * noise).argmax(-1)  # Gumbel noise: a draw; of temperature 0 the likeliest
            return network.step(params, carry, token), token

        noise = jax.random.gumbel(key, (num, *state[1].shape))
        return jax.lax.scan(body, state, noise)

    return Writer(network.begin, extend, vocabulary)


def _tokens(tree: PyTree) -> Array:
    """The one array of a dataset of text, as indices."""
    (tokens,) = jax.tree.leaves(tree)
    return jnp.asarray(tokens, jnp.int32)


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    del config
    return {Writer: writer(model.network, spec.vocabulary)}


def _evaluation(config: Config, train: Any, splits: dict[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    del can

    def check() -> None:
        for split in splits.values():
            _check_judged(split.spec.num_examples)

    def more(params: PyTree, options: task.Options, held: Dataset) -> dict[str, Any]:
        del options
        nll = float(program(held.spec.num_examples)(params, _tokens(held.arrays)))
        return {"nll": nll, "bits_per_character": nll / math.log(2)}

    @functools.cache
    def program(num: int) -> Callable[[PyTree, Array], Array]:
        return jax.jit(held_out(model.network, config.window, num))

    def in_words(found: dict[str, Any]) -> str:
        return (f"held-out characters of {config.dataset}: {found['nll']:.4f} nats, {found['bits_per_character']:.4f} bits a "
                "character")

    return Evaluation(task.Options(train.seed), more, describe=in_words, check=check)


ALGORITHM = dataset_algorithm(
    "language_model", "text, character by character: RNN, GRU, LSTM, or transformer", Config, validate, make, make_run,
    total_steps, Score("nll", False, "nats per character of held-out text"),
    (Curve("nll", False, "nats per character", "eval/nll", 0.05, "nll"),
     Curve("eval/nll", False, "nats per character of held-out text", None, 0.05, "nll")), abilities, "windows", _evaluation)
