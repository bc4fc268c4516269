"""The study of regularizers: as many labels of each class, settings that go where they belong, and a table and a picture."""

import numpy as np
import pytest

from jaxdl import data
from jaxdl.core.errors import UserError
from jaxdl.experiments.studies import regularizers as study


def test_labels_are_as_many_of_each_class_whatever_the_order():
    digits = data.load("digits")
    few = study.balanced(digits, 50)
    assert np.bincount(few.labels).tolist() == [5] * 10
    turned = study.balanced(digits.part(np.arange(1437)[::-1]), 50)
    assert {x.tobytes() for x in few.images} == {x.tobytes() for x in turned.images}
    with pytest.raises(UserError, match=r"num_labels must be at least 10, .* got 5000"):
        study.balanced(digits, 5000)


def test_settings_go_where_they_belong():
    config = study.configured({"l2": 0.1, "max_shift": 3, "dropout": 0.2}, 7)
    assert (config.optim.l2, config.augment.max_shift, config.dropout, config.epochs) == (0.1, 3, 0.2, 7)
    assert config.optim.schedule == study.BASE.optim.schedule
    for settings in (*study.ALONE.values(), study.TOGETHER):
        study.classifier.validate(study.configured(settings, 1))


def test_it_writes_a_table_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "ALONE", {name: study.ALONE[name] for name in ("none", "early stopping")})
    monkeypatch.setattr(study, "TOGETHER", {"l2": 1e-3})
    monkeypatch.setattr(study, "BASE", study.dataclasses.replace(study.BASE, hidden_sizes=(8,)))
    found = study.run(study.Args(out=tmp_path, num_seeds=2, epochs=2))["errors"]["digits"]
    assert list(found) == ["none", "early stopping", "together"]
    assert all(len(row["errors"]) == 2 and 0.02 < row["error_mean"] < 0.95 for row in found.values())
    assert (tmp_path / "regularizers.png").read_bytes()[:4] == b"\x89PNG"
