"""The IDX reader: what it reads, and every way in which a file can lie."""

import gzip
import os
import re
import tracemalloc

import numpy as np
import pytest

from jaxdl import data
from jaxdl.core.errors import DataError, UserError
from jaxdl.data import gzip_file, idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 3, 2) * 10
LABELS = np.array([3, 0, 9, 1], np.uint8)


def encode(array, shape=None, magic=None):
    """An IDX file of `array`, whose header says `shape` and begins with `magic`."""
    shape = array.shape if shape is None else shape
    magic = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return magic + np.array(shape, ">u4").tobytes() + array.tobytes()


def write(folder, images, labels, end="", dot="-"):
    (folder / f"train-images{dot}idx3-ubyte{end}").write_bytes(images)
    (folder / f"train-labels{dot}idx1-ubyte{end}").write_bytes(labels)


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize(("end", "pack"), [("", bytes), (".gz", gzip.compress), ("", gzip.compress), (".gz", bytes)])
def test_reads_what_was_written(tmp_path, end, pack, dot):
    write(tmp_path, pack(encode(IMAGES)), pack(encode(LABELS)), end, dot)
    for folder in (tmp_path, str(tmp_path)):
        read = data.load("mnist", folder)
        np.testing.assert_array_equal(read.images, IMAGES[..., None])
        np.testing.assert_array_equal(read.labels, LABELS)
        assert (read.images.dtype, read.labels.dtype) == (np.uint8, np.int32)


def test_the_test_split_has_its_own_files(tmp_path):
    write(tmp_path, encode(IMAGES), encode(LABELS))
    with pytest.raises(DataError, match=r"none of the files t10k-images-idx3-ubyte, .*t10k-images\.idx3-ubyte\.gz"):
        data.load("mnist", tmp_path, split="test")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_truncated_anywhere_is_refused_and_named(tmp_path, pack):
    whole = pack(encode(IMAGES))
    path = tmp_path / "images"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"^{re.escape(str(path))} is (truncated|not an IDX file)"):
            idx.read(path, 3)
    path.write_bytes(whole)
    np.testing.assert_array_equal(idx.read(path, 3), IMAGES)


def test_no_flipped_bit_of_a_gzip_file_changes_what_is_read(tmp_path):
    whole = gzip.compress(encode(IMAGES), mtime=0)
    path = tmp_path / "images"
    refused = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(idx.read(path, 3), IMAGES)  # bits of the name and time stamp say nothing
        except DataError:
            refused += 1
    assert refused > 8 * (len(whole) - 10)  # more than all that come after gzip's header


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(("content", "message"), [
    (encode(IMAGES, magic=b"\0\0\x08\x01"), "begins with 00 00 08 01, expected 00 00 08 03"),
    (encode(IMAGES, magic=b"\0\0\x0d\x03"), "begins with 00 00 0d 03"),
    (encode(IMAGES, magic=b"\x89PNG"), "begins with 89 50 4e 47"),
    (encode(IMAGES, shape=(5, 3, 2)), r"shape \[5, 3, 2\], which takes 30 bytes after it, and there are 24"),
    (encode(IMAGES, shape=(3, 3, 2)), r"takes 18 bytes after it, and there are (24|more)"),
    (encode(IMAGES) + b"\0", r"takes 24 bytes after it, and there are (25|more)"),
    (encode(IMAGES, shape=(0, 3, 2)), r"is empty: .*\[0, 3, 2\]"),
    (encode(IMAGES, shape=(4, 3, 0)), "is empty"),
    (encode(IMAGES, shape=(2**32 - 1,) * 3), f"takes {(2**32 - 1) ** 3} bytes"),
    (encode(IMAGES, shape=(2**31, 2, 1)), f"takes {2**32} bytes"),
    (b"", "begins with nothing"),
])
def test_refused(tmp_path, pack, content, message):
    path = tmp_path / "images"
    path.write_bytes(pack(content))
    with pytest.raises(DataError, match=message) as e:
        idx.read(path, 3)
    assert str(e.value).startswith(str(path))


@pytest.mark.parametrize("content", [
    b"\x1f\x8b" + bytes(range(200)),  # no gzip after its magic
    gzip.compress(encode(IMAGES)) + b"rubbish",
    gzip.compress(encode(IMAGES))[:-8] + bytes(8),  # another checksum
], ids=["no_stream", "rubbish_behind", "checksum"])
def test_a_damaged_gzip_stream_is_refused(tmp_path, content):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(DataError, match="is damaged: its gzip stream"):
        idx.read(tmp_path / "images", 3)


def peak_of_refusing(path, message):
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            idx.read(path, 3)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_bomb_is_refused_before_it_unfolds(tmp_path):
    path = tmp_path / "images"
    bomb = np.zeros((64, 1024, 1024), np.uint8)
    path.write_bytes(gzip.compress(encode(bomb, shape=(4, 3, 2))))  # says little, holds 64 MiB
    assert peak_of_refusing(path, "takes 24 bytes after it, and there are more") < 2**20
    path.write_bytes(gzip.compress(encode(IMAGES, shape=(64, 1024, 1024))))  # says 64 MiB, cannot hold them
    assert peak_of_refusing(path, "there are at most") < 2**20


def test_a_bomb_that_tells_the_truth_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(encode(np.zeros((16, 1024, 1024), np.uint8))))
    monkeypatch.setattr(idx, "MAX_UNPACKED", 2**24 - 1)
    assert peak_of_refusing(path, f"unpack to {2**24} bytes, above the limit") < 2**20


def test_images_and_labels_that_do_not_fit_are_refused(tmp_path):
    write(tmp_path, encode(IMAGES), encode(LABELS[:3]))
    with pytest.raises(DataError, match=r"train-images\S* has 4 images, but \S*train-labels\S* has 3 labels"):
        data.load("mnist", tmp_path)
    write(tmp_path, encode(IMAGES), encode(np.array([3, 0, 10, 1], np.uint8)))
    with pytest.raises(DataError, match=r"train-labels\S* gives example 2 label 10, expected 0 to 9"):
        data.load("mnist", tmp_path)
    write(tmp_path, encode(LABELS), encode(IMAGES))  # the one for the other
    with pytest.raises(DataError, match="not an IDX file of unsigned bytes in 1 dimension: it begins with 00 00 08 03"):
        data.load("mnist", tmp_path)


def test_what_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        idx.read(tmp_path, 3)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="does not exist or is not a folder"):
        data.load("mnist", tmp_path / "file")


@pytest.mark.parametrize(("content", "message"), [
    (gzip.compress(b"") * 20_000, "gzip members hold 0 bytes"),
    (gzip.compress(b"\0\0\x08\x03\0\0\0\x64\0\0\0\x64\0\0\0\2") + gzip.compress(b"x") * 20_000, "gzip members hold 10"),
    (gzip.compress(b"\0\0\x08\x03" + b"\0\0\0\1" * 3 + b"\7") + gzip.compress(b"") * 20_000, "gzip members hold 17")])
def test_a_gzip_file_of_members_that_hold_nothing_is_refused_at_once(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(DataError, match=message):
        idx.read(tmp_path / "x", 3)


def test_members_and_padding_that_gzip_allows_are_read(tmp_path):
    whole = b"\0\0\x08\x01\0\0\0\5abcde"
    pieces = [gzip.compress(whole[i : i + 1]) for i in range(len(whole))]
    (tmp_path / "x").write_bytes(gzip.compress(b"").join(pieces) + bytes(700))
    assert idx.read(tmp_path / "x", 1).tobytes() == b"abcde"


def test_a_hole_and_a_pipe_are_refused_before_they_are_read(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        file.write(bytes([0, 0, 8, 3]) + np.array([2**20, 2**10, 2**10], ">u4").tobytes())
        file.truncate(2**40 + 16)
    with pytest.raises(DataError, match="x is a hole: of its 1099511627792 bytes"):
        idx.read(tmp_path / "x", 3)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is a pipe or a device"):
        idx.read(tmp_path / "pipe", 3)


def test_images_that_do_not_fit_into_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(gzip_file.memory, "available_bytes", lambda: 2**29)
    gzip_file.check_room("x", 2**28)
    with pytest.raises(DataError, match=r"x holds 0.3 GB, which lie in memory twice .* 0.5 GB are free"):
        gzip_file.check_room("x", 2**28 + 1)


@pytest.mark.parametrize(("given", "kept"), [
    (np.eye(3, dtype=bool), np.eye(3) * 255), (np.eye(3), np.eye(3) * 255), (np.full((3, 3), 7, np.uint8), np.full((3, 3), 7)),
    (np.full((3, 3), 0.5, np.float32), np.full((3, 3), 128))])
def test_images_are_written_as_the_bytes_that_they_mean(tmp_path, given, kept):
    idx.write_split(str(tmp_path), "train", given[None], np.array([3], np.int64))
    found = idx.read_split(str(tmp_path), "train")
    np.testing.assert_array_equal(found.images[0, ..., 0], kept)
    assert found.labels.tolist() == [3]


@pytest.mark.parametrize(("images", "labels"), [
    (np.zeros((1, 3, 3), np.int64), [0]), (np.full((1, 3, 3), 2.0), [0]), (np.zeros((1, 3, 3), np.uint8), [256]),
    (np.zeros((1, 3, 3), np.uint8), [-1]), (np.zeros((1, 3, 3), np.uint8), [0.5]), (np.zeros((1, 3, 3), np.uint8), [0, 1])])
def test_what_bytes_cannot_hold_is_not_written(tmp_path, images, labels):
    with pytest.raises(UserError):
        idx.write_split(tmp_path, "train", images, np.array(labels))
    assert not list(tmp_path.iterdir())
