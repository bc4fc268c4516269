"""What a person brings goes through every command: an algorithm of each kind, a dataset, an environment, a command.

Nothing of it stands in the tree: `own/mine.py` lies in the current folder, as it would.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tools import refused, run

from jaxdl.experiments import plot


@pytest.fixture
def here(tmp_path, monkeypatch):
    for file in (Path(__file__).parent / "own").glob("*.py"):
        name = {"tell": "mine_tell.commands.tell"}.get(file.stem, file.stem).replace(".", "/") + ".py"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] in ("mine", "mine_tell")]:
        del sys.modules[name]
    return tmp_path


@pytest.mark.parametrize(("algo", "subject", "flags", "score", "higher", "label"), [
    ("mine:AGENT", "mine:Echo", ["--eval-episodes", "4"], "return_mean", True, "mean return of evaluation episodes (reward)"),
    ("mine:MODEL", "mine:stripes", [], "mse", False, "squared error of my model"),
    ("mine:GUESS", "mine:stripes", [], "error", False, "wrong guesses of mine"),
    ("mine:GUESS", "digits", ["--dataset", "digits"], "error", False, "wrong guesses of mine"),
], ids=["agent", "model", "supervised", "supervised on digits"])
def test_an_algorithm_from_outside_trains_resumes_evaluates_is_drawn_and_swept(
        here, capsys, algo, subject, flags, score, higher, label):
    total = 800 if algo == "mine:AGENT" else 12
    small = [*flags, "--total-steps", total, "--quick-compile"]
    evaluated = [*small, "--eval-every", total // 2]
    straight = run(capsys, "train", algo, *evaluated, "--out", "straight")
    assert straight["algo"] == algo
    assert subject in straight.values()
    if algo != "mine:AGENT":  # a tenth of the training examples validates, and all test examples judge
        rows = [json.loads(line) for line in Path("straight/metrics.jsonl").read_text().splitlines()]
        sizes = (143, 360) if "digits" in flags else (6, 64)
        assert ({row["eval/num"] for row in rows if "eval/num" in row}, straight["eval"]["num"]) == ({sizes[0]}, sizes[1])
    run(capsys, "train", algo, *evaluated, "--stop-step", total // 2, "--out", "half")
    gone_on = run(capsys, "resume", "half", "--total-steps", total)
    assert gone_on["eval"][score] == straight["eval"][score]
    assert run(capsys, "evaluate", "straight")[score] == straight["eval"][score]
    assert run(capsys, "evaluate", "straight", "--best")[score] is not None
    run(capsys, "plot", "straight", "half", "--out", "curve.png")
    assert Image.open("curve.png").size[0] == 800
    field = "optim.learning_rate" if algo == "mine:AGENT" else "rate"
    swept = run(capsys, "train", algo, *small, "--sweep", f"{field}=0.01,0.1", "--num-seeds", 2, "--out", "swept")
    assert [(m["seed"], m[field]) for m in swept["members"]] == [(0, 0.01), (1, 0.01), (0, 0.1), (1, 0.1)]
    assert Path("swept/sweep.png").exists()
    alone = run(capsys, "train", algo, *small, f"--{field.replace('_', '-')}", 0.1, "--seed", 1, "--out", "alone")
    np.testing.assert_allclose(swept["members"][3][score], alone["eval"][score], rtol=1e-5)
    if "eval/" + score in json.loads(Path("straight/metrics.jsonl").read_text().splitlines()[-1]):
        (_, setting), = plot._panels(plot._settings([Path("straight")]))
        assert (setting[0].known[0].label, setting[0].known[0].higher) == (label, higher)


def test_a_model_from_outside_draws_its_samples(here, capsys):
    run(capsys, "train", "mine:MODEL", "--total-steps", 50, "--quick-compile", "--out", "a")
    assert Path("a/samples.png").exists()
    assert run(capsys, "sample", "a", "--num", 9, "--out", "nine.png")["num"] == 9


def test_a_dataset_and_an_environment_from_outside_serve_the_algorithms_of_the_house(here, capsys):
    found = run(capsys, "train", "classifier", "--dataset", "mine:stripes", "--total-steps", 60, "--batch-size", 16,
                "--network", "mlp", "--max-shift", 0, "--quick-compile", "--out", "c")
    assert found["eval"]["accuracy"] == 1.0  # stripes down or across
    found = run(capsys, "train", "ppo", "--env-id", "mine:Echo", "--total-steps", 4096, "--rollout-steps", 32,
                "--num-minibatches", 2, "--eval-episodes", 10, "--quick-compile", "--learning-rate", "0.01", "--out", "p")
    assert found["eval"]["return_mean"] == 5.0


def test_a_command_from_outside_is_run_and_explained(here, capsys):
    run(capsys, "train", "mine:GUESS", "--total-steps", 2, "--quick-compile", "--out", "a")
    assert run(capsys, "mine_tell.commands.tell", "a", "--loud") == {"subject": "mine:stripes"}
    assert "no flag of" in refused(capsys, "mine_tell.commands.tell", "a", "--lout")
    assert "no module 'nobody'" in refused(capsys, "nobody.here", "a")
    assert "is no command: it needs Args" in refused(capsys, "jaxdl.core", "a")


@pytest.mark.parametrize(("words", "parts"), [
    ("train mine:NOBODY", ["'mine:NOBODY'", "the module mine has no 'NOBODY'"]),
    ("train nobody:AGENT", ["'nobody:AGENT'", "no module 'nobody'"]),
    ("train mine:stripes", ["'mine:stripes'", "must be a jaxdl.core.task.Algorithm"]),
    ("train vae --dataset mine:nothing", ["'mine:nothing'", "the module mine has no 'nothing'"]),
    ("train mine:AGENT --learning-rate 1", ["--learning-rate is no flag", "--optim.learning-rate"]),
    ("train mine:AGENT --sweep learning_rate=1,2", ["'learning_rate'", "optim.learning_rate"]),
])
def test_what_is_not_there_is_refused_by_name(here, capsys, words, parts):
    said = refused(capsys, *words.split())
    assert all(part in said for part in parts), said
    assert not Path("runs").exists()
