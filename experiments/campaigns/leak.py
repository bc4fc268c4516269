"""Memory of a process that trains for minutes, evaluates and writes a checkpoint again and again: it must stop growing.

Its resident memory is read twice a second. Imports, compiling and the first evaluations belong to the first minute; from the
second to the last, medians of a minute, it may grow by a fiftieth: what an allocator keeps.
"""

import re
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

from jaxdl.experiments.campaigns import common

# name -> (words, steps between two evaluations)
_LEARNERS = {
    "dqn": (("dqn", "--eval-episodes", "20"), 10_000),
    "dqn on the host": (("dqn", "--backend", "host", "--eval-episodes", "2"), 2_500),
}


def campaign(num: int, seed: int, tally: common.Tally) -> None:
    """Train every learner until it was evaluated `num` times."""
    for name, (words, every) in _LEARNERS.items():
        work = Path(tempfile.mkdtemp(prefix="jaxdl-leak-"))
        process = common.start("train", *words, "--seed", seed, "--total-steps", num * every, "--eval-every", every,
                               "--checkpoint-every", every, "--out", work / "run")
        read: list[tuple[float, float]] = []
        watch = threading.Thread(target=_watch, args=(process.pid, read))
        watch.start()
        ended = common.wait(process, 3600)
        watch.join()
        evaluations = (work / "run" / "metrics.jsonl").read_text().count('"eval/return_mean"')
        shutil.rmtree(work)
        minutes = [round(statistics.median(mib for at, mib in read if at // 60 == minute), 1)
                   for minute in range(int(read[-1][0] // 60))]  # the last one only if it is whole
        tally.measured[name] = {"evaluations": evaluations, "seconds": round(ended.seconds), "MiB each minute": minutes}
        wrong = common.fault(ended, [0]) or (f"{evaluations} evaluations" if evaluations < num else None)
        if not wrong and len(minutes) < 4:
            wrong = f"{len(minutes)} minutes are too few to tell"
        if not wrong and minutes[-1] > 1.02 * minutes[1]:
            wrong = f"grows from the second minute to the last: {minutes} MiB"
        tally.add("trained and evaluated", name, wrong)


def _watch(pid: int, read: list[tuple[float, float]]) -> None:
    """Append (seconds, MiB of resident memory) to `read` until the process ends."""
    began = time.monotonic()
    try:
        while found := re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
            read.append((time.monotonic() - began, int(found[1]) / 1024))
            time.sleep(0.5)
    except OSError:  # it has ended
        pass


if __name__ == "__main__":
    common.main("leak", campaign, 500)
