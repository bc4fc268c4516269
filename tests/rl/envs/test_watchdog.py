"""Calls that do not come back: interrupted, or else the process is ended; and no call is, that does."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from toys import Toy

from jaxdl.core.errors import EnvError, EnvFailure
from jaxdl.rl import envs
from jaxdl.rl.envs import calls, watchdog
from jaxdl.rl.envs.watchdog import Watchdog

pytestmark = [pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
              pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")]


def spin(forever=True):
    while forever:
        pass


class Hangs(Toy):
    """At its second step, or its reset, for ever."""

    def step(self, action):
        if self.t == 1:
            self.hang()
        return super().step(action)


@pytest.mark.parametrize(("mode", "hang"), [
    ("sync", spin), ("sync", lambda: time.sleep(600)), ("sync", lambda: threading.Event().wait()),
    ("async", spin), ("async", lambda: time.sleep(600))],
    ids=["spins", "sleeps", "waits", "a process spins", "a process sleeps"])
def test_an_environment_that_does_not_answer_is_named_and_let_go_of(register, mode, hang):
    register("Hangs-v0", type("Hangs", (Hangs,), {"hang": lambda self: hang()}))
    venv = envs.make_host("Hangs-v0", 2, mode, envs.Config(env_timeout=1))
    venv.reset(0)
    venv.step(np.zeros(2, int))
    with pytest.raises(EnvError, match=r"^Hangs-v0 has not answered for 1 seconds \(env_timeout\), in step$"):
        venv.step(np.zeros(2, int))
    processes = getattr(venv.venv, "processes", [])
    venv.close()
    assert not any(p.is_alive() for p in processes)


def test_a_reset_that_does_not_answer_is_named(register):
    register("Hangs-v0", type("Hangs", (Toy,), {"observe": lambda self: time.sleep(600)}))
    venv = envs.make_host("Hangs-v0", 1, "sync", envs.Config(env_timeout=1))
    with pytest.raises(EnvError, match=r"Hangs-v0 has not answered for 1 seconds \(env_timeout\), in reset"):
        venv.reset(0)
    venv.close()


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("call", ["__init__", "close"])
def test_making_and_closing_may_not_last_for_ever(register, call, mode):
    parent = os.getpid()

    def hang(self):
        if mode == "sync" or os.getpid() != parent:  # an async one is made in the main process too
            time.sleep(600)

    register("Hangs-v0", type("Hangs", (Toy,), {call: hang}))
    name, began = {"__init__": "make"}.get(call, call), time.monotonic()
    with pytest.raises(EnvFailure, match=rf"^Hangs-v0 has not answered for 1 seconds \(env_timeout\), in {name}$"):
        envs.make_host("Hangs-v0", 2, mode, envs.Config(env_timeout=1)).close()
    assert time.monotonic() - began < 10
    assert multiprocessing.active_children() == []


def test_an_environment_that_is_made_for_its_spec_may_not_hang(register):
    register("Hangs-v0", type("Hangs", (Toy,), {"__init__": lambda self: time.sleep(600)}))
    with pytest.raises(EnvFailure, match="Hangs-v0 has not answered for 1 seconds"):
        envs.spec("Hangs-v0", envs.Config(env_timeout=1))


def test_what_hangs_in_a_step_and_then_in_its_closing_is_waited_for_once(register, monkeypatch):
    monkeypatch.setattr(calls, "_QUICK", 0.5)
    register("Hangs-v0", type("Hangs", (Hangs,), {"hang": lambda self: time.sleep(600), "close": lambda self: time.sleep(600)}))
    venv, began = envs.make_host("Hangs-v0", 1, "sync", envs.Config(env_timeout=2)), time.monotonic()
    venv.reset(0)
    venv.step(np.zeros(1, int))
    with pytest.raises(EnvFailure, match="in step"):
        venv.step(np.zeros(1, int))
    venv.close()
    assert time.monotonic() - began < 4.5


def looked(monkeypatch, seconds):
    """A watch that looks every few milliseconds."""
    monkeypatch.setattr(watchdog, "_TICK", 0.005)
    return Watchdog("Toy-v0", seconds)


def test_time_between_calls_and_many_short_calls_are_not_counted(monkeypatch):
    watch = looked(monkeypatch, 0.1)
    with watch:
        pass
    time.sleep(0.3)
    for _ in range(60):
        with watch:
            time.sleep(0.005)
    assert not watch.late
    with pytest.raises(EnvError), watch:
        time.sleep(60)
    assert watch.late
    time.sleep(0.3)  # and now nothing more
    watch.close()


def test_a_call_that_fails_is_no_longer_under_way(monkeypatch):
    watch = looked(monkeypatch, 0.1)
    with pytest.raises(KeyError), watch:
        raise KeyError
    time.sleep(0.3)
    assert not watch.late
    watch.close()


def test_a_signal_that_comes_late_does_nothing(monkeypatch):
    watch = looked(monkeypatch, 60)
    watch.__enter__()
    watch._interrupt(watch._call - 1)  # of the call before
    time.sleep(0.05)
    watch.__exit__()
    watch._interrupt(-watch._call)  # of the one that has just come back
    time.sleep(0.05)
    watch.close()


def test_nothing_is_watched_without_a_limit_or_outside_of_the_main_thread(monkeypatch):
    before = threading.active_count()
    unlimited = Watchdog("Toy-v0", 0)
    assert threading.active_count() == before
    watches = [unlimited, looked(monkeypatch, 0.05)]

    def elsewhere():
        watches.append(Watchdog("Toy-v0", 0.05))
        for watch in watches:
            with watch:
                time.sleep(0.2)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not any(watch.late for watch in watches)
    watches[1].close()


def test_the_thread_ends_with_its_environments(register):
    venv = envs.make_host(register("Toy-v1", Toy), 1, "sync", envs.Config(env_timeout=1))
    (thread,) = [t for t in threading.enumerate() if t.name == "watchdog of Toy-v1"]
    venv.close()
    thread.join(1)
    assert not thread.is_alive()


STUBBORN = """
import hashlib, sys, time
import jaxdl.rl.envs.watchdog as watchdog
watchdog._GRACE = 0.3

def swallows():
    while True:
        try:
            time.sleep(60)
        except Exception:
            print("swallowed", flush=True)

def stays_in_c():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

with watchdog.Watchdog("Stubborn-v0", 0.3):
    {call}()
"""


@pytest.mark.parametrize("call", ["swallows", "stays_in_c"])
def test_what_cannot_be_interrupted_ends_the_process_with_a_sentence(call):
    done = subprocess.run([sys.executable, "-c", STUBBORN.format(call=call)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ("swallowed\n" if call == "swallows" else "")
    assert done.stderr == ("jaxdl: Stubborn-v0 has not answered for 0.3 seconds (env_timeout), in step; it cannot be "
                           "interrupted, so the process ends here: checkpoints are whole, and the run can be continued from "
                           "the last one\n")
