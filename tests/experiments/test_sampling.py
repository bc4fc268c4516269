"""`jaxdl sample`, `complete`, `evaluate` of models that go pixel by pixel, and `encode`: a prior over a VQ-VAE's codes."""

import re

import numpy as np
import pytest
from PIL import Image
from tools import refused, run

from jaxdl import data
from jaxdl.experiments import cli, tasks

SMALL = "--width 4 --num-blocks 1 --window 3 --head-features 4 --batch-size 8 --total-steps 4 --quick-compile"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A small PixelCNN, PixelRNN and VQ-VAE of the digits."""
    folder = tmp_path_factory.mktemp("runs")
    small = {"pixelcnn": SMALL, "pixelrnn": SMALL, "vqvae": "--conv-channels 4 --num-codes 12 --total-steps 20 --quick-compile"}
    for algo, flags in small.items():
        assert cli.main(["train", algo, *flags.split(), "--out", str(folder / algo)]) == 0
    return folder


@pytest.mark.parametrize("algo", ["pixelcnn", "pixelrnn"])
def test_both_samplers_write_the_same_picture(runs, capsys, tmp_path, algo):
    for sampler in ("incremental", "naive"):
        told = run(capsys, "sample", runs / algo, "--num", 4, "--sampler", sampler, "--seed", 3,
                   "--out", tmp_path / f"{sampler}.png")
        assert told["num"] == 4
        assert min(told["compile_s"], told["sample_s"], told["images_per_s"]) > 0
    assert (tmp_path / "incremental.png").read_bytes() == (tmp_path / "naive.png").read_bytes()
    if algo == "pixelcnn":
        run(capsys, "sample", runs / algo, "--num", 4, "--temperature", 0.1, "--seed", 3, "--out", tmp_path / "cold.png")
        assert (tmp_path / "cold.png").read_bytes() != (tmp_path / "naive.png").read_bytes()


def test_complete_keeps_the_rows_that_are_given(runs, capsys, tmp_path):
    out = tmp_path / "rest.png"
    told = run(capsys, "complete", runs / "pixelcnn", "--rows", 3, "--num", 2, "--draws", 2, "--out", out)
    assert (told["rows"], told["num"], told["draws"]) == (3, 2, 2)
    picture = np.asarray(Image.open(out)).astype(int)
    side = (picture.shape[1] - 2) // 3
    first, second = (picture[2:side, 2 + side * j : side * (j + 1)] for j in (1, 2))
    rows = (side - 2) * 3 // 8
    np.testing.assert_array_equal(first[:rows], second[:rows])
    assert (first[rows:] != second[rows:]).any()


def test_a_film_shows_pixels_in_their_order(runs, capsys, tmp_path):
    out = tmp_path / "order.gif"
    run(capsys, "sample", runs / "pixelcnn", "--num", 1, "--out", out)
    with Image.open(out) as film:
        assert film.n_frames > 2
        grey = []
        for frame in (0, film.n_frames // 3, film.n_frames - 1):
            film.seek(frame)
            pixels = np.asarray(film.convert("L")).astype(int)
            grey.append((abs(pixels - 127) < 8).mean())
    assert grey[0] > grey[1] > grey[2] == 0


def test_evaluate_gives_nats_and_bits_and_training_leaves_their_curve(runs, capsys):
    assert (runs / "pixelrnn" / "curve.png").exists()
    told = run(capsys, "evaluate", runs / "pixelrnn")
    assert told["bits_per_dim"] == pytest.approx(told["nll"] / (64 * np.log(2)), rel=1e-5)
    assert 0.5 < told["bits_per_dim"] < 1.5


@pytest.mark.parametrize(("argv", "message"), [
    (("complete", "pixelcnn", "--rows", 8), "rows must be between 0 and 7, got 8"),
    (("complete", "pixelcnn", "--num", 361), "num must be at most 360"),
    (("complete", "vqvae"), "vqvae, which draws no images"),
    (("sample", "pixelcnn", "--temperature", 0), "temperature must be above 0, got 0"),
    (("sample", "vqvae"), "draws no images.*jaxdl encode"),
    (("sample", "pixelcnn", "--sampler", "quick"), "incremental"),
    (("evaluate", "pixelcnn", "--importance-samples", 5), "importance-samples is no flag.*run of pixelcnn"),
])
def test_what_cannot_be_drawn_is_refused(runs, capsys, tmp_path, argv, message):
    command, name, *flags = argv
    out = () if command == "evaluate" else ("--out", tmp_path / "a.png")
    assert cli.main([str(word) for word in (command, runs / name, *flags, *out)]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_prior_over_codes(runs, capsys, tmp_path, monkeypatch):
    told = run(capsys, "encode", runs / "vqvae", "--out", tmp_path / "codes")
    assert told["levels"] == 12
    digits, codes = data.load("digits", split="test"), data.load("idx", tmp_path / "codes", "test")
    assert codes.images.shape == (360, *told["shape"], 1)
    np.testing.assert_array_equal(codes.labels, digits.labels)
    assert (codes.images.astype(int) * 12 // 256).max() < 12
    assert len(np.unique(codes.images)) == len(np.unique(codes.images.astype(int) * 12 // 256))
    assert "exists" in refused(capsys, "encode", runs / "vqvae", "--out", tmp_path / "codes")
    assert "no codes" in refused(capsys, "encode", runs / "pixelcnn", "--out", tmp_path / "other")

    prior, out = tmp_path / "prior", tmp_path / "images.png"
    run(capsys, "train", "pixelcnn", "--dataset", "idx", "--data-dir", tmp_path / "codes", "--likelihood", "categorical",
        "--levels", 12, *SMALL.split(), "--out", prior)
    opened, real = [], tasks.reopen
    monkeypatch.setattr(tasks, "reopen", lambda settings: opened.append(settings.algo) or real(settings))
    run(capsys, "sample", "--decoder", runs / "vqvae", "--num=4", prior, "--out", out)  # the run is the one that stands alone
    assert sorted(opened) == ["pixelcnn", "vqvae"]  # each once
    assert len(np.unique(np.asarray(Image.open(out)))) > 12  # shades that no map of codes has
    assert "must be trained on what" in refused(capsys, "sample", runs / "pixelcnn", "--decoder", runs / "vqvae", "--out", out)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A VAE of the digits that takes the class."""
    folder = tmp_path_factory.mktemp("conditional") / "vae"
    assert cli.main(["train", "vae", "--conditional", "--hidden-sizes", "16", "--latent-size", "2", "--total-steps", "60",
                     "--learning-rate", "1e-2", "--quick-compile", "--out", str(folder)]) == 0
    return folder


