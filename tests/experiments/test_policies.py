"""`attack` and `explain` on agents: returns against the size of the attack, films of what an action depends on, refusals."""

import gymnasium
import numpy as np
import pytest
from PIL import Image
from tools import refused, run

from jaxdl.experiments import cli, policies
from jaxdl.rl.types import EnvSpec, Stack


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    small = ["--quick-compile", "--eval-episodes", "2"]
    for name, words in {
            "ppo": ["ppo", "--env-id", "CartPole-v1", "--total-steps", "512", "--num-envs", "4", "--rollout-steps", "32"],
            "dqn": ["dqn", "--env-id", "Breakout-MinAtar", "--total-steps", "400", "--learning-starts", "100"]}.items():
        assert cli.main(["train", *words, *small, "--out", str(folder / name)]) == 0
    return folder


def test_returns_are_told_for_each_size_beside_noise(capsys, trained):
    out = trained / "curve.png"
    found = run(capsys, "attack", trained / "ppo", "--attack", "fgsm", "--epsilon", "1", "--num", "4", "--out", out)
    assert list(found["curves"]) == ["noise", "fgsm"]
    assert [row["epsilon"] for row in found["curves"]["fgsm"]] == [0, 0.25, 0.5, 0.75, 1]
    assert found["curves"]["fgsm"][0]["return_mean"] == found["curves"]["noise"][0]["return_mean"]
    assert found["unit"] == "standard deviations"
    assert Image.open(out).size[0] > 100


@pytest.mark.parametrize(("name", "method"), [("ppo", "integrated_gradients"), ("dqn", "saliency")])
def test_a_film_of_what_an_action_depends_on(capsys, trained, name, method):
    out = trained / f"{name}.gif"
    found = run(capsys, "explain", trained / name, "--method", method, "--out", out)
    film = Image.open(out)
    assert 1 <= film.n_frames <= found["frames"]  # pictures that do not change are one
    assert film.size[0] > film.size[1]
    if name == "ppo":
        assert sum(found["shares"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("words", "sentence"), [
    (["attack", "--attack", "auto"], "attack=auto is of classifiers"),
    (["attack", "--epsilon", "-1"], "epsilon must be between"), (["attack", "--restarts", "2"], "restarts=2 is of classifiers"),
    (["attack", "--num", "0"], "num must be between"),
    (["explain", "--method", "saliency", "--out", "a.gif"], "method=saliency cannot be filmed in CartPole-v1"),
    (["explain", "--out", "a.png"], "video must end in .gif"),
    (["explain", "--target", "1", "--out", "a.gif"], "target=1 is of classes"),
    (["look", "--what", "maps", "--out", "a.png"], "what=maps is of pictures with classes"),
    (["certify"], "tells no classes apart")])
def test_what_is_not_of_policies_is_refused(capsys, trained, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in refused(capsys, words[0], trained / "ppo", *words[1:])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "what"), [("ppo", "tsne"), ("dqn", "pca"), ("ppo", "patches"), ("dqn", "patches")])
def test_states_are_laid_out_and_looked_for(capsys, trained, name, what):
    out = trained / f"{name}-{what}.png"
    found = run(capsys, "look", trained / name, "--what", what, "--out", out, *(["--num", "40"] if what != "patches" else []))
    assert found["layer"]
    assert Image.open(out).size[0] > 100
    if what != "patches":
        assert found["states"] == 40
    elif name == "ppo":
        assert len(found["deviations"][0]) == 4


def test_layers_of_policies_and_of_encoders_are_listed(capsys, trained, tmp_path):
    assert run(capsys, "layers", trained / "ppo")["layers"]["policy"] == [2]
    conv = run(capsys, "layers", trained / "dqn")["layers"]
    assert [8, 8, 16] in conv.values()
    words = ["autoencoder", "--total-steps", "2", "--network", "mlp", "--hidden-sizes", "12", "--quick-compile"]
    assert cli.main(["train", *words, "--out", str(tmp_path / "encoder")]) == 0
    assert [12] in run(capsys, "layers", tmp_path / "encoder")["layers"].values()
    words = ["--method", "saliency", "--num", "2", "--target", "3", "--out", tmp_path / "x.png"]
    assert run(capsys, "explain", tmp_path / "encoder", *words)["targets"] == [3, 3]
    assert cli.main(["train", "vae", "--total-steps", "2", "--quick-compile", "--out", str(tmp_path / "vae")]) == 0
    assert "no classes, actions or features" in refused(capsys, "layers", tmp_path / "vae")


@pytest.mark.parametrize(("shape", "stacked", "picture"), [
    ((4, 9, 8), True, (9, 8, 4)), ((2, 9, 8, 3), True, (9, 8, 6)), ((9, 8, 3), False, (9, 8, 3)), ((3, 9, 9), False, (9, 9, 3)),
    ((9, 8), False, (9, 8, 1)), ((5,), False, (5,))])
def test_observations_are_pictures_and_come_back(shape, stacked, picture):
    space = gymnasium.spaces.Box(0, 255, shape, np.uint8) if len(shape) > 1 else gymnasium.spaces.Box(-1, 1, shape, np.float32)
    spec = EnvSpec("Own-v0", space, gymnasium.spaces.Discrete(2), None, Stack(shape[0], "zero") if stacked else None)
    there, back = policies._as_pictures(spec)
    obs = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    assert there(obs).shape == (2, *picture)
    np.testing.assert_array_equal(back(there(obs)), obs)
