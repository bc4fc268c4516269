"""Settings of all tests: a CPU with several virtual devices, one compilation cache for the session's programs."""

import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

# Compiling is most of what tests do: programs without compiler options compile in half the time, and with the emitters of
# loops that jaxlib 0.11 has no more in an eighth less again.
_FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0",
          "--xla_llvm_disable_expensive_passes=true"]
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", " ".join(_FLAGS))
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

# The same program is compiled once a session, whichever test, worker or command needs it: a third to a half of the time.
_MADE = None if "JAX_COMPILATION_CACHE_DIR" in os.environ else tempfile.mkdtemp(prefix="jaxdl-tests-")
if _MADE:  # workers and commands that tests start inherit it
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": _MADE, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                   "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


def pytest_unconfigure():
    if _MADE:
        shutil.rmtree(_MADE, ignore_errors=True)


@pytest.fixture
def mnist_dir():
    """The folder with MNIST's four files, where it is on this machine."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
    folder = Path(os.environ.get("JAXDL_MNIST_DIR", default))
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("MNIST is not here: set JAXDL_MNIST_DIR to the folder with its four files")
    return folder


# What takes longest, the longest first: `--dist loadfile --no-loadscope-reorder` gives a file to one worker (what tests of a
# file compile and set up is then made once), and two workers end at about the same time.
LONGEST = ("test_cli", "test_reinforce", "test_rainbow", "test_in_place", "test_spread", "test_mesh", "test_run", "test_dqn",
           "test_vision_commands", "test_attack", "test_looking", "test_policies", "test_segment", "test_detector",
           "test_scenes", "test_captioner", "test_attention_reader", "test_attention_baselines_study", "test_look",
           "test_make_pictures", "test_latents", "test_exact", "test_models", "test_readme", "test_convolution",
           "test_mistakes", "test_sampling", "test_gan", "test_games", "test_vae_models", "test_own", "test_ppo",
           "test_devices", "test_processes", "test_sweep")


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.module.__name__, len(LONGEST)))
