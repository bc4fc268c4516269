"""Standard streams that cannot end a program: one that is missing, whose reader goes away, or that holds no Unicode.

A program may be started without a terminal, without stderr, or into a pipe that nobody reads to its end. What it says is then
lost, and what it does must not be.
"""

import errno
import io
import os
import shlex
import sys
from typing import Any


class _Raw(io.FileIO):
    """A file whose first failed write is kept, and after which what is written is dropped."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failed is None:
            try:
                return super().write(data)
            except BlockingIOError:
                raise
            except OSError as e:
                self.failed = e
        return memoryview(data).nbytes


def provide() -> None:
    """Give the process the three standard streams; for the start of a program, before it opens any file.

    One that is closed becomes the null device: its number would else be the next file's, and what C libraries write to
    stderr would go there. Characters that an encoding does not have are escaped.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    if sys.stdin is None or sys.stdin.closed:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 (stays open)
    for number, name in ((1, "stdout"), (2, "stderr")):
        old = getattr(sys, name)
        how = {"line_buffering": name == "stderr"}
        if old is not None and not old.closed:
            old.flush()
            how = {"encoding": old.encoding, "line_buffering": old.line_buffering, "write_through": old.write_through}
        raw = _Raw(number, "w", closefd=False)
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), errors="backslashreplace", **how))


def failed() -> str | None:
    """After `provide`: why what was printed could not be written; None where it could, or where its reader went away."""
    sys.stdout.flush()
    error = sys.stdout.buffer.raw.failed
    return None if error is None or error.errno == errno.EPIPE else error.strerror


def is_terminal(stream: Any) -> bool:
    """Whether a stream is there, open and a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def say(line: str) -> None:
    """Print a line on stderr, at once; a program that has none goes on without."""
    if sys.stderr is not None and not sys.stderr.closed:
        print(line, file=sys.stderr, flush=True)


def command(*words: Any, program: str = "jaxdl") -> str:
    """A command as it can be pasted into a shell."""
    return " ".join([program, *(_quoted(str(word)) for word in words)])


def quoted(*words: Any) -> str:
    """A command of jaxdl within a sentence: between quotes that are not its own."""
    text = command(*words)
    return f"`{text}`" if "'" in text else f"'{text}'"


def _quoted(word: str) -> str:
    if word.isprintable() and _can_be_shown(word):
        return shlex.quote(word)
    plain = (chr(byte) if 32 <= byte < 127 and chr(byte) not in "\\'" else f"\\x{byte:02x}" for byte in os.fsencode(word))
    return f"$'{''.join(plain)}'"


def _can_be_shown(word: str) -> bool:
    try:
        word.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
