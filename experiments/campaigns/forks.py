"""Commands in forks of one process that has imported everything and started nothing of JAX: they begin at once."""

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from jaxdl.experiments.campaigns.common import Ended

_NEEDED = (*(f"jaxdl.experiments.{name}" for name in ("run_report", "commands.train", "commands.resume", "commands.evaluate",
                                                       "commands.sample", "commands.plot")),
           *(f"jaxdl.agents.{name}" for name in ("dqn", "ppo", "reinforce", "actor_critic")),
           *(f"jaxdl.generative.{name}" for name in ("vae", "gan", "autoencoder", "pixel.pixelcnn")),
           "orbax.checkpoint", "matplotlib.figure", "tensorboardX", "sklearn.datasets", "PIL.Image", "tensorstore")


def prepare(cache: Path) -> None:
    """Import what commands need; they share the folder `cache` of compiled programs."""
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                   "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1", "JAX_PLATFORMS": "cpu", "SDL_VIDEODRIVER": "dummy",
                   "TF_CPP_MIN_LOG_LEVEL": "2"}
    for name in _NEEDED:
        importlib.import_module(name)


class Fork:
    """A function in a process of its own: `f()` gives its status. Its output goes into files beside `log`."""

    def __init__(self, f: Callable[[], int], log: Path):
        self.out, self.err, self.began = log.with_suffix(".out"), log.with_suffix(".err"), time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for number, path in ((1, self.out), (2, self.err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
            sys.exit(f())

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal; whether the process was still there."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def end(self, limit: float = 120) -> Ended:
        """Wait until it ends; after `limit` seconds it is killed, and has no status."""
        late = False
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() - self.began > limit and not late:
                late = self.kill()
            time.sleep(0.005)
        status = None if late else os.waitstatus_to_exitcode(found[1])
        return Ended(status, self.out.read_text(errors="replace"), self.err.read_text(errors="replace"),
                     time.monotonic() - self.began)


def command(log: Path, *words: object) -> Fork:
    """A command of jaxdl, as the program runs it."""

    def run() -> int:
        from jaxdl.experiments import cli

        sys.argv = ["jaxdl", *map(str, words)]
        return cli.main()

    return Fork(run, log)
