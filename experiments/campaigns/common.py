"""What campaigns share: a command of jaxdl that is watched, what went wrong with it, and counts.

A campaign is a module with `main`: `python -m jaxdl.experiments.campaigns.NAME --num N --seed S`. It tries `N` faults and
writes NAME.json beside itself: the command, the versions, how many faults of each kind were tried, and every one that was
answered badly. docs/reliability.md quotes these files.
"""

import argparse
import collections
import datetime
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HARMLESS = (0, 1, 2)  # statuses of a command that ended by itself: done, a failure that it names, a mistake of the user


class Ended(NamedTuple):
    """How a command ended. `status` is None where it had to be killed for taking too long."""

    status: int | None
    out: str
    err: str
    seconds: float

    @property
    def sentence(self) -> str:
        """The last line of its errors."""
        return (self.err.strip().splitlines() or [""])[-1]


def start(*words: Any, cwd: str | Path | None = None, env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """A command of jaxdl in a process of its own, and a group of its own."""
    return subprocess.Popen([sys.executable, "-P", "-m", "jaxdl", *map(str, words)], cwd=cwd, env=os.environ | dict(env or {}),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="backslashreplace",
                            start_new_session=True)


def wait(process: subprocess.Popen, limit: float) -> Ended:
    """Wait for a command; after `limit` seconds it and its children are killed."""
    began = time.monotonic()
    try:
        out, err = process.communicate(timeout=limit)
        status = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        status = None
    return Ended(status, out, err, time.monotonic() - began)


def run(*words: Any, limit: float = 120, **how: Any) -> Ended:
    """A command of jaxdl from start to end."""
    return wait(start(*words, **how), limit)


def fault(ended: Ended, statuses: Sequence[int] = HARMLESS) -> str | None:
    """What is wrong with the way in which a command ended; None where nothing is."""
    if ended.status is None:
        return f"hangs: no end after {ended.seconds:.0f} s"
    for line in ("Traceback (most recent call last)", "an error in jaxdl itself"):
        if line in ended.err:
            return f"{line}: {ended.sentence}"
    if ended.status not in statuses:
        return f"status {ended.status}: {ended.sentence}"
    if ended.status and "jaxdl: " not in ended.err:
        return f"status {ended.status} without a sentence"
    return None


class Tally:
    """Faults tried, by kind, those that were answered badly, and what else was measured, by name."""

    def __init__(self) -> None:
        self.tried: collections.Counter = collections.Counter()
        self.bad: list[dict[str, str]] = []
        self.measured: dict[str, Any] = {}

    def add(self, kind: str, what: str, wrong: str | None) -> None:
        """Count one: its kind, what exactly was done, and what was wrong with the answer."""
        self.tried[kind] += 1
        if wrong:
            self.bad.append({"kind": kind, "what": what, "wrong": wrong[:500]})
            print(f"{kind}: {what}: {wrong[:300]}", flush=True)


def main(name: str, campaign: Callable[[int, int, Tally], None], num: int) -> None:
    """Run a campaign, `(num, seed, tally) -> None`, from the command line and write its counts; status 1 if any was bad."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--num", type=int, default=num, help="faults to try")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    tally, began = Tally(), time.monotonic()
    campaign(args.num, args.seed, tally)
    found = {
        "command": f"python -m jaxdl.experiments.campaigns.{name} --num {args.num} --seed {args.seed}",
        "versions": {package: importlib.metadata.version(package) for package in ("jaxdl", "jax", "gymnasium", "numpy")},
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "tried": dict(sorted(tally.tried.items())),
        **({"measured": tally.measured} if tally.measured else {}),
        "answered_badly": len(tally.bad),
        "bad": tally.bad,
    }
    path = Path(__file__).with_name(f"{name}.json")
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{sum(tally.tried.values())} tried, {len(tally.bad)} answered badly; {path}")
    sys.exit(bool(tally.bad))
