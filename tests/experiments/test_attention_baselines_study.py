"""The study of the reader's baselines: what is compared with something varies less, and a table and a picture are left."""

import pytest

from jaxdl.core.errors import UserError
from jaxdl.experiments.studies import attention_baselines as study
from jaxdl.supervised import attention_reader


def test_rows_are_valid_and_read_as_often():
    for folder in (None, "mnist"):
        args = study.Args(data_dir=folder)
        for name in study.ROWS:
            config = study.configured(args, name)
            attention_reader.validate(config)
            assert config.batch_size * config.draws == args.batch_size


def test_it_measures_writes_and_draws(tmp_path, monkeypatch):
    kept = ("none", "leave_one_out, 4 draws", "value")
    monkeypatch.setattr(study, "ROWS", {name: study.ROWS[name] for name in kept})
    monkeypatch.setattr(study, "MOMENTS", (0.0, 1.0))
    monkeypatch.setattr(study, "_POINTS", 2)
    found = study.run(study.Args(out=tmp_path, updates=100, num_seeds=2, estimates=300))
    assert (found["steps"], found["moments"]) == ([0, 50, 100], [50, 100])
    for row in found["rows"].values():
        assert len(row["error"]) == len(row["error_std"]) == 3
        assert row["error"][0] > 0.8 > 0.6 > row["error"][-1]
    last = {name: row["gradients"][-1] for name, row in found["rows"].items()}
    assert max(x["standard_error"] / x["variance"] for x in last.values()) < 0.2
    assert last["leave_one_out, 4 draws"]["variance"] < 0.6 * last["none"]["variance"]
    assert last["value"]["variance"] < 0.8 * last["none"]["variance"]
    assert (tmp_path / "attention_baselines.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "attention_baselines.json").is_file()


def test_numbers_that_make_no_sense_are_refused():
    for field, value in (("updates", 10), ("batch_size", 4), ("num_seeds", 0), ("estimates", 1)):
        with pytest.raises(UserError, match=f"{field} must be between"):
            study.run(study.Args(**{field: value}))
