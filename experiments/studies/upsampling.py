"""upsampling: the checkerboards that ways of doubling sides leave in a smooth picture, before anything is learned

A smooth map of features goes through two doublings to a picture four times as large, by each way of `nn.upsampling`, with
weights that are all alike and with random ones (means over many draws). Roughness is the root mean square of the second
differences of neighbouring pixels, along rows and columns, in deviations of the picture; a smooth one has little of it. With
weights alike windows of 3x3 at stride 2 meet unevenly, and those of 4x4 and 2x2 evenly; random ones leave a pattern of period
2 by every way but that which interpolates first (Odena et al., "Deconvolution and checkerboard artifacts", 2016).

Shapes: `H W C` a picture.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from jaxdl import nn
from jaxdl.core.types import Array, Key
from jaxdl.experiments.commands.common import check_between
from jaxdl.experiments.studies import common
from jaxdl.nn.upsampling import Kind, Upsample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE, CHANNELS = 12, 16
WAYS = tuple(way for way in get_args(Kind) if way != "max_unpool")  # whose places are those of a pool on the way down
WEIGHTS = ("alike", "random")
_BORDER = 6  # pixels that are left out: windows meet the edge there


@dataclass(frozen=True, kw_only=True)
class Args(common.Args):
    """Flags of the study."""

    num_draws: int = 100
    """Networks with random weights, of which roughness is the mean."""


class _Network(linen.Module):
    way: Kind

    @linen.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, 4H, 4W, 1]."""
        x = jax.nn.relu(Upsample(self.way, CHANNELS)(x))
        return Upsample(self.way, 1)(x)


def run(args: Args) -> dict[str, Any]:
    """Measure, write and draw it."""
    check_between("num_draws", args.num_draws, 1, 100_000)
    common.check_folder(args)
    key = jax.random.key(args.seed)
    pictures = {way: doubled(way, args.num_draws, key) for way in WAYS}
    found = {"num_draws": args.num_draws, "roughness": {way: measure(of_way) for way, of_way in pictures.items()}}
    common.print_table("roughness", list(WEIGHTS), {
        way: [row[weights] for weights in WEIGHTS] for way, row in found["roughness"].items()})
    return common.finish("upsampling", args, found, lambda found: draw(found, pictures))


def measure(pictures: dict[str, Array]) -> dict[str, float]:
    """Mean roughness by weights, of what `doubled` gave."""
    return {weights: float(jax.vmap(roughness)(drawn).mean()) for weights, drawn in pictures.items()}


def doubled(way: Kind, num_draws: int, key: Key) -> dict[str, Array]:
    """Pictures [draws, H, W] by weights: one of weights that are alike, and so many of random ones."""
    network, x = _Network(way), smooth()
    shapes = jax.eval_shape(lambda key: network.init(key, x), key)
    alike = jax.tree.map(lambda p: jnp.full(p.shape, float(p.ndim > 1) / np.prod(p.shape[:-1])), shapes)
    even = network.apply(alike, x)[0, ..., 0]
    picture = jax.jit(jax.vmap(lambda key: network.apply(nn.init(network, key, x), x)[0, ..., 0]))
    return {"alike": even[None], "random": picture(jax.random.split(key, num_draws))}


def smooth() -> Array:
    """Features that change slowly, [1, SIDE, SIDE, CHANNELS]: each a hill at a place of its own."""
    at = jnp.linspace(0, 1, SIDE)
    centre = jnp.stack(jnp.meshgrid(jnp.linspace(0.1, 0.9, 4), jnp.linspace(0.1, 0.9, 4), indexing="ij"), -1).reshape(-1, 2)
    y, x = (jnp.exp(-((at[:, None] - centre[:, i]) ** 2) / 0.18) for i in (0, 1))
    return (y[:, None] * x[None])[None]


def roughness(y: Array) -> Array:
    """The second differences of a picture [H, W], in its deviations."""
    inside = y[_BORDER:-_BORDER, _BORDER:-_BORDER]
    squares = [jnp.square(z[1:-1] - (z[:-2] + z[2:]) / 2).mean() for z in (inside, inside.T)]
    return jnp.sqrt(sum(squares) / 2) / jnp.maximum(inside.std(), 1e-12)


def draw(found: dict[str, Any], pictures: dict[str, dict[str, Array]]) -> "Figure":
    """The first picture of each, a way a column."""
    figure, axes = common.new_figure(len(WEIGHTS), len(WAYS), 2.1 * len(WAYS), 4.8)
    for row, weights in zip(axes, WEIGHTS, strict=True):
        for one, (way, of_way) in zip(row, pictures.items(), strict=True):
            one.imshow(of_way[weights][0, _BORDER:-_BORDER, _BORDER:-_BORDER], cmap="gray")
            one.set_xticks([])
            one.set_yticks([])
            one.set_title(f"{way}\nroughness {found['roughness'][way][weights]:.3f}", fontsize=9)
        row[0].set_ylabel(f"weights {weights}")
    return figure
