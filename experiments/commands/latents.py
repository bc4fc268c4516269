"""`jaxdl interpolate`, `traverse` and `arithmetic`: pictures of what lies between and beside images in a model's latent space.

Shapes: `N` images, `H W C` an image, `Z` latent, `S` steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from scipy import stats

from jaxdl import data
from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.core.types import Array, Generative, PyTree
from jaxdl.experiments import arguments, pictures, run_folder, sample_judge, tasks

_LABELLED = 10_000  # samples from which the directions of attributes are taken
_TRIED = 1_000  # samples on which their effect is measured


@dataclass(frozen=True)
class _Common:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    out: Path
    """The picture to write, .png."""
    seed: int = 0
    """Seed of the draws, and of which images are taken."""
    data_dir: Path | None = None
    """Folder with the dataset's files, where it is not the one that the run was trained from."""


def interpolate(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl interpolate RUN --out FILE.png`."""

    @dataclass(frozen=True)
    class Args(_Common):
        num: int = 8
        """Pairs of images, one a row."""
        steps: int = 10
        """Images in a row, with both ends."""
        path: Literal["spherical", "linear"] | None = None
        """How to go from one latent to the other; if not given, spherical between draws and linear between encodings."""

    args = arguments.parse(Args, argv, "jaxdl interpolate", "Pictures between pairs of images: of test images where the model "
                           "encodes, of draws where it does not.")
    if not (1 <= args.num <= 100 and 2 <= args.steps <= 100):
        raise UserError(f"num must be between 1 and 100 and steps between 2 and 100, got {args.num} and {args.steps}")
    model, params, job = _open(args)
    z, labels = _latents(model, params, job.test, 2 * args.num, args.seed)
    path = args.path or ("linear" if model.encode else "spherical")
    t = jnp.linspace(0, 1, args.steps)
    between = {"linear": linear, "spherical": spherical}[path]
    line = jax.vmap(lambda a, b: jax.vmap(lambda t: between(a, b, t))(t))(z[: args.num], z[args.num :])  # [N, S, Z]
    labels = None if labels is None else jnp.repeat(labels[: args.num], args.steps)
    images = jax.jit(model.decode)(params, line.reshape(-1, *line.shape[2:]), labels)
    pictures.save_png(args.out, pictures.table(np.asarray(images), args.steps))
    print(args.out)
    return {"num": args.num, "steps": args.steps, "path": path, "out": str(args.out)}


def traverse(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl traverse RUN --out FILE.png`."""

    @dataclass(frozen=True)
    class Args(_Common):
        num: int = 10
        """Latent numbers, one a row: those that vary most over the test images where the model encodes."""
        steps: int = 11
        """Images in a row; of a latent of two numbers, in a row and in a column."""
        span: float = 2.5
        """How far to go either way, in standard deviations of the prior."""

    args = arguments.parse(Args, argv, "jaxdl traverse", "One latent number at a time from low to high, the others as a test "
                           "image or a draw has them; of a latent of two numbers, the plane.")
    if not (1 <= args.num <= 100 and 2 <= args.steps <= 100 and 0 < args.span < 10):
        raise UserError(f"num must be between 1 and 100, steps between 2 and 100 and span between 0 and 10, got {args.num}, "
                        f"{args.steps} and {args.span}")
    model, params, job = _open(args)
    if model.prior is None:
        raise UserError(f"{args.run} has no prior over its latents, whose standard deviation a step could be measured in")
    z, labels = _latents(model, params, job.test, 1000, args.seed)
    z = np.asarray(z)
    if z.shape[1] == 2:
        at = stats.norm.ppf(np.linspace(*stats.norm.cdf([-args.span, args.span]), args.steps))
        across, down = np.meshgrid(at, -at)
        latents, numbers = np.stack([across, down], -1).reshape(-1, 2), [0, 1]
    else:
        numbers = np.argsort(-z.var(0))[: args.num] if model.encode else np.arange(min(args.num, z.shape[1]))
        latents = np.repeat(z[:1], len(numbers) * args.steps, 0)
        latents[np.arange(len(latents)), np.repeat(numbers, args.steps)] = np.tile(
            np.linspace(-args.span, args.span, args.steps), len(numbers))
    labels = None if labels is None else jnp.full(len(latents), labels[0])
    images = jax.jit(model.decode)(params, jnp.asarray(latents, jnp.float32), labels)
    pictures.save_png(args.out, pictures.table(np.asarray(images), args.steps))
    print(args.out)
    return {"numbers": [int(i) for i in numbers], "steps": args.steps, "out": str(args.out)}


def arithmetic(argv: Sequence[str]) -> dict[str, Any]:
    """`jaxdl arithmetic RUN --out FILE.png`."""

    @dataclass(frozen=True)
    class Args(_Common):
        num: int = 8
        """Images to change, one a row."""
        scale: float = 1.0
        """How much of each difference to add."""
        classes: tuple[int, ...] | None = None
        """Classes to change into; the first five if not given."""

    args = arguments.parse(Args, argv, "jaxdl arithmetic", "Add differences of mean latents to latents: of more and less ink, "
                           "of slant to the right and to the left, of one class and another.")
    if not 1 <= args.num <= 100:
        raise UserError(f"num must be between 1 and 100, got {args.num}")
    model, params, job = _open(args)
    if job.test.labels is None:
        raise UserError(f"attributes are learned from labelled samples, and the dataset {job.test.name} has no labels")
    count = job.train.spec.num_classes
    targets = args.classes if args.classes is not None else tuple(range(min(5, count)))
    if any(not 0 <= c < count for c in targets):
        raise UserError(f"classes must lie between 0 and {count - 1}, got {list(targets)}")
    z, given = _latents(model, params, job.train, _LABELLED, args.seed)
    decode = jax.jit(model.decode)

    def images_of(z: Array, labels: Array | None) -> np.ndarray:
        parts = range(0, len(z), _TRIED)
        return np.concatenate([np.asarray(decode(params, z[i : i + _TRIED], None if labels is None else labels[i : i + _TRIED]))
                               for i in parts])

    judge = sample_judge.judge("conv", job.train, job.test)
    images, z = images_of(z, given), np.asarray(z)
    labels = judge.classes(sample_judge.as_bytes(images))
    directions = {name: _direction(z, labels, values) for name, values in
                  {"ink": images.mean((1, 2, 3)), "slant": slant(images)}.items()}
    means = _class_means(z, labels, count)

    def changed(z: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        """Latents [N, Z] after each change, by its name."""
        found = {"as it is": z}
        for name, direction in directions.items():
            found |= {f"- {name}": z - args.scale * direction, f"+ {name}": z + args.scale * direction}
        return found | {f"to {c}": z + args.scale * (means[c] - means[labels]) for c in targets}

    tried = slice(0, min(_TRIED, len(z)))
    told = None if given is None else given[tried]
    after = {name: images_of(jnp.asarray(new), told) for name, new in changed(z[tried], labels[tried]).items()}
    effect: dict[str, float] = {}
    for name, measure in (("ink", lambda x: x.mean((1, 2, 3))), ("slant", slant)):
        spread = measure(after["as it is"]).std()
        effect[name] = float((measure(after[f"+ {name}"]) - measure(after[f"- {name}"])).mean() / spread)
    for c in targets:
        effect[f"to {c}"] = float((judge.classes(sample_judge.as_bytes(after[f"to {c}"])) == c).mean())
    rows = _one_of_each(labels[tried], args.num)
    table = np.stack([x[rows] for x in after.values()], 1)
    _save_table(args.out, table, list(after))
    print(f"{args.out}: ink moved by {effect['ink']:.1f} and slant by {effect['slant']:.1f} standard deviations between - and "
          "+; " + ", ".join(f"{100 * effect[f'to {c}']:.0f} % became {c}" for c in targets))
    return {"effect": effect, "scale": args.scale, "out": str(args.out)}


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


def _open(args: _Common) -> tuple[Generative, PyTree, tasks.Job]:
    if args.out.suffix.lower() != ".png":
        raise UserError(f"out must end in .png, got {args.out}")
    if not args.out.absolute().parent.is_dir():
        raise files.cannot_write(args.out, FileNotFoundError())
    if not 0 <= args.seed < 2**32:
        raise UserError(f"seed must be between 0 and 2**32 - 1, got {args.seed}")
    settings = run_folder.open_run(args.run)
    if settings.algorithm.kind != "generative":
        raise UserError(f"{args.run} is a run of {settings.algo}, which has no latents")
    loaded = tasks.load(args.run, member=0, data_dir=args.data_dir)
    model, params = loaded.job.model, loaded.params
    if model.decode is None or (model.prior is None and not _continuous(model, params, loaded.job.test)):
        raise UserError(f"{args.run} is a run of {settings.algo}, whose latents cannot be moved between or added up")
    return model, params, loaded.job


def _continuous(model: Generative, params: PyTree, dataset: data.Dataset) -> bool:
    z = jax.eval_shape(model.encode, params, dataset.rows(slice(1)), jax.random.key(0))
    return jnp.issubdtype(z.dtype, jnp.floating)


def _latents(model: Generative, params: PyTree, dataset: data.Dataset, num: int, seed: int) -> tuple[Array, Array | None]:
    """Latents of `num` images, or of all, where the model encodes, else draws of its prior; and the images' classes."""
    key = jax.random.key(seed)
    if model.encode is None:
        return model.prior(key, num), None
    index = np.random.default_rng(seed).permutation(dataset.spec.num_examples)[:num]
    encode, parts = jax.jit(model.encode), np.array_split(index, max(1, len(index) // _TRIED))
    z = jnp.concatenate([encode(params, dataset.rows(part), jax.random.fold_in(key, i)) for i, part in enumerate(parts)])
    return z, None if dataset.labels is None else jnp.asarray(dataset.labels[index])


def _direction(z: np.ndarray, labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """From less to more of an attribute: mean latent of the upper fifth less that of the lower, the mean over classes [Z]."""
    differences = []
    for c in np.unique(labels):
        mine = np.flatnonzero(labels == c)
        fifth = max(1, len(mine) // 5)
        order = mine[np.argsort(values[mine])]
        differences.append(z[order[-fifth:]].mean(0) - z[order[:fifth]].mean(0))
    return np.mean(differences, 0)


def _class_means(z: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Mean latent of each class [Y, Z]; the mean of all where a class has none."""
    return np.stack([z[labels == c].mean(0) if (labels == c).any() else z.mean(0) for c in range(count)])


def _one_of_each(labels: np.ndarray, num: int) -> np.ndarray:
    """Rows of `num` samples, classes in turn."""
    rank = np.empty(len(labels), int)
    for c in np.unique(labels):
        rank[labels == c] = np.arange((labels == c).sum())
    return np.lexsort((labels, rank))[:num]


def _save_table(path: Path, images: np.ndarray, titles: Sequence[str]) -> None:
    """Images [rows, columns, H, W, C] with a title above each column."""
    import io

    from matplotlib.figure import Figure

    rows, columns = images.shape[:2]
    figure = Figure(figsize=(0.9 * columns, 0.9 * rows + 0.3), dpi=100)
    axes: Callable[..., Any] = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.05})
    for i in range(rows):
        for j in range(columns):
            axes[i, j].imshow(np.clip(images[i, j], 0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
            axes[i, j].set_axis_off()
            if i == 0:
                axes[i, j].set_title(titles[j], fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    files.write_bytes(path, buffer.getvalue())
