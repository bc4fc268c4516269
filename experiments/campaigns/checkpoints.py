"""Checkpoints with flipped, cut, swapped, replaced and missing files: each is refused in a sentence, or nothing of it mattered.

Read in this process: a pytree like a run's, written as one process of a run writes it.
"""

import contextlib
import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.core.errors import CheckpointError, described
from jaxdl.experiments.campaigns import common
from jaxdl.runtime import checkpoint

_META = {"algo": "dqn", "seed": 0, "devices": 1, "config": {"gamma": 0.99}}


def _state(seed: int) -> dict[str, Any]:
    keys = jax.random.split(jax.random.key(seed), 3)
    return {"learner": {f"w{i}": jax.random.normal(keys[0], (7, i + 1)) for i in range(4)},
            "memory": jax.random.randint(keys[1], (200, 9), 0, 255).astype(jnp.uint8), "key": keys[2], "t": jnp.int32(seed)}


def _flip(file: Path, other: Path, rng: random.Random) -> None:
    data = bytearray(file.read_bytes()) or bytearray(b"x")
    for _ in range(rng.choice((1, 1, 3))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def _cut(file: Path, other: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(max(1, file.stat().st_size)))


def _grow(file: Path, other: Path, rng: random.Random) -> None:
    with file.open("ab") as f:
        f.write(rng.randbytes(rng.choice((1, 100, 10_000))))


def _other(file: Path, other: Path, rng: random.Random) -> None:
    """The same file of a checkpoint of another state, or of another step."""
    shutil.copyfile(other, file)


def _noise(file: Path, other: Path, rng: random.Random) -> None:
    file.write_bytes(rng.randbytes(rng.choice((0, 10, 5_000))))


def _zeros(file: Path, other: Path, rng: random.Random) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def _gone(file: Path, other: Path, rng: random.Random) -> None:
    file.unlink()


def _folder(file: Path, other: Path, rng: random.Random) -> None:
    file.unlink()
    file.mkdir()


def _pipe(file: Path, other: Path, rng: random.Random) -> None:
    file.unlink()
    os.mkfifo(file)


def _link(file: Path, other: Path, rng: random.Random) -> None:
    file.unlink()
    file.symlink_to(rng.choice((Path("/dev/zero"), Path("nowhere"), file)))


DAMAGES: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "flipped": _flip, "cut": _cut, "grown": _grow, "of another": _other, "noise": _noise, "zeros": _zeros, "missing": _gone,
    "a folder": _folder, "a pipe": _pipe, "a link": _link}


def campaign(num: int, seed: int, tally: common.Tally) -> None:
    """Damage a checkpoint `num` times."""
    rng = random.Random(seed)
    work = Path(tempfile.mkdtemp(prefix="jaxdl-checkpoints-"))
    for step, run in ((10, 1), (20, 2)):
        checkpoint.save(work / "whole", step, _state(run), meta=_META, keep=5)
    checkpoint.save(work / "other", 20, _state(3), meta=_META | {"seed": 1}, keep=5)
    files = [f.relative_to(work / "whole") for f in sorted((work / "whole" / "20").rglob("*")) if f.is_file()]
    likely = [f for f in files if (work / "whole" / f).stat().st_size > 300]
    for number in range(num):
        kind = list(DAMAGES)[number % len(DAMAGES)]
        shutil.rmtree(work / "case", ignore_errors=True)
        shutil.copytree(work / "whole", work / "case")
        file = rng.choice(rng.choice((files, likely)))
        others = [work / "other" / file, work / "whole" / "10" / file.relative_to("20")]
        there = [path for path in others if path.is_file()] or [work / "whole" / rng.choice(files)]
        DAMAGES[kind](work / "case" / file, rng.choice(there), rng)
        tally.add(kind, str(file), _wrong(work / "case"))
    shutil.rmtree(work)


def _wrong(folder: Path) -> str | None:
    """What is wrong with reading a damaged checkpoint: another error than a sentence, or other bits."""
    with limited(30):
        try:
            step, state = checkpoint.restore(folder, jax.eval_shape(lambda: _state(0)), meta=_META)
        except CheckpointError as e:
            return None if len(str(e)) < 1_000 and "\n" not in str(e) else f"{len(str(e))} characters: {str(e)[:200]}"
        except TimeoutError:
            return "hangs"
        except Exception as e:
            return f"an error of another kind: {described(e)}"
    same = all(np.array_equal(_bits(a), _bits(b))
               for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(_state(step // 10)), strict=True))
    return None if same else f"other bits at step {step}"


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """A TimeoutError after so many seconds."""
    def late(number: int, frame: Any) -> None:
        raise TimeoutError

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def _bits(x: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


if __name__ == "__main__":
    common.main("checkpoints", campaign, 1_000)
