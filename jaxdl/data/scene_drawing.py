"""Drawing scenes: glyphs, stick figures and a textured ground, each a few products of small matrices.

A glyph (a digit or a shape) is a small picture. It is drawn into its square by linear interpolation, which is a product of
three matrices, rows x glyph x columns; where it covers half of a pixel or more, the pixel is the object's.

Shapes: `S` side of the scene in pixels, `K` objects, `J` joints.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.types import Array

GLYPH = 28  # side of a glyph
SHAPES = ("circle", "square", "triangle", "cross", "ring", "star")
JOINTS = ("right ankle", "right knee", "right hip", "left hip", "left knee", "left ankle", "right wrist", "right elbow",
          "right shoulder", "left shoulder", "left elbow", "left wrist", "neck", "head")  # of Leeds Sports Pose; the figure
# looks at us, and its right is the picture's left
LIMBS = ((0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (9, 10), (10, 11), (2, 8), (3, 9))
NECK, HEAD = 12, 13
POSE = 10  # uniform numbers of a pose
_ROUGH = 8  # cells of the ground's texture along a side
GROUND = 3 + _ROUGH**2  # uniform numbers of a ground
_THICK = 0.035  # half of a limb's width, in heights of the figure


class Painted(NamedTuple):
    """A painted scene."""

    image: Array  # float32 [S, S, 3], 0 to 255
    semantic: Array  # uint8 [S, S]
    instances: Array  # uint8 [S, S]


def shapes() -> np.ndarray:
    """The glyphs of `SHAPES`, uint8 [6, GLYPH, GLYPH]: the share of each pixel that is covered, 255 is all."""
    fine = 8
    at = (np.arange(GLYPH * fine) + 0.5) / (GLYPH * fine) * 2 - 1
    y, x = np.meshgrid(at, at, indexing="ij")
    radius, angle = np.hypot(x, y), np.arctan2(x, -y)
    point = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)  # from the nearest of a star's points
    inside = {
        "circle": radius < 0.9, "square": np.maximum(abs(x), abs(y)) < 0.8, "triangle": (y < 0.8) & (abs(x) < (y + 0.9) / 1.9),
        "cross": (np.minimum(abs(x), abs(y)) < 0.28) & (np.maximum(abs(x), abs(y)) < 0.85),
        "ring": (radius < 0.9) & (radius > 0.5), "star": radius * np.sin(point + 0.35) < 0.95 * np.sin(0.35)}
    parts = np.stack([inside[name] for name in SHAPES]).reshape(len(SHAPES), GLYPH, fine, GLYPH, fine)
    return np.rint(255 * parts.mean((2, 4))).astype(np.uint8)


def ground(u: Array, grain: Array) -> Array:
    """A dark ground with a rough texture, [S, S, 3]; of uniform numbers `GROUND` and grain [S, S]."""
    size = len(grain)
    tint, rough = 20 + 60 * u[:3], 50 * u[3:].reshape(_ROUGH, _ROUGH) - 25
    spread = _hats(jnp.zeros(()), jnp.float32(size), size, _ROUGH)
    grey = _product(_product(spread, rough), spread.T) + 24 * grain - 12
    return jnp.clip(grey[..., None] + tint, 0, 255)


def glyph(small: Array, box: Array, size: int) -> Array:
    """The share of each pixel that a glyph (uint8 [GLYPH, GLYPH]) covers when it is drawn into a box x0 y0 x1 y1: [S, S]."""
    rows, columns = (_hats(box[i], box[i + 2], size, GLYPH) for i in (1, 0))
    share = _product(_product(rows, small.astype(jnp.float32) / 255), columns.T)
    return jnp.clip(2 * share - 0.5, 0, 1)  # sharper, and a half stays a half


def pose(u: Array) -> Array:
    """Joints of a standing figure in a box of which the longer side is 1, x and y [J, 2], the centre at 0; of uniform numbers
    `POSE`.
    """
    u = 2 * u - 1
    lean = 0.12 * u[0]
    hips, neck = jnp.zeros(2), 0.34 * _way(jnp.pi + lean)
    head = neck + 0.17 * _way(jnp.pi + lean + 0.2 * u[1])
    sides = []
    for side, (arm, elbow, leg, knee) in ((-1, u[2:6]), (1, u[6:10])):
        shoulder = neck + side * jnp.stack([0.11 * jnp.cos(lean), 0.11 * jnp.sin(lean)]) + jnp.array([0, 0.04])
        down = side * (1.25 + 1.1 * arm)  # 0 hangs down
        bent = shoulder + 0.18 * _way(down)
        wrist = bent + 0.17 * _way(down + 0.9 * side * elbow)
        hip = hips + jnp.array([0.07 * side, 0.0])
        below = side * (0.32 + 0.25 * leg)
        middle = hip + 0.24 * _way(below)
        sides.append((middle + 0.24 * _way(below - 0.35 * side * (1 + knee) / 2), middle, hip, wrist, bent, shoulder))
    (r_ankle, r_knee, r_hip, r_wrist, r_elbow, r_shoulder), (l_ankle, l_knee, l_hip, l_wrist, l_elbow, l_shoulder) = sides
    found = jnp.stack([r_ankle, r_knee, r_hip, l_hip, l_knee, l_ankle, r_wrist, r_elbow, r_shoulder, l_shoulder, l_elbow,
                       l_wrist, neck, head])
    low, high = found.min(0), found.max(0)
    return (found - (low + high) / 2) / (high - low).max()


def figure(joints: Array, height: Array, size: int) -> Array:
    """The share of each pixel that a stick figure covers, [S, S]; joints x and y [J, 2] in pixels."""
    start, end = (jnp.stack([joints[limb[i]] for limb in LIMBS]) for i in (0, 1))
    at = jnp.arange(size) + 0.5
    x, y = at[None, :], at[:, None]
    near = jnp.full((size, size), jnp.inf)
    for a, b in zip(start, end, strict=True):
        along = b - a
        share = ((x - a[0]) * along[0] + (y - a[1]) * along[1]) / jnp.maximum(along @ along, 1e-6)
        share = jnp.clip(share, 0, 1)
        near = jnp.minimum(near, (x - a[0] - share * along[0]) ** 2 + (y - a[1] - share * along[1]) ** 2)
    limbs = _THICK * height + 0.5 - jnp.sqrt(near)
    middle = (joints[NECK] + joints[HEAD]) / 2
    radius = jnp.linalg.norm(joints[HEAD] - joints[NECK]) / 2
    head = radius + 0.5 - jnp.sqrt((x - middle[0]) ** 2 + (y - middle[1]) ** 2)
    return jnp.clip(jnp.maximum(limbs, head), 0, 1)


def paint(ground: Array, shares: Array, colours: Array, labels: Array) -> Painted:
    """Objects, the later ones over the earlier: colours [K, 3] where they cover pixels (`shares`, [K, S, S]), their classes [K]
    and numbers where by half or more.
    """
    def over(below: Painted, top: tuple[Array, Array, Array, Array]) -> tuple[Painted, None]:
        share, colour, label, number = top
        own = share >= 0.5
        image = below.image + share[..., None] * (colour - below.image)
        return Painted(image, jnp.where(own, label, below.semantic), jnp.where(own, number, below.instances)), None

    nothing = jnp.zeros(ground.shape[:2], jnp.uint8)
    numbers = jnp.arange(1, len(shares) + 1, dtype=jnp.uint8)
    # a loop, before which shares are computed once: without it XLA computes them anew for each of their uses
    return jax.lax.scan(over, Painted(ground, nothing, nothing), (shares, colours, labels.astype(jnp.uint8), numbers))[0]


def boxes_of(instances: Array, num: int) -> Array:
    """The boxes around what is seen of the objects 1 to `num` of a map [S, S], float32 [num, 4]; zeros where nothing is."""
    size = instances.shape[0]
    own = instances == jnp.arange(1, num + 1, dtype=instances.dtype)[:, None, None]
    at = jnp.arange(size)

    def ends(seen: Array) -> tuple[Array, Array]:
        return jnp.where(seen, at, size).min(-1), jnp.where(seen, at + 1, 0).max(-1)

    (x0, x1), (y0, y1) = ends(own.any(1)), ends(own.any(2))
    return jnp.where((x1 > 0)[:, None], jnp.stack([x0, y0, x1, y1], -1), 0).astype(jnp.float32)


def _hats(low: Array, high: Array, size: int, small: int) -> Array:
    """Linear interpolation of `small` cells over the pixels from `low` to `high` of `size`, and nothing beyond: [S, small]."""
    at = jnp.arange(size) + 0.5
    place = (at - low) / jnp.maximum(high - low, 1e-3) * small - 0.5
    inside = (at >= low) & (at < high)
    place = jnp.clip(place, 0, small - 1)
    return jnp.where(inside[:, None], jnp.maximum(0, 1 - jnp.abs(place[:, None] - jnp.arange(small))), 0)


def _way(angle: Array) -> Array:
    """A step of length 1: 0 is down, positive turns to the picture's right."""
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)])


_product = functools.partial(jnp.matmul, precision="highest")
