"""Resume is exact: a run that was killed, again and again, ends with the bits of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from jaxdl import checkpoint

RUNS = {
    "dqn": ("dqn --total-steps 60000 --num-envs 4 --buffer-size 4000 --batch-size 16 --learning-starts 100 --hidden-sizes 16 "
            "--double --n-steps 3 --checkpoint-every 3000 --eval-episodes 1", 5),
    "vae": ("vae --total-steps 6000 --hidden-sizes 16 --latent-size 2 --batch-size 32 --schedule cosine "
            "--checkpoint-every 300", 5),
}


def jaxdl(*words, cache):
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "XLA_FLAGS": ""}
    return subprocess.Popen([sys.executable, "-m", "experiments.cli", *words], env=env, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def finished(process):
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def digests(run):
    """SHA-256 of every leaf of the run's last state, by the leaf's path."""
    last = checkpoint.steps(run / "checkpoints")[-1]
    manifest = json.loads((run / "checkpoints" / str(last) / "manifest" / "manifest.json").read_text())["manifest"]
    return {leaf["path"]: leaf["sha256"] for leaf in manifest["leaves"]} | {"step": last}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_at_random_moments_ends_with_the_bits_of_one_that_was_not(name, tmp_path):
    flags, kills = RUNS[name]
    cache, whole, killed = tmp_path / "cache", tmp_path / "whole", tmp_path / "killed"
    finished(jaxdl("train", *flags.split(), "--out", str(whole), cache=cache))

    moments, process, survived = random.Random(0), jaxdl("train", *flags.split(), "--out", str(killed), cache=cache), 0
    for _ in range(kills):
        before = checkpoint.steps(killed / "checkpoints")
        while process.poll() is None and checkpoint.steps(killed / "checkpoints") == before:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.15))
        survived += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = jaxdl("resume", str(killed), cache=cache)
    finished(process)
    assert survived >= 2  # else the run was over before it was killed: make it longer
    assert digests(killed) == digests(whole)
    rows = [json.loads(line)["step"] for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert rows == [json.loads(line)["step"] for line in (whole / "metrics.jsonl").read_text().splitlines()]
