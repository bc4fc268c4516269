"""Commands on several devices: training, going on with others, members as runs of their own, and scaling."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from tools import refused, run

from jaxdl.experiments import hlo_collectives
from jaxdl.experiments.tasks import load_run as load
from jaxdl.runtime import checkpoint
from jaxdl.runtime.run_log import read_metrics

SMALL = ("--num-envs", "4", "--rollout-steps", "8", "--num-minibatches", "2", "--eval-episodes", "1", "--quick-compile")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def devices_of(folder):
    steps = checkpoint.steps(Path(folder, "checkpoints"))
    return checkpoint.read_meta(Path(folder, "checkpoints"), steps[-1])["devices"]


def test_a_run_goes_from_one_number_of_devices_to_another(here, capsys):
    said = run(capsys, "train", "ppo", "--total-steps", "640", *SMALL, "--devices", "2", "--out", "a")
    assert (said["steps"], devices_of("a"), load("a").settings.train.devices) == (640, 2, 2)
    said = run(capsys, "resume", "a", "--devices", "4", "--total-steps", "960")
    assert (said["steps"], devices_of("a"), load("a").settings.train.devices) == (960, 4, 4)
    steps = [row["step"] for row in read_metrics(Path("a", "metrics.jsonl"))]
    assert steps == sorted(set(steps))


def test_a_member_is_a_run_of_its_own(here, capsys):
    run(capsys, "train", "ppo", "--total-steps", "640", *SMALL, "--num-seeds", "2", "--sweep", "learning_rate=1e-4,1e-2",
        "--devices", "2", "--checkpoint-every", "320", "--out", "all")
    said = run(capsys, "export", "all", "--member", "3", "--out", "one")
    assert said == {"run": "one", "member": 3, "seed": 1, "steps": 640, "learning_rate": 0.01}
    one, all_ = load("one"), load("all")
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y[3]), one.params, all_.params)
    assert one.settings.config.optim.learning_rate == 0.01
    assert (one.settings.train.seed, one.settings.train.num_seeds, one.settings.train.sweep, one.settings.train.devices) == (
        1, 1, (), 1)
    member = run(capsys, "evaluate", "all")["members"][3]
    assert run(capsys, "evaluate", "one", "--seed", "0") | {"seed": 1, "learning_rate": 0.01} == member
    rows = [json.loads(line) for line in Path("one", "metrics.jsonl").read_text().splitlines()]
    assert all(not isinstance(value, list) for row in rows for value in row.values())
    assert run(capsys, "resume", "one", "--total-steps", "960")["steps"] == 960
    assert "member must lie between 0 and 3, got 4" in refused(capsys, "export", "all", "--member", "4", "--out", "two")
    assert "is no population" in refused(capsys, "export", "one", "--member", "0", "--out", "two")
    assert "already holds a run" in refused(capsys, "export", "all", "--member", "0", "--out", "one")
    assert not Path("two").exists()


@pytest.mark.parametrize("mode", ["--strong", pytest.param("--weak", marks=pytest.mark.slow)])
def test_scaling_is_measured_and_drawn(here, capsys, mode):
    found = run(capsys, "scale", "ppo", *SMALL[:6], "--quick-compile", "--total-steps", "6400", "--devices", "1,2",
                "--seconds", "0.1", mode,
                "--out", "x.png")
    assert [row["devices"] for row in found["rows"]] == [1, 2]
    assert (found["mode"], found["virtual"]) == (mode[2:], True)
    one, two = found["rows"]
    assert (one["collectives"], one["collective_s"]) == ([], 0)
    gradient = 4 * two["parameters"]
    assert {"name": "all-reduce", "bytes": gradient, "times": 4 * 2} in two["collectives"]  # passes, minibatches
    assert sum(c["times"] for c in two["collectives"]) <= 4 * 2 + 8  # what minibatches are weighed by, all together
    assert two["collective_bytes"] >= 8 * gradient
    assert two["collective_s"] > 0
    assert Path("x.png").stat().st_size > 5_000


@pytest.mark.parametrize(("words", "part"), [
    ("", "an algorithm or a preset is needed: dqn"),
    ("ppo --devices 1,x", "devices must be numbers with commas between"),
    ("ppo --devices 0", "devices must be above 0"),
    ("ppo --devices 3", "num_envs=8 does not divide over 3 devices; 6 or 9 would"),
    ("ppo --devices 1,64 --num-envs 64", "devices=64, but JAX sees 8"),
    ("ppo --seconds never", "--seconds takes a number, got 'never'"),
    ("ppo --weak --strong", "not both"),
    ("ppo --out x.jpg", "out must be a .png"),
    ("pop", "did you mean 'ppo'"),
    ("ppo --devices", "--devices needs a value")])
def test_what_cannot_be_scaled_is_refused(here, capsys, words, part):
    assert part in refused(capsys, "scale", *words.split())


@pytest.mark.parametrize(("words", "part"), [
    ("train ppo --devices 3", "num_envs=8 does not divide over 3 devices; 6 or 9 would"),
    ("train ppo --devices 8 --num-minibatches 512 --num-envs 8 --rollout-steps 128", "on each of 8 devices: "),
    ("train ppo --devices 64 --num-envs 64", "devices=64, but JAX sees 8"),
    ("train ppo --devices 2 --num-seeds 3", "the number of members=3 does not divide over 2 devices; 2 or 4 would"),
    ("train ppo --devices 0", "devices must be above 0"),
    ("train ppo --coordinator x:1", "are for --distributed"),
    ("train dqn --buffer-size 800000000", "are free; lower what makes it large"),
])
def test_what_devices_cannot_share_is_refused(here, capsys, words, part):
    assert part in refused(capsys, *words.split(), "--out", "x")
    assert not Path("x").exists()


HLO = """HloModule x

%body.1 (p: (s32[], f32[5])) -> (s32[], f32[5]) {
  %psum.1 = f32[5]{0} all-reduce(%a), channel_id=1, replica_groups={{0,1}}, to_apply=%add
}

%outer.2 (p: (s32[])) -> (s32[]) {
  %psum.2 = (f32[], bf16[3]{0}) all-reduce(%a, %b), channel_id=1, to_apply=%add
  %w = (s32[], f32[5]) while(%t), condition=%cond, body=%body.1, backend_config={"known_trip_count":{"n":"7"}}
}

ENTRY %main.3 (p: f32[]) -> f32[] {
  %w2 = (s32[]) while(%t), condition=%cond, body=%outer.2
  %g = f32[8,2]{1,0} all-gather-start(%c), dimensions={0}
}
"""


def test_collectives_are_read_off_the_compiled_program():
    """A loop of a known length counts as often as it goes, one of another once."""
    assert hlo_collectives.of(HLO) == [("all-gather", 64, 1), ("all-reduce", 20, 7), ("all-reduce", 10, 1)]
    both = HLO.replace("body=%outer.2", "body=%outer.2\n  %w3 = (s32[], f32[5]) while(%t), condition=%cond, body=%body.1")
    for text in (both, HLO):  # a step seven times and once more, which may be reduced in other parts
        assert hlo_collectives.of(text, loop=7) == [("all-reduce", 20, 1)]
