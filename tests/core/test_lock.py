"""One writer a folder: refused beside another, free after any end of it, and not fooled by a folder that was moved."""

import os
import shutil
import signal
import time

import pytest
from tools import other_process_holds

from jaxdl.core import lock
from jaxdl.core.errors import UserError


def test_a_second_process_is_refused_and_a_killed_one_leaves_nothing(tmp_path):
    with other_process_holds(tmp_path) as first:
        with pytest.raises(UserError, match=rf"another process \(process {first} on .*\) writes into the run folder"):
            lock.hold(tmp_path).__enter__()
        os.kill(first, signal.SIGKILL)
    with lock.hold(tmp_path), lock.hold(tmp_path):  # the same process, twice
        pass
    assert not lock._held


def test_a_forked_worker_does_not_keep_the_lock_of_its_parent(tmp_path):
    with other_process_holds(tmp_path, "if os.fork() == 0: print(os.getpid(), flush=True); time.sleep(60)") as parent:
        os.kill(parent, signal.SIGKILL)
        time.sleep(0.1)
        with lock.hold(tmp_path):  # though the worker is there
            pass


def replace(path):
    path.rename(path.with_name("other"))
    path.mkdir()
    (path / ".lock").touch()


@pytest.mark.parametrize("change", [shutil.rmtree, lambda path: path.rename(path.with_name("other")), replace])
def test_a_folder_that_is_gone_is_told(tmp_path, change):
    run = tmp_path / "run"
    run.mkdir()
    with lock.hold(run) as held:
        held.check()
        with pytest.raises(lock.GoneError, match="run was removed, renamed or replaced"), held.checked():  # noqa: PT012
            change(run)
            raise OSError("no such folder")


def test_a_lock_that_cannot_be_written_is_refused_and_a_link_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="lock cannot be written"):
        lock.hold(tmp_path).__enter__()
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        lock.hold(tmp_path / "nowhere").__enter__()
    assert (tmp_path / "mine").read_text() == "mine"
