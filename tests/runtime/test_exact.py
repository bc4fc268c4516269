"""Resume is exact: a run that was killed, again and again, ends with the bits of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from tools import same_bits

from jaxdl.agents import ppo, reinforce
from jaxdl.rl import envs, policy
from jaxdl.runtime import checkpoint, fit
from jaxdl.runtime.device_driver import make_device_driver

RUNS = {
    "dqn": ("dqn --total-steps 60000 --num-envs 4 --buffer-size 4000 --batch-size 16 --learning-starts 100 --hidden-sizes 16 "
            "--double --n-steps 3 --checkpoint-every 3000 --eval-episodes 1", 3),
    "vae": ("vae --total-steps 6000 --hidden-sizes 16 --latent-size 2 --batch-size 32 --schedule cosine "
            "--checkpoint-every 300", 5),
}


def jaxdl(*words, cache):
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "XLA_FLAGS": ""}
    return subprocess.Popen([sys.executable, "-m", "jaxdl", *words], env=env, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def finished(process):
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


def digests(run):
    """SHA-256 of every leaf of the run's last state, by the leaf's path."""
    last = checkpoint.steps(run / "checkpoints")[-1]
    manifest = json.loads((run / "checkpoints" / str(last) / "manifest" / "manifest.json").read_text())["manifest"]
    return {leaf["path"]: leaf["sha256"] for leaf in manifest["leaves"]} | {"step": last}


@pytest.mark.parametrize("name", ["dqn", "vae"])
@pytest.mark.slow
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


# Rollouts: statistics of observations and rewards, what policies keep in mind, moving averages


PPO = ppo.Config(num_envs=4, rollout_steps=8, total_steps=40 * 32, num_epochs=2, num_minibatches=2, normalize_reward=True,
                 policy=policy.Config(hidden_sizes=(8,), recurrent="gru", recurrent_size=4, normalize_obs=True))
REINFORCE = reinforce.Config(num_envs=4, rollout_steps=20, total_steps=40 * 80, baseline="constant", normalize_reward=True,
                             policy=policy.Config(hidden_sizes=(8,)), env=envs.Config(time_limit=20))


@pytest.fixture(scope="module")
def driven():
    """The driver of a PPO, compiled once."""
    return make_device_driver(ppo.make_run, [PPO], None, [3])


def cut_run(driver, total_steps, folder):
    """The states of a run that was not cut, and of one that was, at three places, each read back from its checkpoint."""
    stride = driver.stride
    whole = fit.fit(driver, fit.Config(log_every=stride), total_steps).state
    for stop in (1, 9, 10, total_steps // stride):
        settings = fit.Config(stop_step=stop * stride, log_every=7 * stride)
        result = fit.fit(driver, settings, total_steps, folder=folder, resume=stop > 1)
        assert result.step == stop * stride
    return whole, result.state


def test_a_recurrent_ppo_that_was_cut_has_the_bits_of_one_that_was_not(driven, tmp_path):
    whole, cut = cut_run(driven, PPO.total_steps, tmp_path)
    same_bits(whole, cut)
    assert whole.learner.moments.count > 1000  # what might be lost is there
    assert whole.source.scale.moments.count > 1000
    assert all(np.abs(x).max() > 1e-3 for x in jax.tree.leaves(whole.source.carry))


@pytest.mark.slow
def test_a_reinforce_with_a_moving_average_that_was_cut_has_the_bits_of_one_that_was_not(tmp_path):
    whole, cut = cut_run(make_device_driver(reinforce.make_run, [REINFORCE], None, [3]), REINFORCE.total_steps, tmp_path)
    same_bits(whole, cut)
    assert whole.learner.average.count > 10


@pytest.mark.slow
def test_a_member_of_a_population_is_the_ppo_of_its_seed(driven):
    together = make_device_driver(ppo.make_run, [PPO], None, [2, 3])
    both, alone = (d.chunk(d.start(), 2)[0].learner._replace(opt=None) for d in (together, driven))
    for x, y in zip(jax.tree.leaves(both), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(x[1], y, rtol=1e-4, atol=1e-6)
    assert not np.allclose(both.moments.mean[0], both.moments.mean[1], rtol=1e-3)


def test_what_is_compiled_quickly_learns_the_same(driven):
    quick = make_device_driver(ppo.make_run, [PPO], None, [3], quick=True)
    a, b = (d.chunk(d.start(), 2)[0].learner._replace(opt=None) for d in (quick, driven))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
