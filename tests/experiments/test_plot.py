import io
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxdl.core import files
from jaxdl.core.errors import UserError
from jaxdl.experiments.plot import plot_runs
from jaxdl.metrics.seeds import bootstrap_interval, iqm
from jaxdl.runtime.run_log import open_log


@pytest.fixture
def axes_of(tmp_path, monkeypatch):
    """Draw runs; returns the axes of the picture, and checks what all pictures share."""
    seen = []
    real = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (seen.append(self), real(self, *a, **k)))

    def draw(*runs):
        plot_runs(runs, tmp_path / "out.png")
        for axes in seen[-1].axes:
            assert axes.get_xlabel() in ("environment steps", "updates")
            assert axes.get_title()
            assert axes.get_ylabel()
            assert axes.get_legend().get_texts()
        return seen[-1].axes

    return draw


def make(folder, rows, algo="dqn", **config):
    """A run folder with rows {step: values}."""
    config = config if "dataset" in config else {"env_id": "CartPole-v1"} | config
    folder.mkdir()
    members = max(np.size(value) for values in rows.values() for value in values.values()) if rows else 1
    files.write_json(folder / "config.json", {"jaxdl": "0", "algo": algo, "config": config,
                                              "train": {"seed": 0, "num_seeds": members}})
    log = open_log(folder)
    for step, values in rows.items():
        log.row(step, values)
    log.close()
    return folder


def curve(axes, start):
    """The points of the one line whose label starts so."""
    (line,) = [line for line in axes.get_lines() if line.get_label().startswith(start)]
    return line.get_xdata(), line.get_ydata()


def test_an_agents_evaluations_are_its_curve(axes_of, tmp_path):
    rows = {s: {"loss": 1.0, "episode_return": 1.0} | ({"eval/return_mean": s / 10} if s % 20 == 0 else {})
            for s in range(10, 101, 10)}
    (axes,) = axes_of(make(tmp_path / "a", rows))
    x, y = curve(axes, "dqn")
    np.testing.assert_array_equal(x, [20, 40, 60, 80, 100])
    np.testing.assert_array_equal(y, [2, 4, 6, 8, 10])
    assert "evaluation" in axes.get_ylabel()
    assert (axes.get_title(), axes.get_xlabel()) == ("CartPole-v1", "environment steps")


def test_with_one_evaluation_the_training_episodes_are_the_curve(axes_of, tmp_path):
    rows = {1: {"loss": 1.0}, 2: {"episode_return": 9.0}, 3: {"episode_return": 8.0, "eval/return_mean": 7.0}}
    (axes,) = axes_of(make(tmp_path / "a", rows))
    (training, evaluated) = axes.get_lines()
    np.testing.assert_array_equal(training.get_xydata(), [[2, 9], [3, 8]])
    np.testing.assert_array_equal(evaluated.get_xydata(), [[3, 7]])
    assert evaluated.get_marker() == "o"
    assert "training" in axes.get_ylabel()


def test_before_an_episode_ended_the_loss_is_what_there_is(axes_of, tmp_path):
    (axes,) = axes_of(make(tmp_path / "a", {1: {"loss": 3.0, "steps_per_s": 9.0}, 2: {"loss": 2.0}}))
    np.testing.assert_array_equal(curve(axes, "dqn")[1], [3, 2])
    assert axes.get_ylabel() == "loss"


def test_steps_of_a_short_run_are_whole_numbers_and_each_is_named_once(axes_of, tmp_path):
    (axes,) = axes_of(make(tmp_path / "a", {s: {"loss": 1.0 / s} for s in range(1, 6)}))
    names = [axes.xaxis.get_major_formatter()(x, None) for x in axes.get_xticks()]
    assert len(set(names)) == len(names)


def test_names_of_files_that_are_no_unicode_are_drawn_escaped(axes_of, tmp_path):
    (axes,) = axes_of(make(tmp_path / "a", {1: {"loss": 1.0}}, env_id="odd\udc80"))
    assert axes.get_title() == r"odd\udc80"


