"""Ways through a latent space, and what moves in images along them.

Shapes: `N` images, `H W C` an image, `Z` latent, `Y` classes.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import data
from jaxdl.core import streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.task import Latents
from jaxdl.core.types import Array, PyTree
from jaxdl.experiments import tasks
from jaxdl.experiments.commands import common

_AT_ONCE = 1_000  # images


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of what makes a picture of a latent space."""

    out: Path
    """The picture to write, .png."""
    seed: int = 0
    """Seed of the draws, and of which images are taken."""


def open_latents(args: Args) -> tuple[Latents, PyTree, tasks.TrainedRun]:
    """The latent space of a run, its parameters, and the run.

    Raises:
        UserError: a flag is out of range, or the run's model has no continuous latents.
    """
    common.check_picture(args.out, ".png")
    common.check_seed(args.seed)
    opened = common.open_run(args, Latents, "and interpolate, traverse and arithmetic need a model with continuous latents: "
                             "vae, autoencoder or gan")
    return opened.task.abilities[Latents], opened.params, opened


def latents_of(space: Latents, params: PyTree, dataset: data.Dataset, num: int, seed: int) -> tuple[Array, Array | None]:
    """Latents of `num` images, or of all, where the model encodes, else draws of its prior.

    Also the classes that the decoder is told with them: the images', or all in turn; None where it is told none.
    """
    if space.encode is None:
        return space.prior(streams.key(seed, Purpose.SAMPLES), num), _in_turn(space, num)
    index = np.random.default_rng(seed).permutation(dataset.spec.num_examples)[:num]
    classes = None if space.num_classes is None else jnp.asarray(dataset.labels[index])
    return _encoded(space, params, dataset, index, seed), classes


def pairs_of(space: Latents, params: PyTree, dataset: data.Dataset, num: int, seed: int) -> tuple[Array, Array, Array | None]:
    """Latents of `num` pairs of images (or of draws), those of the first and of the second; and the class of each pair.

    Where the decoder is told the class, both images of a pair are of one.

    Raises:
        UserError: there are not as many pairs of images.
    """
    if space.encode is None:
        z = space.prior(streams.key(seed, Purpose.SAMPLES), 2 * num)
        return z[:num], z[num:], _in_turn(space, num)
    order = np.random.default_rng(seed).permutation(dataset.spec.num_examples)
    pairs = order[: len(order) // 2 * 2].reshape(2, -1) if space.num_classes is None else _pairs_of_one_class(
        order, dataset.labels[order])
    if pairs.shape[1] < num:
        alike = "" if space.num_classes is None else " of one class"
        raise UserError(f"num must be at most {pairs.shape[1]}, the pairs of test images{alike} of {dataset.name}, got {num}")
    pairs = pairs[:, :num]
    z = _encoded(space, params, dataset, pairs.reshape(-1), seed)
    return z[:num], z[num:], None if space.num_classes is None else jnp.asarray(dataset.labels[pairs[0]])


def _pairs_of_one_class(order: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows [2, pairs] out of `order`, each twice in a row among those of its class, in the order of the first of each pair."""
    groups = [np.flatnonzero(labels == c) for c in np.unique(labels)]
    pairs = np.concatenate([group[: len(group) // 2 * 2].reshape(-1, 2) for group in groups])
    return order[pairs[np.argsort(pairs[:, 0])].T]


def _encoded(space: Latents, params: PyTree, dataset: data.Dataset, index: np.ndarray, seed: int) -> Array:
    key = streams.key(seed, Purpose.SAMPLES)
    encode, parts = jax.jit(space.encode), np.array_split(index, max(1, len(index) // _AT_ONCE))
    return jnp.concatenate([encode(params, dataset.rows(part), jax.random.fold_in(key, i)) for i, part in enumerate(parts)])


def _in_turn(space: Latents, num: int) -> Array | None:
    return None if space.num_classes is None else jnp.arange(num) % space.num_classes


def linear(a: Array, b: Array, t: Array) -> Array:
    """From a at t = 0 to b at t = 1 on a straight line: [Z]."""
    return a + t * (b - a)


def spherical(a: Array, b: Array, t: Array) -> Array:
    """From a at t = 0 to b at t = 1 on a great circle, while the length goes from one to the other: [Z].

    Shoemake (1985) of the directions; the mid-point of a straight line between draws of a Gaussian is far shorter than any draw
    (White, "Sampling generative networks", 2016). Opposite ends have no one great circle between them.
    """
    length_a, length_b = jnp.linalg.norm(a), jnp.linalg.norm(b)
    u, v = a / length_a, b / length_b
    angle = 2 * jnp.arctan2(jnp.linalg.norm(u - v), jnp.linalg.norm(u + v))  # exact where it is small, unlike arccos
    close = angle < 1e-4
    sine = jnp.where(close, 1.0, jnp.sin(angle))
    way = jnp.where(close, linear(u, v, t), (jnp.sin((1 - t) * angle) * u + jnp.sin(t * angle) * v) / sine)
    return way * linear(length_a, length_b, t)


def slant(images: np.ndarray) -> np.ndarray:
    """How far ink moves to the right for a pixel up, by its second moments: [N, H, W, C] -> [N]."""
    ink = images.mean(-1) + 1e-6
    ink = ink / ink.sum((1, 2), keepdims=True)
    y, x = np.mgrid[: ink.shape[1], : ink.shape[2]].astype(np.float64)
    centre_y, centre_x = ((ink * v).sum((1, 2))[:, None, None] for v in (y, x))
    return -(ink * (y - centre_y) * (x - centre_x)).sum((1, 2)) / (ink * (y - centre_y) ** 2).sum((1, 2))


def direction(z: np.ndarray, labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """From less to more of an attribute: mean latent of the upper fifth less that of the lower, the mean over classes [Z]."""
    differences = []
    for c in np.unique(labels):
        mine = np.flatnonzero(labels == c)
        fifth = max(1, len(mine) // 5)
        order = mine[np.argsort(values[mine])]
        differences.append(z[order[-fifth:]].mean(0) - z[order[:fifth]].mean(0))
    return np.mean(differences, 0)


def class_means(z: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Mean latent of each class [Y, Z]; the mean of all where a class has none."""
    return np.stack([z[labels == c].mean(0) if (labels == c).any() else z.mean(0) for c in range(count)])


def one_of_each(labels: np.ndarray, num: int) -> np.ndarray:
    """Rows of `num` samples, classes in turn."""
    rank = np.empty(len(labels), int)
    for c in np.unique(labels):
        rank[labels == c] = np.arange((labels == c).sum())
    return np.lexsort((labels, rank))[:num]
