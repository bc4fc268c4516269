"""The reader of CIFAR-10's binary files."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from jaxdl import data
from jaxdl.core.errors import DataError
from jaxdl.data import cifar

RECORD = 3073
FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10_jpeg"


def records(labels, first=0):
    """Records [N, 3073] whose bytes count on from `first`."""
    pixels = (first + np.arange(len(labels) * 3072, dtype=np.uint32)).astype(np.uint8).reshape(len(labels), 3072)
    return np.concatenate([np.array(labels, np.uint8)[:, None], pixels], 1)


def test_colours_come_last_and_batches_in_their_order(tmp_path):
    first, second = records([3, 9], 5), records([0], 77)
    (tmp_path / "data_batch_1.bin").write_bytes(first.tobytes())
    (tmp_path / "data_batch_2.bin.gz").write_bytes(gzip.compress(second.tobytes()))
    (tmp_path / "test_batch.bin").write_bytes(gzip.compress(second.tobytes()))  # packed, whatever its name says
    train, test = (data.load("cifar10", tmp_path, split) for split in ("train", "test"))
    assert (train.images.shape, train.images.dtype, train.labels.dtype) == ((3, 32, 32, 3), np.uint8, np.int32)
    assert train.labels.tolist() == [3, 9, 0]
    for image, record in zip(train.images, [*first, *second], strict=True):
        for row, column, colour in ((0, 0, 0), (0, 1, 0), (1, 0, 0), (31, 31, 2), (5, 7, 1)):
            assert image[row, column, colour] == record[1 + 1024 * colour + 32 * row + column]
    np.testing.assert_array_equal(test.images, train.images[2:])


@pytest.mark.parametrize(("files", "message"), [
    ({}, "none of the files data_batch_1.bin, data_batch_1.bin.gz; CIFAR-10's binary version is at https"),
    ({"data_batch_1.bin": records([1]).tobytes(), "data_batch_3.bin": b""}, "_3.bin, but no data_batch_2.bin before"),
    ({"data_batch_1.bin": b""}, "it has 0 bytes, expected one or more records of 3073"),
    ({"data_batch_1.bin": records([1, 2]).tobytes()[:-1]}, "data_batch_1.bin is truncated .* it has 6145 bytes"),
    ({"data_batch_1.bin": records([1, 10]).tobytes()}, "data_batch_1.bin gives example 1 label 10, expected 0 to 9"),
    ({"data_batch_1.bin.gz": gzip.compress(records([1]).tobytes())[:-20]}, "is truncated: its gzip stream ends too early"),
    ({"data_batch_1.bin.gz": gzip.compress(bytes(50_001 * RECORD), 1)}, "more than the 50000 records of 3073 bytes"),
])
def test_files_that_lie_are_refused_by_name(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load("cifar10", tmp_path)


def test_it_needs_a_folder_that_is_there(tmp_path):
    with pytest.raises(DataError, match="pass --data-dir"):
        data.load("cifar10")
    with pytest.raises(DataError, match="nowhere does not exist"):
        data.load("cifar10", tmp_path / "nowhere")


def test_no_cut_and_no_flipped_bit_goes_unnoticed(tmp_path):
    path = tmp_path / "data_batch_1.bin.gz"
    whole = gzip.compress(records([4]).tobytes(), mtime=0)
    path.write_bytes(whole)
    expected = data.load("cifar10", tmp_path)
    damaged = [whole[:n] for n in range(0, len(whole), 3)]
    flips = range(10, len(whole), 3)  # gzip's header comes before
    damaged += [whole[:n] + bytes([whole[n] ^ 1 << n % 8]) + whole[n + 1 :] for n in flips]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"data_batch_1\.bin\.gz is (truncated|damaged)"):
            data.load("cifar10", tmp_path)
    path.write_bytes(whole)
    np.testing.assert_array_equal(data.load("cifar10", tmp_path).images, expected.images)


def test_a_bomb_takes_no_more_than_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "_MOST", 100 * RECORD)
    (tmp_path / "test_batch.bin").write_bytes(gzip.compress(bytes(50_000 * RECORD), 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more than the 100 records"):
            data.load("cifar10", tmp_path, "test")
        assert tracemalloc.get_traced_memory()[1] < 2**20  # of 147 unpacked
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("folder", ["data_batch_1.bin", "data_batch_2.bin"])
def test_folders_and_batches_beyond_the_fifth_are_no_batches(tmp_path, folder):
    for i in range(1, 8):
        if folder != f"data_batch_{i}.bin":
            (tmp_path / f"data_batch_{i}.bin").write_bytes(records([i]).tobytes())
    (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=f"(none of the files|but no) {folder}"):
        data.load("cifar10", tmp_path)
    (tmp_path / folder).rmdir()
    (tmp_path / folder).write_bytes(records([int(folder[11])]).tobytes())
    assert data.load("cifar10", tmp_path).labels.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.skipif(not FOLDER.is_dir(), reason="there are no real pictures beside the project")
def test_real_pictures_are_pictures():
    test = data.load("cifar10", FOLDER, "test")
    assert test.images.shape == (2000, 32, 32, 3)
    assert np.bincount(test.labels).tolist() == [200] * 10
    x = test.images.astype(float)
    assert np.abs(np.diff(x, axis=1)).mean() < 20  # neighbours are alike
    assert np.corrcoef(x[..., 0].ravel(), x[..., 2].ravel())[0, 1] > 0.7  # and so are colours of one pixel