def test_a_generative_model_shows_its_elbo_and_the_held_out_one(axes_of, tmp_path):
    rows = {s: {"loss": 2.0, "elbo": -1000 / s, "kl": 1.0} | ({"eval/elbo": -1100 / s} if s % 50 == 0 else {})
            for s in range(1, 101)}
    (axes,) = axes_of(make(tmp_path / "a", rows, algo="vae", dataset="digits"))
    training, evaluated = axes.get_lines()
    np.testing.assert_allclose(training.get_ydata(), -1000 / np.arange(1, 101))
    np.testing.assert_allclose(evaluated.get_xydata(), [[50, -22], [100, -11]])
    assert evaluated.get_linestyle() == "--"
    assert "nats" in axes.get_ylabel()
    assert (axes.get_title(), axes.get_xlabel()) == ("digits", "updates")
    assert axes.get_ylim()[0] > -400  # -1000 at the first step does not flatten the rest ...
    assert axes.get_ylim()[1] > -10  # ... which is all there


def test_held_out_data_that_got_worse_is_inside_the_axes(axes_of, tmp_path):
    rows = {s: {"elbo": -90.0 - 1 / s, "eval/elbo": -90.0 - s} for s in range(1, 101)}
    (axes,) = axes_of(make(tmp_path / "a", rows, algo="vae", dataset="digits"))
    assert axes.get_ylim()[0] < -190


def test_few_seeds_are_a_mean_and_each_of_them_whatever_their_steps(axes_of, tmp_path):
    # straight lines, so that interpolation is exact; seeds log at steps of their own
    runs = [make(tmp_path / f"r{k}", {s: {"eval/return_mean": (k + 1) * s} for s in range(10 + k, 100 + 2 * k, 7 + k)})
            for k in range(3)]
    (axes,) = axes_of(*runs)
    x, y = curve(axes, "dqn: mean of 3 seeds")
    np.testing.assert_allclose(y, 2 * x)
    assert x[0] == 12  # the latest first step
    assert x[-1] == min(max(range(10 + k, 100 + 2 * k, 7 + k)) for k in range(3))
    assert len(axes.get_lines()) == 4
    assert not axes.collections


@pytest.mark.parametrize("population", [True, False])
def test_many_seeds_are_an_interquartile_mean_and_its_interval(axes_of, tmp_path, population):
    values = np.random.default_rng(0).normal(100, 30, (7, 5))  # seeds, steps
    values[6] = 500  # an outlier moves a mean, not this
    steps = range(10, 60, 10)
    if population:
        runs = [make(tmp_path / "a", {s: {"eval/return_mean": values[:, i]} for i, s in enumerate(steps)})]
    else:
        runs = [make(tmp_path / f"r{k}", {s: {"eval/return_mean": v[i]} for i, s in enumerate(steps)})
                for k, v in enumerate(values)]
    (axes,) = axes_of(*runs)
    (line,) = axes.get_lines()
    assert line.get_label() == "dqn: interquartile mean and 95 % interval of 7 seeds"
    np.testing.assert_allclose(line.get_ydata(), iqm(values))
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    low, high = bootstrap_interval(values)
    for i, s in enumerate(steps):
        at = corners[corners[:, 0] == s, 1]
        np.testing.assert_allclose([at.min(), at.max()], [low[i], high[i]])


def test_settings_are_kept_apart_and_named_by_what_differs(axes_of, tmp_path):
    rows = {1: {"eval/return_mean": 1.0}, 2: {"eval/return_mean": 2.0}}
    runs = [make(tmp_path / "a", rows, optim={"learning_rate": 0.1}, gamma=0.9),
            make(tmp_path / "b", rows, optim={"learning_rate": 0.2}, gamma=0.9),
            make(tmp_path / "c", rows, algo="ppo", gamma=0.8),
            make(tmp_path / "d", rows, env_id="Acrobot-v1"),
            make(tmp_path / "e", {1: {"eval/elbo": 1.0}}, "vae", dataset="digits", data_dir="x"),
            make(tmp_path / "f", {1: {"eval/elbo": 1.0}}, "vae", dataset="mnist", data_dir="x"),
            make(tmp_path / "g", {1: {"eval/elbo": 2.0}}, "vae", dataset="mnist", data_dir="y"), tmp_path / "a"]
    cartpole, acrobot, digits, mnist = axes_of(*runs)
    assert [t.get_text() for t in cartpole.get_legend().get_texts()] == [
        "dqn, learning_rate=0.1", "dqn, learning_rate=0.2", "ppo"]
    assert len({line.get_color() for line in cartpole.get_lines()}) == 3
    assert [axes.get_title() for axes in (acrobot, digits, mnist)] == ["Acrobot-v1", "digits", "mnist"]
    assert [t.get_text() for t in mnist.get_legend().get_texts()] == ["vae"]  # where data lies is no setting
    assert len(mnist.get_lines()) == 2


