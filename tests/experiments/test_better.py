"""What is better of each score and curve, of log-probabilities more and of errors less; and numbers that JSON has not."""

import pytest

from jaxdl.core import files
from jaxdl.core.task import Score
from jaxdl.experiments import algorithms, run_report
from jaxdl.generative import vae

MORE = {"exact", "r2", "elbo", "iwae", "accuracy", "return_mean", "episode_return", "mean_iou", "pixel_accuracy", "localized",
        "pck", "ap50", "true", "cider"}
LESS = {"absolute_error", "nll", "mse", "fid", "loss", "loss_discriminator", "error"}


@pytest.mark.parametrize("name", algorithms.ALGORITHMS)
def test_what_is_better_is_known_of_every_score_and_curve(name):
    algorithm = algorithms.load(name)
    configs = [algorithm.Config(), *([vae.Config(objective="iwae")] if name == "vae" else [])]
    for known in (*(algorithm.score_of(config) for config in configs), *algorithm.curves):
        base = known.name.removeprefix("eval/")
        assert base in MORE | LESS
        assert known.higher == (base in MORE), known
        assert not isinstance(known, Score) or known.sign == (1 if base in MORE else -1)


def test_a_number_that_json_has_not_is_said_and_breaks_nothing(capsys):
    found = run_report.of_members(None, [{"num": 3, "elbo": float("-inf"), "kl": 0.5}])
    assert "elbo is -inf, which is null in JSON" in capsys.readouterr().err
    assert files.to_json(found) == '{"num": 3, "elbo": null, "kl": 0.5}'
    run_report.of_members(None, [{"elbo": -1.0}])
    assert not capsys.readouterr().err
