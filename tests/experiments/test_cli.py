"""The command line: what each command does, says, leaves behind and returns."""

import dataclasses
import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from PIL import Image
from tools import same_bits

from jaxdl import optim
from jaxdl.agents import actor_critic, dqn, ppo, reinforce
from jaxdl.core.errors import EnvError, EnvFailure, UserError
from jaxdl.experiments import algorithms, cli, run_folder
from jaxdl.experiments.tasks import load_run as load
from jaxdl.generative import vae
from jaxdl.rl import envs, policy
from jaxdl.runtime import checkpoint, fit
from jaxdl.runtime.run_log import read_metrics

DQN = ["train", "dqn", "--total-steps", "400", "--learning-starts", "100", "--num-envs", "2", "--buffer-size", "1000",
       "--batch-size", "8", "--hidden-sizes", "8", "--eval-episodes", "2", "--schedule", "linear", "--final-fraction", "0",
       "--quick-compile"]
VAE = ["train", "vae", "--total-steps", "20", "--hidden-sizes", "8", "--latent-size", "2", "--batch-size", "32",
       "--quick-compile"]
SUMMARY = {"seed", "steps", "updates", "compile_s", "train_s", "steps_per_s", "ended", "eval", "run", "algo"}
AGENT_EVAL = {"episodes", "return_mean", "return_std"}
MODEL_EVAL = {"num", "elbo", "reconstruction", "kl"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a run of each algorithm, `agent` and `model`."""
    before, folder = os.getcwd(), tmp_path_factory.mktemp("cli")
    os.chdir(folder)
    try:
        assert cli.main([*DQN, "--eval-every", "80", "--keep-checkpoints", "20", "--out", "agent"]) == 0
        assert cli.main([*VAE, "--out", "model"]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def call(here, capsys):
    """Run a command that succeeds, with --json; returns the object and what went to stderr."""

    def run(*argv):
        capsys.readouterr()
        assert cli.main([*argv, "--json"]) == 0
        said = capsys.readouterr()
        line, = said.out.splitlines()
        return json.loads(line), said.err

    return run


@pytest.fixture
def helped(capsys):
    """What a command prints with --help, and nothing on stderr."""

    def run(*argv):
        try:
            status = cli.main([*argv, "--help"])
        except SystemExit as e:
            status = e.code
        said = capsys.readouterr()
        assert (status or 0, said.err) == (0, "")
        return said.out

    return run


def tree(folder):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def summary_of(run):
    return json.loads(Path(run, "summary.json").read_text())


# Training


def test_an_agents_run_leaves_what_it_promises(here):
    run = here / "agent"
    assert sorted(os.listdir(run)) == [".lock", "best", "checkpoints", "config.json", "curve.png", "metrics.jsonl",
                                       "policy.gif", "summary.json", "tensorboard"]
    summary = summary_of(run)
    assert set(summary) == SUMMARY | {"env_id"}
    assert (summary["algo"], summary["env_id"], summary["seed"], summary["ended"]) == ("dqn", "CartPole-v1", 0, "finished")
    assert (summary["steps"], summary["updates"], summary["run"]) == (400, 150, "agent")  # (400 - 100) / 2 environments
    assert set(summary["eval"]) == AGENT_EVAL
    assert summary["eval"]["episodes"] == 2
    assert summary["steps_per_s"] == pytest.approx(300 / summary["train_s"], rel=0.05)
    assert checkpoint.steps(run / "checkpoints") == list(range(120, 401, 40))
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(104, 401, 4))
    assert [row["step"] for row in rows if "eval/return_mean" in row] == list(range(160, 401, 80))
    assert rows[-1]["eval/return_mean"] == summary["eval"]["return_mean"]
    with Image.open(run / "curve.png") as curve, Image.open(run / "policy.gif") as film:
        assert (curve.format, film.format) == ("PNG", "GIF")
        assert film.n_frames > 1


def test_a_models_run_leaves_what_it_promises(here):
    run = here / "model"
    assert sorted(os.listdir(run)) == [".lock", "checkpoints", "config.json", "curve.png", "metrics.jsonl",
                                       "reconstructions.png", "samples.png", "summary.json", "tensorboard"]
    summary = summary_of(run)
    assert set(summary) == SUMMARY | {"dataset"}
    assert (summary["algo"], summary["dataset"], summary["steps"], summary["updates"]) == ("vae", "digits", 20, 20)
    assert set(summary["eval"]) == MODEL_EVAL
    assert summary["eval"]["num"] == 360
    assert summary["eval"]["elbo"] == pytest.approx(summary["eval"]["reconstruction"] - summary["eval"]["kl"])
    assert -64 * math.log(2) * 1.2 < summary["eval"]["elbo"] < 0  # a coin a pixel is 64 ln 2 nats
    assert checkpoint.steps(run / "checkpoints") == [16, 18, 20]


def test_config_alone_repeats_a_run_bit_for_bit_in_a_folder_of_its_own(here, call):
    config = here / "agent" / "config.json"
    again, said = call("train", "dqn", "--config", str(config))
    assert again["run"] == "runs/dqn-CartPole-v1-1"
    assert "training dqn on CartPole-v1 in runs/dqn-CartPole-v1-1" in said
    assert f"next: jaxdl evaluate {again['run']}" in said
    assert again == summary_of(again["run"])
    assert run_folder.read_config(config) == run_folder.open_run(Path(again["run"]))
    same_bits(load(again["run"]).params, load("agent").params)
    timed = {"compile_s", "train_s", "steps_per_s", "run"}
    assert {k: v for k, v in again.items() if k not in timed} == {
        k: v for k, v in summary_of("agent").items() if k not in timed}


def test_a_flag_beside_config_changes_that_field_alone_and_overwrite_replaces_the_run(call):
    shutil.copytree("model", "over")
    Path("over", "notes.txt").write_text("mine")
    second, _ = call("train", "vae", f"--config={Path('over', 'config.json')}", "--seed", "5", "--total-steps", "10",
                     "--out", "over", "--overwrite")
    assert (second["seed"], second["steps"], second["run"]) == (5, 10, "over")
    assert checkpoint.steps(Path("over", "checkpoints")) == [8, 9, 10]
    assert [row["step"] for row in read_metrics(Path("over", "metrics.jsonl"))] == list(range(1, 11))
    assert Path("over", "notes.txt").read_text() == "mine"
    read = run_folder.open_run(Path("over"))
    assert read.config == dataclasses.replace(run_folder.open_run(Path("model")).config, total_steps=10)


def test_no_step_is_taken_past_the_planned_end(call):
    summary, _ = call(*DQN, "--num-envs", "8", "--total-steps", "397", "--train-freq", "2", "--checkpoint-every", "1000",
                      "--no-checkpoint-memory", "--out", "odd")
    assert summary["steps"] == 384  # 112 in the warm-up, then whole strides of 16
    assert summary["updates"] == (384 - 112) // 16
    assert checkpoint.steps(Path("odd", "checkpoints")) == [384]
    evaluated, _ = call("evaluate", "odd")
    assert evaluated == summary["eval"]


def test_the_host_backend_learns_as_many_steps_and_resume_says_what_it_cannot_keep(call):
    summary, _ = call(*DQN, "--backend", "host", "--out", "host")
    assert (summary["steps"], summary["updates"], summary["ended"]) == (400, 150, "finished")
    assert set(summary) == SUMMARY | {"env_id"}
    evaluated, _ = call("evaluate", "host")
    assert evaluated == summary["eval"]
    summary, said = call("resume", "host", "--total-steps", "500")
    assert (summary["steps"], summary["updates"]) == (500, 200)
    assert "environments on the host cannot be saved" in said


@pytest.mark.parametrize("name", algorithms.PRESETS)
def test_a_preset_replaces_defaults_and_flags_replace_it(name, monkeypatch, here):
    preset = algorithms.PRESETS[name]
    seen = []

    def refuse(settings):  # nothing need be compiled
        seen.append(settings)
        raise UserError("enough")

    monkeypatch.setattr("jaxdl.experiments.tasks.open_task", refuse)
    stops, found = "stop_at" in preset.train, algorithms.load(preset.algo)
    number = "gamma" if hasattr(found.Config(), "gamma") else "deviation"
    assert cli.main(["train", name]) == 2
    assert cli.main(["train", name, f"--{number}", "0.5", *(["--stop-at", "9"] if stops else [])]) == 2
    plain, changed = seen
    within = {field: value for field, value in preset.config.items() if isinstance(value, dict)}
    assert plain.algo == preset.algo
    default = found.Config()
    assert plain.config == dataclasses.replace(default, **preset.config | {
        field: dataclasses.replace(getattr(default, field), **values) for field, values in within.items()})
    assert plain.train == found.TrainConfig(**preset.train)
    assert changed.config == dataclasses.replace(plain.config, **{number: 0.5})
    assert changed.train.stop_at == (9.0 if stops else None)


def test_a_run_that_reaches_its_return_ends_there(call):
    summary, _ = call(*DQN, "--eval-every", "80", "--stop-at-return", "1", "--out", "reached")
    assert (summary["ended"], summary["steps"]) == ("reached", 160)
    assert checkpoint.steps(Path("reached", "checkpoints"))[-1] == 160
    before = tree(Path("reached"))
    again, said = call("resume", "reached")
    assert again == summary
    assert "reached is finished" in said
    assert tree(Path("reached")) == before


def test_training_that_blows_up_is_status_1_and_names_the_step(here, capsys):
    capsys.readouterr()
    assert cli.main([*DQN, "--optimizer", "sgd", "--learning-rate", "1e30", "--out", "blown", "--json"]) == 1
    said = capsys.readouterr()
    sentence = said.err.splitlines()[-1]
    assert said.out == ""
    assert sentence.startswith("jaxdl: ")
    assert "is no longer finite at step 10" in sentence
    assert "learning_rate" in sentence
    assert not Path("blown", "summary.json").exists()


# Going on


def test_a_finished_run_says_so_and_is_left_alone(here, call):
    before = tree(here / "agent")
    done, said = call("resume", "agent")
    assert done == summary_of("agent")
    assert "agent is finished (400 steps); give --total-steps to go on" in said
    assert tree(here / "agent") == before


def test_a_run_that_stopped_half_way_goes_on_as_if_it_had_not_and_schedules_hold_past_the_end(here, call):
    settings = ["--eval-every", "80", "--keep-checkpoints", "20"]
    half, _ = call(*DQN, *settings, "--stop-step", "236", "--out", "half")
    assert (half["steps"], half["ended"]) == (236, "finished")
    rest, said = call("resume", "half", "--total-steps", "400")
    assert "resuming dqn on CartPole-v1 in half" in said
    assert (rest["steps"], rest["updates"], rest["eval"]) == (400, 150, summary_of("agent")["eval"])
    same_bits(load("half").params, load("agent").params)
    same_bits(load("half", best=True).params, load("agent", best=True).params)
    steps = [row["step"] for row in read_metrics(Path("half", "metrics.jsonl"))]
    assert steps == sorted(set(steps))

    more, _ = call("resume", "half", "--total-steps", "600")
    assert (more["steps"], more["updates"]) == (600, 250)
    same_bits(load("half").params, load("half", step=400).params)  # the learning rate fell to 0 at 400 and stays there
    epsilon = [row["epsilon"] for row in read_metrics(Path("half", "metrics.jsonl")) if "epsilon" in row]
    assert len(epsilon) > 50
    np.testing.assert_allclose(epsilon, 0.05, rtol=1e-5)
    assert run_folder.open_run(Path("half")).config == run_folder.open_run(Path("agent")).config
    assert call("resume", "half")[0] == more


def test_an_interrupted_run_keeps_a_checkpoint_says_how_to_go_on_and_finishes(here, call):
    program = [sys.executable, "-m", "jaxdl", *DQN, "--total-steps", "1000000000", "--log-every", "100", "--out",
               "stopped", "--json"]
    child = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(here / "programs")})
    try:
        deadline = time.monotonic() + 60
        while not (Path("stopped", "metrics.jsonl").exists() and Path("stopped", "metrics.jsonl").stat().st_size):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 130, err
    summary = json.loads(out.splitlines()[-1])
    step = summary["steps"]
    assert summary == summary_of("stopped")
    assert summary["ended"] == "interrupted"
    assert checkpoint.steps(Path("stopped", "checkpoints")) == [step]
    assert f"interrupted at step {step:,}" in err
    assert err.rstrip().endswith("continue with: jaxdl resume stopped")
    assert "Traceback" not in err
    rest, _ = call("resume", "stopped", "--total-steps", str(step + 200))
    assert (rest["steps"], rest["ended"]) == (step + 200, "finished")
    assert load("stopped").step == step + 200


# Several seeds


def test_a_population_is_the_single_runs_of_its_seeds(here, call):
    together, _ = call(*DQN, "--num-seeds", "2", "--out", "population")
    assert set(together) == SUMMARY | {"env_id", "members"}
    assert (together["steps"], together["updates"]) == (400, 150)
    members = together["members"]
    assert members == together["eval"]["members"]
    assert [member["seed"] for member in members] == [0, 1]
    assert all(set(member) == AGENT_EVAL | {"seed"} for member in members)
    assert set(together["eval"]) == AGENT_EVAL | {"members"}
    assert together["eval"]["return_mean"] == pytest.approx(np.mean([m["return_mean"] for m in members]))
    assert together["eval"]["episodes"] == 2
    evaluated, _ = call("evaluate", "population")
    assert evaluated == together["eval"]
    rows = read_metrics(Path("population", "metrics.jsonl"))
    assert all(len(row["loss"]) == 2 for row in rows)
    call("plot", "population", "agent", "--out", "population.png")

    call(*DQN, "--seed", "1", "--out", "second")
    both = load("population").params
    for k, single in enumerate(("agent", "second")):
        member = load("population", member=k)
        same_bits(member.params, jax.tree.map(lambda x, k=k: x[k], both))
        assert (member.settings.train.seed, member.settings.train.num_seeds) == (k, 1)
        assert member.act(np.zeros((3, 4))).shape == (3,)
        for x, y in zip(jax.tree.leaves(member.params), jax.tree.leaves(load(single).params), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)
    assert not np.allclose(both.network["params"]["MLP_0"]["Dense_0"]["kernel"][0],
                           both.network["params"]["MLP_0"]["Dense_0"]["kernel"][1])
    with pytest.raises(UserError, match="member must lie between 0 and 1, got 2"):
        load("population", member=2)


# Policies that are drawn from, and what they keep in mind


PPO = ["train", "ppo", "--total-steps", "640", "--num-envs", "4", "--rollout-steps", "32", "--num-minibatches", "2",
       "--hidden-sizes", "8", "--recurrent", "gru", "--recurrent-size", "8", "--normalize-obs", "--eval-episodes", "2",
       "--eval-every", "256", "--num-seeds", "2", "--learning-rate", "0.05"]


class Many(gymnasium.Env):
    """Two choices at once, episodes of ten steps; a number says whether the space holds what it gets."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (3,), np.float64), gymnasium.spaces.MultiDiscrete([2, 3])

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.uniform(-1, 1, 3), {}

    def step(self, action):
        self.t += 1
        reward = 10.0 + action.sum() if self.action_space.contains(action) else np.nan
        return self.np_random.uniform(-1, 1, 3), reward, False, self.t == 10, {}

    def render(self):
        return np.zeros((20, 20, 3), np.uint8)


@pytest.fixture(scope="module")
def recurrent(place):
    """A population of two recurrent policies, and what training printed."""
    before = os.getcwd()
    os.chdir(place)
    try:
        assert cli.main([*PPO, "--out", "recurrent"]) == 0
    finally:
        os.chdir(before)
    return "recurrent"


@pytest.mark.slow
def test_a_recurrent_population_is_evaluated_filmed_drawn_and_goes_on(call, recurrent):
    summary = summary_of(recurrent)
    assert set(summary) == SUMMARY | {"env_id"}
    assert (summary["algo"], summary["steps"], summary["updates"], summary["ended"]) == ("ppo", 640, 5, "finished")
    assert [member["seed"] for member in summary["eval"]["members"]] == [0, 1]
    assert call("evaluate", recurrent)[0] == summary["eval"]
    found, _ = call("evaluate", recurrent, "--best", "--episodes", "3", "--video", "recurrent.gif")
    assert found["episodes"] == 3
    assert Image.open("recurrent.gif").format == "GIF"
    rows = read_metrics(Path(recurrent, "metrics.jsonl"))
    assert [row["step"] for row in rows] == list(range(128, 641, 128))
    assert set(ppo.METRICS) | {"explained_variance", "episode_return"} < rows[-1].keys()
    call("plot", recurrent, "agent", "--out", "both.svg")
    text = Path("both.svg").read_text()
    assert "<!-- ppo: mean of 2 seeds -->" in text
    assert "<!-- dqn -->" in text
    shutil.copytree(recurrent, "further")
    more, said = call("resume", "further", "--total-steps", "768")
    assert (more["steps"], more["updates"]) == (768, 6)
    assert "bit for bit" not in said


def test_a_loaded_recurrent_policy_acts_on_all_that_it_has_seen(here, recurrent):
    run = load(recurrent, member=1)
    model = policy.make(run.settings.config.policy, envs.spec("CartPole-v1"), "ppo")
    rng = np.random.default_rng(0)
    obs, first = rng.normal(size=(30, 20, 4)).astype(np.float32), rng.random((30, 20)) < 0.1  # T, B
    unrolled = model.unroll(run.params.network, model.greedy.init(20), policy.normalize(run.params.moments, obs), first)
    wanted, clear = unrolled.dist.argmax(-1), np.abs(np.diff(unrolled.dist)[..., 0]) > 1e-4
    carry, actions, forgetful = run.begin(20), [], []
    for x, begins in zip(obs, first, strict=True):
        action, carry = run.play(x, carry, begins)
        actions.append(action)
        forgetful.append(run.play(x, run.begin(20))[0])
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.array(actions)[clear], wanted[clear])
    assert np.mean(np.array(actions) != forgetful) > 0.02  # so that it matters
    carry = run.begin(20)
    for x in obs[:2]:
        action, carry = run.play(x, carry)  # without `first` episodes go on
    np.testing.assert_array_equal(action, run.play(obs[1], run.play(obs[0], run.begin(20))[1], np.zeros(20, bool))[0])
    with pytest.raises(UserError, match=r"the policy of recurrent is recurrent, and run\.act would lose .*run\.begin\(N\)"):
        run.act(obs[0])
    with pytest.raises(UserError, match=r"the policy of recurrent is recurrent .* start with carry = run\.begin\(20\)"):
        run.play(obs[0], None)


