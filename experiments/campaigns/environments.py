"""Environments that fail: in every call, in every way, while a run trains, is resumed, evaluated and filmed.

Each fault must end its command within the time that an environment has, with status 1 and one sentence that names the
environment and the call, or not end it at all (what `info` says). The newest checkpoint is then whole and the run goes on.
"""

import contextlib
import itertools
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.experiments import tasks
from jaxdl.experiments.campaigns import common, faulty
from jaxdl.experiments.campaigns.common import Ended, Tally
from jaxdl.experiments.campaigns.faulty import Fault
from jaxdl.experiments.cli import main
from jaxdl.runtime import checkpoint

_TIMEOUT = 20  # seconds that a call may take
_PROCESSES = 12
_SLACK = 100  # seconds that the rest of a command may take on a busy machine
_MEMORY = 2**33  # bytes that a process may take
_STEPS = 64
_PPO = ("ppo", "--num-envs", 2, "--rollout-steps", 8, "--num-minibatches", 2, "--total-steps", _STEPS, "--hidden-sizes", 8,
        "--eval-episodes", 2, "--checkpoint-every", 8, "--quick-compile", "--env-timeout", _TIMEOUT)
_MODES = ("sync", "async", "native")


class Case(NamedTuple):
    """One fault: what is being done, how the environments are stepped, what goes wrong."""

    doing: str  # training, evaluation, film, resume
    mode: str  # of `vectorization`, or device
    fault: Fault

    def __str__(self) -> str:
        fault = self.fault
        return f"{self.doing}, {self.mode}: {fault.what} in {fault.call}, at call {fault.at}"


class _TooLongError(BaseException):
    pass


def campaign(num: int, seed: int, tally: Tally) -> None:
    """Try `num` faults, in an order drawn from `seed`."""
    cases = list(_cases())
    random.Random(seed).shuffle(cases)
    folder = Path(tempfile.mkdtemp(prefix="environments"))
    runs = {}
    for mode in (*_MODES, "device"):
        runs[mode] = folder / f"good-{mode}"
        ended = _run(folder, "train", *_PPO, *_of(mode), "--out", runs[mode])
        if ended.status:
            raise RuntimeError(f"the sound environment fails, {mode}: {ended.err}")
    pool = ProcessPoolExecutor(_PROCESSES, multiprocessing.get_context("spawn"), _fork)
    chosen = [cases[i % len(cases)] for i in range(num)]
    tried = {pool.submit(_try, case, folder / str(i), runs): case for i, case in enumerate(chosen)}
    try:
        for one in as_completed(tried):
            case = tried[one]
            tally.add(f"{case.doing}, {_kind(case)}", str(case), one.result())
    except KeyboardInterrupt:  # then those that were tried count
        pool.shutdown(wait=False, cancel_futures=True)
    shutil.rmtree(folder, ignore_errors=True)


