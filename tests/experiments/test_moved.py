"""Runs whose dataset has moved: what needs no data asks for none, and the rest takes --data-dir."""

import json
import shutil

import numpy as np
import pytest
from tools import refused, run

from jaxdl.data import idx
from jaxdl.experiments import cli

VAE = ("train vae --dataset idx --hidden-sizes 8 --latent-size 2 --batch-size 16 --total-steps 10 --keep-checkpoints 20 "
       "--quick-compile")


def write(folder, side=8):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split in ("train", "test"):
        idx.write_split(folder, split, rng.integers(0, 256, (40, side, side), np.uint8), np.arange(40, dtype=np.uint8) % 3)


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A run of a dataset that was in `old` and is in `new`."""
    folder = tmp_path_factory.mktemp("moved")
    write(folder / "old")
    assert cli.main([*VAE.split(), "--data-dir", str(folder / "old"), "--out", str(folder / "run")]) == 0
    (folder / "old").rename(folder / "new")
    return folder


def test_drawing_asks_for_no_data(moved, capsys):
    run(capsys, "sample", moved / "run", "--num", 4, "--out", moved / "x.png")
    assert (moved / "x.png").is_file()


def test_what_reads_data_says_that_it_is_not_there_and_takes_another_folder(moved, capsys):
    assert "old does not exist" in refused(capsys, "evaluate", moved / "run")
    assert run(capsys, "evaluate", moved / "run", "--data-dir", moved / "new")["num"] == 40
    assert "old does not exist" in refused(capsys, "resume", moved / "run", "--total-steps", 20)
    write(moved / "wide", side=9)
    assert "is not the one that the run learned from: it has images of shape [9, 9, 1]" in refused(
        capsys, "evaluate", moved / "run", "--data-dir", moved / "wide")


def test_a_run_goes_on_with_its_data_in_another_folder_and_remembers_it(moved, capsys):
    shutil.copytree(moved / "run", moved / "copy")
    assert run(capsys, "resume", moved / "copy", "--total-steps", 20, "--data-dir", moved / "new")["steps"] == 20
    assert json.loads((moved / "copy" / "config.json").read_text())["config"]["data_dir"] == str(moved / "new")
    assert run(capsys, "evaluate", moved / "copy")["num"] == 40
    assert run(capsys, "evaluate", moved / "copy", "--step", 10) == run(
        capsys, "evaluate", moved / "run", "--data-dir", moved / "new")


def test_a_finished_run_says_so_without_its_data(moved, capsys):
    assert run(capsys, "resume", moved / "run")["steps"] == 10
