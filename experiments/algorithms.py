"""What `jaxdl train` can train: algorithms by name, and presets of them. Modules are imported when they are asked for."""

import importlib
from types import ModuleType
from typing import Any, Literal, NamedTuple

from jaxdl.errors import UserError


class Algorithm(NamedTuple):
    """An algorithm's module (`Config`, `validate`, `make`, `make_run` ...) and which half it is of."""

    module: str
    kind: Literal["agent", "generative"]
    summary: str

    def load(self) -> ModuleType:
        """The module, imported."""
        return importlib.import_module(self.module)


class Preset(NamedTuple):
    """Settings of an algorithm under a name of their own; they replace defaults."""

    algo: str
    config: dict[str, Any]
    train: dict[str, Any]
    summary: str


ALGORITHMS = {
    "dqn": Algorithm("agents.dqn", "agent", "deep Q-learning with replay, and the parts of Rainbow as options"),
    "vae": Algorithm("generative.vae", "generative", "variational autoencoder, Gaussian posterior, Bernoulli pixels"),
}

PRESETS = {
    "cartpole": Preset("dqn", {}, {"eval_every": 10_000, "stop_at_return": 490.0},
                       "dqn on CartPole-v1 until an evaluation reaches 490"),
    "double_dqn": Preset("dqn", {"double": True}, {}, "dqn with double Q-learning"),
    "rainbow": Preset("dqn", {"double": True, "dueling": True, "n_steps": 3, "prioritized": True, "noisy": True,
                              "distribution": "c51"}, {},
                      "dqn with all of its options: Rainbow (Hessel et al. 2018)"),
}


def find(name: str) -> tuple[str, Algorithm, Preset | None]:
    """The algorithm called `name`, or the preset's.

    Raises:
        UserError: unknown; names the closest known one.
    """
    if name in PRESETS:
        preset = PRESETS[name]
        return preset.algo, ALGORITHMS[preset.algo], preset
    if name in ALGORITHMS:
        return name, ALGORITHMS[name], None
    from jaxdl.config import suggest

    raise UserError(f"there is no algorithm or preset '{name}'{suggest(name, [*ALGORITHMS, *PRESETS])}")
