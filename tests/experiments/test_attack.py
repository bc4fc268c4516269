"""`attack` on small runs that learned the digits: every attack by one command, what it tells, draws and refuses."""

import numpy as np
import pytest
from tools import refused, run

from jaxdl.core.errors import UserError
from jaxdl.experiments import cli, looking
from jaxdl.experiments.commands import attack

SMALL = ["--quick-compile", "--batch-size", "128", "--learning-rate", "3e-3"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    for name, words in {"mlp": ["--hidden-sizes", "32", "--total-steps", "250"],
                        "tanh": ["--hidden-sizes", "24", "--activation", "tanh", "--total-steps", "250"]}.items():
        assert cli.main(["train", "classifier", "--network", "mlp", *words, *SMALL, "--out", str(folder / name)]) == 0
    rng = np.random.default_rng(0)
    np.savez(folder / "fewer.npz", images=rng.integers(0, 256, (60, 8, 8, 1), np.uint8), labels=rng.integers(0, 3, 60))
    assert cli.main(["train", "classifier", "--dataset", "arrays", "--data-dir", str(folder / "fewer.npz"), "--network", "mlp",
                     "--hidden-sizes", "4", "--total-steps", "2", "--quick-compile", "--batch-size", "8", "--out",
                     str(folder / "fewer")]) == 0
    return folder


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_smallest_changes_are_counted_within_the_bound(capsys, trained, norm):
    epsilon = {"linf": 0.05, "l2": 0.5}[norm]
    for words in (["deepfool"], ["fab_t", "--steps", "10", "--restarts", "2"], ["carlini_wagner", "--steps", "40"]):
        if norm == "linf" and words[0] == "carlini_wagner":
            continue
        words = ["attack", trained / "mlp", "--attack", *words, "--norm", norm, "--num", "60", "--epsilon"]
        found = run(capsys, *words, str(epsilon))
        assert found[f"largest_{norm}"] <= np.float32(epsilon)
        assert found["found"] > 0.95
        assert 0 < found["median_size"] < 1.5
        of_half = run(capsys, *words, str(found["median_size"] * 1.0001))
        assert of_half["success"] == pytest.approx(0.5, abs=0.1)


def test_queries_are_counted(capsys, trained):
    words = ["attack", trained / "mlp", "--attack", "square", "--epsilon", "0.15", "--num", "60", "--queries"]
    few, many = (run(capsys, *words, str(n)) for n in (3, 200))
    assert few["robust_accuracy"] > many["robust_accuracy"]
    assert few["mean_queries"] <= 3 < many["mean_queries"] <= 200
    assert many["median_queries"] < many["mean_queries"]


def test_all_four_attacks_in_l2(capsys, trained):
    found = run(capsys, "attack", trained / "mlp", "--attack", "auto", "--norm", "l2", "--epsilon", "0.4", "--num", "40",
                "--steps", "4", "--queries", "20")
    left = list(found["withstood"].values())
    assert left == sorted(left, reverse=True)
    assert list(found["withstood"]) == ["no attack", "apgd_ce", "apgd_t", "fab_t", "square"]
    assert found["largest_l2"] <= np.float32(0.4)
    assert 0 < left[-1] == found["robust_accuracy"] < left[0]


def test_one_change_for_all_breaks_held_out_pictures_that_a_random_one_does_not(capsys, trained):
    words = ["attack", trained / "mlp", "--attack", "universal", "--epsilon", "0.2", "--steps", "60"]
    found = run(capsys, *words)
    assert found["robust_accuracy"] < found["random_accuracy"] - 0.2
    assert found["made_on_accuracy"] == pytest.approx(found["robust_accuracy"], abs=0.2)
    assert found["largest_linf"] <= np.float32(0.2)
    aimed = run(capsys, *words, "--target", "1")
    assert aimed["target_said"] > 0.3


def test_what_is_made_on_one_run_is_measured_on_others(capsys, trained):
    words = ["attack", trained / "mlp", "--epsilon", "0.15", "--steps", "10"]
    found = run(capsys, *words, "--on", trained / "tanh", trained / "mlp")
    row, itself = found["on"].values()
    assert itself == {"accuracy": found["accuracy"], "robust_accuracy": found["robust_accuracy"], "transferred": 1}
    noise = run(capsys, "attack", trained / "tanh", "--epsilon", "0.15", "--attack", "noise")
    assert found["robust_accuracy"] < row["robust_accuracy"] < noise["robust_accuracy"] - 0.1
    assert 0 < row["transferred"] < 1


def test_a_substitute_needs_answers_alone(capsys, trained):
    words = ["attack", trained / "mlp", "--epsilon", "0.15", "--steps", "10", "--num", "150"]
    found = run(capsys, *words, "--substitute", "20")
    assert found["num"] == 150
    assert found["substitute"]["answers"] == 320
    assert found["substitute"]["agreement"] > 0.6
    noise, itself = (run(capsys, *words, *more)["robust_accuracy"] for more in (["--attack", "noise"], []))
    assert itself < found["robust_accuracy"] < noise - 0.1


@pytest.mark.parametrize(("words", "sentence"), [
    (["--attack", "fab_t", "--target", "3"], "target"),
    (["--attack", "deepfool", "--restarts", "3"], "restarts"),
    (["--attack", "universal", "--restarts", "3"], "restarts"),
    (["--attack", "carlini_wagner"], "norm=linf"),
    (["--queries", "10"], "queries"),
    (["--target", "10"], "target"),
    (["--attack", "universal", "--target", "-1"], "target"),
    (["--norm", "l2", "--epsilon", "inf"], "epsilon"),
    (["--norm", "l2", "--epsilon", "9"], "epsilon"),
    (["--substitute", "0"], "substitute"),
    (["--substitute", "360"], "substitute must be less than the 360"),
    (["--substitute", "10", "--attack", "square"], "substitute=10"),
    (["--on", "FOLDER/tanh", "FOLDER/fewer"], "is of classes 0, 1, 2"),
    (["--on", "FOLDER/nothing"], "nothing"),
])
def test_what_makes_no_sense_is_refused(capsys, trained, words, sentence):
    words = [word.replace("FOLDER", str(trained)) for word in words]
    assert sentence in refused(capsys, "attack", trained / "mlp", *words)


def test_other_runs_are_of_the_same_pictures(trained):
    args = attack.Args(run=trained / "mlp")
    seen = looking.open_classifier(args, 1)
    with pytest.raises(UserError, match="of pictures 8, 8, 1"):
        attack.other_run(args, trained / "tanh", seen._replace(x=np.zeros((1, 9, 8, 1))))


def test_what_needs_more_classes_is_refused(capsys, trained):
    for words in (["auto"], ["apgd_dlr", "--target", "1"]):
        assert "classes" in refused(capsys, "attack", trained / "fewer", "--attack", *words)
