"""Visual question answering: words that answer a question about a picture (`vqa_network`).

    loss = -sum_t log p(a_t | a_<t, question, picture)    of all questions of a picture

An answer is right where every word is. `without` leaves the picture or the question out: what is right then is what can be
guessed (Goyal et al., "Making the V in VQA matter", 2017).

Shapes: `B` batch, `N` pictures, `Q` questions of a picture, `L` words.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxdl.core.config import config as settings
from jaxdl.core.config import require_positive
from jaxdl.core.task import Answerer, Curve, Score
from jaxdl.core.types import Array, DataSpec, Key, Learner, Mean, PyTree
from jaxdl.data.annotated import Annotated
from jaxdl.data.dataset import Dataset
from jaxdl.data.minibatches import run_maker, total_steps
from jaxdl.data.scene_words import KINDS
from jaxdl.ops import losses
from jaxdl.optim import Config as OptimConfig
from jaxdl.runtime import dataset_task
from jaxdl.runtime.dataset_task import Evaluation, dataset_algorithm, in_blocks
from jaxdl.supervised import caption_network, caption_report, decoding, vision, vqa_network
from jaxdl.supervised.networks import Variables
from jaxdl.supervised.seq2seq import before, counted
from jaxdl.supervised.vqa_network import AnswerNetwork

_BLOCK = 100  # pictures whose questions are answered side by side


@settings
class Config(vision.ConvConfig):
    """Settings of what answers questions."""

    applies: ClassVar = {"features": ("fusion", "film"), "blocks": ("fusion", "film")}

    fusion: vqa_network.Fusion = "film"
    """How question and picture meet: the question scales and shifts features, or stands beside their mean."""
    without: vqa_network.Without = "nothing"
    """What is not shown, to see what can be guessed."""
    cell: caption_network.Cell = "gru"
    """Cells that read questions and write answers."""
    hidden_size: int = 128
    """Size of their states."""
    embedding_size: int = 64
    """Size of a word's vector."""
    features: int = 64
    """Channels of the blocks that the question changes (film)."""
    blocks: int = 2
    """How many of them (film)."""
    optim: OptimConfig = OptimConfig(learning_rate=1e-3, schedule="cosine", max_grad_norm=1.0)
    """The optimizer."""


class Model(NamedTuple):
    """A learner and its function."""

    learner: Learner
    answer: Callable[[Variables, Array, Array], Array]  # (variables, pictures, questions [N, Q, L]) -> words [N, Q, L']


def validate(config: Config) -> None:
    """Refuse settings that make no sense, whatever the dataset.

    Raises:
        UserError: names the field, what was given and what would do.
    """
    vision.validate_conv(config)
    require_positive(config, "hidden_size", "embedding_size", "features", "blocks")
    vision.refuse_moves(config, "questions speak of places, which moved pictures change")


def make(config: Config, spec: DataSpec, axis_name: str | None = None) -> Model:
    """The learner and its function for a dataset of pictures with questions.

    Raises:
        UserError: the dataset has none.
    """
    vision.require_arrays(spec, "vqa", "words.questions", "words.answers")
    shapes = {x.name: x.shape for x in spec.arrays}
    length = shapes["words.answers"][1]
    network = AnswerNetwork(len(spec.vocabulary), config.fusion, config.without, config.cell, config.hidden_size,
                            config.embedding_size, config.channels, config.features, config.blocks,
                            vision.norm_of(config), config.activation, axis_name,
                            config.optim.compute_dtype)

    def loss(params: PyTree, stats: PyTree, batch: Annotated, key: Key) -> tuple[Array, tuple[dict[str, Mean], PyTree]]:
        images = vision.changed(config.augment, key, batch.images).images
        questions, answers = (x.astype(jnp.int32) for x in (batch.words.questions, batch.words.answers))
        state, stats = vision.learn(network, params, stats, images, questions, True, method="encode")
        words = answers.reshape(-1, length)

        step = functools.partial(vision.bound(network, Variables(params, stats)), method="step")
        logits = jax.lax.scan(step, state, before(words).T)[1].swapaxes(0, 1)
        counts = counted(words)
        nll = jnp.where(counts, losses.cross_entropy(logits, words), 0).sum(-1).reshape(len(images), -1)
        right = ((logits.argmax(-1) == words) | ~counts).all(-1).reshape(len(images), -1)
        of = nll.mean(-1)
        return of.mean(), ({"loss": Mean.of(of), "accuracy": Mean.of(right.mean(-1))}, stats)

    def answer(variables: Variables, images: Array, questions: Array) -> Array:
        questions = jnp.asarray(questions, jnp.int32)
        state = vision.apply(network, variables, images, questions, method="encode")
        num = questions.shape[0] * questions.shape[1]
        step = functools.partial(vision.trained(network, variables), method="step")
        return decoding.greedy(step, state, num, length)[0].reshape(*questions.shape[:2], length)

    init = vision.init_of(network, config, jnp.zeros((1, *spec.shape)), jnp.zeros((1, *shapes["words.questions"]), jnp.int32))
    return Model(vision.make_learner(config, spec, init, loss, axis_name), answer)


make_run = run_maker(make, validate)


def abilities(config: Config, spec: DataSpec, model: Model) -> dict[type, Any]:
    """What a trained model can do."""
    del config
    return {Answerer: Answerer(model.answer, spec.vocabulary)}


def _evaluation(config: Config, train: Any, splits: Mapping[str, Dataset], model: Model, can: dict[type, Any]) -> Evaluation:
    del can
    program = jax.jit(model.answer)

    def more(variables: Variables, options: dataset_task.Options, held: Dataset) -> dict[str, Any]:
        del options
        words = held.arrays.words
        said = in_blocks(lambda images, questions: program(variables, images, questions), _BLOCK, held.arrays.images,
                         words.questions)
        right = (said == words.answers).all(-1)  # [N, Q]
        kinds = KINDS if right.shape[1] == len(KINDS) else [str(i) for i in range(right.shape[1])]
        by_kind = {f"accuracy_{kind.replace(' ', '_')}": float(right[:, i].mean()) for i, kind in enumerate(kinds)}
        return {"accuracy": float(right.mean())} | by_kind

    def in_words(found: dict[str, Any]) -> str:
        by_kind = ", ".join(f"{name.removeprefix('accuracy_').replace('_', ' ')} {value:.1%}" for name, value in found.items()
                            if name.startswith("accuracy_"))
        hidden = "" if config.without == "nothing" else f", without the {config.without}"
        return f"questions about held-out pictures of {config.dataset}{hidden}: {found['accuracy']:.2%} right; {by_kind}"

    picture = caption_report.answers_picture(splits, program)
    return Evaluation(dataset_task.Options(train.seed), more, {"answers.png": picture}, in_words)


ALGORITHM = dataset_algorithm(
    "vqa", "answers to questions about pictures: a cell reads, convolutions see, a cell writes", Config, validate, make,
    make_run, total_steps, Score("accuracy", True, "share of right answers about held-out pictures"),
    (Curve("accuracy", True, "share of right answers", "eval/accuracy", 0.05, "right"),
     Curve("loss", False, "nats per answer", None, 0.05, "loss", panel=True)), abilities, "pictures", _evaluation)
