"""Sweeps: which members a population has, each the single run of its seed and values, and what is shown of them."""

import json
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxdl.agents import ppo
from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.experiments import algorithms, cli, plot, run_report, tasks
from jaxdl.experiments.algorithms import ALGORITHMS
from jaxdl.experiments.population import Member, members, parse
from jaxdl.runtime import checkpoint, fit

PPO = ["train", "ppo", "--total-steps", "512", "--num-envs", "2", "--rollout-steps", "32", "--num-minibatches", "2",
       "--hidden-sizes", "4", "--eval-episodes", "2", "--schedule", "constant"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a population of 2 x 2 x 2, and the single run of its member 3."""
    before, folder = os.getcwd(), tmp_path_factory.mktemp("sweep")
    os.chdir(folder)
    try:
        assert cli.main([*PPO, "--num-seeds", "2", "--seed", "7", "--sweep", "learning-rate=1e-2,1e-3", "gamma=0.9,0.5",
                         "--out", "many"]) == 0
        assert cli.main([*PPO, "--seed", "8", "--learning-rate", "1e-2", "--gamma", "0.5", "--out", "one"]) == 0
    finally:
        os.chdir(before)
    return folder


def test_members_are_every_value_with_every_seed():
    driven = fit.Config(seed=3, num_seeds=2, sweep=("learning_rate=1,2", "gamma=0.5,0.25"))
    found = members(ppo.Config(), driven)
    assert found == [Member(seed, {"learning_rate": rate, "gamma": gamma})
                     for rate in (1.0, 2.0) for gamma in (0.5, 0.25) for seed in (3, 4)]
    config = found[4].config(ppo.Config())
    assert (config.optim.learning_rate, config.gamma, config.optim.eps) == (2.0, 0.5, ppo.Config().optim.eps)
    assert members(ppo.Config(), fit.Config()) == [Member(0, {})]


@pytest.mark.parametrize(("sweep", "said"), [
    ("learning_rate", "sweep must be written FIELD=VALUE,VALUE,..., got 'learning_rate'"),
    ("learning_rat=1,2", "and 'learning_rat' is none; did you mean 'learning_rate'"),
    ("num_envs=1,2", "sweep takes fields that are numbers and no sizes, and 'num_envs' is none"),
    ("target_kl=0.1,0.2", "and 'target_kl' is none"),  # None by default: another program
    ("gamma=0.9,fast", "sweep needs numbers with commas between them, got 'gamma=0.9,fast'"),
    ("gamma=0.9,0.9", "sweep needs finite numbers that differ"),
    ("gamma=nan,0.5", "sweep needs finite numbers that differ"),
    ("gamma=0.5", "sweep needs several values, got 'gamma=0.5'; of one, set gamma itself"),
    ("sticky_actions=0.1,0.2", "and 'sticky_actions' is none"),
    ("gamma=0.9,1.5", "gamma must be between 0 and 1, got 1.5")])
def test_a_sweep_that_makes_no_sense_is_refused_in_a_sentence(sweep, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*PPO, "--sweep", sweep, "--out", "run"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_field_is_swept_once():
    with pytest.raises(UserError, match="sweep has 'gamma' twice"):
        parse(["gamma=0.1,0.2", "gamma=0.3,0.4"])


@pytest.mark.slow
def test_a_member_is_the_single_run_of_its_seed_and_values(place):
    many, one = tasks.load_run(place / "many", member=3), tasks.load_run(place / "one")
    assert (many.settings.train.seed, many.settings.config) == (8, one.settings.config)
    assert many.settings.train.sweep == ()
    for a, b in zip(jax.tree.leaves(many.params), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    other = tasks.load_run(place / "many", member=1)
    assert any(np.abs(np.asarray(a) - b).max() > 1e-3 for a, b in zip(
        jax.tree.leaves(other.params), jax.tree.leaves(one.params), strict=True))


def test_members_are_told_with_their_values(place):
    summary = json.loads((place / "many" / "summary.json").read_text())
    told = [(m["seed"], m["learning_rate"], m["gamma"]) for m in summary["eval"]["members"]]
    assert told == [(s, rate, gamma) for rate in (0.01, 0.001) for gamma in (0.9, 0.5) for s in (7, 8)]
    meta = checkpoint.read_meta(place / "many" / "checkpoints", summary["steps"])
    assert meta["sweep"] == ["learning-rate=1e-2,1e-3", "gamma=0.9,0.5"]


def test_a_sweep_leaves_a_picture_of_scores_against_values(place):
    with Image.open(place / "many" / "sweep.png") as picture:
        assert len(np.unique(np.asarray(picture).reshape(-1, 4), axis=0)) > 20
    assert not (place / "one" / "sweep.png").exists()
    with pytest.raises(UserError, match="is no run of a sweep"):
        plot.plot_sweep(place / "one", place / "x.png")


def test_the_best_setting_is_marked(place, tmp_path, monkeypatch):
    seen, real = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (seen.append(self), real(self, *a, **k)))
    plot.plot_sweep(place / "many", tmp_path / "x.png")
    (axes,) = seen[0].axes
    members = json.loads((place / "many" / "summary.json").read_text())["eval"]["members"]
    means = {}
    for member in members:
        means.setdefault((member["learning_rate"], member["gamma"]), []).append(member["return_mean"])
    best = max(means, key=lambda values: np.mean(means[values]))
    (star,) = [line for line in axes.get_lines() if line.get_marker() == "*"]
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (best[0], pytest.approx(np.mean(means[best])))
    assert f"best: learning_rate={best[0]:g}, gamma={best[1]:g}" in star.get_label()


def test_each_value_is_a_curve_of_its_own(place):
    settings = plot._settings([place / "many"])
    assert [(s.config["learning_rate"], s.config["gamma"]) for s in settings] == [
        (0.01, 0.9), (0.01, 0.5), (0.001, 0.9), (0.001, 0.5)]
    assert all(len(s.curves["loss"]) == 2 for s in settings)


def test_what_shows_a_population_says_which_of_its_members(place, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(place)
    run, pictures = tasks.load_run("many"), {"a.png": lambda params, seed, path: None, "b.png": lambda *args: None}
    run_report.save_pictures(tmp_path, run.settings, run.task._replace(pictures=pictures), run.params)
    assert "a.png and b.png show member 0 of 8" in (said := capsys.readouterr().out)
    assert "(seed 7, learning_rate=0.01, gamma=0.9)" in said
    assert tasks.load_first(Path("many")).settings.train.seed == 7
    assert "many is a population: this is of member 0 of 8 (seed 7" in (said := capsys.readouterr().out)
    assert "'jaxdl export many --member K'" in said
    tasks.load_first(Path("one"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("given", "said"), [
    ({"folder": 5}, "folder must be the path of a run, got 5"), ({"member": "0"}, "member must lie between 0 and 7, got '0'"),
    ({"member": -1}, "member must lie between 0 and 7, got -1"),
    ({"step": "90"}, "step must be that of a checkpoint, got '90'"),
    ({"data_dir": "x"}, "data_dir=x is for what learns from a dataset")])
def test_a_run_is_not_read_back_by_what_makes_no_sense(place, given, said):
    with pytest.raises(UserError, match=re.escape(said)):
        tasks.load_run(**{"folder": str(place / "many")} | given)


def test_a_policy_acts_on_observations_or_on_one_and_refuses_others(place):
    run, obs = tasks.load_run(str(place / "one")), np.random.default_rng(0).normal(size=(3, 4))
    assert [run.act(row).item() for row in obs] == run.act(obs).tolist()
    for wrong in (obs[:, :3], obs[None], 3.0, np.array(["x"] * 4)):
        with pytest.raises(UserError, match=r"observations of CartPole-v1 must be numbers of shape \[N, 4\], got"):
            run.act(wrong)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_sweep_of_any_algorithm_is_drawn_under_its_own_score_and_its_best_is_marked(algo, tmp_path, monkeypatch):
    algorithm = algorithms.load(algo)
    subject = {algorithm.subject: "x"}
    score = algorithm.score_of(algorithm.Config(**subject))
    values = [3.0, 1.0, 2.0, float("nan")]
    files.write_json(tmp_path / "config.json", {"algo": algo, "config": subject, "train": {
        "sweep": ["learning_rate=1,2,3,4"], "num_seeds": 1}})
    files.write_json(tmp_path / "summary.json", {"steps": 9, "eval": {"members": [{score.name: v} for v in values]}})
    seen = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **how: seen.append(self))
    plot.plot_sweep(tmp_path, tmp_path / "x.png")
    (axes,) = seen[0].axes
    (star,) = [line for line in axes.get_lines() if line.get_marker() == "*"]
    best = (1, 3.0) if score.higher else (2, 1.0)
    assert (axes.get_ylabel(), star.get_xdata()[0], star.get_ydata()[0]) == (score.label, *best)
    files.write_json(tmp_path / "summary.json", {"steps": 9, "eval": {"members": [{score.name: None}] * 4}})
    with pytest.raises(UserError, match=f"has no finite {score.name} in its evaluations"):
        plot.plot_sweep(tmp_path, tmp_path / "x.png")
