"""Non-maximum suppression of 1,000 boxes of a picture, and of 16 pictures at once: one program beside torchvision's loop.

Boxes are as a detector proposes them, many around each of a few objects; the threshold is 0.5. Medians of three times 20 calls.
"""

import common

PICTURES, BOXES, OBJECTS, THRESHOLD, CALLS = 16, 1000, 20, 0.5, 20


def _drawn():
    """Boxes [16, 1000, 4] and scores [16, 1000], float32."""
    import numpy as np

    rng = np.random.default_rng(common.seed())
    centre, side = rng.uniform(0, 512, (PICTURES, OBJECTS, 2)), rng.uniform(30, 200, (PICTURES, OBJECTS, 2))
    of = rng.integers(0, OBJECTS, (PICTURES, BOXES, 1))
    centre, side = (np.take_along_axis(x, of, 1) * rng.normal(1, 0.15, (PICTURES, BOXES, 2)) for x in (centre, side))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], -1)
    return boxes.astype(np.float32), rng.random((PICTURES, BOXES), dtype=np.float32)


def _rates(one, batch) -> dict:
    """Pictures a second of a function of one picture, and of one of all."""
    return {"one_per_s": common.median_rate(lambda: [one() for _ in range(CALLS)], CALLS),
            "batch_per_s": common.median_rate(lambda: [batch() for _ in range(CALLS)], CALLS * PICTURES)}


def jaxdl(args) -> dict:
    """`jaxdl.ops.boxes.nms`, mapped over pictures."""
    import jax

    from jaxdl.ops import boxes as ops

    boxes, scores = (jax.numpy.asarray(x) for x in _drawn())
    one = jax.jit(lambda b, s: ops.nms(b, s, THRESHOLD))
    batch = jax.jit(jax.vmap(lambda b, s: ops.nms(b, s, THRESHOLD)))
    kept = batch(boxes, scores).valid.sum()
    return _rates(lambda: jax.block_until_ready(one(boxes[0], scores[0])),
                  lambda: jax.block_until_ready(batch(boxes, scores))) | {"kept": int(kept),
                                                                          "versions": common.versions("jaxdl", "jax")}


def torchvision(args) -> dict:
    """`torchvision.ops.nms`, a picture after the other: it takes no batch."""
    import torch
    from torchvision.ops import nms

    torch.set_num_threads(1)
    boxes, scores = map(torch.from_numpy, _drawn())

    def batch() -> list:
        return [nms(b, s, THRESHOLD) for b, s in zip(boxes, scores, strict=True)]

    return _rates(lambda: nms(boxes[0], scores[0], THRESHOLD), batch) | {
        "kept": sum(map(len, batch())), "versions": common.versions("torch", "torchvision")}


if __name__ == "__main__":
    common.main(
        __file__, {"jaxdl": ("jaxdl", jaxdl), "torchvision": ("peers", torchvision)},
        {"one picture, jaxdl over torchvision": ("jaxdl", "torchvision", "one_per_s", "higher"),
         "16 pictures, jaxdl over torchvision": ("jaxdl", "torchvision", "batch_per_s", "higher")})
