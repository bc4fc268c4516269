"""`look` on small runs: what it draws and tells, and what it refuses."""

import numpy as np
import pytest
from PIL import Image
from tools import refused, run

from jaxdl.experiments import cli, looks


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("look")
    small = ["--total-steps", "60", "--quick-compile", "--batch-size", "128"]
    for name, words in {"conv": ["classifier", "--conv-channels", "8", "12", "--hidden-sizes", "16"],
                        "mlp": ["classifier", "--network", "mlp", "--hidden-sizes", "12"], "numbers": ["regressor"]}.items():
        assert cli.main(["train", *words, *small, "--out", str(folder / name)]) == 0
    return folder


def test_filters_are_those_of_the_first_layer(capsys, trained):
    out = trained / "filters.png"
    found = run(capsys, "look", trained / "conv", "--what", "filters", "--out", out)
    assert (found["layer"], found["filters"]) == ("ConvEncoder_0/Conv_0", 8)
    assert Image.open(out).mode == "RGB"
    found = run(capsys, "look", trained / "mlp", "--what", "filters", "--num", "5", "--out", out)
    assert (found["layer"], found["filters"], found["window"]) == ("Dense_0", 12, [8, 8])  # weights on whole pictures


def test_maps_and_patches_of_a_layer(capsys, trained):
    out = trained / "x.png"
    found = run(capsys, "look", trained / "conv", "--what", "maps", "--num", "2", "--out", out)
    assert (found["layer"], found["shape"], len(found["channels"])) == ("ConvEncoder_0/Conv_0", [4, 4, 8], 8)
    found = run(capsys, "look", trained / "conv", "--num", "3", "--out", out)
    assert found["receptive_field"] == found["receptive_field"][::-1]
    assert np.shape(found["values"]) == (8, 3)
    assert (np.diff(found["values"]) <= 0).all()
    one = run(capsys, "look", trained / "conv", "--num", "3", "--unit", "6", "--out", out)
    assert one["values"] == [found["values"][6]]
    dense = run(capsys, "look", trained / "mlp", "--layer", "head", "--num", "4", "--out", out)
    assert (dense["receptive_field"], dense["units"]) == ([8, 8], 10)
    assert dense["share_of_one_class"] > 0.6  # what moves the unit of a class most is of it


@pytest.mark.parametrize("what", ["neighbours", "pca", "tsne"])
def test_how_pictures_lie_in_features(capsys, trained, what):
    out = trained / f"{what}.png"
    found = run(capsys, "look", trained / "conv", "--what", what, "--num", "30", "--out", out)
    assert found["layer"] == "Dense_0"
    assert min(value for name, value in found.items() if name.startswith("same_class")) > 0.2
    assert Image.open(out).size[0] > 300


def test_a_grid_has_a_cell_for_each_and_keeps_the_order(capsys, trained):
    places = np.random.default_rng(0).normal(size=(25, 2))
    at = looks.on_grid(places)
    assert len(np.unique(at, axis=0)) == 25
    assert np.corrcoef(at[:, 0], places[:, 1])[0, 1] > 0.8  # rows go down with y
    assert np.corrcoef(at[:, 1], places[:, 0])[0, 1] > 0.8
    run(capsys, "look", trained / "conv", "--what", "pca", "--num", "30", "--grid", "--out", trained / "grid.png")
    assert Image.open(trained / "grid.png").size == (48, 40)  # 30 pictures of 8x8, 6 a row, 5 rows


@pytest.mark.parametrize(("words", "sentence"), [
    (["mlp", "--what", "maps"], "no convolutions"),
    (["conv", "--what", "maps", "--layer", "head"], "head has no maps"),
    (["conv", "--layer", "ConvEncoder_0/Conv_7"], "did you mean 'ConvEncoder_0/Conv_"),
    (["conv", "--what", "filters", "--layer", "ConvEncoder_0/Conv_1"], "not linear"),
    (["conv", "--what", "pca", "--layer", "heads"], "did you mean 'head'"),
    (["conv", "--unit", "8"], "unit must be between 0 and 7"),
    (["conv", "--what", "maps", "--unit", "1"], "unit=1"),
    (["conv", "--grid"], "grid"),
    (["conv", "--num", "0"], "num"),
    (["conv", "--out", "x.jpg"], ".png"),
    (["numbers"], "tells no classes apart"),
])
def test_what_makes_no_sense_is_refused(capsys, trained, words, sentence):
    assert sentence in refused(capsys, "look", trained / words[0], *words[1:])
