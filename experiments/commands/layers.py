"""layers RUN: the layers of a run's network by name, and the shapes of what they give"""

from dataclasses import dataclass
from typing import Any

from jaxdl.analysis import layers
from jaxdl.experiments import looking
from jaxdl.experiments.commands import common


@dataclass(frozen=True, kw_only=True)
class Args(common.RunArgs):
    """Flags of the command."""


def run(args: Args) -> dict[str, Any]:
    """Print the layers, a line each."""
    seen = looking.open_network(args, 1)
    found = {name: list(out.shape[1:]) for name, out in layers.of(seen.f, seen.x).items()}
    wide = max(map(len, found), default=0)
    for name, shape in found.items():
        print(f"{name:<{wide}}  {'x'.join(map(str, shape))}")
    return {"layers": found}
