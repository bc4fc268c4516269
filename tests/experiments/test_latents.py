"""Commands on latents and features: paths by hand, and each command on small runs."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tools import refused, run

from jaxdl import data
from jaxdl.experiments import cli, latents
from jaxdl.experiments.commands import transfer
from jaxdl.generative import sample_judge


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a small VAE, GAN, VQ-VAE and autoencoder of the digits; judges train in a cache of their own."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_judge, "JUDGES", {name: (replace(config, total_steps=450), seed)
                                          for name, (config, seed) in sample_judge.JUDGES.items()})
        patch.setattr(sample_judge.files, "cache_folder", lambda: folder / "cache")
        small = {"vae": "--hidden-sizes 32 --latent-size 4 --total-steps 300", "autoencoder": "--network mlp --total-steps 200",
                 "vqvae": "--conv-channels 4 --total-steps 20", "gan": "--width 4 --latent-size 8 --total-steps 20"}
        for algo, flags in small.items():
            assert cli.main(["train", algo, *flags.split(), "--quick-compile", "--out", str(folder / algo)]) == 0
        yield folder


# --- Paths.


def test_a_straight_line_and_a_great_circle():
    a, b = jnp.array([3.0, 0.0]), jnp.array([0.0, 5.0])
    np.testing.assert_allclose(latents.linear(a, b, 0.25), [2.25, 1.25])
    for t in (0.0, 0.3, 1.0):
        on_circle = np.array([np.cos(t * np.pi / 2), np.sin(t * np.pi / 2)])
        np.testing.assert_allclose(latents.spherical(a, b, t), (3 + 2 * t) * on_circle, atol=1e-5)
    np.testing.assert_allclose(latents.spherical(a, a, 0.4), a, rtol=1e-5)
    np.testing.assert_allclose(latents.spherical(a, a + jnp.array([0, 1e-3]), 0.5), [3, 5e-4], rtol=1e-3)


def test_slant_is_pixels_to_the_right_for_a_pixel_up():
    image = np.zeros((3, 9, 9, 1))
    for i in range(9):
        image[0, i, 4] = image[1, 8 - i, i] = image[2, i, i] = 1.0
    np.testing.assert_allclose(latents.slant(image), [0, 1, -1], atol=1e-4)


def test_directions_and_class_means_by_hand():
    z = np.arange(20.0).reshape(20, 1) ** 2
    labels = np.repeat([0, 1], 10)
    direction = latents.direction(z, labels, -z[:, 0])  # more of it is a smaller z
    low, high = [(z[i] + z[i + 1]) / 2 for i in (0, 10)], [(z[i - 1] + z[i - 2]) / 2 for i in (10, 20)]
    np.testing.assert_allclose(direction, np.mean([a - b for a, b in zip(low, high, strict=True)], 0))
    np.testing.assert_allclose(latents.class_means(z, labels, 3), [z[:10].mean(0), z[10:].mean(0), z.mean(0)])


# --- Commands.


@pytest.mark.parametrize(("algo", "path"), [("vae", "linear"), ("autoencoder", "linear"), ("gan", "spherical")])
def test_interpolate(runs, capsys, tmp_path, algo, path):
    out = tmp_path / "between.png"
    told = run(capsys, "interpolate", runs / algo, "--num", 3, "--steps", 5, "--out", out)
    assert (told["path"], told["steps"]) == (path, 5)
    picture = np.asarray(Image.open(out))
    assert picture.shape == (3 * 58 + 2, 5 * 58 + 2)
    ends = [picture[2:58, 2 + 58 * j : 58 + 58 * j].astype(int) for j in (0, 1, 4)]
    assert np.abs(ends[0] - ends[1]).sum() < np.abs(ends[0] - ends[2]).sum()


def test_traverse_changes_one_number_a_row(runs, capsys, tmp_path):
    told = run(capsys, "traverse", runs / "vae", "--num", 3, "--steps", 4, "--out", tmp_path / "t.png")
    assert len(told["numbers"]) == 3
    assert Image.open(tmp_path / "t.png").size == (4 * 58 + 2, 3 * 58 + 2)


def test_arithmetic_changes_what_it_says(runs, capsys, tmp_path):
    told = run(capsys, "arithmetic", runs / "vae", "--num", 3, "--classes", 0, 1, "--out", tmp_path / "a.png")
    assert told["effect"]["ink"] > 0.5
    assert min(told["effect"]["to 0"], told["effect"]["to 1"]) > 0.3
    assert Image.open(tmp_path / "a.png").size[0] > 400


def test_features_judge_samples_beside_their_floor(runs, capsys):
    told = run(capsys, "evaluate", runs / "gan")
    assert told["num"] == 360
    assert told["classifier_accuracy"] > 0.8
    assert told["fid"] > 3 * told["fid_floor"] > 0
    assert told["fid_mlp"] > told["fid_mlp_floor"]
    assert {"kid", "precision", "recall", "density", "coverage", "modes", "histogram_kl", "classifier_sha256"} <= told.keys()
    both = run(capsys, "evaluate", runs / "vae", "--features")
    assert both["elbo"] < 0
    assert both["fid_floor"] == told["fid_floor"]
    assert both["classifier_sha256"] == told["classifier_sha256"]  # read back from the cache
    assert "fid" not in run(capsys, "evaluate", runs / "vae")


def test_a_damaged_judge_is_trained_again(runs, capsys):
    digits = [data.load("digits", split=split) for split in ("train", "test")]
    folder = runs / "cache"
    before = sample_judge.judge("mlp", *digits, folder)
    assert "training the mlp classifier" not in capsys.readouterr().out
    for manifest in folder.rglob("judges/mlp-*/*/manifest/manifest.json"):
        manifest.write_text("{}")
    after = sample_judge.judge("mlp", *digits, folder)
    assert "training the mlp classifier" in capsys.readouterr().out
    assert after.sha256 == before.sha256  # a fixed seed


def test_transfer_compares_three_beginnings(runs, capsys):
    told = run(capsys, "transfer", runs / "autoencoder", "--num-labels", 20, "--num-seeds", 2, "--steps", 100)
    found = told["labels"]["20"]
    assert found.keys() == set(transfer.BEGINNINGS)
    for scores in found.values():
        assert len(scores["accuracies"]) == 2
        assert scores["accuracies"][0] != scores["accuracies"][1]
        assert scores["accuracy_mean"] > 0.3


def test_labelled_images_are_as_many_of_each_class():
    digits = data.load("digits")
    images, labels = transfer.labelled(digits, 50, 0)
    assert np.bincount(labels).tolist() == [5] * 10
    assert len({image.tobytes() for image in images}) == 50
    assert not np.array_equal(transfer.labelled(digits, 50, 1)[0], images)


def test_what_cannot_be_done_is_said(runs, capsys, tmp_path):
    out = tmp_path / "x.png"
    assert "run of vqvae, and interpolate" in refused(capsys, "interpolate", runs / "vqvae", "--out", out)
    assert "vqvae, which draws no images" in refused(capsys, "sample", runs / "vqvae", "--out", out)
    assert "has no prior over its latents" in refused(capsys, "traverse", runs / "autoencoder", "--out", out)
    assert "must end in .png" in refused(capsys, "arithmetic", runs / "vae", "--out", tmp_path / "x.gif")
    assert "there is no folder" in refused(capsys, "interpolate", runs / "vae", "--out", tmp_path / "no" / "x.png")
    assert "between 0 and 9, got [10]" in refused(capsys, "arithmetic", runs / "vae", "--classes", 10, "--out", out)
    assert "steps must be between 2 and 100, got 1" in refused(capsys, "interpolate", runs / "vae", "--steps", 1, "--out", out)
    assert "vae, which has no encoder" in refused(capsys, "transfer", runs / "vae")
    assert "multiples of the 10 classes" in refused(capsys, "transfer", runs / "autoencoder", "--num-labels", 15)
    assert "--sample-quality is no flag" in refused(capsys, "evaluate", runs / "vqvae", "--sample-quality")
    assert "run of gan" in refused(capsys, "evaluate", runs / "gan", "--importance-samples", 5)
    assert not list(tmp_path.iterdir())
