"""SIGINT and SIGTERM, one to four of them, at any moment of a command: one sentence, a status, and a run that is whole.

Python itself takes some milliseconds before it runs the first line of any program; what is sent until then is not jaxdl's to
answer, so a try waits until the program has its handlers.
"""

import os
import random
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

from jaxdl.experiments.campaigns import common, forks, kills

_MOMENTS = ("before it is ready", "as it trains", "at the end", "evaluate")
_SENTENCE = re.compile(r"^(jaxdl: (?!the run ended at step).*|interrupted at step .*)$", re.MULTILINE)


def campaign(num: int, seed: int, tally: common.Tally) -> None:
    """Send signals to `num` commands."""
    rng = random.Random(seed)
    work = Path(tempfile.mkdtemp(prefix="jaxdl-signals-"))
    forks.prepare(work / "programs")
    names = ("dqn", "vae", "ppo on the host")
    seconds = {}
    for name in names:
        seconds[name] = kills.reference(name, work / name, work / "log").seconds
    for number in range(num):
        name, moment = names[number % len(names)], _MOMENTS[number % len(_MOMENTS)]
        run = work / f"run-{number}"
        sent = [rng.choice((signal.SIGINT, signal.SIGINT, signal.SIGTERM)) for _ in range(rng.randint(1, 4))]
        words = ["evaluate", work / name] if moment == "evaluate" else kills.words_of(name, run)
        ended = _try(moment, words, sent, seconds[name], work / "log", rng)
        wrong = _wrong(ended, run, work / "log")
        tally.add(f"{moment}, {len(sent)}", f"{name}: {[s.name for s in sent]}", wrong)
        shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(work)


def _try(moment: str, words: list, sent: list[signal.Signals], seconds: float, log: Path, rng: random.Random) -> common.Ended:
    """Begin a command, send it signals in quick succession and see how it ends."""
    if moment == "before it is ready":  # in a process of its own, which imports everything
        process = common.start(*words)
        _wait_for_handlers(process.pid)
        time.sleep(rng.choice((0, rng.uniform(0, 0.3), rng.uniform(0, 3))))
        _send(process.pid, sent, rng)
        return common.wait(process, 120)
    fork = forks.command(log, *words)
    low, high = {"as it trains": (0.2, 0.9), "at the end": (0.85, 1.05), "evaluate": (0.05, 0.5)}[moment]
    time.sleep(rng.uniform(low, high) * seconds)
    _send(fork.pid, sent, rng)
    return fork.end()


def _send(pid: int, sent: list[signal.Signals], rng: random.Random) -> None:
    for number in sent:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        time.sleep(rng.choice((0, 0.001, 0.05, 0.3)))


def _wait_for_handlers(pid: int) -> None:
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except FileNotFoundError:
            return
        caught = int(re.search(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)[1], 16)
        time.sleep(0.001)


def _wrong(ended: common.Ended, run: Path, log: Path) -> str | None:
    """What is wrong with the answer: a traceback, another status, no sentence or two of them, a run that is not whole."""
    wrong = common.fault(ended, [0, 130, 143])
    if wrong and "without a sentence" not in wrong:
        return wrong
    if "Exception ignored" in ended.err or "KeyboardInterrupt" in ended.err:
        return f"untidy: {ended.sentence}"
    said = _SENTENCE.findall(ended.out + ended.err)
    if ended.status and len(said) != 1:
        return f"status {ended.status} with {len(said)} sentences: {said}; {ended.err[-300:]}"
    return kills.told_damaged(run, log)


if __name__ == "__main__":
    common.main("signals", campaign, 190)
