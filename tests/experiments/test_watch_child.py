"""The process that watches a command of a distributed run."""

import signal

import pytest

from jaxdl.experiments import watch_child


@pytest.fixture(autouse=True)
def handlers():
    """The signal handlers of the tests' own process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name", ["jaxdl.py", "jaxdl/__init__.py", "experiments/__init__.py"])
def test_the_child_runs_the_same_program_whatever_the_current_folder_holds(tmp_path, monkeypatch, capsys, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert watch_child.watch(["--version"]) == 0
    assert capsys.readouterr().out.startswith("jaxdl ")


def test_the_status_of_the_child_is_that_of_the_command(capsys):
    assert watch_child.watch(["no-such-command"]) == 2
    assert "no-such-command" in capsys.readouterr().err


def test_only_a_distributed_command_that_nobody_watches_is_watched(monkeypatch):
    assert watch_child.is_needed(["train", "dqn", "--distributed"])
    assert not watch_child.is_needed(["train", "dqn"])
    assert not watch_child.is_needed(["train", "--help", "--distributed"])
    monkeypatch.setenv("JAXDL_WATCHED", "1")
    assert not watch_child.is_needed(["train", "dqn", "--distributed"])