def test_what_serves_a_recurrent_policy_serves_every_agent_but_no_population(here, recurrent):
    run, obs = load("agent"), np.random.default_rng(0).normal(size=(50, 4))
    assert run.begin(50) is None
    action, carry = run.play(obs, run.begin(50))
    np.testing.assert_array_equal(action, run.act(obs))
    assert carry is None
    both = load(recurrent)
    for use in (lambda: both.begin(3), lambda: both.act(obs), lambda: both.play(obs, None)):
        with pytest.raises(UserError, match="recurrent is a population of 2; load one of them with member=0 to 1"):
            use()
    model = load("model")
    for use in (lambda: model.begin(3), lambda: model.act(obs), lambda: model.play(obs, None)):
        with pytest.raises(UserError, match="model is a run of vae, which has not a policy"):
            use()


def test_several_choices_at_once_on_the_host_are_learned_evaluated_and_filmed(call):
    gymnasium.register("Many-v0", Many)
    try:
        summary, _ = call("train", "reinforce", "--env-id", "Many-v0", "--baseline", "batch", "--num-envs", "2", "--time-limit",
                          "10", "--total-steps", "240", "--hidden-sizes", "8", "--eval-episodes", "3", "--out", "many")
        assert summary["updates"] == 6  # a rollout is twice the limit of two environments, of which some steps only reset
        assert 200 < summary["steps"] <= 240
        assert 100 <= summary["eval"]["return_mean"] <= 130
        assert Path("many", "policy.gif").exists()
        assert call("evaluate", "many")[0] == summary["eval"]
        act = load("many").act(np.zeros((5, 3)))
        assert (act.shape, act.dtype.kind) == ((5, 2), "i")
        more, said = call("resume", "many", "--total-steps", "320")
        assert 280 < more["steps"] <= 320
        assert "environments on the host cannot be saved" in said
    finally:
        del gymnasium.registry["Many-v0"]