def test_of_more_than_two_settings_only_what_is_not_common_is_named(axes_of, tmp_path):
    rows = {1: {"eval/return_mean": 1.0}, 2: {"eval/return_mean": 2.0}}
    options = [{}, {"n_steps": 3}, {"dueling": True}, {"n_steps": 3, "dueling": True, "noisy": True}, {"gamma": 0.9}]
    runs = [make(tmp_path / str(i), rows, **{"gamma": 0.99, "n_steps": 1, "dueling": False, "noisy": False} | option)
            for i, option in enumerate(options)]
    (axes,) = axes_of(*runs, make(tmp_path / "other", rows, "ppo", gamma=0.5))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["dqn", "dqn, n_steps=3", "dqn, dueling=True", "dqn, dueling=True, n_steps=3, noisy=True",
                      "dqn, gamma=0.9", "ppo"]


@pytest.mark.parametrize(("metric", "best"), [("eval/return_mean", "gamma=0.9"), ("loss", "gamma=0.8")])
def test_the_best_of_an_algorithms_settings_is_named(axes_of, tmp_path, metric, best):
    """By what is better: a higher return, a lower loss; one seed alone says nothing."""
    runs = [make(tmp_path / f"{gamma}-{seed}", {step: {metric: 10 * gamma + seed} for step in (1, 2, 3)}, gamma=gamma)
            for gamma in (0.8, 0.9) for seed in (0, 1)]
    (axes,) = axes_of(*runs)
    assert [t.get_text().partition(":")[0] for t in axes.get_legend().get_texts() if "(best)" in t.get_text()] == [
        f"dqn, {best} (best)"]
    (axes,) = axes_of(*runs[::2])
    assert not any("best" in t.get_text() for t in axes.get_legend().get_texts())


def test_a_preset_is_known_by_its_settings_within_settings_too(axes_of, tmp_path):
    rows = {1: {"eval/return_mean": 1.0}, 2: {"eval/return_mean": 2.0}}
    of_preset = {"rollout_steps": 32, "total_steps": 100_000, "clip_range": 0.2}
    (axes,) = axes_of(make(tmp_path / "a", rows, "ppo", **of_preset, optim={"learning_rate": 3e-3}),
                      make(tmp_path / "b", rows, "ppo", **of_preset | {"clip_range": 0.1}, optim={"learning_rate": 3e-3}),
                      make(tmp_path / "c", rows, "ppo", **of_preset, optim={"learning_rate": 1e-3}))
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["ppo_cartpole, clip_range=0.2", "ppo_cartpole, clip_range=0.1", "ppo"]


def test_settings_of_a_task_share_a_measure_or_have_axes_of_their_own(axes_of, tmp_path):
    both = {s: {"eval/return_mean": 1.0, "episode_return": 2.0} for s in (1, 2)}
    episodes = {s: {"episode_return": 3.0} for s in (1, 2)}
    a, b = make(tmp_path / "a", both, "dqn"), make(tmp_path / "b", episodes, "ppo")
    (axes,) = axes_of(a, b)
    np.testing.assert_array_equal(curve(axes, "ppo")[1], [3, 3])
    assert [list(line.get_ydata()) for line in axes.get_lines() if line.get_label() == "dqn"] == [[2, 2]]
    c = make(tmp_path / "c", {1: {"loss": 1.0}, 2: {"loss": 1.0}}, "reinforce")
    assert len(axes_of(b, c)) == 2


def test_numbers_that_are_not_finite_and_absent_members_are_left_out(axes_of, tmp_path):
    rows = {1: {"eval/return_mean": np.array([1.0, np.nan])}, 2: {"eval/return_mean": np.array([np.inf, 5.0])},
            3: {"eval/return_mean": np.array([3.0, 6.0])}}
    (axes,) = axes_of(make(tmp_path / "a", rows))
    thin = [line.get_xydata().tolist() for line in axes.get_lines() if line.get_label().startswith("_")]
    assert thin == [[[1, 1], [3, 3]], [[2, 5], [3, 6]]]
    x, y = curve(axes, "dqn: mean of 2 seeds")
    np.testing.assert_array_equal((x, y), [[2, 3], [3.5, 4.5]])


