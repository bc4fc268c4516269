"""Words of a command line to settings."""

import os

import pytest

from jaxdl.core.errors import UserError
from jaxdl.experiments import arguments
from jaxdl.experiments.commands import train


def parsed(*words):
    return arguments.parse(train.args_of("dqn"), ["dqn", *words], "jaxdl train", "")


@pytest.mark.parametrize(("words", "value"), [
    (["--total-steps", "1e5"], 100_000), (["--total-steps=2.5E3"], 2500), (["--total-steps", "1e+2"], 100),
    (["--total_steps", "12"], 12), (["--total-steps", "1.e1"], 10), (["--total-steps", "-1e3"], -1000),
])
def test_whole_numbers_may_be_in_scientific_notation(words, value):
    found = parsed(*words).algorithm.total_steps
    assert (found, type(found)) == (value, int)


def test_so_may_those_of_a_list_and_those_that_may_be_absent_and_numbers_stay_numbers():
    found = parsed("--hidden-sizes", "1e2", "64", "--stop-step", "1e3", "--learning-rate", "1e-3", "--out", "1e5")
    assert (found.algorithm.hidden_sizes, found.run.stop_step, found.algorithm.optim.learning_rate) == ((100, 64), 1000, 1e-3)
    assert str(found.out) == "1e5"


@pytest.mark.parametrize("value", ["1e-5", "1.55e1", "1e", "e5", "1e999", "1e5x", "inf"])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(UserError, match="--total-steps takes a whole number"):
        parsed("--total-steps", value)


def test_a_number_of_four_hundred_digits_is_refused_by_its_flag():
    with pytest.raises(UserError, match="--total-steps takes whole numbers of at most 100 digits, got one of 400"):
        parsed("--total-steps", "9" * 400)


@pytest.mark.parametrize("columns", ["1", "nonsense", None])
def test_help_ends_in_a_terminal_of_one_column(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns) if columns else monkeypatch.delenv("COLUMNS", raising=False)
    with pytest.raises(SystemExit) as ended:  # at one column it would not end for minutes
        parsed("--help")
    assert ended.value.code == 0
    assert "--total-steps" in capsys.readouterr().out
    assert os.environ.get("COLUMNS") == columns
