"""Two processes on one run folder, and readers beside a writer.

Races: a run that trains is resumed or overwritten by a second process, or two resume it at once. One of them goes on to the
bits of an undisturbed run, the other is refused with status 2, and nothing that was committed is damaged. Reads: parameters
and metrics are read again and again while a run trains and prunes its checkpoints, and every read finds some.
"""

import functools
import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from jaxdl.experiments.campaigns import common, forks, kills
from jaxdl.runtime import checkpoint

_READS = 70  # for each race, beside one more run


def campaign(num: int, seed: int, tally: common.Tally) -> None:
    """Race `num` times, and read about 70 times as often."""
    rng = random.Random(seed)
    work = Path(tempfile.mkdtemp(prefix="jaxdl-races-"))
    log, reference, names = work / "log", work / "undisturbed", ("dqn", "vae")
    forks.prepare(work / "programs")
    seconds = {}
    for name in names:
        seconds[name] = kills.reference(name, work / f"{reference.name} {name}", log).seconds
    for number in range(num):
        name, kind = names[number % len(names)], ("resume beside train", "overwrite beside train", "two resumes")[number % 3]
        run = work / f"run-{number}"
        wrong = _race(kind, name, run, seconds[name], log, rng) or kills.told_damaged(run, log)
        tally.add(kind, name, wrong or kills.ends_as(run, work / f"{reference.name} {name}"))
        shutil.rmtree(run, ignore_errors=True)
    run, left = work / "read", num * _READS
    while left > 0:
        shutil.rmtree(run, ignore_errors=True)  # a reader would find the old run's checkpoints
        writer = forks.command(log, *kills.words_of("dqn", run))
        while not any((run / "checkpoints").glob("*")) and _there(writer.pid):
            time.sleep(0.01)
        reader = forks.Fork(functools.partial(_read, run, writer.pid), work / "reader")
        said = reader.end()
        writer.end()
        found = json.loads(said.out.splitlines()[-1]) if said.status == 0 else {"tried": 1, "bad": [said.sentence]}
        for i in range(found["tried"]):
            tally.add("read beside a writer", "dqn", found["bad"][i] if i < len(found["bad"]) else None)
        left -= found["tried"]
    shutil.rmtree(work)


def _race(kind: str, name: str, run: Path, seconds: float, log: Path, rng: random.Random) -> str | None:
    """Two processes on a run; what is wrong with how they end."""
    first = forks.command(log.with_name("first"), *kills.words_of(name, run))
    while not kills.begun(run) and _there(first.pid):
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.2) * seconds)
    if kind == "two resumes":
        first.kill()
        first.end()
        first = forks.command(log.with_name("first"), "resume", run)
        time.sleep(rng.uniform(0, 0.1))
    again = [*kills.words_of(name, run), "--overwrite"] if kind.startswith("overwrite") else ["resume", run]
    second = forks.command(log.with_name("second"), *again)
    ended = [first.end(), second.end()]
    statuses = sorted(e.status if e.status is not None else 99 for e in ended)
    refused = next((e for e in ended if e.status == 2), None)
    if statuses == [0, 0] and "is finished" in ended[1].out:  # the first was done already
        return None
    if statuses != [0, 2] or "another process" not in refused.err:
        return f"statuses {statuses}: {[e.sentence for e in ended]}"
    return None


def _there(pid: int) -> bool:
    """Whether a process still runs."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def _read(run: Path, writer: int) -> int:
    """Read a run while another process writes it; prints how often, and what went wrong."""
    from jaxdl.core.errors import described
    from jaxdl.experiments.tasks import load_run
    from jaxdl.runtime.run_log import read_metrics

    tried, bad, task = 0, [], None
    while _there(writer):
        for best in (False, False, True):  # once there is one
            if not checkpoint.steps(run / ("best" if best else "checkpoints")):
                time.sleep(0.01)
                continue
            try:
                opened = load_run(run, best=best, task=task)
                task = opened.task
                steps = [row["step"] for row in read_metrics(run / "metrics.jsonl")]
                if steps != sorted(set(steps)):
                    raise ValueError(f"rows of steps {steps[-5:]}")
            except Exception as e:
                bad.append(described(e))
            tried += 1
    print(json.dumps({"tried": tried, "bad": bad}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    common.main("races", campaign, 9)