def _fork() -> None:
    """Processes of environments are forks from now on, which know what goes wrong; none may fill the machine's memory."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    multiprocessing.set_start_method("fork", force=True)


def _cases() -> Iterator[Case]:
    """Every fault once, the most telling combinations of it."""
    ways = [*faulty.ERRORS, *faulty.EXITS, *faulty.HANGS]
    modes = itertools.cycle(_MODES)
    for call, at in (("make", 2), ("reset", 1), ("reset", 3), ("step", 20), ("close", 3)):  # the first close is its spec's
        for what in ways:
            mode = next(modes)  # a vector form resets itself and is closed once: there is no third
            yield Case("training", mode, Fault(call, what, min(at, 2) if mode == "native" and call != "step" else at))
    for call, answers, at in (("step", faulty.STEPS, 20), ("reset", faulty.RESETS, 1)):
        for what in answers:
            yield Case("training", next(modes), Fault(call, what, at))
    for call, what in itertools.product(("make", "reset", "step", "close"), faulty.KILLS):
        at = 20 if call == "step" else 1
        yield Case("training", "async", Fault(call, what, at))
    for call, what in itertools.product(("make", "reset", "step", "close"), ways[::3]):
        for doing in ("evaluation", "resume"):
            yield Case(doing, next(modes), Fault(call, what, 1 + (call == "make")))
    for call, what in itertools.product(("make", "reset", "step", "render", "close"), ways[::2]):
        yield Case("film", "sync", Fault(call, what, film=True))
    for what in faulty.PICTURES:
        yield Case("film", "sync", Fault("render", what, film=True))
    for what, mode, doing in itertools.product(faulty.INFOS, ("sync", "async"), ("training", "evaluation")):
        yield Case(doing, mode, Fault("info", what, 2))
    few = "SystemExit(0)", "ValueError", "Bare", "KeyboardInterrupt", "sleeps"
    for call, what in itertools.product(("make", "initial", "transition"), few[:4]):
        yield Case("training", "device", Fault(call, what))
    for call, what in itertools.product(("render", "close"), few):
        yield Case("film", "device", Fault(call, what))


def _kind(case: Case) -> str:
    fault = case.fault
    if fault.call == "info":
        return "infos of every kind"
    ways = {"raises": faulty.ERRORS, "exits": faulty.EXITS, "hangs": faulty.HANGS, "is killed": faulty.KILLS}
    for name, table in ways.items():
        if fault.what in table:
            return f"{fault.call} {name}"
    return f"{fault.call} gives a wrong answer"


def _of(mode: str) -> tuple[Any, ...]:
    return ("--env-id", faulty.FUNC) if mode == "device" else ("--env-id", faulty.ID, "--vectorization", mode)


def _try(case: Case, folder: Path, runs: dict[str, Path]) -> str | None:
    """What was wrong with the answer to a fault; None where nothing was."""
    folder.mkdir()
    run, good = folder / "run", runs[case.mode]
    words: Sequence[Any] = {
        "training": ("train", *_PPO, *_of(case.mode), "--out", run),
        "resume": ("resume", run, "--total-steps", 2 * _STEPS),
        "evaluation": ("evaluate", good, "--episodes", 2),
        "film": ("evaluate", good, "--episodes", 1, "--video", folder / "film.gif")}[case.doing]
    if case.doing == "resume":
        shutil.copytree(good, run)
    faulty.arm(case.fault)
    ended = _run(folder, *words)
    faulty.arm(Fault())
    found_early = case.fault.call in ("make", "initial", "transition")  # before anything is trained
    wrong = common.fault(ended, (0,) if case.fault.call == "info" else (1, 2) if found_early else (1,))
    if wrong is None and ended.status:
        wrong = _unnamed(case, ended)
    if wrong is None and case.doing in ("training", "resume") and ended.status:
        wrong = _lost(case, folder, run)
    shutil.rmtree(folder, ignore_errors=True)
    return wrong


def _unnamed(case: Case, ended: Ended) -> str | None:
    """What the sentence does not say, or that it came late."""
    env_id, call = _of(case.mode)[1], case.fault.call
    answered = case.fault.what in faulty.STEPS | faulty.RESETS | faulty.PICTURES
    called = {"make": ("make", "made"), "initial": ("step", "traced"), "transition": ("step", "traced")}.get(call, (call,))
    if env_id not in ended.sentence or not (answered or any(word in ended.sentence for word in called)):
        return f"the environment and the call are not named: {ended.sentence}"
    if ended.seconds > _TIMEOUT + _SLACK:
        return f"took {ended.seconds:.0f} s"
    return None


def _lost(case: Case, folder: Path, run: Path) -> str | None:
    """What is not whole, or cannot go on."""
    if not checkpoint.steps(run / "checkpoints"):
        far = case.fault.call in ("step", "close")
        return "no checkpoint was written" if far or case.doing == "resume" else None
    tasks.load_run(run)
    ended = _run(folder, "resume", run)
    return common.fault(ended, (0,)) and f"cannot be resumed: {ended.sentence}"


def _run(folder: Path, *words: Any) -> Ended:
    """A command in this process, and what it and its processes wrote."""
    began, status = time.monotonic(), None
    old = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(_TIMEOUT + 2 * _SLACK)
    try:
        with _caught(folder / "out", 1), _caught(folder / "err", 2):
            status = main([str(word) for word in words])
    except _TooLongError:
        pass
    except BaseException as e:  # nothing may leave a command in this way
        (folder / "err").write_text(f"Traceback (most recent call last)\n{type(e).__name__}: {e}")
        status = -1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    out, err = ((folder / name).read_text(errors="backslashreplace") for name in ("out", "err"))
    return Ended(status, out, err, time.monotonic() - began)


def _too_long(signum: int, frame: Any) -> None:
    raise _TooLongError


@contextlib.contextmanager
def _caught(path: Path, number: int) -> Iterator[None]:
    """What is written to a stream of the process, by whomever, goes to a file."""
    kept = os.dup(number)
    with path.open("wb") as file:
        os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        os.dup2(kept, number)
        os.close(kept)


if __name__ == "__main__":
    common.main("environments", campaign, len(list(_cases())))
