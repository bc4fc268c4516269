"""Run folders from elsewhere: a config, or a file or folder within a run, that is not what jaxdl wrote.

Nine tenths of the faults are changed configs (fields taken out, put in, of another type, out of range, huge), the rest changed
folders (files swapped for pipes, devices, folders and links; huge and nested content; texts that are no Unicode), each put to
one command within a worker process; most to one that does not compile. Seven in eight changed configs are first read by what
all commands but `plot` read them with, and go to a command where that takes them. An answer is bad where it is a traceback, a
status but 0 to 2, no end in `_LIMIT` seconds, or more memory than `_MEMORY` bytes beyond what the worker had.
"""

import contextlib
import copy
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxdl.core.errors import UserError
from jaxdl.experiments import cli, run_folder
from jaxdl.experiments.campaigns import common

_LIMIT = 60.0  # seconds of a command, most of them a program that a changed size asks for
_MEMORY = 6 * 10**9
_MANY = 10**12
_RUNS = {
    "ppo": "ppo --num-envs 2 --rollout-steps 8 --num-minibatches 2 --total-steps 32 --hidden-sizes 8 --eval-episodes 2 "
           "--eval-every 16 --quick-compile",
    "dqn": "dqn --num-envs 2 --total-steps 64 --learning-starts 16 --buffer-size 64 --batch-size 8 --hidden-sizes 8 "
           "--eval-episodes 2 --eval-every 32 --quick-compile",
    "vae": "vae --total-steps 4 --batch-size 32 --hidden-sizes 8 --latent-size 2 --eval-every 2 --quick-compile",
    "seeds": "ppo --num-envs 2 --rollout-steps 8 --num-minibatches 2 --total-steps 32 --hidden-sizes 8 --eval-episodes 2 "
             "--eval-every 16 --num-seeds 2 --sweep learning_rate=1e-4,3e-4 --quick-compile",
}
_NOT_NUMBERS = [None, True, "", "4", "a" * 10_000, "\ud800", "\udc80", "\0", "ü☃", "../../etc", "/dev/zero", [], [[]], {},
                {"a": {}}, [None], ["x"], [1] * 100_000]
_NUMBERS = [0, -1, 1.5, -0.0, 1e308, 5e-324, 2**31 - 1, 2**31, 2**32, 2**63, 10**7, 10**9, _MANY, int("9" * 400), 10_000, 3, 7]
_QUICK = ("resume RUN", "resume RUN", "plot RUN --out OUT.png", "export RUN --member 1 --out OUT")
_READING = ("evaluate RUN", "evaluate RUN --best", "resume RUN --total-steps 128")
_TRAINING = ("train ALGO --config RUN/config.json --out OUT", "sample RUN --out OUT.png")
_RAW = [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b"[" * 300_000, b"9" * 400, b'{"a":' * 100_000, b"\0" * 4096, b"NaN",
        b'{"step": 1' + b"0" * 400 + b"}", b'"\\ud800"', b"[" + b"[]," * 300_000 + b"[]]",
        b'{"a": ' + b"[[]," * 20_000, b"\n" * 100_000, b'{"step": 1, "wall_s": 1e999}\n']


def campaign(num: int, seed: int, tally: common.Tally) -> None:
    """Try `num` faults."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(place / "programs"))
        for name, words in _RUNS.items():
            ended = common.run("train", *words.split(), "--out", place / name)
            if ended.status:
                raise RuntimeError(ended.err)
        with contextlib.closing(_Worker()) as worker:
            for i in range(num):
                kind, change, commands = _fault(rng, i)
                name = rng.choice([*_RUNS])
                run = place / f"changed-{name}"
                if not run.exists():
                    shutil.copytree(place / name, run, symlinks=True)
                if i % 100 == 0:
                    print(i, flush=True)
                said = change(run)
                words = rng.choice(commands).replace("RUN", run.name).replace("OUT", "out").replace(
                    "ALGO", _RUNS[name].split()[0]).split()
                wrong, written = worker.answer((words, run.name if kind == "config" and i % 8 else ""), place)
                tally.add(kind, f"{name}: {said}: {' '.join(words)}", wrong)
                if kind == "config" and not written:  # nothing but its config is changed
                    shutil.copyfile(place / name / "config.json", run / "config.json")
                    continue
                for left in (run, place / "out", place / "out.png"):
                    if left.is_dir() and not left.is_symlink():
                        shutil.rmtree(left, ignore_errors=True)
                    else:
                        left.unlink(missing_ok=True)


def _fault(rng: random.Random, i: int) -> tuple[str, Callable[[Path], str], tuple[str, ...]]:
    """The kind of a fault, what does it to a run's folder and says what it did, and the commands that meet it."""
    if i % 10:
        return "config", lambda run: _change_config(run, rng), _QUICK if i % 25 else _READING + _TRAINING
    kind, change = rng.choice(_FOLDERS)
    return kind, lambda run: change(run, rng), _QUICK + _READING


