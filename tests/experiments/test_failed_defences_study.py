"""Defences that hide gradients: attacks that see through them break what plain ones do not."""

from tools import run


def test_each_defence_stands_against_plain_gradients_and_falls_to_the_attack_that_sees_through(capsys, tmp_path):
    found = run(capsys, "study", "failed_defences", "--updates", "600", "--num", "60", "--out", tmp_path)
    rows = found["rows"]
    assert rows["none"]["pgd"] < 0.2
    for name in ("distilled", "saturated", "quantized"):
        assert rows[name]["clean"] > 0.7, name
        assert rows[name]["pgd"] > rows[name]["adapted"] + 0.4, name
        assert rows[name]["square"] < 0.4, name
    assert {path.name for path in tmp_path.iterdir()} == {"failed_defences.json", "failed_defences.png"}