def drawn(capsys, run_folder, out, *flags):
    told = run(capsys, "sample", run_folder, "--num", 6, *flags, "--out", out)
    found = np.load(out)
    return told, found["images"] if out.suffix == ".npz" else found, found["labels"] if "labels" in getattr(
        found, "files", ()) else None


def test_images_of_the_classes_that_are_asked_for_come_as_the_bytes_of_a_dataset(conditional, capsys, tmp_path):
    told, images, labels = drawn(capsys, conditional, tmp_path / "x.npz", "--label", 7)
    assert (told["label"], labels.tolist()) == ([7], [7] * 6)
    assert (images.shape, images.dtype) == ((6, 8, 8, 1), np.uint8)
    _, several, labels = drawn(capsys, conditional, tmp_path / "y.npz", "--label", 7, 0)
    assert labels.tolist() == [7, 0, 7, 0, 7, 0]
    np.testing.assert_array_equal(several[::2], images[::2])  # the same latents
    assert (several[1::2] != images[1::2]).any()
    _, in_turn, labels = drawn(capsys, conditional, tmp_path / "z.npy")
    assert labels is None
    _, asked, _ = drawn(capsys, conditional, tmp_path / "w.npy", "--label", *range(6))
    np.testing.assert_array_equal(in_turn, asked)
    np.savez(tmp_path / "again.npz", train_images=images, test_images=images)
    np.testing.assert_array_equal(data.load("arrays", tmp_path / "again.npz").images, images)


@pytest.mark.parametrize(("flags", "said"), [
    (["--label", "10", "--out", "x.png"], "label must be between 0 and 9, got 10"),
    (["--label", "-1", "--out", "x.png"], "label"),
    (["--out", "x.jpg"], "out must end in .png or .gif or .npz or .npy, got x.jpg"),
    (["--out", "none/x.npz"], "none/x.npz cannot be written")])
def test_what_cannot_be_drawn_or_written_is_refused_first(conditional, capsys, flags, said):
    assert said in refused(capsys, "sample", conditional, *flags)


def test_a_class_of_a_model_that_takes_none_is_refused(runs, capsys):
    said = refused(capsys, "sample", runs / "pixelcnn", "--label", 3, "--out", "x.png")
    assert "label=3 is for conditional models" in said
    assert "train one with --conditional" in said
