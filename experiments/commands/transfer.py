"""transfer RUN: an autoencoder's encoder under a classifier that has few labels

The classifier is the encoder with a linear layer on its last hidden layer. Three begin from the same labelled images:

    scratch     all of it random
    frozen      the autoencoder's encoder, which stays as it is; the linear layer learns
    finetuned   the same, and all of it learns

Each seed draws other labelled images, as many of each class, other initial values and another order.

Shapes: `L` labelled images, `H W C` an image, `F` features, `Y` classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxdl import data, nn
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.config import config as settings
from jaxdl.core.config import leaves_as_arrays
from jaxdl.core.errors import UserError
from jaxdl.core.run import advance
from jaxdl.core.task import Features
from jaxdl.core.types import Array, DataSpec, Examples, Key, PyTree
from jaxdl.data import minibatches
from jaxdl.experiments.commands import common
from jaxdl.ops import losses
from jaxdl.optim import Config as OptimConfig
from jaxdl.supervised import learner
from jaxdl.supervised.learner import Loss
from jaxdl.supervised.networks import Net, Variables

BEGINNINGS = ("scratch", "frozen", "finetuned")
_BATCH = 50


class Classifier(linen.Module):
    """Images [B, H, W, C] in [0, 1] -> logits [B, Y]: an encoder and a linear layer."""

    encoder: linen.Module
    features: Callable[[linen.Module, Array], Array]
    num_classes: int

    def setup(self) -> None:
        self.head = nn.CategoricalHead(self.num_classes)

    def __call__(self, x: Array) -> Array:
        return self.head(self.features(self.encoder, x))


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of the command."""

    num_labels: tuple[int, ...] = (100, 1000)
    """Labelled images; a multiple of the number of classes."""
    num_seeds: int = 5
    """Seeds 0, 1, ... of each."""
    steps: int = 2000
    """Updates of the classifier, 50 images each (or all, if they are fewer)."""
    learning_rate: float = 1e-3
    """Of Adam, falling to zero along a cosine."""


def run(args: Args) -> dict[str, Any]:
    """Accuracy on the test images of a classifier with few labels that begins with a learned encoder, and from scratch."""
    if args.num_seeds < 1 or args.steps < 1 or not 0 < args.learning_rate < float("inf"):
        raise UserError(f"num_seeds, steps and learning_rate must be above 0, got {args.num_seeds}, {args.steps} and "
                        f"{args.learning_rate}")
    opened = common.open_run(args, Features, "which has no encoder to put under a classifier; train one with 'jaxdl train "
                             "autoencoder'")
    encoder, train, test = opened.task.abilities[Features], opened.task.splits["train"], opened.task.splits["test"]
    spec = train.spec
    if spec.num_classes is None:
        raise UserError(f"a classifier needs labels, and the dataset {spec.name} has none")
    for num in args.num_labels:
        if num < 1 or num % spec.num_classes or num > spec.num_examples:
            raise UserError(f"num_labels must be multiples of the {spec.num_classes} classes and at most {spec.num_examples}, "
                            f"got {num}")
    found: dict[str, Any] = {}
    for num in args.num_labels:
        program = compiled(encoder, spec, test, encoder.learned(opened.params), num, args.steps, args.learning_rate)
        found[str(num)] = {}
        for beginning in BEGINNINGS:
            scores = [program(beginning, *labelled(train, num, seed), seed) for seed in range(args.num_seeds)]
            found[str(num)][beginning] = {"accuracy_mean": float(np.mean(scores)), "accuracy_std": float(np.std(scores)),
                                          "accuracies": scores}
            print(f"{num:,} labels, {beginning}: {100 * np.mean(scores):.2f} % of the test images, standard deviation over "
                  f"{args.num_seeds} seeds {100 * np.std(scores):.2f}", flush=True)
    return {"run": str(args.run), "num_seeds": args.num_seeds, "steps": args.steps, "labels": found}


def labelled(dataset: data.Dataset, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many images of each class, drawn with a seed: uint8 [L, H, W, C] and int32 [L].

    Raises:
        UserError: a class has not enough.
    """
    rng, classes = np.random.default_rng(seed), dataset.spec.num_classes
    rows = []
    for c in range(classes):
        mine = np.flatnonzero(dataset.labels == c)
        if len(mine) < num // classes:
            raise UserError(f"num_labels={num} needs {num // classes} images of each class, and class {c} has {len(mine)}")
        rows.append(rng.choice(mine, num // classes, replace=False))
    index = rng.permutation(np.concatenate(rows))
    return dataset.images[index], dataset.labels[index]


@settings
class Config(learner.Config):
    """Settings of the classifier above an encoder."""

    begins: float = 1.0
    """1: the encoder begins as the autoencoder's, 0: at random."""
    moves: float = 1.0
    """1: the encoder learns, 0: it stays."""


def classifier_above(encoder: Features, learned: PyTree, config: Config, spec: DataSpec) -> learner.Model:
    """The learner of an encoder and a linear layer (`supervised.learner`), which begins with `learned` in part."""
    network = Classifier(encoder.network, encoder.apply, spec.num_classes)

    def init(key: Key) -> Variables:
        params = nn.init(network, key, jnp.zeros((1, *spec.shape)))
        own = params["params"]["encoder"]
        params["params"]["encoder"] = jax.tree.map(lambda a, b: jnp.where(config.begins, a, b), {
            name: learned[name] for name in own}, own)  # all of it but the layer of the codes
        return Variables(params, {})

    def apply(variables: Variables, images: Array, key: Key | None = None) -> Array:
        del key
        return network.apply(variables.params, encoder.prepare(images))

    def learn(variables: Variables, images: Array, key: Key, labels: Array | None = None) -> tuple[Array, PyTree]:
        del key, labels
        params = dict(variables.params["params"])
        params["encoder"] = jax.tree.map(lambda w: config.moves * w + (1 - config.moves) * jax.lax.stop_gradient(w),
                                         params["encoder"])
        return network.apply({"params": params}, encoder.prepare(images)), {}

    return learner.make(config, spec, spec.num_classes, Loss(losses.cross_entropy, lambda logits, labels: {}),
                        net=Net(init, apply, apply, learn))


def compiled(encoder: Features, spec: DataSpec, test: data.Dataset, learned: PyTree, num: int, steps: int,
             learning_rate: float) -> Callable[..., float]:
    """`(beginning, images [L, ...], labels [L], seed) -> accuracy on the test images`, one program for all of them."""
    spec = spec._replace(num_examples=num)

    def model(config: Config) -> learner.Model:
        return classifier_above(encoder, learned, config, spec)

    def fitted(config: Config, examples: Examples, key: Key) -> PyTree:
        run = minibatches.run_of(model(config).learner, num, config.batch_size)
        return run.params(advance(run, run.init(key, examples), examples, jnp.asarray(steps))[0])

    options = TRAIN_OPTIONS if jax.default_backend() == "cpu" else None
    program = jax.jit(fitted, compiler_options=options)
    score = learner.scorer(model(Config()).predict)

    def of(beginning: str, images: np.ndarray, labels: np.ndarray, seed: int) -> float:
        config = Config(batch_size=min(_BATCH, num), total_steps=steps, begins=float(beginning != "scratch"),
                        moves=float(beginning != "frozen"), optim=OptimConfig(learning_rate=learning_rate, schedule="cosine"))
        params = program(leaves_as_arrays(config), Examples(images, labels), jax.random.key(seed))
        return float((score(params, test.images).argmax(-1) == test.labels).mean())

    return of
