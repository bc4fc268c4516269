"""Settings of all tests: a CPU with several virtual devices, one compilation cache for the session's programs."""

import os
import shutil
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8 "
                      # compiling is most of what tests do: programs without compiler options compile in half the time
                      "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

# The same program is compiled once a session, whichever test, worker or command needs it: a third to a half of the time.
_MADE = None if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="jaxdl-tests-")
if _MADE:  # workers and commands that tests start inherit it
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": _MADE, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                   "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def pytest_unconfigure():
    if _MADE:
        shutil.rmtree(_MADE, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A module whose tests share compiled programs or a fixture goes to one worker of `-n 2 --dist loadgroup`."""
    for item in items:
        if any(hasattr(x, "cache_info") or _scope(x) == "module" for x in vars(item.module).values()):
            item.add_marker(pytest.mark.xdist_group(item.module.__name__))


def _scope(x):
    return getattr(getattr(x, "_fixture_function_marker", None), "scope", None)
