"""Run folders: made without touching anybody's, and `config.json` alone makes the run again."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from tools import refused

from jaxdl import optim
from jaxdl.agents import dqn, ppo
from jaxdl.core.errors import UserError
from jaxdl.experiments import algorithms, run_folder, tasks
from jaxdl.experiments.commands import resume
from jaxdl.generative import vae
from jaxdl.rl.task import TrainConfig
from jaxdl.runtime import fit

SETTINGS = [
    run_folder.Settings("dqn", dqn.Config(env_id="Acrobot-v1", gamma=0.123456789, hidden_sizes=(3, 5), double=True,
                                    optim=optim.Config(optimizer="adamw", weight_decay=0.1)),
                  TrainConfig(seed=7, eval_every=500, stop_at=12.5)),
    run_folder.Settings("vae", vae.Config(dataset="mnist", data_dir="somewhere", epochs=2, hidden_sizes=()), fit.Config()),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.algo)
def test_what_was_written_is_read(here, settings):
    run_folder.write_config(here, settings)
    assert run_folder.open_run(here) == settings
    values = json.loads((here / "config.json").read_text())
    assert list(values) == ["jaxdl", "algo", "config", "train"]
    assert values["algo"] == settings.algo
    assert os.listdir(here) == ["config.json"]


def test_settings_that_make_no_sense_are_refused_on_reading_too(here):
    run_folder.write_config(here, SETTINGS[0]._replace(train=TrainConfig(stop_at=1.0)))
    with pytest.raises(UserError, match=r"stop_at=1\.0.*eval_every"):
        run_folder.open_run(here)


@pytest.mark.parametrize("field", ["algo", "config", "train"])
def test_a_config_without_a_field_is_of_no_run(here, field):
    run_folder.write_config(here, SETTINGS[0])
    values = json.loads((here / "config.json").read_text())
    (here / "config.json").write_text(json.dumps({k: v for k, v in values.items() if k != field}))
    with pytest.raises(UserError, match=rf"config\.json is no run's config\.json: it has no field '{field}'"):
        run_folder.open_run(here)


def test_each_run_without_a_name_gets_a_folder_of_its_own(here):
    assert [str(run_folder.create(None, "dqn-x", False)) for _ in range(3)] == ["runs/dqn-x-1", "runs/dqn-x-2", "runs/dqn-x-3"]
    (here / "runs" / "dqn-x-2").rmdir()
    (here / "runs" / "dqn-x-4").write_text("a file")
    assert str(run_folder.create(None, "dqn-x", False)) == "runs/dqn-x-2"
    assert str(run_folder.create(None, "dqn-x", False)) == "runs/dqn-x-5"
    assert str(run_folder.create(None, "vae-x", False)) == "runs/vae-x-1"
    assert (here / "runs" / "dqn-x-4").read_text() == "a file"


def test_a_named_folder_is_made_with_those_above_it_or_taken_if_it_is_empty(here):
    new = here / "a" / "b" / "run"
    assert run_folder.create(new, "x", False) == new
    assert new.is_dir()
    assert run_folder.create(new, "x", False) == new
    assert not (here / "runs").exists()


def filled(folder):
    """A run with every file of ours and two of somebody's."""
    for name in ("metrics.jsonl", "summary.json", "curve.png", "policy.gif", "samples.png", "reconstructions.png",
                 "notes.txt", "checkpoints/20/arrays/d", "tensorboard/events", "best/20/manifest", "mine/checkpoints"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    run_folder.write_config(folder, SETTINGS[0])
    return folder


def paths(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_is_replaced_only_on_request_and_what_a_person_put_there_stays(here):
    run = filled(here / "run")
    before = paths(run)
    with pytest.raises(UserError, match=r"run already holds a run; .*'jaxdl resume .*run'.*--overwrite"):
        run_folder.create(run, "x", False)
    assert paths(run) == before
    assert run_folder.create(run, "x", True) == run
    assert paths(run) == {"notes.txt": b"notes.txt", "mine/checkpoints": b"mine/checkpoints"}
    assert sorted(os.listdir(run)) == ["mine", "notes.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_replaced(here, overwrite):
    run = filled(here / "run")
    (run / "config.json").unlink()
    (run / "config.json").mkdir()  # a folder of that name makes no run
    (here / "file").write_text("mine")
    before = paths(here)
    with pytest.raises(UserError, match="run is not empty and not a run folder"):
        run_folder.create(run, "x", overwrite)
    with pytest.raises(UserError, match="file is a file; --out takes a folder"):
        run_folder.create(here / "file", "x", overwrite)
    with pytest.raises(UserError, match="file/deeper cannot be made: Not a directory"):
        run_folder.create(here / "file" / "deeper", "x", overwrite)
    assert paths(here) == before


@pytest.mark.parametrize(("name", "words"), [
    ("missing", "there is no run folder missing"), ("file", "there is no run folder file"),
    ("empty", r"empty is not a run folder: it has no config\.json")])
def test_where_there_is_no_run_it_is_not_opened(here, name, words):
    (here / "file").write_text("")
    (here / "empty").mkdir()
    with pytest.raises(UserError, match=words):
        run_folder.open_run(type(here)(name))


def test_names_are_algorithms_or_presets_of_settings_that_exist():
    assert algorithms.find("vae") == ("vae", None)
    assert algorithms.find("double_dqn") == ("dqn", algorithms.PRESETS["double_dqn"])
    with pytest.raises(UserError, match=r"'dnq'; did you mean 'dqn'\?"):
        algorithms.find("dnq")
    assert not algorithms.PRESETS.keys() & algorithms.ALGORITHMS.keys()
    for preset in algorithms.PRESETS.values():
        found = algorithms.load(preset.algo)
        config, drive = (algorithms.replaced(c, values) for c, values in (
            (found.Config(), preset.config), ((found.TrainConfig or fit.Config)(), preset.train)))
        run_folder.Settings(preset.algo, config, drive).validate()


@pytest.mark.parametrize("name", algorithms.ALGORITHMS)
def test_the_defaults_of_every_algorithm_are_valid(name):
    run_folder.Settings(name, algorithms.load(name).Config(), fit.Config()).validate()


@pytest.mark.parametrize(("changes", "to", "said"), [
    ({}, 400, "ended at step 300, and from there to step 400 the rate stays at 0, so nothing more is learned; for a schedule "
              "over all of it, train a new run: jaxdl train ppo --config RUN/config.json --total-steps 400"),
    ({"final_fraction": 0.5, "learning_rate": 0.25}, 400, "the rate stays at 0.125; for"),
    ({"schedule": "constant"}, 400, None), ({}, 300, None), ({}, 200, None), ({}, None, None)])
def test_a_run_that_goes_on_past_the_end_of_a_schedule_says_what_becomes_of_the_rate(changes, to, said):
    config = ppo.Config(total_steps=300, optim=optim.Config(**changes))
    found = resume._past_schedules(Path("RUN"), run_folder.Settings("ppo", config, fit.Config(stop_step=to)), 300)
    assert (found is None) == (said is None)
    assert said is None or said in found


def test_a_flag_about_a_replay_memory_is_refused_where_there_is_none(here, capsys, monkeypatch):
    compiled = SimpleNamespace(without_memory=None, close=lambda: None)
    monkeypatch.setattr(tasks, "driver", lambda *args: compiled)
    said = refused(capsys, "train", "vae", "--no-checkpoint-memory", "--out", "run")
    assert "checkpoint_memory=False leaves the replay memory out of checkpoints, and vae has none" in said
    assert not (here / "run").exists()
