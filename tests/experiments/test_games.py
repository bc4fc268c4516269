"""Runs of Rainbow, Atari and MinAtar through the command line: what they are, say, leave and go on from."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.agents import dqn
from jaxdl.experiments import algorithms, cli, tasks
from jaxdl.experiments.run_folder import Settings
from jaxdl.rl.task import TrainConfig
from jaxdl.runtime import checkpoint, fit
from jaxdl.runtime.run_log import read_metrics

TINY = ["--num-envs", "2", "--learning-starts", "40", "--buffer-size", "400", "--batch-size", "4", "--hidden-sizes", "8",
        "--eval-episodes", "1"]


def preset(name, train_config=None, **changed):
    """The settings of a preset."""
    found = algorithms.PRESETS[name]
    return Settings(found.algo, algorithms.replaced(dqn.Config(), found.config | changed),
                    algorithms.replaced(TrainConfig(), found.train | (train_config or {})))


def test_rainbow_is_dqn_with_all_of_its_options():
    settings = preset("rainbow")
    settings.validate()
    config = settings.config
    assert (config.double, config.dueling, config.prioritized, config.noisy) == (True,) * 4
    assert (config.n_steps, config.distribution) == (3, "c51")
    assert dataclasses.replace(config, double=False, dueling=False, prioritized=False, noisy=False, n_steps=1,
                               distribution="none") == dqn.Config()
    assert (config.atoms, config.priority_exponent, config.importance_exponent, config.noisy_sigma) == (51, 0.5, 0.4, 0.5)


@pytest.mark.parametrize(("name", "env_id", "hidden", "updates"), [
    ("atari", "ALE/Pong-v5", (512,), 2_480_000), ("minatar", "Breakout-MinAtar", (128,), 124_375)])
def test_the_presets_of_games_make_sense(name, env_id, hidden, updates):
    settings = preset(name)
    settings.validate()
    config = settings.config
    assert (config.env_id, config.hidden_sizes, config.batch_size) == (env_id, hidden, 32)
    assert dqn.source_settings(config).planned_updates(config.total_steps) == updates
    if name == "atari":  # Mnih et al. (2015) as CleanRL has it: clipped rewards, a target that is copied, an update for 4 steps
        assert (config.clip_reward, config.loss, config.tau, config.target_update_interval) == (True, "huber", 1.0, 1_000)
        assert config.num_envs * config.train_freq == 4 * config.gradient_steps
        assert (config.optim.learning_rate, config.exploration_final_eps) == (1e-4, 0.01)
        assert not settings.train.checkpoint_memory
    if name == "minatar":
        assert dqn.support(config, env_id) == (0.0, 20.0)


@pytest.mark.parametrize("num_seeds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_rainbow_goes_on_from_a_checkpoint_bit_for_bit(num_seeds, tmp_path):
    settings = preset("rainbow", {"num_seeds": num_seeds}, num_envs=4, total_steps=400, buffer_size=200, batch_size=4,
                      learning_starts=40, hidden_sizes=(8,), atoms=5)
    driver = tasks.driver(tasks.open_task(settings), settings)
    straight = fit.fit(driver, settings.train, 400).state
    fit.fit(driver, dataclasses.replace(settings.train, stop_step=212), 400, folder=tmp_path)
    state = fit.fit(driver, settings.train, 400, folder=tmp_path, resume=True).state
    assert driver.exact
    assert np.asarray(state.source.memory.stored.size).sum() == num_seeds * 200  # it has wrapped round
    assert (np.asarray(state.source.memory.priority) > 0).all()
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(straight), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_support_that_is_too_narrow_is_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    narrow = ["--distribution", "c51", "--v-max", "2"]
    assert cli.main(["train", "dqn", *narrow, "--total-steps", "200", *TINY, "--out", "run"]) == 0
    said, = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxdl: ")]
    assert "% of the distributions that c51 learns from lie outside of its atoms" in said
    assert "given: None and 2.0" in said
    assert "CartPole-v1" in said
    clipped = [row["clipped_targets"] for row in read_metrics(Path("run", "metrics.jsonl")) if "clipped_targets" in row]
    assert max(clipped) > 0.05


def test_minatar_is_trained_evaluated_and_filmed_where_it_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("gymnax", reason="jaxdl[gymnax] is not installed")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "minatar", "--total-steps", "120", *TINY, "--time-limit", "50", "--out", "run", "--json"]) == 0
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert (summary["env_id"], summary["steps"], summary["updates"]) == ("Breakout-MinAtar", 120, 40)
    assert summary["eval"]["return_mean"] >= 0
    assert "greedy episodes in Breakout-MinAtar" in said.err  # not in Gymnasium's own: it has none
    assert {"checkpoints", "curve.png", "policy.gif"} <= set(os.listdir("run"))


@pytest.mark.slow
def test_atari_goes_on_in_another_process(tmp_path):
    pytest.importorskip("ale_py", reason="jaxdl[atari] is not installed")

    def call(*argv):
        done = subprocess.run(
            [sys.executable, "-m", "jaxdl", *argv, "--json"], cwd=tmp_path, capture_output=True, text=True,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")})
        assert done.returncode == 0, done.stderr  # an address of the first process would be a crash of the second
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    game = ["--env-id", "ALE/Pong-v5", "--max-frames", "80", "--total-steps", "160", "--atari-stack", "2"]
    first, _ = call("train", "dqn", *game, *TINY, "--stop-step", "100", "--out", "run")
    assert (first["steps"], first["ended"]) == (100, "finished")
    rest, said = call("resume", "run", "--total-steps", "160")
    assert (rest["steps"], rest["updates"], rest["ended"]) == (160, 60, "finished")
    assert "begin new episodes" in said
    assert checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == 160
    lengths = [row["episode_length"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "episode_length" in row]
    assert set(lengths) == {20.0}  # 80 frames: none is counted over the restart
