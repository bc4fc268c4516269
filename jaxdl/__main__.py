"""`python -m jaxdl COMMAND ...`: the command line."""

import sys

from jaxdl.experiments.cli import main

sys.exit(main())
