"""Kill -9 at random moments: what is left is whole, and a resumed run ends as one that was never killed.

A run is killed three times and then resumed to its end. Its last checkpoint must have the bits of an undisturbed run's, and
its rows of metrics its numbers, but for times. Environments on the host begin new episodes after a resume: there the run is
copied as the last kill left it, and both are resumed, to the same bits.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxdl.experiments.campaigns import common, forks
from jaxdl.runtime import checkpoint, checkpoint_format, manifest

_KILLS = 3  # of a run
_TIMES = ("wall_s", "steps_per_s")
_AGENT = ("--eval-episodes", "2", "--hidden-sizes", "8")
_DQN = ("dqn", "--num-envs", "4", "--learning-starts", "100", "--buffer-size", "1000", "--batch-size", "8", *_AGENT)
_PPO = ("ppo", "--num-envs", "4", "--rollout-steps", "16", "--num-minibatches", "2", *_AGENT)
_VAE = ("vae", "--dataset", "digits", "--batch-size", "32", "--hidden-sizes", "8")
# name -> (words, steps, steps between checkpoints, between rows, between evaluations; exact after a resume)
LEARNERS = {
    "dqn": (_DQN, 40_000, 1_000, 700, 5_000, True),
    "rainbow": (("rainbow", *_DQN[1:]), 12_000, 500, 350, 3_000, True),
    "ppo": (_PPO, 60_000, 2_000, 1_500, 15_000, True),
    "ppo population": ((*_PPO, "--num-seeds", "3"), 30_000, 2_000, 1_500, 15_000, True),
    "reinforce": (("reinforce", "--num-envs", "4", "--rollout-steps", "32", *_AGENT), 60_000, 2_000, 1_500, 15_000, True),
    "vae": (_VAE, 4_000, 100, 70, 1_000, True),
    "autoencoder": (("autoencoder", *_VAE[1:]), 4_000, 100, 70, 1_000, True),
    "pixelcnn": (("pixelcnn", "--dataset", "digits", "--batch-size", "8", "--width", "4", "--num-blocks", "1", "--window", "3",
                  "--head-features", "4"), 400, 20, 15, 200, True),
    "dqn on the host": ((*_DQN, "--backend", "host"), 8_000, 500, 350, 4_000, False),
    "ppo on the host": ((*_PPO, "--backend", "host"), 8_000, 512, 320, 4_000, False),
}


def words_of(name: str, out: Path) -> list[str]:
    """The command that trains a learner."""
    words, steps, checkpoints, rows, evaluations, _ = LEARNERS[name]
    return ["train", *words, "--total-steps", str(steps), "--checkpoint-every", str(checkpoints), "--log-every", str(rows),
            "--eval-every", str(evaluations), "--quick-compile", "--out", str(out)]


def damaged(run: Path) -> list[str]:
    """Checkpoints that are committed and do not hold what was written."""
    wrong = []
    for path in (p for part in ("checkpoints", "best") for p in (run / part).glob("*") if (p / manifest.PATH).is_file()):
        try:
            written = manifest.read(path, int(path.name.partition(".")[0]))
            sizes = {str(i): leaf for i, leaf in enumerate(written.leaves) if np.prod(leaf.shape, dtype=int)}
            arrays = checkpoint_format.read_arrays(path, list(sizes), 1 << 30)
            wrong += [f"{path}: {leaf.path}" for i, leaf in sizes.items() if manifest.sha256_of(arrays[i]) != leaf.sha256]
        except checkpoint_format.Corrupt as e:
            wrong.append(f"{path}: {e}")
    return wrong


def told_damaged(run: Path, log: Path) -> str | None:
    """What `damaged` finds, in a process of its own; None where that is nothing."""
    return forks.Fork(lambda: print("; ".join(damaged(run)), file=sys.stderr) or 0, log).end().err.strip() or None


def reference(name: str, out: Path, log: Path) -> common.Ended:
    """A run that nothing disturbs, and how it ended; what it compiles is compiled before."""
    forks.command(log, *words_of(name, out.with_name("warm"))).end()
    shutil.rmtree(out.with_name("warm"), ignore_errors=True)
    return forks.command(log, *words_of(name, out)).end()


def ends_as(run: Path, reference: Path) -> str | None:
    """How the end of a run differs from another's; None where it does not."""
    leaves = [_leaves(folder) for folder in (run, reference)]
    if leaves[0] != leaves[1]:
        return f"other bits: {[a for a, b in zip(*leaves, strict=False) if a != b][:2]}"
    rows = [_rows(folder / "metrics.jsonl") for folder in (run, reference)]
    if [row["step"] for row in rows[0]] != [row["step"] for row in rows[1]]:
        return f"rows of other steps: {sorted({row['step'] for row in rows[0]} ^ {row['step'] for row in rows[1]})[:5]}, " \
               f"{len(rows[0])} for {len(rows[1])}"
    wrong = [(a["step"], name, a.get(name), b.get(name)) for a, b in zip(*rows, strict=True) for name in a | b
             if name not in _TIMES and a.get(name) != b.get(name)]
    if wrong:
        return f"{len(wrong)} other numbers in rows, as {wrong[0]}"
    evals = [json.loads((folder / "summary.json").read_text())["eval"] for folder in (run, reference)]
    return None if evals[0] == evals[1] else f"other evaluations at the end: {evals}"


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _leaves(run: Path) -> list[tuple]:
    whole = [path for path in (run / "checkpoints").glob("*") if (path / manifest.PATH).is_file() and path.suffix != ".old"]
    newest = max(whole, key=lambda p: float(p.name))  # a removal that was cut short is the next save's to end
    return [newest.name] + [(x.path, x.sha256) for x in manifest.read(newest, int(newest.name.partition(".")[0])).leaves]