# Looking


def test_evaluate_prints_what_training_found(call):
    for run, keys in (("agent", AGENT_EVAL), ("model", MODEL_EVAL)):
        found, said = call("evaluate", run)
        assert found == summary_of(run)["eval"]
        assert set(found) == keys
        assert said.startswith("step ")


def test_evaluate_of_an_agent_plays_as_many_episodes_as_asked_and_films_one(call):
    found, said = call("evaluate", "agent", "--episodes", "5", "--seed", "3", "--video", "film.gif")
    assert set(found) == AGENT_EVAL
    assert found["episodes"] == 5
    assert f"{found['return_mean']:.1f} +- {found['return_std']:.1f}" in said
    assert said.splitlines()[-1] == "film.gif"
    assert Image.open("film.gif").format == "GIF"
    assert call("evaluate", "agent", "--episodes", "5", "--seed", "3")[0] == found


def test_more_importance_samples_give_a_tighter_bound(call):
    one, _ = call("evaluate", "model", "--importance-samples", "1")
    many, said = call("evaluate", "model", "--importance-samples", "64")
    assert set(one) == set(many) == MODEL_EVAL | {"nll"}
    assert one["elbo"] == many["elbo"] == summary_of("model")["eval"]["elbo"]
    assert one["nll"] == pytest.approx(-one["elbo"], abs=0.5)
    assert many["nll"] < one["nll"]
    assert f"nll {many['nll']:.2f}" in said


