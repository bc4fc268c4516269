"""Calls of environments: each is watched, and whatever ends it becomes one sentence that names the environment and the call.

An environment may raise anything, leave by `sys.exit` or `os._exit`, or not come back. Only a Ctrl-C of the user goes through.

    with Calls("Pendulum-v1", timeout=120) as call:
        env = call("make", lambda: gymnasium.make("Pendulum-v1"))
        call("close", env.close)
"""

import contextlib
import opcode
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from jaxdl.core.errors import EnvError, EnvFailure, described
from jaxdl.rl.envs.watchdog import Watchdog

_QUICK = 5.0  # seconds in which what has failed may close
_RAISES = {opcode.opmap["RAISE_VARARGS"], opcode.opmap["RERAISE"]}


class Calls:
    """Calls of the environments `env_id`, each of which may take `timeout` seconds (0: for ever)."""

    def __init__(self, env_id: str, timeout: float):
        self.env_id, self.failed = env_id, False
        self.watch = Watchdog(env_id, timeout)

    def __call__(self, name: str, function: Callable[[], Any]) -> Any:
        """The result of `function()`, which calls the method `name` of the environments.

        Raises:
            EnvError: one that `function` raised itself.
            EnvFailure: it raised anything else, or did not return.
        """
        before, self.watch.doing = self.watch.doing, name
        try:
            with self.watch:
                return function()
        except BaseException as e:
            self.failed = True
            fail(self.env_id, name, e)
        finally:
            self.watch.doing = before

    def close(self, function: Callable[[], Any]) -> None:
        """The last call. What failed before is given little time, and of its closing nothing is said.

        Raises:
            EnvError: as by any call, where none failed before.
        """
        try:
            if not self.failed:
                self("close", function)
                return
            self.watch.seconds, self.watch.late = min(self.watch.seconds, _QUICK), False
            with contextlib.suppress(EnvError):
                self("close", function)
        finally:
            self.watch.close()

    def __enter__(self) -> "Calls":
        return self

    def __exit__(self, *error: Any) -> None:
        self.watch.close()


def fail(env_id: str, name: str, error: BaseException) -> NoReturn:
    """End the method `name` of an environment, which raised `error`: one of ours and a Ctrl-C go on as they are.

    Raises:
        EnvFailure: with the environment, the method and the error.
    """
    if isinstance(error, EnvError) or (isinstance(error, KeyboardInterrupt) and not _is_raised_by_others(error)):
        raise error
    raise EnvFailure(f"{env_id} failed in {name}: {described(error)}") from error


def _is_raised_by_others(error: BaseException) -> bool:
    """Whether an error comes from a `raise` in an environment; a Ctrl-C comes from a handler of signals, or from no code."""
    handler, at = getattr(signal.getsignal(signal.SIGINT), "__code__", None), error.__traceback__
    while at is not None and at.tb_next is not None and at.tb_frame.f_code is not handler:
        at = at.tb_next
    if at is None or at.tb_frame.f_code is handler:
        return False
    return at.tb_frame.f_code.co_code[at.tb_lasti] in _RAISES
