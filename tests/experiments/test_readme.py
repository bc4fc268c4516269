import re
from pathlib import Path

import pytest

from jaxdl.experiments import cli

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"<!-- tested -->\n```(\w+)\n(.*?)```", README.read_text(), re.S)


@pytest.mark.parametrize(("language", "text"), BLOCKS, ids=[text.strip().splitlines()[0][:60] for _, text in BLOCKS])
def test_the_quickstarts_run(language, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if language == "python":
        exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
        return
    for line in text.splitlines():
        command = line.split("#")[0].split()
        assert command[0] == "jaxdl"
        assert cli.main(command[1:]) == 0, line


def test_there_are_quickstarts_of_both_halves():
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert "dqn" in README.read_text()
    assert "vae" in README.read_text()