def test_sample_draws_a_picture_that_its_seed_determines(call):
    found, said = call("sample", "model", "--num", "4", "--seed", "2", "--out", "a.png")
    assert found.pop("images_per_s") > 0
    assert all(found.pop(name) >= 0 for name in ("compile_s", "sample_s"))
    assert found == {"num": 4, "seed": 2, "out": "a.png"}
    assert said == "a.png\n"
    call("sample", "model", "--num", "4", "--seed", "2", "--out", "b.png")
    call("sample", "model", "--num", "4", "--seed", "3", "--out", "c.png")
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert Image.open("a.png").size == (2 + 2 * 58, 2 + 2 * 58)  # 2 x 2 images of 8 pixels, seven times as large


def test_plot_draws_runs_of_both_halves(call):
    found, _ = call("plot", "agent", "model", "--out", "curves.svg")
    assert found == {"runs": ["agent", "model"], "out": "curves.svg"}
    text = Path("curves.svg").read_text()
    assert "CartPole-v1" in text
    assert "digits" in text


def test_list_names_all_that_can_be_used_here(call, capsys):
    found, said = call("list")
    assert set(found) == {"algorithms", "presets", "environments", "datasets"}
    assert found["algorithms"].keys() == algorithms.ALGORITHMS.keys()
    assert found["presets"].keys() == algorithms.PRESETS.keys()
    assert found["environments"]["CartPole-v1"] == "device, host"
    assert found["environments"]["LunarLander-v3"] == "host"
    assert found["environments"]["Acrobot-v1"] == "device, host"
    assert found["datasets"].keys() >= {"digits", "mnist", "fashion_mnist", "idx", "cifar10"}
    assert cli.main(["list"]) == 0
    assert capsys.readouterr() == (said, "")


