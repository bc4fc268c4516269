"""One writer a folder: a lock that ends with its process, however the process ends.

It is the system's lock (flock) on the file `.lock` of the folder, so a crash leaves nothing that would have to be removed.
Where a file system knows no locks, nothing is locked. A process that holds a folder may take it again.
"""

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from jaxdl.core import files
from jaxdl.core.errors import JaxdlError, UserError

NAME = ".lock"  # of the file in the folder

_held: dict[tuple[int, int], int] = {}  # file descriptors of the locks of this process, by device and inode


class GoneError(JaxdlError):
    """A folder was removed, renamed or replaced while this process wrote into it."""


class Lock:
    """A folder that this process alone writes into; made by `hold`."""

    def __init__(self, folder: Path, inode: tuple[int, int]):
        self._folder, self._inode = folder, inode

    def check(self) -> None:
        """Refuse to go on where the folder is no longer the one that was locked.

        Raises:
            GoneError: it was removed, renamed or replaced.
        """
        try:
            there = _inode(os.stat(self._folder / NAME))
        except OSError:
            there = None
        if there != self._inode:
            raise GoneError(f"the run folder {self._folder} was removed, renamed or replaced while the run wrote into it")

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """What is written within goes into the folder that was locked; errors that come of its absence are told as such."""
        self.check()
        try:
            yield
        finally:
            self.check()


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Lock]:
    """Lock a folder, which must be there, while the context lasts.

    Raises:
        UserError: another process holds it, or nothing can be written there.
    """
    folder = Path(folder)
    try:
        file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as e:
        raise files.cannot_write(folder / NAME, e) from e
    inode = _inode(os.fstat(file))
    if inode in _held:
        os.close(file)
        yield Lock(folder, inode)
        return
    try:
        _lock(file, folder)
    except UserError:
        os.close(file)
        raise
    _held[inode] = file
    try:
        yield Lock(folder, inode)
    finally:
        del _held[inode]
        os.close(file)


def _lock(file: int, folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.pread(file, 100, 0).decode(errors="replace").strip() if stat.S_ISREG(os.fstat(file).st_mode) else ""
        who = f" ({who})" if who.isprintable() and who else ""
        raise UserError(f"another process{who} writes into the run folder {folder}; wait until it ends, or choose another one"
                        ) from None
    except OSError:  # a file system without locks
        return
    if stat.S_ISREG(os.fstat(file).st_mode):
        with contextlib.suppress(OSError):  # a full disk: the name is for the error above alone
            os.ftruncate(file, 0)
            os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _forget() -> None:
    """A forked child (a worker of environments) would hold the lock after its parent is gone."""
    for file in _held.values():
        with contextlib.suppress(OSError):
            os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_forget)
