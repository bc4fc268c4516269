"""Datasets by name: what is in them, and what is said where they cannot be had."""

import hashlib
import http.server
import threading
from functools import partial

import numpy as np
import pytest

from jaxdl import data
from jaxdl.core.errors import DataError
from jaxdl.data import mnist


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror on this machine that serves `files` (name -> bytes), the only one known, and an empty cache."""
    served = tmp_path / "served"
    served.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=served)
    handler.log_message = lambda *args: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(mnist.MIRRORS, "mnist", (f"http://127.0.0.1:{server.server_port}/",))

    def offer(files):
        for name, content in files.items():
            (served / name).write_bytes(content)
            monkeypatch.setitem(mnist.SHA256["mnist"], name, hashlib.sha256(content).hexdigest())
        return served

    yield offer
    server.shutdown()
    server.server_close()


def idx(*shape, fill=0):
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + bytes([fill]) * int(np.prod(shape))


def test_names_are_described():
    assert set(data.names()) >= {"digits", "mnist", "fashion_mnist", "idx", "cifar10"}
    assert list(data.summaries()) == data.names()
    assert all(data.summaries().values())


def test_digits_are_those_of_scikit_learn_rescaled_to_bytes():
    from sklearn.datasets import load_digits

    train, test = data.load("digits"), data.load("digits", split="test")
    assert (train.name, train.images.shape, test.images.shape) == ("digits", (1437, 8, 8, 1), (360, 8, 8, 1))
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    counts, labels = load_digits(return_X_y=True)
    images = np.concatenate([train.images, test.images])
    np.testing.assert_array_equal(np.concatenate([train.labels, test.labels]), labels)
    np.testing.assert_allclose(images.reshape(-1, 64) / 255 * 16, counts, atol=0.032)  # half a byte
    assert (images.min(), images.max()) == (0, 255)
    assert np.bincount(test.labels).min() == 33


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"name": "mnits"}, "no dataset 'mnits'; did you mean 'mnist'"),
    ({"name": "imagenet"}, "known are: .*cifar10, coco, diabetes, digits, fashion_mnist, idx, mnist"),
    ({"name": "digits", "split": "valid"}, "split must be 'train' or 'test', got 'valid'"),
    ({"name": "digits", "data_dir": "somewhere"}, "reads no folder, got somewhere"),
    ({"name": "mnist", "data_dir": "/no/such/folder"}, "/no/such/folder does not exist"),
])
def test_refused_by_name(kwargs, message):
    with pytest.raises(DataError, match=message):
        data.load(**kwargs)


def test_mnist(mnist_dir):
    train, test = data.load("mnist", mnist_dir), data.load("mnist", mnist_dir, split="test")
    assert train.images.shape == (60000, 28, 28, 1)
    assert test.images.shape == (10000, 28, 28, 1)
    # Known of MNIST whatever its order: how many of each class, and the mean pixel.
    np.testing.assert_array_equal(np.bincount(train.labels),
                                  [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    np.testing.assert_array_equal(np.bincount(test.labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    # Images belong to their labels: the nearest class mean is right four times in five.
    flat, queries = train.images.reshape(-1, 784), test.images[:2000].reshape(-1, 784).astype(np.float32)
    means = np.stack([flat[train.labels == c].mean(0) for c in range(10)])
    nearest = ((queries ** 2).sum(1)[:, None] - 2 * queries @ means.T + (means ** 2).sum(1)).argmin(1)
    assert (nearest == test.labels[:2000]).mean() > 0.78


def test_fetched_by_hash_once(mirror):
    served = mirror({"t10k-images-idx3-ubyte.gz": idx(3, 2, 2, fill=7), "t10k-labels-idx1-ubyte.gz": idx(3, fill=4)})
    first = data.load("mnist", split="test")
    assert first.images.tolist() == np.full((3, 2, 2, 1), 7).tolist()
    assert first.labels.tolist() == [4, 4, 4]
    for file in served.iterdir():
        file.unlink()
    assert data.load("mnist", split="test").labels.tolist() == [4, 4, 4]  # from the cache


def test_a_download_with_another_hash_is_refused_and_not_kept(mirror, tmp_path):
    served = mirror({"t10k-images-idx3-ubyte.gz": idx(3, 2, 2), "t10k-labels-idx1-ubyte.gz": idx(3)})
    (served / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(3, fill=1))
    with pytest.raises(DataError, match=r"t10k-labels.* has another hash\); pass --data-dir"):
        data.load("mnist", split="test")
    assert [f.name for f in (tmp_path / "cache").rglob("*") if f.is_file()] == ["t10k-images-idx3-ubyte.gz"]


def test_without_a_network_it_says_to_pass_data_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setitem(mnist.MIRRORS, "mnist", ("http://127.0.0.1:9/",))  # nobody listens
    with pytest.raises(DataError, match=r"train-images.*could not be downloaded \(.+\); pass --data-dir") as e:
        data.load("mnist")
    assert "\n" not in str(e.value)
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]


def test_each_known_set_has_the_four_files_and_a_hash_of_each():
    assert set(mnist.SHA256) == set(mnist.MIRRORS) == {"mnist", "fashion_mnist"}
    for files in mnist.SHA256.values():
        assert {len(bytes.fromhex(digest)) for digest in files.values()} == {32}
        assert sorted(files) == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
                                 "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
