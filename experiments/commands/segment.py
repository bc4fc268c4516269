"""segment RUN: masks of what pictures show, by a network that has learned classes and has never seen a mask

Shapes: `N` pictures, `H W C` a picture, `Y` classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.analysis import attributions, segments
from jaxdl.core import streams
from jaxdl.core.errors import UserError
from jaxdl.core.streams import Purpose
from jaxdl.core.task import Localizer
from jaxdl.core.types import Array
from jaxdl.experiments import looking, looks, tasks
from jaxdl.experiments.commands import common

_AT_ONCE = 50  # pictures
_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of the command."""

    method: Literal["saliency", "smoothgrad", "guided", "occlusion"] = "smoothgrad"
    """The attribution that seeds the masks ('jaxdl explain' draws it)."""
    num: int = 100
    """Held-out pictures."""
    seed: int = 0
    """Seed of the pictures and of noise."""
    out: Path = Path("segments.png")
    """The picture to write, .png."""


class _Seen(NamedTuple):
    f: Callable[[Array], Array]  # pictures [N, H, W, C] in [0, 1] -> logits [N, Y]
    x: np.ndarray  # [N, H, W, C]
    masks: np.ndarray | None  # bool [N, H, W] of the object, where the dataset has them


def run(args: Args) -> dict[str, Any]:
    """Find masks, judge them where they are known, and draw some."""
    common.check_between("num", args.num, 1, 10_000)
    common.check_seed(args.seed)
    common.check_picture(args.out, ".png")
    segments.require()
    seen = _opened(args)
    attribution = _attributed(seen, args)
    found = np.stack([segments.segmented(x, a) for x, a in zip(seen.x, attribution, strict=True)])
    result = {"method": args.method, "num": len(found), "share_of_pictures": float(found.mean())}
    if seen.masks is not None:
        result |= _judged(found, attribution, seen.masks)
    print(", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in result.items() if isinstance(value, float)))
    _draw(args.out, seen, attribution, found)
    print(args.out)
    return result | {"out": str(args.out)}


def _opened(args: Args) -> _Seen:
    """A classifier, or a localizer, whose pictures have masks."""
    opened = tasks.load_first(args.run, step=args.step, data_dir=args.data_dir)
    localizer = opened.task.abilities.get(Localizer)
    if localizer is None:
        seen = looking.open_classifier(args, args.num, args.seed)
        return _Seen(seen.f, np.asarray(seen.x), None)
    if localizer.class_names is None:
        raise UserError(f"{args.run} finds joints and tells no classes apart; name a classifier, or a localizer of boxes")
    held = opened.task.splits["test"].arrays
    at = np.random.default_rng(args.seed).permutation(len(held.images))[: args.num]
    images = np.asarray(held.images)[at]
    return _Seen(lambda x: localizer.find(opened.params, 255 * x)[0], images.astype(np.float32) / 255,
                 np.asarray(held.instances)[at] > 0)


def _attributed(seen: _Seen, args: Args) -> np.ndarray:
    """How much pixels have to do with the class that is said, [N, H, W]; its sign does not count."""
    method = attributions.methods(streams.key(args.seed, Purpose.EVALUATION))[args.method]

    @jax.jit
    def of(x: Array) -> Array:
        values = method(seen.f, x, seen.f(x).argmax(-1))
        return jnp.abs(values).max(-1) if values.ndim == 4 else jax.nn.relu(values)

    return np.concatenate([np.asarray(of(jnp.asarray(seen.x[i : i + _AT_ONCE]))) for i in range(0, len(seen.x), _AT_ONCE)])


def _judged(found: np.ndarray, attribution: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Beside the masks a threshold alone, the best for all pictures, and a mask of the whole picture."""
    shares = np.linspace(0.5, 0.99, 25)
    cut = [segments.overlap(attribution > np.quantile(attribution, share, (1, 2), keepdims=True), masks).mean()
           for share in shares]
    return {"iou": float(segments.overlap(found, masks).mean()), "iou_of_best_threshold": float(max(cut)),
            "iou_of_everything": float(segments.overlap(np.ones_like(masks), masks).mean())}


def _draw(path: Path, seen: _Seen, attribution: np.ndarray, found: np.ndarray) -> None:
    """Pictures, attributions, masks, and those that are true where they are known, a picture a column."""
    x = np.broadcast_to(seen.x[:_SHOWN], (*seen.x[:_SHOWN].shape[:3], 3))
    bright = attribution[:_SHOWN] / np.maximum(attribution[:_SHOWN].max((1, 2), keepdims=True), 1e-12)
    rows = {"picture": x, "attribution": np.repeat(bright[..., None], 3, -1),
            "found": np.where(found[:_SHOWN, ..., None], x, 0.15)}
    if seen.masks is not None:
        rows["true"] = np.where(seen.masks[:_SHOWN, ..., None], x, 0.15)
    looks.draw_rows(path, np.stack(list(rows.values())).astype(np.float32), list(rows))
