"""Datasets that are damaged or hostile, by every reader: each is read, or refused in a sentence, in bounded time and memory.

A fault is a whole dataset of one kind (IDX, IDX in gzip, npz, npy, pictures, CIFAR-10, text) of which one file was changed:
bits flipped, cut, stretched, overwritten, numbers of its header set to extremes, replaced by a bomb, a hole, a pipe or a
folder. It is read in this process, where an alarm ends what takes too long and a limit what takes too much memory.
"""

import contextlib
import gzip
import io
import os
import resource
import shutil
import signal
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxdl import data
from jaxdl.core.errors import DataError
from jaxdl.data import idx
from jaxdl.experiments.campaigns import common

SECONDS, WAIT, MEMORY = 10, 200, 2**31  # of one reading: of a processor, and in all; bytes beside what the process has
RNG = np.random.default_rng(0)


class _TooLong(BaseException):
    """The alarm; no reader catches it."""


def _idx(folder: Path, packed: bool = False) -> None:
    for split, num in (("train", 40), ("test", 10)):
        idx.write_split(folder, split, RNG.integers(0, 256, (num, 6, 5), np.uint8), RNG.integers(0, 4, num))
    for path in folder.iterdir() if packed else ():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def _arrays() -> dict[str, np.ndarray]:
    return {"train_images": RNG.integers(0, 256, (40, 6, 5, 3), np.uint8), "train_labels": RNG.integers(0, 4, 40),
            "test_images": RNG.integers(0, 256, (10, 6, 5, 3), np.uint8), "test_labels": RNG.integers(0, 4, 10)}


def _npy(folder: Path) -> None:
    for name, array in _arrays().items():
        np.save(folder / f"{name}.npy", array)


def _pictures(folder: Path) -> None:
    for split in data.SPLITS:
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for i, end in enumerate(("png", "jpg")):
                Image.fromarray(RNG.integers(0, 256, (6, 5, 3), np.uint8)).save(folder / split / label / f"{i}.{end}")


def _cifar(folder: Path) -> None:
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = RNG.integers(0, 256, (6, 3073), np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())


KINDS: dict[str, tuple[str, Callable[[Path], None]]] = {  # kind -> name of the dataset, what makes one
    "idx": ("idx", _idx),
    "idx gzip": ("idx", lambda folder: _idx(folder, packed=True)),
    "npz": ("arrays", lambda folder: np.savez(folder / "mine.npz", **_arrays())),
    "npz deflated": ("arrays", lambda folder: np.savez_compressed(folder / "mine.npz", **_arrays())),
    "npy": ("arrays", _npy),
    "pictures": ("arrays", _pictures),
    "cifar": ("cifar10", _cifar),
    "text": ("text", lambda folder: (folder / "a.txt").write_text("Wörter und wörtlich anderes. " * 40)),
}


def _flip(rng: np.random.Generator, content: bytes) -> bytes:
    changed = bytearray(content)
    for at in rng.integers(0, max(len(changed), 1), rng.integers(1, 9)) if changed else ():
        changed[at] ^= 1 << rng.integers(8)
    return bytes(changed)


def _place(rng: np.random.Generator, content: bytes, new: bytes, within: int | None = None) -> bytes:
    at = int(rng.integers(0, min(len(content), within or len(content)) + 1))
    return content[:at] + new + content[at + len(new):]


EXTREMES = [b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8, b"\0" * 4, b"\x40\0\0\0"]
MUTATIONS: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "bits flipped": _flip,
    "header flipped": lambda rng, x: _flip(rng, x[:96]) + x[96:],
    "cut": lambda rng, x: x[: rng.integers(0, len(x) + 1)],
    "beginning lost": lambda rng, x: x[rng.integers(0, len(x) + 1):],
    "longer": lambda rng, x: x + rng.bytes(int(rng.integers(1, 5000))),
    "a piece twice": lambda rng, x: x[: len(x) // 2] + x[len(x) // 3:],
    "extreme number": lambda rng, x: _place(rng, x, EXTREMES[rng.integers(len(EXTREMES))]),
    "extreme in header": lambda rng, x: _place(rng, x, EXTREMES[rng.integers(len(EXTREMES))], 64),
    "zeros": lambda rng, x: _place(rng, x, bytes(int(rng.integers(1, 400)))),
    "noise": lambda rng, x: rng.bytes(len(x)),
    "empty": lambda rng, x: b"",
    "packed again": lambda rng, x: gzip.compress(x),
    "packed and damaged": lambda rng, x: _flip(rng, gzip.compress(x)),
    "numbers of text": lambda rng, x: x.replace(b"40", [b"-1", b"99", b"1e", b"00", b"(("][rng.integers(5)], 1),
}


