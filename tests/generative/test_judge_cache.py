"""A judge whose weights cannot be kept judges all the same."""

import pytest

from jaxdl import data
from jaxdl.generative import sample_judge
from jaxdl.supervised import classifier


@pytest.mark.parametrize("place", ["no home", "a file"])
def test_a_cache_that_cannot_be_had_is_left_out_with_a_word(monkeypatch, capsys, tmp_path, place):
    splits = data.load("digits"), data.load("digits", split="test")
    (tmp_path / "file").touch()
    config = classifier.Config(total_steps=20, network="mlp", hidden_sizes=(8,))
    monkeypatch.setattr(sample_judge, "JUDGES", {"mlp": (config, 0)})
    monkeypatch.setattr(sample_judge.files, "cache_folder", lambda: None if place == "no home" else tmp_path / "file")
    made = sample_judge.judge("mlp", *splits)
    assert made.classes(splits[1].images[:7]).shape == (7,)
    said = capsys.readouterr().err
    assert "the mlp classifier is not kept" in said
    assert len([line for line in said.splitlines() if line.startswith("jaxdl: ")]) == 1
