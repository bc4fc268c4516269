"""list: algorithms, presets, environments and datasets that can be used here"""

from dataclasses import dataclass
from typing import Any

from jaxdl import data
from jaxdl.experiments import algorithms
from jaxdl.rl import envs


@dataclass(frozen=True)
class Args:
    """The command has no flags."""


def run(args: Args) -> dict[str, Any]:
    """Print what can be used, a line each."""
    del args
    tables = {
        "algorithms": {name: algorithms.load(name).summary for name in algorithms.ALGORITHMS},
        "presets": {name: preset.summary for name, preset in algorithms.PRESETS.items()},
        "environments": {name: ", ".join(backends) for name, backends in envs.listing()},
        "datasets": data.summaries(),
    }
    for title, table in tables.items():
        print(f"{title}:")
        for name, text in table.items():
            print(f"  {name:<32} {text}")
    return tables
