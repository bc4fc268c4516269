"""The reader of anyone's own arrays and pictures: what it reads, what it counts, and every way in which a file can lie."""

import io
import os
import re
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxdl import data
from jaxdl.core.errors import DataError
from jaxdl.data import arrays

RNG = np.random.default_rng(0)
TRAIN, TEST = (RNG.integers(0, 256, (n, 4, 3), dtype=np.uint8) for n in (10, 6))
Y_TRAIN, Y_TEST = np.arange(10) % 3, np.arange(6) % 4  # class 3 is in the test split alone


def npy(array):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def header(text):
    """An NPY file of version 1 with this header and nothing after it."""
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


def zipped(how, *names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as packed:
        for name in names:
            packed.writestr(name, b"")
    return file.getvalue()


def write_npys(folder, **named):
    for name, array in named.items():
        np.save(folder / f"{name}.npy", array)


def save_pictures(root, images, end=".png"):
    root.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(root / f"{i:03}{end}")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("names", [
    ("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test"),
    ("X_train", "Y_train", "X_test", "Y_test"), ("images_train", "labels_train", "images_test", "labels_test")])
def test_npz_files_of_both_splits(tmp_path, save, names):
    save(tmp_path / "mine.npz", **dict(zip(names, (TRAIN, Y_TRAIN[:, None], np.asfortranarray(TEST), Y_TEST), strict=True)))
    for path in (tmp_path, tmp_path / "mine.npz"):
        train, test = data.load_splits("arrays", path)
        np.testing.assert_array_equal(train.images[..., 0], TRAIN)
        np.testing.assert_array_equal(test.images[..., 0], TEST)
        np.testing.assert_array_equal(train.labels, Y_TRAIN)
        np.testing.assert_array_equal(test.labels, Y_TEST)
        assert train.spec.num_classes == test.spec.num_classes == data.load("arrays", path).spec.num_classes == 4
        assert (train.name, train.spec.shape) == ("arrays", (4, 3, 1))


def test_without_a_test_split_every_fifth_is_held_out(tmp_path):
    np.savez(tmp_path / "mine.npz", images=TRAIN / 255, labels=np.arange(10))
    train, test = data.load_splits("arrays", tmp_path / "mine.npz")
    np.testing.assert_array_equal(test.labels, [4, 9])
    np.testing.assert_array_equal(test.images[..., 0], TRAIN[[4, 9]])
    assert train.labels.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert (train.spec.num_examples, train.spec.num_classes, test.spec.num_classes) == (8, 10, 10)


def test_a_folder_of_npy_files_and_trees_that_are_no_images(tmp_path):
    x = RNG.normal(size=(10, 7))
    write_npys(tmp_path, x_train=x, y_train=Y_TRAIN, x_test=x[:3], y_test=Y_TEST[:3])
    train, test = data.load_splits("arrays", tmp_path)
    np.testing.assert_array_equal(train.arrays["x"], x.astype(np.float32))
    assert (train.spec.input, train.spec.shape, train.spec.target, test.spec.num_classes) == ("x", (7,), "y", 3)
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    write_npys(boxes, train_images=TRAIN, train_boxes=np.zeros((10, 2, 4)), test_images=TEST, test_boxes=np.zeros((6, 2, 4)))
    assert {a.name: a.shape for a in data.load("arrays", boxes).spec.arrays} == {"images": (4, 3), "boxes": (2, 4)}


@pytest.mark.parametrize("dtype", [">u2", "<i8", ">f4", "?", "f2"])
def test_byte_orders_and_dtypes(tmp_path, dtype):
    x = np.array([[0, 1], [1, 0], [1, 1], [0, 0], [1, 0]]).astype(dtype)
    write_npys(tmp_path, x=x)
    np.testing.assert_array_equal(data.load("arrays", tmp_path).arrays["x"], x[:4].astype(np.float64))


def lying(array, shape):
    whole = npy(array)
    old = str(array.shape).encode()
    new = str(shape).encode()
    at = whole.index(old)
    return whole[:at] + new + whole[at + len(old) : whole.index(b"\n") - len(new) + len(old)] + whole[whole.index(b"\n") :]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is no NPY file"), (b"\x93NUMPY\x01\x00", "is no NPY file, or a damaged"), (b"\x89PNG" * 9, "is no NPY file"),
    (b"\x93NUMPY\x03\x00" + bytes(99), r"is no NPY file, or a damaged one: KeyError: \(3, 0\)"),
    (npy(np.array([{}], object)), "must hold numbers, got object; objects are never unpickled"),
    (npy(np.array(["a"])), "must hold numbers, got <U1"),
    (npy(np.zeros(3, "u1,f4")), "must hold numbers"),
    (npy(TRAIN)[:-1], r"gives uint8\[10, 4, 3\], which takes 120 bytes after it, and there are 119"),
    (npy(TRAIN) + b"\0", "takes 120 bytes after it, and there are 121"),
    (lying(TRAIN, (-10, -12)), r"takes 120 bytes|negative"),
    (lying(TRAIN, (10**9, 10**9)), r"takes 1000000000000000000 bytes after it, and there are 120"),
])
def test_npy_files_that_lie_are_refused_before_memory_is_taken(tmp_path, content, message):
    (tmp_path / "images.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("images.npy", content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"images.npy .*{message}"):
            data.load("arrays", tmp_path)
        (tmp_path / "mine.zip").rename(tmp_path / "mine.npz")
        with pytest.raises(DataError, match=rf"images.npy in \S+mine.npz .*{message}"):
            data.load("arrays", tmp_path / "mine.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_bomb_in_a_zip_is_refused_before_it_unfolds(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "mine.npz", images=np.zeros((16, 1024, 1024), np.uint8))
    monkeypatch.setattr(arrays, "MAX_UNPACKED", 2**24)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"mine.npz would unpack to 1677\d+ bytes.* the limit of 16777216"):
            data.load("arrays", tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_no_flipped_byte_of_a_zip_changes_what_is_read(tmp_path):
    np.savez_compressed(tmp_path / "mine.npz", images=TRAIN)
    whole, refused = (tmp_path / "mine.npz").read_bytes(), 0
    expected = data.load("arrays", tmp_path).images
    for i in range(0, len(whole), 2):
        (tmp_path / "mine.npz").write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        try:
            np.testing.assert_array_equal(data.load("arrays", tmp_path).images, expected)
        except DataError:
            refused += 1
    assert refused > len(whole) // 4


@pytest.mark.parametrize(("named", "message"), [
    ({"test_images": TEST}, "has arrays to test, but none to train"),
    ({"train_images": TRAIN, "test_pictures": TEST}, "must have the same arrays for both splits"),
    ({"images": TRAIN, "labels": Y_TEST}, r"labels must be integers of shape \[10\].*got int64 of shape \[6\]"),
    ({"x": np.zeros((5, 2)), "y": np.zeros(6)}, r"as many examples.*x \[5, 2\], y \[6\]"),
    ({"images": TRAIN[:3]}, "3 examples are too few"),
    ({"images": TRAIN * 1.0}, r"images of float64 must lie in \[0, 1\]"),
])
def test_arrays_that_do_not_fit_are_refused(tmp_path, named, message):
    write_npys(tmp_path, **named)
    with pytest.raises(DataError, match=message):
        data.load_splits("arrays", tmp_path)


def test_pictures_by_class_with_both_splits(tmp_path):
    save_pictures(tmp_path / "train" / "cat", TRAIN[:4])
    save_pictures(tmp_path / "train" / "dog", TRAIN[4:6])
    save_pictures(tmp_path / "test" / "dog", TEST[:1])
    save_pictures(tmp_path / "test" / "frog", TEST[1:3])
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "cat" / "Thumbs.db").write_text("")
    train, test = data.load_splits("arrays", tmp_path)
    np.testing.assert_array_equal(train.images[..., 0], TRAIN[:6])
    assert train.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert test.labels.tolist() == [1, 2, 2]
    assert train.spec.class_names == test.spec.class_names == ("cat", "dog", "frog")
    assert train.spec.num_classes == 3


def test_pictures_without_a_test_split_or_without_classes(tmp_path):
    save_pictures(tmp_path / "classes" / "a", TRAIN[:5])
    save_pictures(tmp_path / "classes" / "b", TRAIN[5:])
    train, test = data.load_splits("arrays", tmp_path / "classes")
    np.testing.assert_array_equal(test.images[..., 0], TRAIN[[4, 9]])
    assert test.labels.tolist() == [0, 1]
    assert train.labels.tolist() == [0] * 4 + [1] * 4
    save_pictures(tmp_path / "alone", TRAIN)
    train, test = data.load_splits("arrays", tmp_path / "alone")
    assert (train.labels, train.spec.num_classes, len(train.images), len(test.images)) == (None, None, 8, 2)


def test_colours_palettes_and_turned_photographs(tmp_path):
    colour = RNG.integers(0, 256, (4, 3, 3), dtype=np.uint8)
    folder = tmp_path / "all"
    save_pictures(folder, [TRAIN[0], colour, TRAIN[1]])
    Image.fromarray(colour).quantize(12).save(folder / "003.png")
    opaque = Image.fromarray(np.concatenate([colour, np.full((4, 3, 1), 255, np.uint8)], -1))
    opaque.save(folder / "004.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    Image.fromarray(np.rot90(colour)).save(folder / "005.png", exif=turned)
    images = arrays._decoded(sorted(folder.iterdir()))
    assert images.shape == (6, 4, 3, 3)
    np.testing.assert_array_equal(images[0], np.repeat(TRAIN[0][..., None], 3, -1))
    for i in (1, 3, 4, 5):
        np.testing.assert_array_equal(images[i], colour)


def test_a_jpeg_is_read(tmp_path):
    smooth = np.full((10, 16, 16), 100, np.uint8) + np.arange(16, dtype=np.uint8)
    save_pictures(tmp_path, smooth, ".jpg")
    assert np.abs(data.load("arrays", tmp_path).images[..., 0].astype(int) - smooth[:8]).max() <= 2


def picture(array, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize(("name", "content", "message"), [
    ("1.png", picture(np.zeros((4, 5), np.uint8)), r"1.png has 5 x 4 pixels, and \S*0.png has 3 x 4; resize all"),
    ("1.png", picture(TRAIN[0])[:-20], "1.png is no PNG or JPEG picture, or a damaged one"),
    ("1.png", b"", "1.png is no PNG or JPEG"),
    ("1.png", b"GIF89a" + bytes(99), "1.png is no PNG or JPEG"),
    ("1.jpg", b"%PDF", "1.jpg is no PNG or JPEG"),
    ("notes.txt", b"", "notes.txt is no picture .*move it out"),
    ("1.png", picture(np.zeros((4, 3, 4), np.uint8)), r"1.png is transparent or has other pixels \(RGBA\)"),
    ("1.png", picture(np.zeros((4, 3), np.uint16)), "1.png is transparent or has other pixels"),
    ("1.png", picture(TRAIN[0], transparency=0), "1.png is transparent"),
])
def test_pictures_that_cannot_be_read_for_certain_are_refused_by_name(tmp_path, name, content, message):
    save_pictures(tmp_path / "train", TRAIN[:1])
    (tmp_path / "train" / "000.png").rename(tmp_path / "train" / "0.png")
    (tmp_path / "train" / name).write_bytes(content)
    save_pictures(tmp_path / "test", TEST)
    with pytest.raises(DataError, match=message):
        data.load_splits("arrays", tmp_path)


def test_no_flipped_byte_of_a_png_changes_what_is_read(tmp_path):
    path, whole, refused = tmp_path / "0.png", picture(TRAIN[0]), 0
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        try:
            np.testing.assert_array_equal(arrays._decoded([path])[0, :, :, 0], TRAIN[0])
        except DataError:
            refused += 1
    assert refused > len(whole) - 13  # those of the chunk that ends the file


def test_pictures_that_take_too_much_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    save_pictures(tmp_path, np.zeros((5, 64, 64), np.uint8))
    monkeypatch.setattr(arrays, "MAX_UNPACKED", 4 * 64 * 64 * 3 - 1)
    with pytest.raises(DataError, match=r"000.png has 64 x 64 pixels, and 4 such pictures take more than"):
        data.load("arrays", tmp_path)


def test_folders_that_hold_nothing_of_the_kind_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path))}/empty has no arrays .* and no pictures"):
        data.load("arrays", tmp_path / "empty")
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(DataError, match=r"note.txt is no .npz file and no folder"):
        data.load("arrays", tmp_path / "note.txt")
    save_pictures(tmp_path / "half" / "test", TEST)
    with pytest.raises(DataError, match="has a folder test, but no folder train"):
        data.load("arrays", tmp_path / "half")
    np.savez(tmp_path / "a.npz", images=TRAIN)
    np.savez(tmp_path / "b.npz", images=TRAIN)
    with pytest.raises(DataError, match=r"has 2 .npz files"):
        data.load("arrays", tmp_path)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("images.npy", b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(99), "images.npy is no NPY file, or a damaged one"),
    ("images.npy", header("{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 60 + ")}") + b"x", "at most 32 axes"),
    ("images.npy", header("(" * 9000), "images.npy is no NPY file, or a damaged one"),
    ("mine.npz", zipped(zipfile.ZIP_STORED, *(f"{i}.npy" for i in range(20_000))), "has too many members"),
    ("mine.npz", zipped(zipfile.ZIP_LZMA, "images.npy"), "images.npy in .* is packed in another way than NumPy packs")],
    ids=["long header", "many axes", "nested header", "many members", "lzma"])
def test_what_would_cost_more_than_it_can_be_worth_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.load("arrays", tmp_path)


def test_many_members_that_are_bombs_are_refused_together(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "mine.npz", **{f"x{i}": np.zeros((8, 2**18), np.uint8) for i in range(5)})
    monkeypatch.setattr(arrays, "MAX_UNPACKED", 2**23)  # of one member a quarter
    with pytest.raises(DataError, match=r"mine.npz would unpack to 104\d+ bytes"):
        data.load("arrays", tmp_path)


def test_a_pipe_in_the_place_of_an_array_is_refused(tmp_path):
    os.mkfifo(tmp_path / "images.npy")
    with pytest.raises(DataError, match="pipe or a device"):
        data.load("arrays", tmp_path)
