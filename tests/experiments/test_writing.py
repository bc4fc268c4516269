"""`jaxdl train language_model`, `evaluate`, `resume` and `sample`: texts that continue a prompt."""

import numpy as np
import pytest
from tools import refused, run

from jaxdl.experiments import cli

TEXT = "the cat sees a dog.\none bird hears the cat.\n" * 40
SMALL = "--num-layers 1 --hidden-size 8 --batch-size 4 --window 8 --quick-compile"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small LSTM, and another that was stopped half-way and resumed."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(TEXT)
    for name, steps in (("whole", 20), ("resumed", 10)):
        assert cli.main(["train", "language_model", "--dataset", "text", "--data-dir", str(folder / "text.txt"), *SMALL.split(),
                         "--schedule", "constant", "--total-steps", str(steps), "--out",
                         str(folder / name)]) == 0
    assert cli.main(["resume", str(folder / "resumed"), "--total-steps", "20"]) == 0
    return folder


def test_a_resumed_run_is_the_whole_one(trained, capsys):
    whole, resumed = (run(capsys, "evaluate", trained / name) for name in ("whole", "resumed"))
    assert whole["nll"] == resumed["nll"]
    assert whole["bits_per_character"] == pytest.approx(whole["nll"] / np.log(2))
    assert 0 < whole["nll"] < np.log(len(set(TEXT))) + 0.1


def test_texts_begin_with_the_prompt_and_depend_on_the_seed(trained, capsys, tmp_path):
    def written(*flags):
        return run(capsys, "sample", trained / "whole", "--prompt", "the cat", "--length", 40, *flags)["texts"]

    (text,) = written("--seed", 1)
    assert text.startswith("the cat")
    assert len(text) == 47
    assert set(text) <= set(TEXT)
    assert written("--seed", 1) == [text] != written("--seed", 2)
    several = written("--num", 3, "--out", tmp_path / "texts.txt")
    assert len(set(several)) == 3
    assert (tmp_path / "texts.txt").read_text() == "\n\n".join(several)
    assert len(set(written("--num", 2, "--temperature", 0))) == 1


def test_texts_that_cannot_be_learned_are_refused(trained, capsys, tmp_path):
    for text, flags, message in (
            ("a" * 500, (), "needs two different characters or more, and text has 1"),
            ("ab" * 5, ("--window", 2), "judged by two characters or more, and the held-out text has 1"),
            ("ab" * 50, ("--batch-size", 1, "--window", 90), "window=90 items take 91 items, and the data has 90")):
        (tmp_path / "a.txt").write_text(text)
        assert message in refused(capsys, "train", "language_model", "--dataset", "text", "--data-dir", tmp_path / "a.txt",
                                  *SMALL.split(), *flags, "--out", tmp_path / "run")
        assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_cannot_be_written_is_refused(trained, capsys):
    for flags, message in ((("--prompt", "the cät"), "'ä'"), (("--top-k", 0), "top_k must be above 0, got 0"),
                           (("--temperature", -1), "temperature must be between 0"), (("--length", 0), "length"),
                           (("--out", "nowhere/a.txt"), "nowhere"), (("--step", 7), "there is no checkpoint of step 7")):
        assert message in refused(capsys, "sample", trained / "whole", *flags)
