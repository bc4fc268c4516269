"""`layers`, `explain` and `attack` on a small run: what they tell, what they draw, and what they refuse."""

import numpy as np
import pytest
from PIL import Image
from tools import refused, run

from jaxdl.experiments import cli


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looking")
    small = ["--total-steps", "60", "--quick-compile", "--batch-size", "128"]
    for name, words in {"conv": ["classifier", "--conv-channels", "8", "12", "--hidden-sizes", "16"],
                        "mlp": ["classifier", "--network", "mlp", "--hidden-sizes", "12"], "numbers": ["regressor"]}.items():
        assert cli.main(["train", *words, *small, "--out", str(folder / name)]) == 0
    return folder


def test_layers_are_listed(capsys, trained):
    found = run(capsys, "layers", trained / "conv")["layers"]
    assert found["ConvEncoder_0/Conv_0"] == [4, 4, 8]
    assert found["head"] == [10]
    assert list(found)[-1] == "head"


def test_a_picture_of_every_method_and_a_table(capsys, trained):
    out = trained / "all.png"
    found = run(capsys, "explain", trained / "conv", "--method", "all", "--num", "2", "--out", out)
    assert set(found["methods"]) >= {"saliency", "integrated_gradients", "grad_cam", "guided", "occlusion"}
    for row in found["methods"].values():
        assert all(np.isfinite(value) for value in row.values())
        assert 0 <= row["deletion"] <= 1
    assert Image.open(out).size[0] > Image.open(out).size[1]


def test_a_class_can_be_asked_for(capsys, trained):
    out = trained / "one.png"
    found = run(capsys, "explain", trained / "mlp", "--method", "saliency", "--target", "3", "--num", "2", "--out", out)
    assert found["targets"] == [3, 3]


def test_attacks_break_more_than_noise_does_and_keep_their_bound(capsys, trained):
    found = {a: run(capsys, "attack", trained / "conv", "--attack", a, "--epsilon", "0.15", "--num", "100", "--steps", "10")
             for a in ("noise", "fgsm", "pgd", "apgd_ce")}
    kept = {a: row["robust_accuracy"] for a, row in found.items()}
    assert kept["noise"] > kept["fgsm"] >= kept["pgd"]
    for row in found.values():
        assert row["largest_linf"] <= np.float32(0.15)
        assert row["accuracy"] == found["noise"]["accuracy"]
    still = run(capsys, "attack", trained / "conv", "--attack", "fgsm", "--epsilon", "0")
    assert still["robust_accuracy"] == still["accuracy"] < 1  # what is wrong as it is stays as it is
    again = run(capsys, "attack", trained / "conv", "--attack", "pgd", "--epsilon", "0.15", "--num", "100", "--steps", "10")
    assert again == found["pgd"]


def test_all_four_attacks_one_after_the_other(capsys, trained):
    found = run(capsys, "attack", trained / "mlp", "--attack", "auto", "--epsilon", "0.05", "--num", "40", "--steps", "4")
    left = list(found["withstood"].values())
    assert left == sorted(left, reverse=True)
    assert left[-1] == found["robust_accuracy"]
    assert list(found["withstood"]) == ["no attack", "apgd_ce", "apgd_t", "fab_t", "square"]


@pytest.mark.parametrize(("words", "sentence"), [
    (["explain", "mlp", "--method", "grad_cam"], "no maps"),
    (["explain", "conv", "--method", "grad_cam", "--layer", "ConvEncoder_0/Conv_7"], "did you mean 'ConvEncoder_0/Conv_"),
    (["explain", "conv", "--target", "10"], "target"),
    (["explain", "conv", "--out", "x.jpg"], ".png"),
    (["explain", "numbers"], "no classes, actions or features"),
    (["layers", "numbers"], "no classes, actions or features"),
    (["attack", "numbers"], "tells no classes apart"),
    (["attack", "conv", "--epsilon", "-0.1"], "epsilon"),
    (["attack", "conv", "--epsilon", "1.5"], "epsilon"),
    (["attack", "conv", "--epsilon", "nan"], "epsilon"),
    (["attack", "conv", "--attack", "fgsm", "--restarts", "3"], "restarts"),
    (["attack", "conv", "--attack", "auto", "--target", "3"], "target"),
    (["attack", "conv", "--steps", "0"], "steps"),
])
def test_what_makes_no_sense_is_refused(capsys, trained, words, sentence):
    assert sentence in refused(capsys, words[0], trained / words[1], *words[2:])


@pytest.mark.parametrize(("method", "norm"), [("interval", "linf"), ("smoothing", "l2")])
def test_certified_accuracy_falls_with_the_size(capsys, trained, method, norm):
    out = trained / f"{method}.png"
    found = run(capsys, "certify", trained / "conv", "--method", method, "--num", "60", "--draws", "200", "--out", out)
    share = found["certified_accuracy"]
    assert found["norm"] == norm
    assert share == sorted(share, reverse=True)
    assert share[-1] < share[0]
    assert Image.open(out).size[0] > 100


def test_a_defence_is_learned_with_and_told(capsys, trained, tmp_path):
    out = tmp_path / "robust"
    words = ["--total-steps", "200", "--quick-compile", "--network", "mlp", "--hidden-sizes", "24", "--learning-rate", "1e-2"]
    words += ["--defence", "interval", "--epsilon", "0.05", "--ramp", "0.5"]
    assert cli.main(["train", "classifier", *words, "--out", str(out)]) == 0
    capsys.readouterr()
    found = run(capsys, "certify", out, "--epsilon", "0.05")["certified_accuracy"]
    assert found[0] > 0.8
    assert found[-1] > 0.3
