"""SIGINT and SIGTERM: one sentence and a status, whenever they come and however often.

The program has nothing to put away: what it writes is whole or absent. So a signal ends it on the spot, with a sentence and
status 130 (SIGINT) or 143 (SIGTERM), and no exception that could be raised in the middle of anything. Training alone ends
softly: within `stop_softly` the first two signals (one press of a key often sends two) ask it to stop; a third ends the
program.

Python calls handlers between two of its own instructions: a signal that comes while a program runs is answered at its end.
"""

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SOFT = 2  # so many signals ask to stop, the next one ends the program


class _Heard:
    """The signals of this process."""

    program = False  # whether this process is a program of jaxdl, or one that has jaxdl as a library
    soft = False  # whether they only ask to stop
    count = 0  # since they last asked to stop
    status: int | None = None  # of a program that is at its end, and says no more


def install() -> None:
    """Answer the signals of a whole program, from here to its end; where it is not the main thread's, leave them alone."""
    if _Heard.program:
        return
    _Heard.program = True
    with contextlib.suppress(ValueError):
        for number in _NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells' background jobs have it
                signal.signal(number, _handle)
        atexit.register(_ignore)  # the first to be registered is the last to be called: nothing of Python's is left then
        os.register_at_fork(after_in_child=_leave)


def ended(status: int) -> int:
    """Tell the handler that the program has said what it had to say and ends with `status`, which it returns."""
    _Heard.status = status
    return status


@contextlib.contextmanager
def stop_softly() -> Iterator[Callable[[], bool]]:
    """Within, the first signals ask to stop: the function says whether one came. In a library the second SIGINT is a
    KeyboardInterrupt, as ever.
    """
    before = _Heard.soft, _Heard.count
    _Heard.soft, _Heard.count = True, 0
    try:
        old = {number: signal.signal(number, _handle) for number in _NUMBERS
               if signal.getsignal(number) is not signal.SIG_IGN}
    except ValueError:  # not the main thread: signals are somebody else's
        old = {}
    try:
        yield lambda: _Heard.count > 0
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        if not _Heard.program or _Heard.count == 0:  # a program that was asked to stop goes on to its end
            _Heard.soft, _Heard.count = before


def _handle(number: int, frame: Any) -> None:
    del frame
    _Heard.count += 1
    if _Heard.soft and _Heard.count <= (_SOFT if _Heard.program else 1):
        return
    if not _Heard.program:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        return
    if _Heard.status is None:
        with contextlib.suppress(Exception):  # what was printed so far comes before the sentence
            sys.stdout.flush()
        show_cursor = "\x1b[?25h\r\n" if os.isatty(2) else ""  # a progress bar hides it
        with contextlib.suppress(OSError):
            os.write(2, f"{show_cursor}jaxdl: {'interrupted' if number == signal.SIGINT else 'terminated'}\n".encode())
    for child in getattr(sys.modules.get("multiprocessing.process"), "active_children", list)():
        with contextlib.suppress(Exception):
            child.kill()  # a worker of environments
    os._exit(128 + number if _Heard.status is None else _Heard.status)


def _leave() -> None:
    """A forked child is a worker: Ctrl-C, which a terminal sends to all of them, is its parent's to answer."""
    for number in _NUMBERS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)


def _ignore() -> None:
    for number in _NUMBERS:
        with contextlib.suppress(ValueError):
            signal.signal(number, signal.SIG_IGN)
