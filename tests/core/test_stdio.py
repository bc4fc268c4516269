"""Streams that cannot end a program, and commands that can be pasted. Each program here imports nothing heavy."""

import os
import subprocess
import sys

import pytest

from jaxdl.core import stdio

PROGRAM = """
import os, sys
from jaxdl.core import stdio
stdio.provide()
number = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
print("größe \\udce9", flush=True)
stdio.say("said größe")
try:
    os.write(2, b"from C\\n")  # as a C library does, which asks nobody
except OSError:
    pass
sys.stdin.read()
print("x" * 100_000)
os.write(number, b"%d" % number)
sys.exit(3 if stdio.failed() else 0)
"""


@pytest.mark.parametrize(("streams", "status", "words"), [
    ("", 0, "größe \\udce9"),
    ("2>&-", 0, "größe"), (">&-", 0, "said größe"), ("<&- >&- 2>&-", 0, ""), ("<&-", 0, "größe"),
    ("| true", 0, "said"), ("2>&1 | true", 0, ""), (">/dev/full", 3, "said"), ("2>/dev/full", 0, "größe"),
])
def test_a_program_goes_on_whatever_its_streams_are(tmp_path, streams, status, words):
    file = tmp_path / "file"
    env = os.environ | {"PYTHONIOENCODING": "utf-8", "PROGRAM": PROGRAM}
    ended = subprocess.run(["bash", "-c", f'{sys.executable} -c "$PROGRAM" {file} {streams}; exit ${{PIPESTATUS[0]}}'],
                           env=env, capture_output=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    said = (ended.stdout + ended.stderr).decode()
    assert (ended.returncode, "Traceback" in said) == (status, False)
    assert words in said
    assert int(file.read_text()) > 2  # no file has the number of a stream that was closed, and nothing else is in it


def test_what_an_encoding_has_not_is_escaped():
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", PROGRAM, os.devnull], env=env, capture_output=True, check=True, timeout=60,
                           stdin=subprocess.DEVNULL)
    assert ended.stdout.startswith(b"gr\\xf6\\xdfe \\udce9\n")
    assert ended.stderr == b"said gr\\xf6\\xdfe\nfrom C\n"


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_stream_that_is_not_there_is_no_terminal_and_is_told_nothing(monkeypatch, capsys, tmp_path, stream):
    if stream:
        stream = open(tmp_path / "x", "w")  # noqa: SIM115
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    stdio.say("nobody hears this")
    assert not stdio.is_terminal(sys.stderr)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["plain", "run 1", "it's", 'a"b$c`d;e&f', "two\nlines", "tab\t\\", "größe", "ü☃",
                                  os.fsdecode(b"\xe9\xff"), "*", "~", "a'\n'b"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_command_can_be_pasted(monkeypatch, name, encoding):
    class Out:
        pass

    monkeypatch.setattr(sys, "stdout", Out)
    Out.encoding = encoding
    text = stdio.command("resume", name, program="printf '%s|'")
    assert text.isprintable()
    text.encode(encoding)
    said = subprocess.run(["bash", "-c", text], capture_output=True, check=True, timeout=60).stdout
    assert said == b"resume|" + os.fsencode(name) + b"|"


def test_quotes_around_a_command_are_not_its_own():
    assert stdio.quoted("resume", "runs/a-1", "--total-steps", 10) == "'jaxdl resume runs/a-1 --total-steps 10'"
    assert stdio.quoted("resume", "run 1") == "`jaxdl resume 'run 1'`"
