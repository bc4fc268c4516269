"""Where a command runs: JAX's switches, folders and flags that the user's surroundings have, looked at before JAX is imported.

What works here works; of what cannot, the sentence says what asks for it and what would do.
"""

import os
import subprocess
import sys
from pathlib import Path

from jaxdl.core import files, memory, stdio
from jaxdl.core.errors import UserError, first_line

_LEAST_MEMORY = 2_500_000_000  # bytes of address space: less ends training in an abort
_CACHE = "JAX_COMPILATION_CACHE_DIR"
# Switches that are left aside -> the values that no run works with, and why it does without.
_GUARDED = ("disallow", "disallow_explicit"), "a run moves what it needs to the device and back"
_ASIDE = {
    "JAX_ENABLE_X64": (("1", "true", "yes", "on", "y", "t"), "everything is computed in float32"),
    "JAX_NUMPY_RANK_PROMOTION": (("raise",), "arrays of different ranks are combined here"),
    "JAX_NUMPY_DTYPE_PROMOTION": (("strict",), "numbers of different types are combined here"),
    **{f"JAX_TRANSFER_GUARD{way}": _GUARDED for way in ("", "_HOST_TO_DEVICE", "_DEVICE_TO_DEVICE", "_DEVICE_TO_HOST")},
}


def set_up(within: bool) -> None:
    """Set JAX up for a command, and import it: nothing that imports it may come before.

    Args:
        within: the command runs within another program, whose JAX and whose flags are its own.

    Raises:
        UserError: a command cannot run here.
    """
    try:
        os.getcwd()
    except OSError:
        raise UserError("the current folder is gone; change into one that is there") from None
    left = None if within else memory.left_of_limit()
    if left is not None and left < _LEAST_MEMORY:
        raise UserError(f"this process may take {left / 1e9:.2f} GB of address space (ulimit -v), and programs of JAX take "
                        f"{_LEAST_MEMORY / 1e9:.1f} GB at least")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    if "jax" not in sys.modules:
        _set_cache()
        _leave_aside()
    if not within:
        os.environ["MPLBACKEND"] = "agg"  # pictures go into files, and no screen is asked for
    if not within and os.environ.get("XLA_FLAGS"):
        _check_xla_flags(os.environ["XLA_FLAGS"])
    try:
        from jaxdl.core import compile
    except ValueError as e:  # of a variable that JAX reads
        raise UserError(f"JAX cannot be imported: {first_line(e)}") from e
    except (ImportError, AttributeError) as e:
        found = getattr(sys.modules.get("jax"), "__file__", None)
        raise UserError(f"JAX cannot be imported: {first_line(e)}" + (f"; 'jax' is {found} here" if found else "")) from e
    compile.check_switches()


def _set_cache() -> None:
    """Keep compiled programs in the user's cache folder, so that a second run of the same shape starts at once."""
    given = os.environ.get(_CACHE)
    if given is None:
        folder = files.cache_folder()
        kept = folder is not None and files.can_be_written(folder / "programs")
        if kept:
            os.environ[_CACHE] = str(folder / "programs")
        where = "the user's cache folder"
    else:  # a bucket is JAX's own business
        kept, where = not given or "://" in given or files.can_be_written(Path(given)), f"{_CACHE}={given}"
    if not kept:
        os.environ[_CACHE] = ""
        stdio.say(f"jaxdl: {where} cannot be written, so compiled programs are not kept")


def _leave_aside() -> None:
    """Do without switches that are for finding mistakes in one's own programs, or for programs in float64, and say so."""
    for name, (values, why) in _ASIDE.items():
        if os.environ.get(name, "").lower() in values:
            stdio.say(f"jaxdl: {name}={os.environ.pop(name)} is left aside: {why}")


def _check_xla_flags(flags: str) -> None:
    """Refuse flags that XLA does not know: it would end the process. Another one finds out, in a third of a second."""
    probe = subprocess.run([sys.executable, "-P", "-c", "from jaxlib import xla_client; xla_client.CompileOptions()"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="backslashreplace", check=False)
    if probe.returncode:
        said = (probe.stderr.strip().splitlines() or ["it ends at once"])[0].rpartition("] ")[2]
        raise UserError(f"XLA does not take XLA_FLAGS={flags!r}: {said}; leave out what it does not know")


def blamed(error: Exception) -> str | None:
    """What of the surroundings an unexpected error comes from, in a sentence; None where it comes from none of it."""
    if isinstance(error, Warning):
        return (f"a warning was made an error, by PYTHONWARNINGS or -W: {type(error).__name__}: {first_line(error)}; without "
                "that the command goes on")
    if isinstance(error, MemoryError):
        return f"the memory that this process may have is used up ({first_line(error)}); lower what makes the run large"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}" + (f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else "")
    import jax

    try:
        jax.devices()
    except Exception as e:
        asked = os.environ.get("JAX_PLATFORMS") or os.environ.get("JAX_PLATFORM_NAME")
        if not asked:
            return f"JAX finds no devices: {first_line(e)}"
        why = f" ({str(e).splitlines()[0]})" if str(e) else ""
        return f"JAX_PLATFORMS={asked} asks for devices that are not here{why}; JAX_PLATFORMS=cpu would do, or unset it"
    return None