def _zip(*members: tuple[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return out.getvalue()


def _header(text: str, version: int = 1) -> bytes:
    words = text.encode("latin1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(words).to_bytes(2 if version == 1 else 4, "little") + words


def _png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _hostile() -> dict[str, Callable[[Path], None]]:
    """What can stand in the place of any file: made when it is asked for."""
    npy = {f"header {text[:40]}": _header(text) for text in (
        "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999,)}", "(" * 9000,
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-40, -6)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 90 + ")}", "[" * 70 + "]" * 70, "9" * 9999,
        "{'descr': '<V999999999', 'fortran_order': False, 'shape': (1,)}", "{'descr': 'M8', 'fortran_order': 0, 'shape': ()}")}
    contents: dict[str, Callable[[], bytes]] = {
        "three million empty gzip members": lambda: gzip.compress(b"") * 3_000_000,
        "three million gzip members of a byte": lambda: gzip.compress(b"x") * 3_000_000,
        "a bomb in gzip": lambda: gzip.compress(bytes(2**28), 1),
        "a gzip header without end": lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 2**24,
        "a promise of 4 GB": lambda: bytes([0, 0, 8, 3]) + (2**16).to_bytes(4, "big") + (2**8).to_bytes(4, "big") * 2,
        "a bomb in zip": lambda: _zip(("train_images.npy", bytes(2**28)), ("test_images.npy", bytes(2**28))),
        "an archive of 30,000 arrays": lambda: _zip(*((f"{i}.npy", b"") for i in range(30_000)), how=zipfile.ZIP_STORED),
        "an archive in LZMA": lambda: _zip(("images.npy", bytes(2**20)), how=zipfile.ZIP_LZMA),
        "an NPY header of 4 GB": lambda: b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(99),
        "objects": lambda: _objects(), "a picture of 2**31 pixels a side": lambda: _png(2**31 - 1, 2**31 - 1, b""),
        "a picture of 400 megapixels": lambda: _png(20_000, 20_000, bytes(10**6)),
        "a picture of no pixels": lambda: _png(0, 0, b""), "a picture of another size": lambda: _png(9, 3, bytes(30)),
    } | {name: lambda content=content: content for name, content in npy.items()}
    contents |= {f"zip of {name}": lambda content=content: _zip(("images.npy", content)) for name, content in npy.items()}
    found: dict[str, Callable[[Path], None]] = {
        name: lambda path, make=make: _write(path, make()) for name, make in contents.items()}
    for size in (2**30, 2**36, 2**40):
        begin = bytes([0, 0, 8, 3]) + (size >> 20).to_bytes(4, "big") + (2**10).to_bytes(4, "big") * 2
        found[f"a hole of {size} bytes that its header promises"] = lambda path, n=size + 16, b=begin: _hole(path, n, b)
        found[f"a hole of {size} bytes"] = lambda path, n=size: _hole(path, n, b"")
    return found | {
        "a pipe": os.mkfifo, "a folder": lambda path: path.mkdir(), "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "a link to nothing": lambda path: path.symlink_to("nothing"), "nothing": lambda path: None}


def _objects() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([{}, print], object), allow_pickle=True)
    return out.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _hole(path: Path, size: int, begin: bytes) -> None:
    with path.open("wb") as file:
        file.write(begin)
        file.truncate(size)


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong

    before, memory = signal.signal(signal.SIGALRM, ring), resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, memory[1]))
    signal.setitimer(signal.ITIMER_REAL, WAIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, memory)


def wrong_with(name: str, folder: Path) -> str | None:
    """What is wrong with the way in which a dataset is read or refused; None where nothing is."""
    began = time.process_time()
    try:
        with _limits():
            wrong = _answer(name, folder)
    except _TooLong:
        return f"no end after {WAIT} s"
    except BaseException as e:  # what a user would see as a traceback
        return f"{type(e).__name__}: {e}"
    spent = time.process_time() - began
    return f"took {spent:.0f} s" if spent > SECONDS else wrong


def _answer(name: str, folder: Path) -> str | None:
    try:
        for dataset in data.load_splits(name, folder):
            if any(len(x) != dataset.spec.num_examples for x in jax.tree.leaves(dataset.arrays)):
                return "other examples than its spec says"
    except DataError as e:
        if "MemoryError" in str(e):
            return f"out of memory: {e}"
        return None if str(folder) in str(e) or "splits" in str(e) else f"names no file: {e}"
    return None


def campaign(num: int, seed: int, tally: common.Tally) -> None:
    """Change `num` files in turn of all kinds and in all ways; every hostile file of every kind is among them."""
    rng, hostile = np.random.default_rng(seed), _hostile()
    plan: list[tuple[str, str]] = [(kind, way) for kind in KINDS for way in hostile]
    ways = list(MUTATIONS)
    plan += [(kind, ways[i % len(ways)]) for i in range(max(0, num - len(plan)) // len(KINDS) + 1) for kind in KINDS]
    with tempfile.TemporaryDirectory() as root:
        for kind in KINDS:
            (Path(root) / kind).mkdir()
            KINDS[kind][1](Path(root) / kind)
        for kind, way in plan:
            folder = Path(root) / "changed"
            shutil.copytree(Path(root) / kind, folder)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            path = files[rng.integers(len(files))]
            content = path.read_bytes()
            path.unlink()
            if way in hostile:
                hostile[way](path)
            else:
                path.write_bytes(MUTATIONS[way](rng, content))
            tally.add(kind, f"{path.name}: {way}", wrong_with(KINDS[kind][0], folder))
            shutil.rmtree(folder)


if __name__ == "__main__":
    common.main("datasets", campaign, 1_600)
