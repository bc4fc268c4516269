"""`python -m jaxdl COMMAND ...`: the command line."""

import sys

from jaxdl.core import signals

signals.install()  # before the imports of the command line take their time

from jaxdl.experiments.cli import main  # noqa: E402

sys.exit(main())
