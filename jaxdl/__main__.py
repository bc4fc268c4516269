"""`python -m jaxdl COMMAND ...`: the command line."""

import contextlib
import os
import sys

with contextlib.suppress(OSError):
    if not sys.flags.safe_path and sys.path[0] == os.getcwd():
        del sys.path[0]  # a jax.py or numpy.py of the current folder hides nothing

from jaxdl.core import signals

signals.install()  # before the imports of the command line take their time

from jaxdl.experiments.cli import main  # noqa: E402

sys.exit(main())
