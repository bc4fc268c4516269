"""A whole run that evaluates as it trains: validation images choose, by the bound that is trained; the test images judge."""

import json

import numpy as np
import pytest
from tools import run

from jaxdl.runtime import checkpoint


@pytest.mark.slow
def test_validation_images_choose_and_the_test_images_judge_once(tmp_path, capsys):
    folder = tmp_path / "run"
    summary = run(capsys, "train", "vae", "--objective", "iwae", "--num-samples", 3, "--hidden-sizes", 8, "--latent-size", 2,
                  "--total-steps", 30, "--eval-every", 10, "--quick-compile", "--out", folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    chosen = [row["eval/iwae"] for row in rows if "eval/iwae" in row]
    assert len(chosen) == 3
    assert {row["eval/num"] for row in rows if "eval/num" in row} == {143}
    assert summary["eval"]["num"] == 360
    assert summary["eval"]["iwae"] > summary["eval"]["elbo"]
    (step,) = checkpoint.steps(folder / "best")
    assert step == 10 * (1 + int(np.argmax(chosen)))
    assert checkpoint.read_meta(folder / "best", step)["score"] == pytest.approx(max(chosen), rel=1e-5)
    told = run(capsys, "evaluate", folder)
    assert told["iwae"] == pytest.approx(summary["eval"]["iwae"], rel=1e-4)
