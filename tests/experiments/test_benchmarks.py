"""Scripts that no test runs: what they import is there."""

import ast
import importlib
from pathlib import Path

import pytest

from jaxdl import experiments

FOLDER = Path(experiments.__file__).parent
SCRIPTS = sorted(path for part in ("benchmarks", "campaigns") for path in (FOLDER / part).glob("*.py"))


def imported(path):
    """(module, name) of each object of this library that a script imports, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxdl":
            yield from ((node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_what_scripts_import_is_there(path):
    for module, name in imported(path):
        found = importlib.import_module(module)
        if not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")
