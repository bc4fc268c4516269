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
import optax
from flax import linen

from jaxdl import data, nn
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.errors import UserError
from jaxdl.core.task import Features
from jaxdl.core.types import Array, DataSpec, Key, PyTree
from jaxdl.data.shuffle import shuffled_index
from jaxdl.experiments.commands import common
from jaxdl.ops import losses

BEGINNINGS = ("scratch", "frozen", "finetuned")
_BATCH = 50
_BLOCK = 500  # test images at a time


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
            scores = [float(program(beginning, *labelled(train, num, seed), seed)) for seed in range(args.num_seeds)]
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


def compiled(encoder: Features, spec: DataSpec, test: data.Dataset, learned: PyTree, num: int, steps: int,
             learning_rate: float) -> Any:
    """`(beginning, images [L, ...], labels [L], seed) -> accuracy on the test images`, one program for all of them."""
    network = Classifier(encoder.network, encoder.apply, spec.num_classes)
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    batch = min(_BATCH, num)

    def loss_fn(params: PyTree, images: Array, labels: Array) -> Array:
        return losses.cross_entropy(network.apply(params, encoder.prepare(images)), labels).mean()

    def accuracy(params: PyTree, images: Array, labels: Array) -> Array:
        def right(part: tuple[Array, Array]) -> Array:
            return (network.apply(params, encoder.prepare(part[0])).argmax(-1) == part[1]).sum()

        whole = len(images) // _BLOCK * _BLOCK
        parts = (images[:whole].reshape(-1, _BLOCK, *spec.shape), labels[:whole].reshape(-1, _BLOCK))
        rest = right((images[whole:], labels[whole:])) if whole < len(images) else 0
        return (jax.lax.map(right, parts).sum() + rest) / len(images)

    def fitted(begins: Array, moves: Array, learned: PyTree, images: Array, labels: Array, tests: tuple[Array, Array], key: Key
            ) -> Array:
        """Begins with `learned` where `begins` is 1; it learns where `moves` is 1."""
        k_init, k_order = jax.random.split(key)
        params = nn.init(network, k_init, jnp.zeros((1, *spec.shape)))
        own = params["params"]["encoder"]
        params["params"]["encoder"] = jax.tree.map(lambda a, b: jnp.where(begins, a, b), {
            name: learned[name] for name in own}, own)  # all of it but the layer of the codes

        def step(carry: tuple[PyTree, PyTree], i: Array) -> tuple[tuple[PyTree, PyTree], None]:
            params, opt = carry
            per_epoch = num // batch
            index = shuffled_index(k_order, i // per_epoch, i % per_epoch * batch + jnp.arange(batch), num)
            grads = jax.grad(loss_fn)(params, images[index], labels[index])
            grads["params"]["encoder"] = jax.tree.map(lambda g: g * moves, grads["params"]["encoder"])
            updates, opt = tx.update(grads, opt, params)
            return (optax.apply_updates(params, updates), opt), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))
        return accuracy(params, *tests)

    options = TRAIN_OPTIONS if jax.default_backend() == "cpu" else None
    program = jax.jit(fitted, compiler_options=options)
    tests = jnp.asarray(test.images), jnp.asarray(test.labels)

    def of(beginning: str, images: np.ndarray, labels: np.ndarray, seed: int) -> Array:
        return program(jnp.float32(beginning != "scratch"), jnp.float32(beginning != "frozen"), learned, images, labels, tests,
                       jax.random.key(seed))

    return of
