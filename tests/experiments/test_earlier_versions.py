"""Runs that version 0.1.0 wrote: read back, evaluated and resumed, whatever their fields are called today."""

import json
import shutil
from pathlib import Path

import pytest
from tools import run

from jaxdl.experiments import run_folder

RUNS = Path(__file__).parents[1] / "fixtures" / "runs_0_1_0"
MORE = {"dqn": 700, "ppo": 640, "reinforce": 640, "gan": 15, "pixelcnn": 25, "vae": 20, "vqvae": 20, "autoencoder": 20}
AGENTS = {"dqn", "ppo", "reinforce"}
FAST = {"dqn", "pixelcnn"}  # an agent, and a model with renamed fields of its own


@pytest.mark.parametrize("name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in MORE])
def test_runs_written_by_an_earlier_version_evaluate_and_resume(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of the classifier that judges the GAN
    folder = tmp_path / name
    shutil.copytree(RUNS / name, folder)
    before = json.loads((folder / "summary.json").read_text())
    score = run(capsys, "evaluate", folder, *(["--episodes", "2"] if name in AGENTS else []))
    assert score.keys() >= before["eval"].keys()
    if name in AGENTS:  # another processor rounds in another way, and a greedy action may be another one
        assert score["return_mean"] == pytest.approx(before["eval"]["return_mean"], rel=0.3)
    elif name != "gan":  # whose judge is trained anew
        assert score == pytest.approx(before["eval"], rel=1e-3)
    resumed = run(capsys, "resume", folder, "--total-steps", MORE[name])
    assert before["steps"] < resumed["steps"] <= MORE[name]
    assert resumed["updates"] > before["updates"]
    rows = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == sorted(rows)
    assert rows[-1] == resumed["steps"]


def test_a_gan_whose_field_has_become_two_draws_images(tmp_path, capsys):
    shutil.copytree(RUNS / "gan", tmp_path / "gan")
    config = run_folder.open_run(tmp_path / "gan").config
    assert (config.conditional, config.class_conditioning) == (True, "concatenation")
    run(capsys, "sample", tmp_path / "gan", "--num", 4, "--out", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 100
