"""Environments in processes of their own: Gymnasium's `AsyncVectorEnv`, where a process that ends says so in one sentence.

How this differs from Gymnasium's: an error is raised with no traceback beside it; a process that died is named with how it
ended; signals are the main process' business; and no process outlives the main one, however that ended.
"""

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium
from gymnasium.vector import AsyncVectorEnv, async_vector_env

from jaxdl.core.errors import EnvFailure
from jaxdl.rl.envs.watchdog import end_process

_PATIENCE = 5.0  # seconds for a process that closed its pipe to end, or to say why


class Workers(AsyncVectorEnv):
    """N environments made by `make`, each in a process; `env_id` is their id, for errors.

    Raises:
        EnvFailure: in any call, where a process ended in it.
    """

    def __init__(self, make: Callable[[], gymnasium.Env], num_envs: int, env_id: str):
        self._env_id = env_id
        try:
            with self._alive("make"):
                super().__init__([make] * num_envs, worker=_worker)
        except BaseException:
            self.kill()
            raise

    def reset(self, **options: Any) -> tuple[Any, dict]:
        """As in Gymnasium."""
        with self._alive("reset"):
            return super().reset(**options)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict]:
        """As in Gymnasium."""
        try:
            return super().step(actions)
        except (EOFError, OSError) as e:
            raise self._death("step") from e

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """As in Gymnasium; an environment whose `close` failed is named."""
        if terminate:
            super().close_extras(timeout, terminate)
            return
        with self._alive("close"):
            super().close_extras(timeout)
        if any(process.exitcode for process in self.processes):
            raise self._error() or self._death("close")

    def kill(self) -> None:
        """End all processes at once."""
        for process in getattr(self, "processes", ()):  # none where the first environment could not be made
            if process.pid is not None:  # it was started
                process.kill()
                process.join()
        self.closed = True

    @contextlib.contextmanager
    def _alive(self, call: str) -> Any:
        try:
            yield
        except (EOFError, OSError) as e:
            raise self._death(call) from e

    def _death(self, call: str) -> EnvFailure:
        """The error of a call in which a process ended."""
        until = time.monotonic() + _PATIENCE
        while (ended := self._ended()) is None and time.monotonic() < until:
            time.sleep(0.01)
        return EnvFailure(f"{self._env_id} failed in {call}: {ended or 'a process of its environments closed its pipe'}")

    def _ended(self) -> str | None:
        for i, process in enumerate(getattr(self, "processes", ())):
            code = process.exitcode
            if code is not None:
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
                return f"the process of environment {i} of {self.num_envs} {how}"
        return None

    def _error(self) -> BaseException | None:
        """What a process said of its end."""
        try:
            return self.error_queue.get(timeout=_PATIENCE)[2]
        except (queue.Empty, OSError):
            return None

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        if not all(successes):
            raise self._error() or self._death("step")


def _worker(index: int, make: Callable[[], gymnasium.Env], pipe: Any, parent_pipe: Any, memory: Any, errors: Any, *more: Any
            ) -> None:
    """A process: Gymnasium's, with all errors told to the main process and none to the terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process().pid,), daemon=True).start()
    os._exit = _exit_of_an_environment  # which would end the process without a word
    try:
        try:
            env = make()
        except BaseException as e:
            pipe.recv()  # the first question, whose answer this is
            errors.put((index, type(e), e, ""))
            pipe.send((None, False))
            raise
        async_vector_env._async_worker(index, lambda: env, pipe, parent_pipe, memory, errors, *more)
    except BaseException as e:
        errors.put((index, type(e), e, ""))
        sys.exit(1)
    finally:
        os._exit = end_process


def _exit_of_an_environment(status: int) -> None:
    raise SystemExit(f"os._exit({status})")


def _end_with(parent: int) -> None:
    """End this process after its parent: one that was killed cannot say that it is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    end_process(1)
