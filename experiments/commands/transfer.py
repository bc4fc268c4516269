"""`jaxdl transfer`: what an autoencoder learned from images alone is worth to a classifier that has few labels.

The classifier is the encoder with a linear layer on its last hidden layer. Three begin from the same labelled images:

    scratch     all of it random
    frozen      the autoencoder's encoder, which stays as it is; the linear layer learns
    finetuned   the same, and all of it learns

Each seed draws other labelled images, as many of each class, other initial values and another order.

Shapes: `L` labelled images, `H W C` an image, `F` features, `Y` classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import linen

from jaxdl import data, nn
from jaxdl.core.compile import TRAIN_OPTIONS
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, DataSpec, Key, PyTree
from jaxdl.data.shuffle import shuffled_index
from jaxdl.experiments import arguments, run_folder, tasks
from jaxdl.generative import autoencoder
from jaxdl.ops import losses
from jaxdl.ops.pixels import to_unit

BEGINNINGS = ("scratch", "frozen", "finetuned")
_BATCH = 50
_BLOCK = 500  # test images at a time


class Classifier(linen.Module):
    """Images [B, H, W, C] in [0, 1] -> logits [B, Y]: an encoder and a linear layer."""

    encoder: autoencoder.Encoder
    num_classes: int

    def setup(self) -> None:
        self.head = nn.CategoricalHead(self.num_classes)

    def __call__(self, x: Array) -> Array:
        return self.head(self.encoder(x, hidden=True))


def transfer(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl transfer RUN`."""

    @dataclass(frozen=True)
    class Args:
        run: Annotated[Path, tyro.conf.Positional]
        """Folder of a run of an autoencoder."""
        num_labels: tuple[int, ...] = (100, 1000)
        """Labelled images; a multiple of the number of classes."""
        num_seeds: int = 5
        """Seeds 0, 1, ... of each."""
        steps: int = 2000
        """Updates of the classifier, 50 images each (or all, if they are fewer)."""
        learning_rate: float = 1e-3
        """Of Adam, falling to zero along a cosine."""
        data_dir: Path | None = None
        """Folder with the dataset's files, where it is not the one that the run was trained from."""

    args = arguments.parse(Args, argv, "jaxdl transfer", "Accuracy on the test images of a classifier with few labels "
                           "that begins with the encoder of an autoencoder, and of the same one from scratch.")
    settings = run_folder.open_run(args.run)
    if settings.algo != "autoencoder":
        raise UserError(f"{args.run} is a run of {settings.algo}; transfer takes the encoder of an autoencoder")
    if args.num_seeds < 1 or args.steps < 1 or not 0 < args.learning_rate < float("inf"):
        raise UserError(f"num_seeds, steps and learning_rate must be above 0, got {args.num_seeds}, {args.steps} and "
                        f"{args.learning_rate}")
    loaded = tasks.load(args.run, data_dir=args.data_dir, member=0)
    spec = loaded.job.train.spec
    if spec.num_classes is None:
        raise UserError(f"a classifier needs labels, and the dataset {spec.name} has none")
    for num in args.num_labels:
        if num < 1 or num % spec.num_classes or num > spec.num_examples:
            raise UserError(f"num_labels must be multiples of the {spec.num_classes} classes and at most {spec.num_examples}, "
                            f"got {num}")
    found: dict[str, Any] = {}
    for num in args.num_labels:
        program = compiled(loaded.settings.config, spec, loaded.job.test, loaded.params["encoder"], num, args.steps,
                           args.learning_rate)
        found[str(num)] = {}
        for beginning in BEGINNINGS:
            scores = [float(program(beginning, *labelled(loaded.job.train, num, seed), seed)) for seed in range(args.num_seeds)]
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


def compiled(config: autoencoder.Config, spec: DataSpec, test: data.Dataset, encoder: PyTree, num: int, steps: int,
             learning_rate: float) -> Any:
    """`(beginning, images [L, ...], labels [L], seed) -> accuracy on the test images`, one program for all of them."""
    network = Classifier(autoencoder.encoder(config), spec.num_classes)
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    batch = min(_BATCH, num)

    def loss_fn(params: PyTree, images: Array, labels: Array) -> Array:
        return losses.cross_entropy(network.apply(params, to_unit(images)), labels).mean()

    def accuracy(params: PyTree, images: Array, labels: Array) -> Array:
        def right(part: tuple[Array, Array]) -> Array:
            return (network.apply(params, to_unit(part[0])).argmax(-1) == part[1]).sum()

        whole = len(images) // _BLOCK * _BLOCK
        parts = (images[:whole].reshape(-1, _BLOCK, *spec.shape), labels[:whole].reshape(-1, _BLOCK))
        rest = right((images[whole:], labels[whole:])) if whole < len(images) else 0
        return (jax.lax.map(right, parts).sum() + rest) / len(images)

    def run(begins: Array, moves: Array, encoder: PyTree, images: Array, labels: Array, tests: tuple[Array, Array], key: Key
            ) -> Array:
        """Begins with `encoder` where `begins` is 1; it learns where `moves` is 1."""
        k_init, k_order = jax.random.split(key)
        params = nn.init(network, k_init, jnp.zeros((1, *spec.shape)))
        own = params["params"]["encoder"]
        params["params"]["encoder"] = jax.tree.map(lambda a, b: jnp.where(begins, a, b), {
            name: encoder["params"][name] for name in own}, own)  # all of it but the layer of the codes

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
    program = jax.jit(run, compiler_options=options)
    tests = jnp.asarray(test.images), jnp.asarray(test.labels)

    def of(beginning: str, images: np.ndarray, labels: np.ndarray, seed: int) -> Array:
        return program(jnp.float32(beginning != "scratch"), jnp.float32(beginning != "frozen"), encoder, images, labels, tests,
                       jax.random.key(seed))

    return of