def test_seeds_without_common_steps_are_drawn_one_by_one(axes_of, tmp_path):
    runs = [make(tmp_path / f"r{k}", {s: {"eval/return_mean": 1.0} for s in (10 * k, 10 * k + 5)}) for k in range(8)]
    (axes,) = axes_of(*runs)
    assert len(axes.get_lines()) == 8
    assert len(axes.get_legend().get_texts()) == 1


@pytest.mark.parametrize(("name", "start"), [("c.png", b"\x89PNG"), ("c.SVG", b"<?xml"), ("c.pdf", b"%PDF")])
def test_the_suffix_chooses_the_format(tmp_path, name, start):
    plot_runs([make(tmp_path / "a", {1: {"loss": 3.0}, 2: {"loss": 2.0}})], tmp_path / name)
    data = (tmp_path / name).read_bytes()
    assert data.startswith(start)
    if name == "c.png":
        assert Image.open(io.BytesIO(data)).size == (800, 500)


def test_what_cannot_be_drawn_is_one_sentence_and_no_file(tmp_path):
    good = make(tmp_path / "good", {1: {"loss": 3.0}})
    (tmp_path / "empty").mkdir()
    none = make(tmp_path / "none", {})
    (tmp_path / "early").mkdir()
    files.write_json(tmp_path / "early" / "config.json", files.read_json(good / "config.json", 1000))
    nothing = make(tmp_path / "nothing", {1: {"loss": np.nan, "steps_per_s": 1.0}})
    strange = make(tmp_path / "strange", {1: {"loss": 3.0}})
    files.write_json(strange / "config.json", {"algo": "dqn", "config": {}})
    torn = make(tmp_path / "torn", {1: {"loss": 3.0}})
    (torn / "metrics.jsonl").write_text("{\n{}\n")
    for runs, out, sentence in [
        ([tmp_path / "absent"], "c.png", "absent is not a run folder"),
        ([good, tmp_path / "empty"], "c.png", "empty is not a run folder: it has no config.json"),
        ([none], "c.png", "none has nothing to draw yet"),
        ([tmp_path / "early"], "c.png", "early has nothing to draw yet"),
        ([nothing], "c.png", "nothing has nothing to draw yet"),
        ([strange], "c.png", "strange.* is not of a run"),
        ([torn], "c.png", "line 1 is damaged"),
        ([], "c.png", "at least one run folder"),
        ([good], "c.jpg", r"must end in one of \.png, \.svg, \.pdf"),
        ([good], "missing/c.png", "there is no folder .*missing"),
    ]:
        with pytest.raises(UserError, match=sentence) as e:
            plot_runs(runs, tmp_path / out)
        assert "\n" not in str(e.value)
        assert not (tmp_path / out).exists()


def test_importing_it_does_not_load_what_draws():
    program = ("import sys, jaxdl.experiments.plot, jaxdl.data.pictures\n"
               "print({'matplotlib', 'PIL', 'tyro'} & set(sys.modules))")
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(("train", "words"), [
    ({"num_seeds": 3}, "line 1 is damaged .*has 2 numbers, and the run 3 members"),
    ({"num_seeds": 10**12}, "a population has 1 to 10,000 members, got num_seeds=1000000000000"),
    ({"num_seeds": "2"}, "num_seeds='2'"), ({"num_seeds": -1}, "num_seeds=-1"), ({"num_seeds": 2, "sweep": 3}, "must be texts"),
    ({"num_seeds": 2, "sweep": [f"{name}=" + ",".join(map(str, range(1000))) for name in ("gamma", "eps", "lr_decay")]},
     "num_seeds=2 times 1000 of gamma times 1000 of eps times"),
])
def test_members_are_counted_before_they_are_made(axes_of, tmp_path, train, words):
    run = make(tmp_path / "a", {1: {"eval/return_mean": np.array([1.0, 2.0])}})
    config = files.read_json(run / "config.json", 10_000)
    files.write_json(run / "config.json", config | {"train": train})
    with pytest.raises(UserError, match=words):
        axes_of(run)
