import errno
import io
import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.core import files
from jaxdl.core.errors import UserError


def test_json_goes_round_and_is_readable(tmp_path):
    obj = {"a": 1, "b": [1.5, "text", None, True], "c": {"d": {}}}
    files.write_json(tmp_path / "x.json", obj)
    assert files.read_json(tmp_path / "x.json", 1000) == obj
    assert (tmp_path / "x.json").read_text().startswith('{\n  "a": 1,')
    assert os.listdir(tmp_path) == ["x.json"]


def test_arrays_become_lists_and_what_is_not_finite_null():
    obj = {"a": np.array([1.0, np.nan]), "b": [math.inf, (-math.inf, 2)], "c": np.float32(0.5), "d": jnp.arange(2)}
    assert files.to_json(obj) == '{"a": [1.0, null], "b": [null, [null, 2]], "c": 0.5, "d": [0, 1]}'


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "x.json"
    files.write_bytes(path, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing == "write":
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full here")
        monkeypatch.setattr(files, "open", lambda *_: io.FileIO("/dev/full", "wb"), raising=False)  # a real failure
    else:
        monkeypatch.setattr(files.os, failing, full)
    with pytest.raises(UserError, match=r"x\.json cannot be written: No space left on device"):
        files.write_bytes(path, b"new" * 10_000)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_the_new_content_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    files.write_bytes(tmp_path / "x", b"1")
    assert calls == ["fsync", "replace"]


def test_places_where_nothing_can_be_written(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*missing"):
        files.write_bytes(tmp_path / "missing" / "x", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder cannot be written: Is a directory"):
        files.write_bytes(tmp_path / "folder", b"")
    if os.geteuid():
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="x cannot be written: Permission denied"):
            files.write_bytes(tmp_path / "x", b"")
        tmp_path.chmod(0o700)
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize(("content", "sentence"), [
    (b'{"a": 1', "is not valid JSON"),
    (b"", "is not valid JSON"),
    (b'{"a": NaN}', "NaN is no JSON"),
    (b'{"a": -Infinity}', "-Infinity is no JSON"),
    (b"\xff\x00\x80", "is not valid JSON"),
    (b"[" * 100_000, "is not valid JSON: it is nested too deeply"),
    (b"9" * 10_000, "is not valid JSON"),
    (b'{"a": ' + b"9" * 400 + b"}", "whole number of 400 digits, which does not fit 64 bits"),
    (b'{"a": 9223372036854775808}', "does not fit 64 bits"),
    (b'{"a": -1e999}', "-1e999 is beyond all numbers"),
    (b'{"a": [{"b": "\\ud800"}]}', r"has the text '\\ud800', which is no Unicode"),
    (b'{"a\\ud800": 1}', "is no Unicode"),
    (b'{"a": "b\\u0000"}', "zero byte"),
    (b"[1]", "must hold a JSON object, and holds a list"),
    (b'{"a": "' + b"x" * 200_000 + b'"}', r"x\.json is larger than the 150,000 bytes"),
])
def test_a_bad_file_is_refused_in_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as e:
        files.read_json(path, 150_000)
    assert str(path) in str(e.value)
    assert "\n" not in str(e.value)


def test_a_file_as_large_as_allowed_is_read(tmp_path):
    content = json.dumps({"a": "x" * 100})
    (tmp_path / "x.json").write_text(content)
    assert files.read_json(tmp_path / "x.json", len(content)) == {"a": "x" * 100}
    with pytest.raises(UserError, match="larger"):
        files.read_json(tmp_path / "x.json", len(content) - 1)


def test_the_name_of_a_file_whose_bytes_are_no_unicode_is_read(tmp_path):
    name = os.fsdecode(b"\xe9")
    (tmp_path / "x.json").write_text(json.dumps({"data_dir": name, "largest": 2**63 - 1}))
    assert files.read_json(tmp_path / "x.json", 100) == {"data_dir": name, "largest": 2**63 - 1}


def test_the_size_is_known_before_anything_is_read(tmp_path):
    with open(tmp_path / "sparse", "wb") as f:
        f.truncate(2**40)
    with pytest.raises(UserError, match="larger than the 10 bytes"):
        files.read_bytes(tmp_path / "sparse", 10)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none\.json"):
        files.read_json(tmp_path / "none.json", 10)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", ".", "endless"):
        with pytest.raises(UserError, match="is not a file"):
            files.read_json(tmp_path / name, 10)
