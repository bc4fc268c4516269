"""The command line: `jaxdl COMMAND ...`.

Every command takes --json: the last line on stdout is then one JSON object, and everything else goes to stderr. What the
user got wrong is one sentence on stderr and exit status 2; what went wrong in training is status 1; an interrupted run 130.
Heavy modules are imported by the commands that need them, so that `jaxdl --help` answers at once.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Sequence

HELP = """\
usage: jaxdl COMMAND ...

Deep reinforcement learning and generative models in JAX, as pure functions.

commands:
  train ALGO         train an algorithm or a preset (see 'jaxdl list'); 'jaxdl train ALGO --help' shows its fields
  resume RUN         continue a run from its newest checkpoint
  evaluate RUN       returns of greedy episodes (agents), bounds on held-out data (generative models)
  sample RUN         draw images from a generative model into a picture
  complete RUN       the rest of images of which the first rows are given (models that go pixel by pixel)
  encode RUN         the codes of a VQ-VAE as a dataset, for a prior over them
  interpolate RUN    pictures between images, through a generative model's latents
  traverse RUN       one latent number at a time, from low to high
  arithmetic RUN     differences of mean latents (ink, slant, class) added to latents
  transfer RUN       an autoencoder's encoder under a classifier that has few labels
  plot RUN...        learning curves of one or several runs in one picture
  export RUN         one member of a population as a run of its own
  scale ALGO         one learner on 1, 2, 4 ... devices, and where the time of a step goes
  list               algorithms, presets, environments and datasets that can be used here

Every command takes --help, --json (one JSON object as the last line on stdout) and --debug (tracebacks).
"""
COMMANDS = {
    "train": "jaxdl.experiments.commands.train",
    "resume": "jaxdl.experiments.commands.train",
    "evaluate": "jaxdl.experiments.commands.looking",
    "sample": "jaxdl.experiments.commands.sample",
    "complete": "jaxdl.experiments.commands.sample",
    "encode": "jaxdl.experiments.commands.encode",
    "interpolate": "jaxdl.experiments.commands.latents",
    "traverse": "jaxdl.experiments.commands.latents",
    "arithmetic": "jaxdl.experiments.commands.latents",
    "transfer": "jaxdl.experiments.commands.transfer",
    "plot": "jaxdl.experiments.commands.looking",
    "export": "jaxdl.experiments.commands.export",
    "scale": "jaxdl.experiments.commands.scale",
    "list": "jaxdl.experiments.commands.looking",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"jaxdl {version('jaxdl')}")
        return 0
    command, rest = argv[0], argv[1:]
    as_json, debug = "--json" in rest, "--debug" in rest
    rest = [word for word in rest if word not in ("--json", "--debug")]
    if command not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; commands are: {', '.join(COMMANDS)}"
        return _fail(f"there is no command '{command}'{hint}", 2)

    _set_up_jax()
    if "--distributed" in rest:
        from jaxdl.experiments import watch_child

        if watch_child.is_needed(argv):
            return watch_child.watch(argv)
    from jaxdl.core.errors import JaxdlError, UserError

    out = sys.stdout
    if as_json:
        sys.stdout = sys.stderr
    try:
        result = getattr(importlib.import_module(COMMANDS[command]), command)(rest)
        if as_json:
            print(json.dumps(result, allow_nan=False), file=out, flush=True)
        return 130 if isinstance(result, dict) and result.get("ended") == "interrupted" else 0
    except JaxdlError as e:
        if debug:
            traceback.print_exc()
        return _fail(str(e), 2 if isinstance(e, UserError) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:
        if debug:
            raise
        return _fail(f"{type(e).__name__}: {e} (an error in jaxdl itself; --debug shows where)", 1)
    finally:
        sys.stdout = out


def _fail(sentence: str, status: int) -> int:
    print(f"jaxdl: {' '.join(sentence.split())}", file=sys.stderr)
    return status


def _set_up_jax() -> None:
    """Keep compiled programs in the user's cache folder, so that a second run of the same shape starts at once.

    JAX reads these variables when it is imported: nothing that imports it may come before.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        import platformdirs

        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(platformdirs.user_cache_path("jaxdl") / "programs")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


if __name__ == "__main__":
    sys.exit(main())
