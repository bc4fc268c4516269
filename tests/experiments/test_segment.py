"""`segment` on runs that have learned next to nothing: what it measures, draws and refuses."""

import numpy as np
from PIL import Image
from tools import refused, run

from jaxdl.experiments import cli


def test_masks_are_judged_where_the_dataset_has_them(capsys, tmp_path):
    small = ["--quick-compile", "--total-steps", "2", "--batch-size", "4"]
    assert cli.main(["train", "localizer", "--dataset", "scenes_single", "--channels", "4", "--hidden-size", "8", *small,
                     "--out", str(tmp_path / "boxes")]) == 0
    found = run(capsys, "segment", tmp_path / "boxes", "--num", "5", "--out", tmp_path / "x.png")
    assert 0 < found["iou_of_everything"] < 0.3  # one object is a part of its picture
    assert found["iou_of_everything"] - 1e-6 <= found["iou_of_best_threshold"] < 1
    assert 0 <= found["iou"] < 1
    assert Image.open(tmp_path / "x.png").size[0] > 300

    assert cli.main(["train", "classifier", "--network", "mlp", *small, "--out", str(tmp_path / "classes")]) == 0
    found = run(capsys, "segment", tmp_path / "classes", "--method", "occlusion", "--num", "3", "--out", tmp_path / "x.png")
    assert "iou" not in found
    assert 0 < found["share_of_pictures"] < 1
    assert np.isfinite(found["share_of_pictures"])
    assert "num must be between" in refused(capsys, "segment", tmp_path / "classes", "--num", "0")
    assert cli.main(["train", "regressor", *small, "--out", str(tmp_path / "numbers")]) == 0
    assert "tells no classes apart" in refused(capsys, "segment", tmp_path / "numbers")
