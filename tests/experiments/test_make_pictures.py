"""`ascend`, `dream`, `invert`, `texture` and `restyle`: what they make and tell, and what they refuse."""

import numpy as np
import pytest
from PIL import Image
from tools import refused, run

from jaxdl.data import photographs
from jaxdl.experiments import cli


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("make")
    small = ["--total-steps", "60", "--quick-compile", "--batch-size", "128"]
    for name, words in {"conv": ["classifier", "--conv-channels", "8", "12", "--hidden-sizes", "16"],
                        "mlp": ["classifier", "--network", "mlp", "--hidden-sizes", "12"]}.items():
        assert cli.main(["train", *words, *small, "--out", str(folder / name)]) == 0
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).save(folder / "own.png")
    Image.fromarray(np.zeros((2, 400), np.uint8)).save(folder / "flat.png")
    (folder / "words.png").write_text("no picture")
    return folder


def test_ascent_makes_a_picture_of_each_class(capsys, trained):
    out = trained / "a.png"
    found = run(capsys, "ascend", trained / "mlp", "--steps", "30", "--out", out)
    values = found["values"]["as asked"]
    assert found["units"] == list(range(10))
    assert (np.array(values["after"]) > values["before"]).all()
    one = run(capsys, "ascend", trained / "conv", "--layer", "ConvEncoder_0/Conv_1", "--unit", "11", "2", "--steps", "9",
              "--compare", "--out", out)
    assert one["units"] == [11, 2]
    assert set(one["values"]) >= {"nothing", "decay", "blur", "variation", "jitter", "as asked"}


def test_a_layer_is_inverted_at_each_depth(capsys, trained):
    found = run(capsys, "invert", trained / "conv", "--num", "2", "--steps", "60", "--out", trained / "i.png")["layers"]
    assert list(found) == ["ConvEncoder_0/Conv_0", "ConvEncoder_0/Conv_1", "ConvEncoder_0", "Dense_0", "head"]
    assert all(row["after"] < row["before"] for row in found.values())
    assert found["ConvEncoder_0/Conv_0"]["pixels"] < found["head"]["pixels"]


def test_a_dream_has_the_size_of_its_picture(capsys, trained):
    out = trained / "d.png"
    found = run(capsys, "dream", trained / "conv", "--picture", trained / "own.png", "--side", "24", "--octaves", "2",
                "--steps", "4", "--out", out)
    assert found["after"] > found["before"]
    assert Image.open(out).size == (24, 32)


@pytest.mark.parametrize("of", ["network", "random"])
def test_textures_and_styles(capsys, trained, of):
    words = [trained / "conv"] if of == "network" else []
    out, small = trained / "t.png", ["--side", "32", "--steps", "30"]
    found = run(capsys, "texture", *words, "--picture", "flower", *small, "--beside", "--out", out)
    assert found["after"] < 0.5 * found["before"]
    assert found["layers"] == (["ConvEncoder_0/Conv_0", "ConvEncoder_0"] if words else [])  # of 4x4, of 2x2
    assert Image.open(out).size == (68, 32)
    assert Image.open(out).mode == ("L" if words else "RGB")
    found = run(capsys, "restyle", *words, "--picture", trained / "own.png", *small, "--out", out)
    assert found["style"][1] < 0.7 * found["style"][0]
    assert found["content"][0] == 0
    assert Image.open(out).size == (32, 43)


def test_photographs_come_with_packages_and_are_cut_and_made_smaller():
    shapes = {name: photographs.read(name).shape for name in photographs.NAMES}
    assert shapes["china"] == shapes["flower"] == (427, 640, 3)
    assert {shapes[name] for name in ("brick", "grass", "gravel")} == {(512, 512, 1)}
    x = np.zeros((20, 40, 3), np.uint8)
    x[:, 10:30, 0] = 255
    np.testing.assert_allclose(photographs.prepared(x, 10, 3, square=True), np.broadcast_to([1.0, 0, 0], (10, 10, 3)))
    grey = photographs.prepared(x, 20, 1)
    np.testing.assert_allclose(grey[0, ::10, 0], [0, 0.299, 0.299, 0], atol=1e-6)
    assert photographs.prepared(x[..., :1], 20, 3).shape == (20, 40, 3)


@pytest.mark.parametrize(("words", "sentence"), [
    (["ascend", "RUN/conv", "--unit", "10"], "unit must be between 0 and 9"),
    (["ascend", "RUN/conv", "--layer", "Dense_0", "--unit", "16"], "unit must be between 0 and 15, of which Dense_0 has 16"),
    (["ascend", "RUN/conv", "--layer", "Dense_1"], "did you mean 'Dense_0'"),
    (["ascend", "RUN/conv", "--decay", "1"], "decay must be at least 0 and below 1"),
    (["ascend", "RUN/conv", "--steps", "0"], "steps"),
    (["ascend", "RUN/conv", "--rate", "0"], "rate"),
    (["invert", "RUN/conv", "--layers", "heed"], "did you mean 'head'"),
    (["dream", "RUN/mlp"], "no convolutions"),
    (["dream", "RUN/conv", "--layer", "head"], "head has no maps"),
    (["dream", "RUN/conv", "--picture", "roses"], "there is no picture 'roses'"),
    (["dream", "RUN/conv", "--picture", "RUN/words.png"], "no PNG or JPEG"),
    (["dream", "RUN/conv", "--picture", "RUN/flat.png"], "flat.png has 400 x 2 pixels"),
    (["dream", "RUN/conv", "--side", "2000"], "side must be between 16 and 1024"),
    (["dream", "RUN/conv", "--side", "16", "--octaves", "9"], "octaves must be between 1 and"),
    (["texture", "RUN/mlp"], "no convolutions"),
    (["texture", "--layers", "Conv_0"], "no run is given"),
    (["texture", "RUN/conv", "--layers", "head"], "head has no maps"),
    (["restyle", "--weight", "-1"], "weight"),
    (["restyle", "--out", "x.gif"], ".png"),
])
def test_what_makes_no_sense_is_refused(capsys, trained, words, sentence):
    assert sentence in refused(capsys, *(word.replace("RUN", str(trained)) for word in words))
