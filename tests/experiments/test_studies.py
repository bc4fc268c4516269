"""Studies: what each shows, in numbers, at a small size; and the command that runs them."""

import json

import jax
import numpy as np
import pytest

from jaxdl.experiments import cli
from jaxdl.experiments.commands import study
from jaxdl.experiments.studies import (
    common,
    initialization,
    learning_rate,
    optimizers,
    scaling_of_inputs,
    second_order,
    upsampling,
)


@pytest.fixture(scope="module")
def begun():
    """Six layers of 128 units, tanh and ReLU."""
    initializers = "zeros", "small", "large", "xavier", "he"
    return initialization.measure(6, 128, 128, jax.random.key(0), ("tanh", "relu"), initializers)["activations"]


def test_zeros_keep_all_units_of_a_layer_equal_and_others_do_not(begun):
    for rows in begun.values():
        assert rows["zeros"]["apart"] == 0
        assert min(row["apart"] for name, row in rows.items() if name != "zeros") > 0.01


def test_small_weights_vanish(begun):
    """128 inputs and weights of deviation 0.01 keep 0.11 of a signal, six such layers 2e-6 of it."""
    for rows in begun.values():
        assert rows["small"]["signal"][-1] < 3e-6
        assert rows["small"]["gradient"][0] < 3e-5
        steps = np.array(rows["small"]["signal"][1:]) / rows["small"]["signal"][:-1]
        assert np.all(steps < 0.13)


def test_large_weights_saturate_tanh_and_explode_relus(begun):
    assert min(begun["tanh"]["large"]["flat"]) > 0.75
    assert max(begun["tanh"]["xavier"]["flat"]) < 0.05
    assert begun["relu"]["large"]["signal"][-1] > 1e5


def test_xavier_keeps_tanh_and_he_keeps_relus(begun):
    tanh, relu = begun["tanh"]["xavier"], begun["relu"]["he"]
    assert tanh["signal"][-1] > 0.25
    assert 0.1 < tanh["gradient"][0] < 10
    assert 0.3 < relu["signal"][-1] / relu["signal"][0] < 3
    assert 0.2 < relu["gradient"][0] / relu["gradient"][-1] < 5
    lost = begun["relu"]["xavier"]["signal"][-1] / relu["signal"][-1]
    assert lost == pytest.approx(2**-3, rel=0.01)  # a ReLU halves the square: sqrt(1/2) a layer


def test_windows_that_meet_unevenly_leave_a_checkerboard():
    ways = "transposed_3", "transposed_2", "resize"
    rough = {way: upsampling.measure(upsampling.doubled(way, 4, jax.random.key(0))) for way in ways}
    assert rough["transposed_3"]["alike"] > 5 * rough["transposed_2"]["alike"]
    assert rough["transposed_2"]["random"] > 50 * rough["resize"]["random"]


def test_a_turned_ravine_takes_the_advantage_of_rules_that_divide_number_by_number():
    """With a curvature of 1,000 across: Adam and AdaGrad see the axes, the others do not, and SOAP finds them."""
    rules = ("sgd", "momentum", "adagrad", "adam", "soap", "newton_cg")
    found = optimizers.measure(2500, 11, rules, ("ravine", "ravine, turned"))["rules"]
    along, turned = ({rule: row[name]["updates"] or 2500 for rule, row in found.items()}
                     for name in ("ravine", "ravine, turned"))
    assert turned["adagrad"] > 50 * along["adagrad"]
    assert turned["adam"] > 4 * along["adam"]
    for rule in ("sgd", "momentum", "newton_cg"):
        assert turned[rule] == pytest.approx(along[rule], rel=0.05, abs=2)
    assert turned["soap"] < 2 * along["soap"]
    assert turned["soap"] < turned["adam"] / 3
    assert along["newton_cg"] <= 2


def test_rates_are_too_low_right_and_too_high(monkeypatch):
    monkeypatch.setattr(learning_rate, "SCHEDULES", {"constant": {}})
    found = learning_rate.measure(learning_rate.Args(updates=500, num_rates=3, high_rate=10**-1.5))  # 1e-4, 0.03, 10
    low, right, high = (row["loss"][-1] for row in found["rates"].values())
    assert right < 0.2 < 1 < low < 3 < high
    assert found["schedules"]["constant"]["loss"][-1] == pytest.approx(right, rel=0.5)


def test_inputs_a_thousand_times_as_large_are_not_learned_at_the_same_rate(monkeypatch):
    monkeypatch.setattr(scaling_of_inputs, "RULES", {"sgd": scaling_of_inputs.RULES["sgd"]})
    monkeypatch.setattr(scaling_of_inputs, "ACTIVATIONS", ("tanh",))
    rows = scaling_of_inputs.measure(scaling_of_inputs.Args(updates=300, num_rates=3))["activations"]["tanh"]
    accuracy = {name: row["sgd"]["accuracy"] for name, row in rows.items()}
    assert accuracy["as they are"] > 0.8
    assert accuracy["all x 1000"] < 0.3
    assert accuracy["half x 1000"] < 0.3
    assert accuracy["half x 1000, standardized"] > 0.8


def test_lbfgs_never_rises_and_its_searches_are_counted():
    loss, count = jax.jit(lambda: second_order.descend(second_order.WHOLE["lbfgs"], common.digits(), 25, jax.random.key(0)))()
    loss, count = np.asarray(loss), np.asarray(count)
    assert np.all(np.diff(loss) <= 1e-6)
    assert loss[-1] < loss[0] / 2
    assert np.all(np.diff(count)[count[:-1] < 25] >= 2)
    assert (loss[count >= 25] == loss[-1]).all()  # it stands still


def test_the_command_lists_studies_and_writes_a_table_and_a_picture(tmp_path, capsys):
    assert cli.main(["study", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["studies"]
    assert {"baselines", "initialization", "learning_rate", "optimizers", "scaling_of_inputs"} <= set(listed)
    out = tmp_path / "new" / "folder"
    argv = ["study", "initialization", "--num-layers", "2", "--width", "4", "--batch-size", "3", "--activations",
            "tanh", "--out", str(out), "--json"]
    assert cli.main(argv) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    table = json.loads((out / "initialization.json").read_text())
    assert table["command"] == f"jaxdl {' '.join(argv[:-3])} --out FOLDER"
    assert {name: table[name] for name in found} == found
    assert (out / "initialization.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("argv", "said"), [
    (["initialisation"], "no study 'initialisation'; did you mean 'initialization'"),
    (["initialization", "--activations", "prelu"], "activations=prelu is not measured here"),
    (["initialization", "--width", "0"], "width must be between 2 and 4096, got 0"),
    (["initialization", "--num-envs", "2"], "--num-envs is no flag of"),
    (["optimizers", "--seed", "-1"], "seed must be between 0"), (["common"], "no study 'common'")])
def test_mistakes_are_one_sentence(argv, said, capsys):
    assert cli.main(["study", *argv]) == 2
    assert said in capsys.readouterr().err


def test_every_study_has_its_line_and_its_flags():
    for name, summary in study.known().items():
        assert summary
        assert study.Args([name]).__dataclass_fields__.keys() >= {"name", "out", "seed"}
