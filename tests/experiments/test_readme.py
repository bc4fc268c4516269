"""Blocks of the documentation marked as tested run as they stand, one folder a page."""

import re
from pathlib import Path

import pytest

from jaxdl.experiments import cli

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/usage.md")
BLOCKS = [(page, *block) for page in PAGES
          for block in re.findall(r"<!-- tested -->\n```(\w+)\n(.*?)```", (ROOT / page).read_text(), re.S)]


@pytest.mark.parametrize(("page", "language", "text"), BLOCKS,
                         ids=[f"{page} {text.strip().splitlines()[0][:60]}" for page, _, text in BLOCKS])
def test_the_quickstarts_run(page, language, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if language == "python":
        exec(compile(text, page, "exec"), {"__name__": "readme"})
        return
    for line in text.splitlines():
        command = line.split("#")[0].split()
        assert command[0] == "jaxdl"
        assert cli.main(command[1:]) == 0, line


@pytest.mark.parametrize("page", PAGES)
def test_each_page_has_tested_commands_and_tested_python(page):
    assert {language for where, language, _ in BLOCKS if where == page} == {"python", "sh"}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))])
def test_files_that_are_named_are_there(page):
    named = re.findall(r"`((?:tests|docs|experiments|jaxdl|agents|generative)/[\w/]+\.\w+)`", (ROOT / page).read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]))
def test_links_lead_to_files_that_are_there(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.S)
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []
