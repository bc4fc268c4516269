"""A damaged checkpoint is never taken for a whole one."""

import itertools
import json
import os
import time

import jax
import jax.numpy as jnp
import pytest
from checkpoints import META, files_of, fill, small
from tools import same_bits

from jaxdl.core.errors import CheckpointError
from jaxdl.runtime import checkpoint, manifest


def flip(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << (at % 8)
    file.write_bytes(data)


def test_a_flipped_byte_in_any_file_is_refused_or_harmless(tmp_path):
    path = checkpoint.save(tmp_path, 1, small(1), meta=META, keep=1)
    like, wanted, refused, said = small(0), jax.tree.map(jnp.asarray, small(1)), set(), set()
    for file in files_of(path):
        whole = file.read_bytes()
        for at in sorted({0, len(whole) // 3, len(whole) // 2, len(whole) - 1} & set(range(len(whole)))):
            flip(file, at)
            try:
                same_bits(checkpoint.restore(tmp_path, like, meta=META)[1], wanted)
            except checkpoint.DamagedError as e:
                refused.add(file)
                said.add(str(e))
            file.write_bytes(whole)
    assert path / "manifest" / "manifest.json" in refused
    largest = max(files_of(path), key=lambda f: f.stat().st_size)  # the elements
    assert largest in refused
    assert all(f"checkpoint {path} is damaged (" in sentence for sentence in said)
    same_bits(checkpoint.restore(tmp_path, like, meta=META)[1], wanted)


def test_a_missing_or_short_file_is_refused_or_harmless(tmp_path):
    path = checkpoint.save(tmp_path, 1, small(1), meta=META, keep=1)
    like, wanted, refused = small(0), jax.tree.map(jnp.asarray, small(1)), 0
    for file, size in itertools.product(files_of(path), (None, 0, 0.5)):
        whole = file.read_bytes()
        file.unlink()
        if size is not None:
            file.write_bytes(whole[: int(size * len(whole))])
        try:
            same_bits(checkpoint.restore(tmp_path, like, meta=META)[1], wanted)
        except CheckpointError:
            refused += 1
        file.write_bytes(whole)
    assert refused >= 9


def damage(path):
    """Flip a bit among the elements."""
    flip(max(files_of(path), key=lambda f: f.stat().st_size), -1000)


def test_the_newest_whole_one_before_a_damaged_one_is_offered(tmp_path):
    fill(tmp_path, 10, 20, 30, 40)
    damage(tmp_path / "30")
    with pytest.raises(checkpoint.DamagedError, match=r"30 is damaged .*step 20, is read with --step 20 ") as caught:
        checkpoint.restore(tmp_path, small(0), step=30)
    assert caught.value.earlier == 20
    damage(tmp_path / "20")
    with pytest.raises(checkpoint.DamagedError) as caught:
        checkpoint.restore(tmp_path, small(0), step=30)
    assert caught.value.earlier == 10
    damage(tmp_path / "10")
    with pytest.raises(checkpoint.DamagedError, match="there is no whole one before it"):
        checkpoint.restore(tmp_path, small(0), step=30)
    assert checkpoint.restore(tmp_path, small(0))[0] == 40
    fill(tmp_path, 30)  # a run that went on from an earlier one writes it anew
    assert checkpoint.restore(tmp_path, small(0), step=30)[0] == 30


def test_a_reader_beside_a_run_that_goes_on_finds_the_newest_whole_checkpoint(tmp_path, monkeypatch):
    """The one that it began to read is removed meanwhile, as the run writes newer ones."""
    fill(tmp_path, 10)
    read, newer = checkpoint._read, iter([20, 30])

    def slow(path, *args):
        if step := next(newer, None):
            checkpoint.save(tmp_path, step, small(step), meta=META, keep=1)
        return read(path, *args)

    monkeypatch.setattr(checkpoint, "_read", slow)
    step, state = checkpoint.restore(tmp_path, small(0))
    assert step == 30
    same_bits(state, jax.tree.map(jnp.asarray, small(30)))


def test_a_reader_of_a_run_that_is_overwritten_is_told_that_there_is_no_checkpoint(tmp_path, monkeypatch):
    folder = tmp_path / "best"
    checkpoint.save(folder, 1, small(1), meta=META, keep=1)
    read = checkpoint._read

    def slow(*args):
        folder.rename(tmp_path / "aside")  # as `--overwrite` does, in another process
        return read(*args)

    monkeypatch.setattr(checkpoint, "_read", slow)
    with pytest.raises(CheckpointError, match="no checkpoint") as told:
        checkpoint.restore(folder, small(0), meta=META)
    assert not isinstance(told.value, checkpoint.DamagedError)


@pytest.mark.parametrize("replace", [
    os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("nowhere"),
    lambda path: (path.touch(), os.truncate(path, 2**40))], ids=["pipe", "device", "nowhere", "sparse"])
def test_what_would_be_waited_for_or_read_for_ever_is_not_read(tmp_path, replace):
    path = checkpoint.save(tmp_path, 1, small(1), meta=META, keep=1)
    file = max((f for f in files_of(path) if "arrays" in f.parts), key=lambda f: f.stat().st_size)
    file.unlink()
    replace(file)
    with pytest.raises(checkpoint.DamagedError, match=r"is no file|No such file|bytes on disk"):
        checkpoint.restore(tmp_path, small(0))


def test_other_bits_are_refused_by_the_name_of_the_leaf(tmp_path):
    path, other = (checkpoint.save(tmp_path / str(k), 1, {"a": {"b": jnp.arange(3) + k}}, meta={}, keep=1)
                   for k in (0, 1))
    (path / "arrays").rename(tmp_path / "away")
    (other / "arrays").rename(path / "arrays")  # sound in itself, but not what this manifest was written for
    with pytest.raises(checkpoint.DamagedError, match=r"leaf \['a'\]\['b'\] has other bits than were written"):
        checkpoint.restore(tmp_path / "0", {"a": {"b": jnp.arange(3)}})


@pytest.mark.parametrize("change", [
    {"dtype": "int32"}, {"shape": [3, 2]}, {"shape": [10**12]}, {"shape": []}, {"shape": [0]}])
def test_arrays_that_are_not_what_the_manifest_says(tmp_path, change):
    path = checkpoint.save(tmp_path, 1, {"a": jnp.zeros((2, 3))}, meta={}, keep=1)
    like = {"a": jax.ShapeDtypeStruct(change.get("shape", (2, 3)), change.get("dtype", "float32"))}
    reseal(path, lambda m: m["leaves"][0].update(change))
    with pytest.raises(checkpoint.DamagedError):
        checkpoint.restore(tmp_path, like)


def reseal(path, change):
    """Change a manifest and give it the digest that fits."""
    file = path / manifest.PATH
    values = json.loads(file.read_text())["manifest"]
    change(values)
    file.write_text(json.dumps({"manifest": values, "sha256": manifest._sha256_of_json(values)}))


@pytest.mark.parametrize("change", [
    lambda m: m.clear(),
    lambda m: m.pop("meta"),
    lambda m: m.update(more=1),
    lambda m: m.update(step="1"),
    lambda m: m.update(step=2),
    lambda m: m.update(leaves={}),
    lambda m: m["leaves"].append(m["leaves"][0]),
    lambda m: m["leaves"][0].update(path=3),
    lambda m: m["leaves"][0].update(shape=["1"]),
    lambda m: m["leaves"][0].update(shape=None),
    lambda m: m["leaves"][0].pop("sha256"),
    lambda m: m.update(format=2),
])
def test_a_manifest_of_another_form_is_refused(tmp_path, change):
    reseal(checkpoint.save(tmp_path, 1, small(1), meta=META, keep=1), change)
    for read in (lambda: checkpoint.restore(tmp_path, small(0)), lambda: checkpoint.read_meta(tmp_path, 1)):
        with pytest.raises(CheckpointError, match=r"manifest cannot be read|has format (2|None)"):
            read()


@pytest.mark.parametrize("text", [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"manifest": 1, "sha256": 2}', b"9" * 10_000,
    b'{"a":' * 200_000, b" " * (2**26 + 1)], ids=lambda t: str(t[:12]))
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path, text):
    path = checkpoint.save(tmp_path, 1, small(1), meta=META, keep=1)
    (path / "manifest" / "manifest.json").write_bytes(text)
    for read in (lambda: checkpoint.restore(tmp_path, small(0)), lambda: checkpoint.read_meta(tmp_path, 1)):
        with pytest.raises(checkpoint.DamagedError, match="manifest cannot be read"):
            read()


def test_a_manifest_that_is_too_large_is_refused(tmp_path, monkeypatch):
    fill(tmp_path, 1)
    monkeypatch.setattr(manifest, "_MAX_BYTES", 100)
    with pytest.raises(checkpoint.DamagedError, match="is larger than the 100 bytes"):
        checkpoint.read_meta(tmp_path, 1)


@pytest.mark.parametrize("where", ["leaves", "meta"])
def test_a_manifest_of_nested_lists_is_refused_before_they_are_built(tmp_path, where):
    path = checkpoint.save(tmp_path, 1, small(1), meta=META, keep=1)
    sealed = json.dumps({"sha256": "", "manifest": {"format": 1, "step": 1, "meta": {"a": "meta"}, "leaves": "leaves"}})
    (path / manifest.PATH).write_text(sealed.replace(f'"{where}"}}', "[" + "[]," * 5_000_000 + "[]]}"))
    began = time.process_time()
    with pytest.raises(checkpoint.DamagedError, match="manifest cannot be read"):
        checkpoint.read_meta(tmp_path, 1)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("make", [os.mkfifo, lambda p: p.symlink_to("/dev/zero"), lambda p: (p.touch(), os.truncate(p, 2**40))])
@pytest.mark.parametrize("name", ["manifest/manifest.json", "arrays/_METADATA"])
def test_pipes_devices_and_huge_files_are_refused_and_not_read(tmp_path, make, name):
    path = checkpoint.save(tmp_path, 1, small(1), meta=META, keep=1)
    (path / name).unlink()
    make(path / name)
    with pytest.raises(CheckpointError, match=r"is no file|no checkpoint|larger than"):
        checkpoint.restore(tmp_path, small(0))


def test_a_pipe_among_the_arrays_is_refused_and_not_waited_for(tmp_path):
    path = checkpoint.save(tmp_path, 1, small(1), meta=META, keep=1)
    file = next((path / "arrays" / "ocdbt.process_0" / "d").iterdir())
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(checkpoint.DamagedError, match="is no file"):
        checkpoint.restore(tmp_path, small(0))


def test_a_changed_setting_in_the_manifest_is_refused(tmp_path):
    path = checkpoint.save(tmp_path, 1, small(1), meta=META, keep=1)
    file = path / "manifest" / "manifest.json"
    file.write_text(file.read_text().replace("0.99", "0.98"))
    with pytest.raises(checkpoint.DamagedError, match="it is not what was written"):
        checkpoint.read_meta(tmp_path, 1)
