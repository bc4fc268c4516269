"""Objects by name: `package.module:NAME`, from the Python path or the current folder."""

import importlib
import os
import re
import sys
from typing import Any

from jaxdl.core.errors import UserError, described


def is_name(text: str) -> bool:
    """Whether a text names an object of a module: `package.module:NAME`."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d]\w*", text) is not None


def load_object(text: str, what: str, error: type[UserError] = UserError) -> Any:
    """The object that `package.module:NAME` names.

    Args:
        text: the name; the module is also looked for in the current folder.
        what: what is asked for ("algorithm", "dataset"), for the errors.
        error: their type.

    Raises:
        error: there is no such module or object, or importing the module fails.
    """
    module, _, name = text.partition(":")
    try:
        found = import_module(module)
    except (Exception, SystemExit) as e:
        if isinstance(e, ModuleNotFoundError) and e.name and (module == e.name or module.startswith(f"{e.name}.")):
            raise error(f"there is no {what} '{text}': no module '{e.name}' here or in the Python path") from e
        raise error(f"{text} cannot be made: importing {module} failed with {described(e)}") from e
    if not hasattr(found, name):
        raise error(f"there is no {what} '{text}': the module {module} has no '{name}'")
    return getattr(found, name)


def import_module(name: str) -> Any:
    """A module of the Python path or of the current folder; a module of the same name that is installed comes first."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a command's path does not hold the current folder; last, so that it hides nothing
    return importlib.import_module(name)
