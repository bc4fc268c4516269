"""`attack` on small runs that learned the digits: every attack by one command, what it tells, draws and refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tools import refused, run

from jaxdl.core.errors import UserError
from jaxdl.experiments import attack_pictures, attacking, cli, looking
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


def test_every_picture_is_drawn_and_tells_its_numbers(capsys, trained):
    def drawn(plot, *more):
        out = trained / f"{plot}.png"
        words = ["attack", trained / "mlp", "--num", "60", "--steps", "5", "--epsilon", "0.2", "--plot", plot, "--out", out]
        found = run(capsys, *words, *more)
        assert min(Image.open(out).size) > 300
        return found

    for plot in ("examples", "classes"):
        drawn(plot, "--attack", "fgsm")
    found = drawn("epsilon", "--attack", "fgsm")
    sizes, noise, fgsm, pgd = found["epsilon_curve"].values()
    assert (sizes[0], sizes[-1]) == (0, 0.2)
    assert noise[0] == fgsm[0] == pgd[0] == found["accuracy"]
    assert fgsm[-1] == found["robust_accuracy"]
    assert noise[-1] > fgsm[-1] >= pgd[-1]
    found = drawn("restarts", "--restarts", "4", "--epsilon", "0.1")
    one, worst = found["restarts_curve"].values()
    assert len(one) == 4
    assert worst == sorted(worst)
    assert worst[0] == one[0]
    assert worst[-1] >= max(one) > 1 - found["accuracy"]


def test_of_a_linear_function_a_map_is_the_same_in_every_row():
    """Of two classes the gradient is the one way that changes what is said: the border is a line across it, at its distance."""
    weights = jax.random.normal(jax.random.key(0), (12,))
    f = lambda x: jnp.stack([jnp.zeros(len(x)), x.reshape(len(x), -1) @ weights], -1)  # noqa: E731
    x = jax.random.uniform(jax.random.key(1), (5, 4, 3, 1))
    labels, far = f(x).argmax(-1), np.abs(f(x)[:, 1]) / np.linalg.norm(weights)
    said = attack_pictures.around(f, x, labels, attacking.Settings(norm="l2", epsilon=2.0))
    assert (said == said[:, :1]).all()
    at = np.linspace(-2, 2, said.shape[2])
    for row, label, distance in zip(said[:, 0], labels, far, strict=True):
        np.testing.assert_array_equal(row != label, at > distance)


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
    (["--plot", "classes"], "--out"),
    (["--plot", "restarts", "--out", "FOLDER/x.png"], "restarts=1"),
    (["--out", "FOLDER/x.jpg"], ".png"),
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
