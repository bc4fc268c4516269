"""What is installed: one package made of four folders, and nothing else at the top level."""

import ast
import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOP = {"jaxdl": "jaxdl", "agents": "jaxdl.agents", "generative": "jaxdl.generative", "experiments": "jaxdl.experiments"}
MODULES = sorted(path for folder in TOP for path in (ROOT / folder).rglob("*.py"))


def imported(path):
    """The names of the modules that a file imports, with those of `from` imports, wherever they stand in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def test_every_folder_with_python_files_is_packaged():
    folders = {path.parent.relative_to(ROOT).parts for path in MODULES}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == {".".join((TOP[first], *rest)) for first, *rest in folders}


def test_every_package_has_its_init():
    assert [path.parent for path in MODULES if not (path.parent / "__init__.py").exists()] == []


@pytest.mark.parametrize("folder", [*TOP, "tests"])
def test_the_four_folders_are_imported_as_jaxdl(folder):
    wrong = [(str(path.relative_to(ROOT)), name) for path in (ROOT / folder).rglob("*.py") for name in imported(path)
             if name.split(".")[0] in TOP.keys() - {"jaxdl"}]
    assert wrong == []


def test_every_dependency_is_imported():
    """What nothing imports is no dependency. jaxlib is what jax itself runs on."""
    names = {"jaxlib": "jax", "pillow": "PIL", "scikit-learn": "sklearn", "orbax-checkpoint": "orbax"}
    wanted = {re.match(r"[\w-]+", line).group() for line in PROJECT["project"]["dependencies"]}
    found = {name.split(".")[0] for path in MODULES for name in imported(path)}
    assert {name for name in wanted if names.get(name, name) not in found} == set()


def test_the_design_draws_every_module_and_no_other():
    text = (ROOT / "docs" / "design.md").read_text()
    tree = re.search(r"^## The tree\n.*?\n\n((?:    .*\n)+)", text, re.M | re.S)[1]
    drawn, above = set(), []
    for indent, name in re.findall(r"^    ( *)(\S+)", tree, re.M):
        above[len(indent) // 2:] = [name]
        if name.endswith(".py"):
            drawn.add("".join(above))
    assert drawn == {str(path.relative_to(ROOT)) for path in MODULES if path.name != "__init__.py"}