# From Python


def test_a_loaded_agent_acts_by_the_largest_value_of_its_network(here):
    run = load("agent")
    assert (run.step, run.settings) == (400, run_folder.open_run(Path("agent")))
    with pytest.raises(UserError, match="agent is a run of dqn, which has not a sampler"):
        run.sample(1)
    obs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    hidden, head = run.params.network["params"]["MLP_0"]["Dense_0"], run.params.network["params"]["QHead_0"]["Dense_0"]
    q = np.maximum(obs @ hidden["kernel"] + hidden["bias"], 0) @ head["kernel"] + head["bias"]
    clear = np.abs(q[:, 0] - q[:, 1]) > 1e-5
    assert clear.sum() > 150
    np.testing.assert_array_equal(run.act(obs)[clear], q.argmax(1)[clear])
    assert set(run.act(obs)) == {0, 1}


def test_the_best_parameters_are_those_of_the_first_best_evaluation(here):
    evaluations = [(row["step"], row["eval/return_mean"]) for row in read_metrics(Path("agent", "metrics.jsonl"))
                   if "eval/return_mean" in row]
    step, _ = max(evaluations, key=lambda e: (e[1], -e[0]))
    best = load("agent", best=True)
    assert best.step == step
    same_bits(best.params, load("agent", step=step).params)
    assert step == 400 or not np.array_equal(*(jax.tree.leaves(run.params)[1] for run in (best, load("agent"))))


