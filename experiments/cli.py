"""The command line: `jaxdl COMMAND ...`.

A command is a module of `experiments/commands`, or `package.module` of anyone's own: see there. Every command takes --json: the
last line on stdout is then one JSON object, and everything else goes to stderr. What the user got wrong is one sentence on
stderr and exit status 2; what went wrong in training or in an environment is status 1; an interrupted run 130. Heavy modules
are imported by the commands that need them, so that `jaxdl --help` answers at once.
"""

import ast
import difflib
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from jaxdl.core import signals, stdio  # these import nothing heavy

_FOLDER = Path(__file__).parent / "commands"
_OWN = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")  # package.module
_BREAK = re.compile(r"\s*\n\s*")  # between the lines of what becomes one sentence
_LONGEST = 2000  # characters of a sentence, whatever was given
_USAGE = """\
usage: jaxdl COMMAND ...

Deep reinforcement learning and generative models in JAX, as pure functions. Begin with: jaxdl train cartpole

commands:
{}

Every command takes --help, --json (one JSON object as the last line on stdout) and --debug (tracebacks).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Args:
        argv: the words of the command. None where this is the program: its own words, its streams are made to last, and it
            answers signals.
    """
    if argv is not None:
        return _main(list(argv), within=True)
    stdio.provide()
    signals.install()
    status = signals.ended(_main(sys.argv[1:], within=False))
    lost = stdio.failed()
    return _fail(f"what was printed could not be written: {lost}", 1) if lost and status == 0 else status


def _main(argv: list[str], within: bool) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"jaxdl {version('jaxdl')}")
        return 0
    command, rest = argv[0], argv[1:]
    as_json, debug = "--json" in rest, "--debug" in rest
    rest = [word for word in rest if word not in ("--json", "--debug")]
    if not _OWN.fullmatch(command) and not (command.isidentifier() and summary_of(_FOLDER / f"{command}.py")):
        known = list(commands())
        close = difflib.get_close_matches(command, known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; commands are: {', '.join(known)}"
        return _fail(f"there is no command '{command}'{hint}", 2)

    from jaxdl.core import files
    from jaxdl.core.errors import EnvFailure, JaxdlError, UserError
    from jaxdl.experiments import surroundings

    out = sys.stdout
    try:
        if "--distributed" in rest:
            from jaxdl.experiments import watch_child

            if watch_child.is_needed(argv):
                return watch_child.watch(argv)
        surroundings.set_up(within)
        if as_json:
            sys.stdout = sys.stderr
        result = _run(command, rest)
        if as_json:
            print(files.to_json(result), file=out, flush=True)
        return 130 if isinstance(result, dict) and result.get("ended") == "interrupted" else 0
    except JaxdlError as e:
        if debug:
            traceback.print_exc()
        return _fail(str(e), 2 if isinstance(e, UserError) and not isinstance(e, EnvFailure) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as e:
        why = surroundings.blamed(e)
        if debug and why is None:
            raise
        return _fail(why or f"{type(e).__name__}: {e} (an error in jaxdl itself; --debug shows where)", 2 if why else 1)
    finally:
        sys.stdout = out


def commands() -> dict[str, tuple[str, str]]:
    """The commands by name: what follows the name on the command line, and what the command does."""
    lines = {path.stem: summary_of(path) for path in sorted(_FOLDER.glob("*.py"))}
    return {name: line for name, line in lines.items() if line}


def summary_of(path: Path) -> tuple[str, str] | None:
    """What follows a command's name, and what it does, of the first line of its module's docstring, `NAME WORDS: what`.

    The module is not imported. None where the line is no command's.
    """
    if not path.is_file():
        return None
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    line = re.fullmatch(rf"{re.escape(path.stem)}([^:]*): (.+)", first)
    return line and (line[1].strip(), line[2])


def _usage() -> str:
    lines = [f"  {f'{name} {words}':<18} {summary}" for name, (words, summary) in commands().items()]
    return _USAGE.format("\n".join(lines))


def _run(command: str, argv: Sequence[str]) -> Any:
    """Run the command of a module."""
    from jaxdl.experiments import arguments

    module = _module(command)
    flags = module.Args if isinstance(module.Args, type) else module.Args(argv)
    summary = (module.__doc__ or "").partition("\n")[0]
    about = getattr(flags, "about", None) or summary.partition(": ")[2] or summary
    return module.run(arguments.parse(flags, argv, f"jaxdl {command}", about))


def _module(command: str) -> ModuleType:
    from jaxdl.core.errors import UserError
    from jaxdl.core.imports import import_module

    try:
        module = import_module(command if "." in command else f"jaxdl.experiments.commands.{command}")
    except ModuleNotFoundError as e:
        if "." not in command or not e.name or not command.startswith(e.name):
            raise
        raise UserError(f"there is no command '{command}': no module '{e.name}' here or in the Python path") from e
    if not (hasattr(module, "Args") and hasattr(module, "run")):
        raise UserError(f"the module {command} is no command: it needs Args, a dataclass of its flags, and run(args)")
    return module


def _fail(sentence: str, status: int) -> int:
    sentence = _BREAK.sub(" ", sentence.strip())
    stdio.say(f"jaxdl: {sentence if len(sentence) <= _LONGEST else sentence[:_LONGEST] + ' ...'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
