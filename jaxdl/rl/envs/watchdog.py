"""A watchdog for calls that may never return.

    watch = Watchdog("Pendulum-v1", seconds=120)
    with watch:          # 0.2 microseconds; in the main thread alone
        env.step(action)

A thread checks a few times within `seconds` whether the same call is still running. After `seconds` the main thread is sent a
signal whose handler raises. A call that is deep in C, or swallows the error, has a few seconds more, and then the process ends.
A call in C that holds Python's lock stops the thread too: nothing in Python can help there.

While a call is watched `os._exit`, which would end the process with a status of the call's choosing, raises SystemExit.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from typing import Any

from jaxdl.core.errors import EnvFailure

_GRACE = 5.0  # seconds for the main thread to raise before the process is ended
_TICK = 1.0  # seconds between two checks, at most
_SIGNAL = getattr(signal, "SIGURG", None)  # ignored by default, so a late signal is harmless; absent on Windows

_late: "tuple[Watchdog, int] | None" = None  # the watchdog and the number of the call that the handler ends
_watchdogs: "weakref.WeakSet[Watchdog]" = weakref.WeakSet()
end_process, _process = os._exit, os.getpid()


class Watchdog:
    """Raises an `EnvFailure` in the main thread, naming `name`, where a call in `with watch:` takes longer than `seconds`.

    With `seconds` of 0, or made outside the main thread (the only one that can be interrupted), it watches nothing. `late` is
    true after a call was too long. `doing` is what the error says of the call, and `within` what is under way inside of it.
    """

    within: str | None = None

    def __init__(self, name: str, seconds: float):
        self.name, self.seconds, self.late, self.doing = name, seconds, False, "step"
        self._call = 0  # number of the running call, negative between calls
        self._closed = threading.Event()
        self._main = threading.main_thread().ident
        _watchdogs.add(self)
        os._exit = _exit_of_a_call
        if seconds and threading.get_ident() == self._main:
            if _SIGNAL is not None:
                signal.signal(_SIGNAL, _raise)
            threading.Thread(target=self._watch, daemon=True, name=f"watchdog of {name}").start()

    def __enter__(self) -> None:
        if threading.get_ident() == self._main:
            self._call = 1 - self._call

    def __exit__(self, *error: Any) -> None:
        if self._call > 0:
            self._call = -self._call

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _watch(self) -> None:
        tick = min(_TICK, self.seconds / 4)
        seen, lasted = 0, 0.0  # counted in ticks: the clock goes on while the whole process is stopped
        while not self._closed.wait(tick):
            seen, lasted = (self._call, lasted + tick) if self._call == seen else (self._call, 0.0)
            if seen <= 0:
                continue
            if lasted >= self.seconds and not self.late:
                self._interrupt(seen)
            if lasted >= self.seconds + _GRACE:
                self._exit()

    def _interrupt(self, call: int) -> None:
        global _late
        self.late, _late = True, (self, call)
        if _SIGNAL is not None and signal.getsignal(_SIGNAL) is _raise:
            signal.pthread_kill(self._main, _SIGNAL)

    def _exit(self) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no stderr
            sys.stderr.write(f"jaxdl: {self.sentence()}; it cannot be interrupted, so the process ends here: "
                             "checkpoints are whole, and the run can be continued from the last one\n")
            sys.stderr.flush()
        end_process(1)

    def sentence(self) -> str:
        """The error in words."""
        return f"{self.name} has not answered for {self.seconds:g} seconds (env_timeout), in {Watchdog.within or self.doing}"


def _raise(signum: int, frame: Any) -> None:
    global _late
    if _late is None:
        return
    (watch, call), _late = _late, None
    if watch._call == call:  # it may have returned meanwhile
        raise EnvFailure(watch.sentence())


def _exit_of_a_call(status: int) -> None:
    """`os._exit`, of which a call that is watched must not make use."""
    if os.getpid() == _process and any(w._call > 0 and w._main == threading.get_ident() for w in _watchdogs):
        raise SystemExit(f"os._exit({status})")
    end_process(status)