def test_a_loaded_model_draws_images(here):
    run = load("model")
    images = run.sample(5, 3)
    assert (images.shape, images.dtype, run.step) == ((5, 8, 8, 1), np.float32, 20)
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_array_equal(images, run.sample(5, 3))
    assert np.abs(images - run.sample(5, 4)).max() > 1e-3
    with pytest.raises(UserError, match="member must lie between 0 and 0, got 1"):
        load("model", member=1)


def test_a_model_of_mnist_reads_the_folder_that_it_is_given(call, mnist_dir):
    summary, _ = call(*VAE, "--dataset", "mnist", "--data-dir", str(mnist_dir), "--out", "mnist")
    assert (summary["dataset"], summary["eval"]["num"], summary["steps"]) == ("mnist", 10_000, 20)
    assert -784 * math.log(2) * 1.1 < summary["eval"]["elbo"] < -200
    assert load("mnist").sample(2, 0).shape == (2, 28, 28, 1)
    moved = Path("moved")
    moved.symlink_to(mnist_dir)
    assert load("mnist", data_dir=moved).step == 20


# Help and status


@pytest.mark.parametrize("command", cli.commands())
def test_every_command_explains_itself(command, helped):
    assert f"usage: jaxdl {command}" in helped(command)


@pytest.mark.parametrize(("algo", "module"), [("dqn", dqn), ("vae", vae), ("cartpole", dqn), ("reinforce", reinforce),
                                              ("actor_critic", actor_critic), ("ppo", ppo)])