def _change_config(run: Path, rng: random.Random) -> str:
    """Change up to three places of a config."""
    path = run / "config.json"
    values = json.loads(path.read_text())
    said = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder: Any = values
        trail = []
        while True:
            key = rng.choice([*holder])
            trail.append(str(key))
            inner = holder[key]
            if isinstance(inner, dict) and inner and rng.random() < 0.95:
                holder = inner
                continue
            break
        how = rng.random()
        if how < 0.08:
            del holder[key]
        elif how < 0.13:
            holder[rng.choice(["more", "", "Seed", key + "_", "\ud800"])] = 1
        elif how < 0.2 and "train" in values and isinstance(values["train"], dict):
            values["train"].update(copy.deepcopy(rng.choice(_TRAIN)))
        else:
            is_number = isinstance(inner, int | float) and not isinstance(inner, bool)
            holder[key] = copy.deepcopy(rng.choice(_NUMBERS if is_number and rng.random() < 0.7 else _NOT_NUMBERS))
            if isinstance(inner, list) and how < 0.6:
                holder[key] = [rng.choice(_NUMBERS)] * rng.choice([1, 3, 10_000])
        said.append(f"{'.'.join(trail)} {str(holder.get(key, 'removed'))[:60]!a}")
        if not values:
            break
    path.write_text(json.dumps(values))
    return "; ".join(said)


_TRAIN = [
    {"num_seeds": 10**7}, {"num_seeds": 2 * 10**9}, {"num_seeds": _MANY}, {"num_seeds": "2"}, {"num_seeds": -3}, {"seed": -1},
    {"sweep": ["learning_rate=" + ",".join(map(str, range(1, 1001)))] * 4}, {"devices": 10**12}, {"devices": -2},
    {"devices": "2"},
    {"sweep": [f"{name}=" + ",".join(map(str, range(1, 1001))) for name in ("learning_rate", "gamma", "lam", "eps")]},
    {"devices": 2**31 - 1}, {"devices": 4096}, {"sweep": "learning_rate=1,2"}, {"sweep": ["learning_rate=1"]}, {"sweep": [1]},
    {"keep_checkpoints": 10**9}, {"log_every": 2**31 - 1}, {"eval_episodes": 2**31 - 1}, {"stop_at": "x"}, {"stop_step": 1},
]


def _replaced(path: Path, make: Callable[[Path], Any]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)


def _some_file(run: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(path for path in run.rglob("*") if path.is_file()))


def _no_file(run: Path, rng: random.Random) -> str:
    """Something that is no file in the place of one."""
    path = _some_file(run, rng)
    name, make = rng.choice([
        ("a pipe", os.mkfifo), ("a folder", Path.mkdir), ("a link to nothing", lambda p: p.symlink_to("nothing")),
        ("a link to itself", lambda p: p.symlink_to(p.name)), ("/dev/zero", lambda p: p.symlink_to("/dev/zero")),
        ("nothing", lambda p: None), ("a pipe's link", lambda p: (os.mkfifo(run / "pipe"), p.symlink_to(run / "pipe"))),
        ("a sparse file of 1 TB", lambda p: (p.touch(), os.truncate(p, 2**40)))])
    _replaced(path, make)
    return f"{path.relative_to(run)} is {name}"


def _other_content(run: Path, rng: random.Random) -> str:
    """Other content in one of the files of text."""
    path = run / rng.choice(["config.json", "metrics.jsonl", "summary.json", "checkpoints", "best"])
    if path.is_dir():
        path = rng.choice(sorted(path.rglob("manifest.json")))
    content = rng.choice(_RAW)
    path.write_bytes(content)
    return f"{path.relative_to(run)} is {content[:20]!r}... of {len(content)} bytes"


def _resealed(run: Path, rng: random.Random) -> str:
    """A manifest with other values, and the digest that fits them."""
    import hashlib

    path = rng.choice(sorted(run.rglob("manifest.json")))
    sealed = json.loads(path.read_text())
    inner = sealed["manifest"]
    value = rng.choice([*_NOT_NUMBERS, *_NUMBERS])
    where = rng.choice(["score", "devices", "meta", "step", "leaves", "leaf", "format", "shape", "config", "nested"])
    if where in ("score", "devices"):
        inner["meta"][where] = value
    elif where == "leaf":
        inner["leaves"][0] = value
    elif where == "shape":
        inner["leaves"][-1]["shape"] = [value, *inner["leaves"][-1]["shape"]]
    elif where == "config":
        inner["meta"]["config"] = value
    elif where == "nested":
        inner["meta"]["more"] = [[]] * 2_000_000
    else:
        inner[where] = value
    text = json.dumps(inner, sort_keys=True)
    path.write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "manifest": inner}))
    return f"{path.relative_to(run)}: {where} is {str(value)[:60]!a}"


