"""What a command finds around it: switches of JAX, flags of XLA, folders; in one sentence where it cannot work there."""

import os
import subprocess
import sys

import jax
import pytest
from tools import refused

from jaxdl.agents import dqn
from jaxdl.core import compile, files
from jaxdl.core.errors import UserError
from jaxdl.experiments import cli, surroundings
from jaxdl.runtime.device_driver import make_device_driver


@pytest.fixture
def fresh(monkeypatch):
    """As if JAX were not imported yet: what would be set is set, in a copy of the environment's variables."""
    monkeypatch.setattr(surroundings.os, "environ", dict(os.environ))
    modules = {name: module for name, module in sys.modules.items() if name != "jax"}
    monkeypatch.setattr(surroundings.sys, "modules", modules)
    return surroundings.os.environ


@pytest.mark.parametrize("given", ["/dev/null/x", "/proc/none"])
def test_a_cache_that_cannot_be_written_is_left_out_with_a_word(fresh, capsys, given):
    fresh["JAX_COMPILATION_CACHE_DIR"] = given
    surroundings._set_cache()
    assert fresh["JAX_COMPILATION_CACHE_DIR"] == ""
    assert given in capsys.readouterr().err


@pytest.mark.parametrize("given", ["", "gs://bucket/programs"])
def test_no_cache_and_a_bucket_are_left_as_they_are(fresh, capsys, given):
    fresh["JAX_COMPILATION_CACHE_DIR"] = given
    surroundings._set_cache()
    assert (fresh["JAX_COMPILATION_CACHE_DIR"], capsys.readouterr().err) == (given, "")


def test_a_user_without_a_home_has_no_cache(fresh, monkeypatch, capsys):
    def homeless(name):
        raise RuntimeError("no home")

    del fresh["JAX_COMPILATION_CACHE_DIR"]
    monkeypatch.setattr("platformdirs.user_cache_path", homeless)
    assert files.cache_folder() is None
    surroundings._set_cache()
    assert fresh["JAX_COMPILATION_CACHE_DIR"] == ""
    assert "compiled programs are not kept" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value", "stays"), [
    ("JAX_ENABLE_X64", "1", False), ("JAX_ENABLE_X64", "True", False), ("JAX_ENABLE_X64", "0", True),
    ("JAX_ENABLE_X64", "maybe", True), ("JAX_NUMPY_RANK_PROMOTION", "raise", False), ("JAX_NUMPY_RANK_PROMOTION", "warn", True),
    ("JAX_NUMPY_DTYPE_PROMOTION", "strict", False), ("JAX_TRANSFER_GUARD", "disallow", False),
    ("JAX_TRANSFER_GUARD_DEVICE_TO_HOST", "disallow", False), ("JAX_TRANSFER_GUARD", "log", True)])
def test_switches_that_a_run_does_without_are_left_aside_with_a_word(fresh, capsys, name, value, stays):
    fresh[name] = value
    surroundings._leave_aside()
    said = capsys.readouterr().err
    assert (name in fresh, name not in said) == (stays, stays)


def test_flags_that_xla_does_not_know_are_refused():
    surroundings._check_xla_flags(os.environ["XLA_FLAGS"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--nonsense")
        with pytest.raises(UserError, match=r"does not take XLA_FLAGS='--nonsense': Unknown flag"):
            surroundings._check_xla_flags("--nonsense")


@pytest.mark.parametrize(("switch", "words"), [("disable_jit", "JAX_DISABLE_JIT asks"), ("enable_x64", "JAX_ENABLE_X64 asks")])
def test_switches_that_no_run_can_work_with_are_refused_by_name(capsys, switch, words):
    with getattr(jax, switch)(True):
        refused(capsys, "list")
        with pytest.raises(UserError, match=words):
            make_device_driver(dqn.make_run, [dqn.Config()], None, [0])
    compile.check_switches()


@pytest.mark.parametrize(("error", "words"), [
    (DeprecationWarning("old"), "PYTHONWARNINGS"), (MemoryError(), "is used up"),
    (OSError(24, "Too many open files"), "Too many open files"), (PermissionError(13, "Permission denied", "/x"), "denied: /x"),
])
def test_what_the_surroundings_did_is_said(capsys, monkeypatch, error, words):
    def fail(args):
        raise error

    monkeypatch.setattr("jaxdl.experiments.commands.list.run", fail)
    assert cli.main(["list"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "jaxdl itself" not in said


def test_an_error_that_is_ours_is_called_ours(capsys, monkeypatch):
    def fail(args):
        raise KeyError("x" * 10_000)

    monkeypatch.setattr("jaxdl.experiments.commands.list.run", fail)
    assert cli.main(["list"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("jaxdl: KeyError: 'xxx")
    assert len(said) < 2100  # whatever was given, a sentence stays one


def test_platforms_that_are_not_here_are_named(monkeypatch):
    def none():
        raise RuntimeError("Unable to initialize backend 'cuda'\nmore")

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert surroundings.blamed(ValueError("x")) is None
    monkeypatch.setattr(jax, "devices", none)
    said = surroundings.blamed(ValueError("x"))
    assert "JAX_PLATFORMS=cuda asks for devices that are not here (Unable to initialize backend 'cuda')" in said
    assert "JAX_PLATFORMS=cpu would do" in said


def test_a_folder_that_is_gone_is_said(capsys, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused(capsys, "list")


def test_files_of_the_current_folder_hide_no_package(tmp_path):
    for name in ("jax", "numpy", "tyro", "platformdirs"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    said = subprocess.run([sys.executable, "-m", "jaxdl", "list"], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=os.environ | {"PYTHONPATH": ""}, timeout=120)
    assert (said.returncode, said.stderr) == (0, "")