def campaign(num: int, seed: int, tally: common.Tally) -> None:
    """Kill `num` times, a third as many runs."""
    rng, seconds = random.Random(seed), {}
    work = Path(tempfile.mkdtemp(prefix="jaxdl-kills-"))
    forks.prepare(work / "programs")
    kills = 0
    for number in range(10 * num):
        if kills >= num:
            break
        name = list(LEARNERS)[number % len(LEARNERS)]
        undisturbed, run, log = work / f"{name} undisturbed", work / f"run-{number}", work / "log"
        if name not in seconds:
            ended = reference(name, undisturbed, log)
            tally.add("undisturbed", name, common.fault(ended, [0]))
            seconds[name] = ended.seconds
        done = _killed(name, run, log, seconds[name], rng, tally)
        kills += done
        if done and begun(run):
            _resumed(name, run, undisturbed, log, tally)
        shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(work)


def begun(run: Path) -> bool:
    """Whether a run has a checkpoint."""
    return bool(checkpoint.steps(run / "checkpoints"))


def _killed(name: str, run: Path, log: Path, seconds: float, rng: random.Random, tally: common.Tally) -> int:
    """Begin a run and kill it, at most three times; how often."""
    for kill in range(_KILLS):
        fork = forks.command(log, *(["resume", run] if begun(run) else [*words_of(name, run), "--overwrite"]))
        time.sleep(rng.uniform(0.15, 1.0 if kill == 0 else 0.8) * seconds)
        if not fork.kill():
            return kill
        ended = fork.end()
        if ended.status != -9:
            return kill
        unfinished = any((run / "checkpoints").glob("*orbax-checkpoint-tmp*"))
        tally.add(f"killed{', a checkpoint unfinished' if unfinished else ''}", name, told_damaged(run, log))
    return _KILLS


def _resumed(name: str, run: Path, other: Path, log: Path, tally: common.Tally) -> None:
    exact = LEARNERS[name][-1]
    if not exact:
        other = run.with_name("copy")
        shutil.copytree(run, other)
        forks.command(log, "resume", other).end()
    ended = forks.command(log, "resume", run).end()
    try:
        wrong = common.fault(ended, [0]) or ends_as(run, other)
    except (OSError, ValueError, KeyError) as e:
        wrong = f"{type(e).__name__}: {e}; {ended.sentence}"
    tally.add("resumed to the end" + ("" if exact else " on the host"), name, wrong)
    if not exact:
        shutil.rmtree(other)


if __name__ == "__main__":
    common.main("kills", campaign, 120)