def test_the_help_of_an_algorithm_shows_every_field_with_its_default(algo, module, helped):
    text = " ".join(helped("train", algo).replace("│", " ").split())
    within = [type(x) for x in vars(module.Config()).values() if dataclasses.is_dataclass(x)]
    assert optim.Config in within
    for config in (module.Config, fit.Config, *within):
        for field in dataclasses.fields(config):
            if not dataclasses.is_dataclass(getattr(config(), field.name)):
                assert f"--{field.name.replace('_', '-')}" in text
    assert "--out" in text
    assert "--overwrite" in text
    assert "--config RUN/config.json" in text
    assert f"(default: {module.Config().optim.learning_rate})" in text
    assert ("(default: 490.0)" in text) == (algo == "cartpole")


def test_the_help_of_jaxdl_names_every_command_and_imports_nothing_heavy():
    program = ("import sys\nfrom jaxdl.experiments import cli\nstatus = cli.main(['--help'])\n"
               "print(status, sorted({'jax', 'numpy', 'gymnasium', 'matplotlib', 'orbax', 'tyro'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *text, last = done.stdout.splitlines()
    assert last == "0 []"
    assert all(any(line.startswith(f"  {command} ") for line in text) for command in cli.commands())


def test_without_a_command_the_help_is_shown_and_the_status_is_2(capsys):
    assert cli.main([]) == 2
    assert "  train ALGO " in capsys.readouterr().out
    assert cli.main(["-h"]) == 0
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("jaxdl 0.")


def test_debug_shows_where_a_mistake_was_found(here, capsys):
    argv = ["train", "dqn", "--gamma", "2"]
    assert cli.main(argv) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main([*argv, "--debug"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "require_unit" in said
    assert said.splitlines()[-1] == "jaxdl: gamma must be between 0 and 1, got 2.0"


def test_an_error_of_ours_is_status_1_and_named_as_such(monkeypatch, capsys):
    def fail(args):
        raise RuntimeError("a bug\nof ours")

    monkeypatch.setattr("jaxdl.experiments.commands.list.run", fail)
    assert cli.main(["list", "--json"]) == 1
    said = capsys.readouterr()
    assert said == ("", "jaxdl: RuntimeError: a bug of ours (an error in jaxdl itself; --debug shows where)\n")
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(["list", "--debug"])


@pytest.mark.parametrize(("kind", "status"), [(EnvError, 2), (EnvFailure, 1)])
def test_an_environment_that_cannot_be_had_is_status_2_and_one_that_fails_status_1(monkeypatch, capsys, kind, status):
    def fail(args):
        raise kind("Motor-v0 failed in step: it broke")

    monkeypatch.setattr("jaxdl.experiments.commands.list.run", fail)
    assert cli.main(["list"]) == status
    assert capsys.readouterr().err == "jaxdl: Motor-v0 failed in step: it broke\n"


def test_a_keyboard_interrupt_is_status_130(monkeypatch, capsys):
    def stop(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxdl.experiments.commands.list.run", stop)
    assert cli.main(["list"]) == 130
    assert capsys.readouterr().err == "jaxdl: interrupted\n"
    stdout = sys.stdout
    assert cli.main(["list", "--json"]) == 130
    assert sys.stdout is stdout


def test_programs_are_cached_where_the_command_line_says(tmp_path):
    """JAX reads where when it is imported: a command that imports it too early compiles everything anew."""
    code = "from jaxdl.experiments import cli; cli.main(['list']); import jax; print(jax.config.jax_compilation_cache_dir)"
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "jaxdl" / "programs")
