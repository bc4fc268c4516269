"""Small checkpoints for tests."""

import numpy as np

from jaxdl.runtime import checkpoint

META = {"config": {"gamma": 0.99, "sizes": [64, 64]}, "digest": "abc"}


def small(step):
    """A state that its step determines."""
    rng = np.random.default_rng(step)
    return {"a": rng.normal(size=(64, 33)).astype(np.float32),
            "b": {"t": np.int32(step), "u": rng.integers(0, 256, (3000,), np.uint8)}}


def fill(folder, *steps, keep=9):
    """Save the small states of some steps."""
    for step in steps:
        checkpoint.save(folder, step, small(step), meta=META, keep=keep)


def files_of(path):
    """All files in a folder, in order."""
    return sorted(p for p in path.rglob("*") if p.is_file())
