"""A stream of random numbers for each use of a seed, so that no two uses begin alike.

Training alone has `jax.random.key(seed)` itself. All else names its purpose: an evaluation with the seed of its run then begins
in other states than the training did, and environments on the host of the seeds 3 and 4 have none in common.
"""

from enum import IntEnum

import jax
import numpy as np

from jaxdl.core.types import Key


class Purpose(IntEnum):
    """What random numbers are for. The numbers stay: they decide what a seed means."""

    ENVIRONMENTS = 1  # of a training run, where they live on the host
    EVALUATION = 2
    FILM = 3
    SAMPLES = 4  # of a model


def key(seed: int, purpose: Purpose) -> Key:
    """The key of a purpose. Those that training splits off its own are folds by small numbers: this one is by a large one."""
    return jax.random.fold_in(jax.random.key(seed), 2**31 + purpose)


def host_seed(seed: int, purpose: Purpose, *index: int) -> int:
    """A seed below 2**31 for what takes whole numbers; `index` tells apart what has the purpose more than once.

    Environments side by side take it and those that follow it: runs begin so far apart that theirs do not meet.
    """
    sequence = np.random.SeedSequence(int(seed) % 2**64, spawn_key=(purpose, *index))
    return int(sequence.generate_state(1)[0] >> 1)
