"""Command lines from typed classes (tyro), with errors of one sentence."""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

import tyro

from jaxdl.core.errors import UserError

T = TypeVar("T")


def parse(cls: type[T], argv: Sequence[str], prog: str, description: str, default: T | None = None) -> T:
    """An instance of `cls` from `argv`; fields of nested classes are flags of their own names.

    Raises:
        UserError: what was wrong with the command line, in one sentence.
        SystemExit: after --help.
    """
    errors = io.StringIO()
    extra = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(cls, args=list(argv), prog=prog, description=description,
                            config=(tyro.conf.OmitArgPrefixes,), **extra)
    except SystemExit as e:
        if e.code in (0, None):
            raise
        raise UserError(f"{_sentence(errors.getvalue())} (see '{prog} --help')") from None


def _sentence(box: str) -> str:
    """The first paragraph of tyro's box, and the flag that it suggests. Where it cannot draw a box, a title comes first."""
    drawn = "╭" in box
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines() if line[:1] not in "╭╰"]
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n[─-]{9,}\n", "\n".join(lines))]
    suggested = re.search(r"Perhaps you meant:\s*(--[\w-]+)", "\n".join(lines))
    sentence = paragraphs[0 if drawn or len(paragraphs) == 1 else 1].rstrip(".")
    return f"{sentence}; did you mean {suggested[1]}?" if suggested else sentence
