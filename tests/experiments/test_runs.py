"""Run folders: made without touching anybody's, and `config.json` alone makes the run again."""

import json
import os
import shutil
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tools import other_process_holds, refused

from jaxdl import optim
from jaxdl.agents import dqn, ppo
from jaxdl.core.errors import CheckpointError, UserError
from jaxdl.experiments import algorithms, population, run_folder, run_report, tasks
from jaxdl.experiments.commands import export, resume
from jaxdl.generative import vae
from jaxdl.rl.task import TrainConfig
from jaxdl.runtime import checkpoint, dataset_task, fit

SETTINGS = [
    run_folder.Settings("dqn", dqn.Config(env_id="Acrobot-v1", gamma=0.123456789, hidden_sizes=(3, 5), double=True,
                                    optim=optim.Config(optimizer="adamw", weight_decay=0.1)),
                  TrainConfig(seed=7, eval_every=500, stop_at=12.5)),
    run_folder.Settings("vae", vae.Config(dataset="mnist", data_dir="somewhere", epochs=2, hidden_sizes=()),
                        dataset_task.TrainConfig(eval_every=50, validation=7)),
]


def create(*args):
    """The folder of a new run, its lock given back."""
    with run_folder.create(*args) as folder:
        return folder


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
    assert [str(create(None, "dqn-x", False)) for _ in range(3)] == ["runs/dqn-x-1", "runs/dqn-x-2", "runs/dqn-x-3"]
    shutil.rmtree(here / "runs" / "dqn-x-2")
    (here / "runs" / "dqn-x-4").write_text("a file")
    assert str(create(None, "dqn-x", False)) == "runs/dqn-x-2"
    assert str(create(None, "dqn-x", False)) == "runs/dqn-x-5"
    assert str(create(None, "vae-x", False)) == "runs/vae-x-1"
    assert (here / "runs" / "dqn-x-4").read_text() == "a file"


def test_a_named_folder_is_made_with_those_above_it_or_taken_if_it_is_empty(here):
    new = here / "a" / "b" / "run"
    assert create(new, "x", False) == new
    assert new.is_dir()
    assert create(new, "x", False) == new
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
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_run_is_replaced_only_on_request_and_what_a_person_put_there_stays(here):
    run = filled(here / "run")
    before = paths(run)
    with pytest.raises(UserError, match=r"run already holds a run; .*'jaxdl resume .*run'.*--overwrite"):
        create(run, "x", False)
    assert paths(run) == before
    assert create(run, "x", True) == run
    assert paths(run) == {"notes.txt": b"notes.txt", "mine/checkpoints": b"mine/checkpoints"}
    assert sorted(os.listdir(run)) == [".lock", "mine", "notes.txt"]


def test_of_links_in_a_run_that_is_replaced_the_link_goes_and_what_it_points_to_stays(here):
    run = filled(here / "run")
    (run / "checkpoints").rename(here / "scratch")
    (run / "checkpoints").symlink_to(here / "scratch")
    (run / "best").joinpath("40").symlink_to(here / "nowhere")
    create(run, "x", True)
    assert sorted(os.listdir(run)) == [".lock", "mine", "notes.txt"]
    assert (here / "scratch" / "20" / "arrays" / "d").read_text() == "checkpoints/20/arrays/d"


def test_a_run_that_cannot_be_replaced_as_a_whole_stays_as_a_whole(here, monkeypatch):
    run, rename = filled(here / "run"), type(here).rename
    before = paths(run)

    def fails(path, to):
        if path == run / "config.json":  # a file that may not be moved, say
            raise PermissionError(1, "Operation not permitted", str(path))
        return rename(path, to)

    monkeypatch.setattr(type(here), "rename", fails)
    with pytest.raises(UserError, match=r"config\.json cannot be made: Operation not permitted"):
        create(run, "x", True)
    assert paths(run) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_another_process_writes_is_not_replaced(here, overwrite):
    run = filled(here / "run")
    before = paths(run)
    with other_process_holds(run), pytest.raises(UserError, match=r"another process .* writes into|already holds a run"):
        create(run, "x", overwrite)
    assert paths(run) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_run_is_never_replaced(here, overwrite):
    run = filled(here / "run")
    (run / "config.json").unlink()
    (run / "config.json").mkdir()  # a folder of that name makes no run
    (here / "file").write_text("mine")
    before = paths(here)
    with pytest.raises(UserError, match="run is not empty and not a run folder"):
        create(run, "x", overwrite)
    with pytest.raises(UserError, match="file is a file; --out takes a folder"):
        create(here / "file", "x", overwrite)
    with pytest.raises(UserError, match="file/deeper cannot be made: Not a directory"):
        create(here / "file" / "deeper", "x", overwrite)
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