def _nested(run: Path, rng: random.Random) -> str:
    """Sixty megabytes of lists in a file of JSON."""
    path = rng.choice([*run.rglob("manifest.json"), *run.rglob("_METADATA"), run / "summary.json", run / "config.json",
                       run / "metrics.jsonl"])
    path.write_bytes(rng.choice([
        b'{"sha256": "", "manifest": {"format": 1, "step": 1, "meta": {}, "leaves": [' + b"[]," * 20_000_000 + b"[]]}}",
        b'{"sha256": "", "manifest": {"format": 1, "step": 1, "leaves": [], "meta": {"a": [' + b"[]," * 20_000_000 + b"[]]}}}",
        b'{"step": 1, "wall_s": 1.0, "a": [' + b"[]," * 20_000_000 + b"[]]}\n"]))
    return f"{path.relative_to(run)} is 60 MB of lists"


def _metrics(run: Path, rng: random.Random) -> str:
    """Rows of metrics with a million members, or values of another kind."""
    row = {"step": 1, "wall_s": 0.1}
    name, value = rng.choice([
        ("a million members", [1.0] * 1_000_000), ("no member", []), ("text", "x"), ("a list of texts", ["x"]),
        ("nested", [[1.0]]), ("five members", [1.0] * 5), ("a huge number", int("9" * 400)), ("true", True),
        ("an object", {"a": 1}), ("none", None), ("infinite", 1e308)])
    for curve in ("episode_return", "return", "eval/return_mean", "elbo", "loss"):
        row[curve] = value
    (run / "metrics.jsonl").write_text("".join(json.dumps(row | {"step": i}) + "\n" for i in range(1, rng.choice([2, 4]))))
    return f"metrics are {name}"


def _summary(run: Path, rng: random.Random) -> str:
    """A summary of other kinds."""
    path = run / "summary.json"
    values = json.loads(path.read_text())
    key = rng.choice([*values])
    values[key] = rng.choice([*_NOT_NUMBERS, *_NUMBERS, {"members": [{}] * 4}, {"members": [1, 2]}])
    path.write_text(json.dumps(values))
    return f"summary.{key} is {str(values[key])[:60]!a}"


def _names(run: Path, rng: random.Random) -> str:
    """Checkpoints under other names."""
    folder = run / rng.choice(["checkpoints", "best"])
    path = rng.choice(sorted(folder.iterdir()))
    name = rng.choice(["0", "9" * 18, "9" * 19, "1.1", "x", "-1", "7", "9" * 200, "16.orbax-checkpoint-tmp", "٣"])
    if not (folder / name).exists():
        path.rename(folder / name)
    return f"{path.relative_to(run)} is called {name[:30]!a}"


def _cut(run: Path, rng: random.Random) -> str:
    """A file that is cut, or one with a flipped byte."""
    path = _some_file(run, rng)
    data = bytearray(path.read_bytes())
    if data and rng.random() < 0.5:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    else:
        del data[rng.randrange(len(data) + 1):]
    path.write_bytes(data)
    return f"{path.relative_to(run)} is changed"


_FOLDERS = [("no file", _no_file), ("content", _other_content), ("manifest", _resealed), ("nested lists", _nested),
            ("metrics", _metrics), ("summary", _summary), ("names of checkpoints", _names), ("cut or flipped", _cut),
            ("no file", _no_file), ("manifest", _resealed), ("metrics", _metrics)]


class _Worker:
    """A process that runs commands; one that is made anew where it hangs or dies."""

    def __init__(self) -> None:
        self._process = None

    def answer(self, asked: tuple[list[str], str], place: Path) -> tuple[str | None, bool]:
        """What was wrong with the answer of a command (None where nothing was), and whether it came to writing.

        Args:
            asked: the command, and the run to be read first.
            place: where it runs.
        """
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._here, there = context.Pipe()
            self._process = context.Process(target=_serve, args=(there, str(place)), daemon=True)
            self._process.start()
            there.close()
            self._here.recv()
        self._here.send(asked)
        if not self._here.poll(_LIMIT):
            self.close()
            return f"hangs: no end after {_LIMIT:.0f} s", True
        try:
            status, err, grown, written = self._here.recv()
        except EOFError:
            self._process.join()
            died, self._process = self._process.exitcode, None
            return f"the process died with {died}", True
        wrong = common.fault(common.Ended(status, "", err, 0.0))
        return wrong or (f"takes {grown / 1e9:.1f} GB" if grown > _MEMORY else None), written

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(pipe: Any, place: str) -> None:
    os.chdir(place)
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main(["list"])  # what every command imports
    pipe.send(None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while True:
        words, read_first = pipe.recv()
        err, written = io.StringIO(), False
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            try:
                if read_first:
                    run_folder.open_run(Path(read_first))
                written = True
                status = cli.main(words)
            except UserError as e:
                status = 2
                print(f"jaxdl: {str(e)[:1000]}", file=sys.stderr)
            except SystemExit as e:
                status = e.code
            except BaseException:
                status = 1
                traceback.print_exc(file=sys.stderr)
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        pipe.send((status, err.getvalue()[-4000:], grown, written))


if __name__ == "__main__":
    common.main("folders", campaign, 3300)
