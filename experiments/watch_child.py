"""The parent process of a command that takes part in a distributed run.

When another process of the run is lost, JAX ends this one from C++ without saying what to do. So the command runs in a child,
and its parent explains; log lines of JAX and Gloo are left out.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO

_WATCHED = "JAXDL_WATCHED"  # in the environment of the child
_CHATTER = re.compile(r"\[Gloo\] Rank ")
_CRASH = re.compile(r"[EF]\d{4} \d\d:\d\d:\d\d\.|\*\*\* Check failure")


def is_needed(argv: Sequence[str]) -> bool:
    """Whether this command joins other processes and nobody watches it yet."""
    return "--distributed" in argv and "--help" not in argv and _WATCHED not in os.environ


def watch(argv: Sequence[str]) -> int:
    """Run the command in a child. Returns its exit status, or 1 if it was ended because another process was lost."""
    child: subprocess.Popen | None = None
    early: list[int] = []  # signals that came before it was there

    def forward(number: int, frame: object) -> None:
        del frame
        child.send_signal(number) if child else early.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    # -P: a folder or file called jaxdl in the current folder is not the program
    child = subprocess.Popen([sys.executable, "-P", "-m", "jaxdl", *argv], env=dict(os.environ, **{_WATCHED: "1"}),
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             errors="backslashreplace")
    crash: list[str] = []
    readers = [threading.Thread(target=_forward, args=(child.stdout, sys.stdout, [])),
               threading.Thread(target=_forward, args=(child.stderr, sys.stderr, crash))]
    for reader in readers:
        reader.start()
    for number in early:
        child.send_signal(number)
    status = child.wait()
    for reader in readers:
        reader.join()
    if status == -signal.SIGABRT:
        from jaxdl.core.processes import HEARTBEAT_S, WAIT_S  # imports JAX, which the parent needs for nothing else

        print(f"jaxdl: another process of the run did not come within {WAIT_S} seconds, ended, or could not be reached for "
              f"{HEARTBEAT_S} seconds, so this one ended too; the last checkpoint, where there is one, is whole. Start all of "
              "them again with 'jaxdl resume RUN --distributed ...', or go on in one: 'jaxdl resume RUN --devices N'",
              file=sys.stderr)
        return 1
    sys.stderr.write("".join(crash))  # it was something else
    return status if status >= 0 else 128 - status


def _forward(source: IO[str], to: IO[str], crash: list[str]) -> None:
    """Lines from one stream to the other; from the first that reports a crash on they are kept in `crash`."""
    for line in source:
        if crash or _CRASH.match(line):
            crash.append(line)
        elif not _CHATTER.match(line):
            to.write(line)
            to.flush()