@pytest.mark.parametrize(("driven", "words"), [
    (fit.Config(num_seeds=10_001), "got num_seeds=10001"), (fit.Config(num_seeds=2 * 10**9), "got num_seeds=2000000000"),
    (fit.Config(sweep=tuple(f"{name}={','.join(map(str, range(1, 1001)))}" for name in ("learning_rate", "gamma", "eps"))),
     "num_seeds=1 times 1000 of learning_rate times 1000 of gamma"),
])
def test_members_are_counted_before_they_are_made(driven, words):
    with pytest.raises(UserError, match=f"a population has 1 to 10,000 members, .*{words}"):
        run_folder.Settings("dqn", dqn.Config(), driven).validate()


def test_as_many_members_as_may_be_are_made_and_each_value_of_a_sweep_is_validated_once(monkeypatch):
    validated = []
    driven = fit.Config(num_seeds=5_000, sweep=("gamma=0.9,0.8",))
    assert len(population.members(dqn.Config(), driven)) == 10_000
    settings = run_folder.Settings("dqn", dqn.Config(), driven)
    monkeypatch.setattr(run_folder.Settings, "algorithm", dqn.ALGORITHM._replace(validate=validated.append))
    settings.validate()
    assert [config.gamma for config in validated] == [0.99, 0.9, 0.8]


@pytest.mark.parametrize("devices", ["2", -1, 0, 1.5, 10**12, [2], None])
def test_devices_of_a_checkpoint_that_no_run_had_are_refused(tmp_path, devices):
    checkpoint.save(tmp_path, 1, {"w": np.zeros(2)}, meta={"devices": devices}, keep=1)
    with pytest.raises(CheckpointError, match="is damaged: the devices that wrote it are"):
        resume._devices(tmp_path, 1)


def test_an_exported_member_has_its_own_rows_or_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "wall_s": 0.5, "loss": [1, null], "steps_per_s": 7}\n')
    first, second = (export._rows(path, member, 2)[0] for member in (0, 1))
    assert first == {"step": 1, "wall_s": 0.5, "loss": 1.0, "steps_per_s": 7.0}
    assert np.isnan(second["loss"])
    with pytest.raises(UserError, match="has 2 numbers, and the run 3 members"):
        export._rows(path, 2, 3)


def test_a_folder_that_checkpoints_cannot_name_is_refused(here):
    with pytest.raises(UserError, match="has a name that is not UTF-8"):
        run_folder.create(Path(os.fsdecode(b"run\xe9")), "x", False).__enter__()
    assert not any(here.iterdir())


def test_what_comes_next_can_be_pasted():
    task = types.SimpleNamespace(abilities={}, describe=str)
    summary = {"steps": 1, "train_s": 1.0, "compile_s": 1.0, "steps_per_s": 1.0, "eval": None}
    lines = run_report.last_lines(Path("a b"), run_folder.Settings("dqn", None, None), task, summary, [])
    assert lines[-3:] == ["next: jaxdl evaluate 'a b'", "      tensorboard --logdir 'a b'", "      jaxdl train dqn --help"]


def test_a_run_that_is_there_is_continued_by_a_command_that_can_be_pasted(here):
    Path("a b").mkdir()
    run_folder.write_config(Path("a b"), SETTINGS[0])
    with pytest.raises(UserError, match="`jaxdl resume 'a b'`"):
        run_folder.check_out(Path("a b"), False)


def test_a_flag_about_a_replay_memory_is_refused_where_there_is_none(here, capsys, monkeypatch):
    compiled = SimpleNamespace(without_memory=None, close=lambda: None)
    monkeypatch.setattr(tasks, "driver", lambda *args: compiled)
    said = refused(capsys, "train", "vae", "--no-checkpoint-memory", "--out", "run")
    assert "checkpoint_memory=False leaves the replay memory out of checkpoints, and vae has none" in said
    assert not (here / "run").exists()
