"""What is better of each score and curve: of log-probabilities and accuracies more, of errors, losses and distances less."""

import pytest

from jaxdl.core.task import Score
from jaxdl.experiments import algorithms
from jaxdl.generative import vae

MORE = {"elbo", "iwae", "accuracy", "return_mean", "episode_return"}
LESS = {"nll", "mse", "fid", "loss", "loss_discriminator", "error"}


@pytest.mark.parametrize("name", algorithms.ALGORITHMS)
def test_what_is_better_is_known_of_every_score_and_curve(name):
    algorithm = algorithms.load(name)
    configs = [algorithm.Config(), *([vae.Config(objective="iwae")] if name == "vae" else [])]
    for known in (*(algorithm.score_of(config) for config in configs), *algorithm.curves):
        base = known.name.removeprefix("eval/")
        assert base in MORE | LESS
        assert known.higher == (base in MORE), known
        assert not isinstance(known, Score) or known.sign == (1 if base in MORE else -1)
