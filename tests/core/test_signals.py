"""SIGINT and SIGTERM of a program: one sentence and a status, whenever and however often they come."""

import signal
import subprocess
import sys

import pytest

INT, TERM = signal.SIGINT, signal.SIGTERM
PROGRAM = """
import os, signal, sys
from jaxdl.core import signals
def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)
signals.install()
{}
"""


@pytest.mark.parametrize(("body", "status", "err"), [
    ("send({INT})", 130, "jaxdl: interrupted\n"),
    ("send({TERM}, {INT})", 143, "jaxdl: terminated\n"),
    ("try: send({INT})\nexcept BaseException: print('caught')", 130, "jaxdl: interrupted\n"),
    ("with signals.stop_softly() as stopped: send({INT}); print(stopped(), file=sys.stderr)", 0, "True\n"),
    ("with signals.stop_softly() as stopped: send({INT}, {INT}); print(stopped(), file=sys.stderr)", 0, "True\n"),
    ("with signals.stop_softly(): send({TERM}, {TERM}, {TERM}); print('goes on')", 143, "jaxdl: terminated\n"),
    ("with signals.stop_softly(): send({INT}, {TERM}, {INT}); print('goes on')", 130, "jaxdl: interrupted\n"),
    ("with signals.stop_softly(): send({INT})\nsend({INT})", 0, ""),  # on its way to its end
    ("with signals.stop_softly(): pass\nsend({INT})", 130, "jaxdl: interrupted\n"),
    ("signals.ended(3)\nsend({INT})", 3, ""),  # it has said what it had to say
    ("import atexit\natexit.register(send, {INT})\nsys.exit(signals.ended(2))", 2, ""),
    ("pid = os.fork()\nif pid == 0: send({INT}, {TERM})\nsys.exit(-os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
     int(TERM), ""),
])
def test_a_program_ends_with_one_sentence_and_a_status(body, status, err):
    program = PROGRAM.format(body.replace("{INT}", str(int(INT))).replace("{TERM}", str(int(TERM))))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (status, err)


def test_a_program_that_is_told_to_ignore_a_signal_ignores_it():
    program = PROGRAM.format(f"send({int(INT)})").replace("signals.install", f"signal.signal({int(INT)}, signal.SIG_IGN)\n"
                                                          "signals.install")
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
