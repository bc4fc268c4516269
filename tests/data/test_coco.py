"""COCO's form: what is written reads back equal, pictures are scaled with what is in them, what makes no sense is refused."""

import copy
import json
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from jaxdl import data
from jaxdl.core.errors import DataError, UserError
from jaxdl.data import coco
from jaxdl.data.annotated import Annotated
from jaxdl.data.dataset import from_tree

H, W, K, J = 12, 16, 3, 2


def made(num=5, seed=0, channels=3):
    """Pictures of one object or more; the last has as many as there may be."""
    rng = np.random.default_rng(seed)
    instances, labels = np.zeros((num, H, W), np.uint8), np.zeros((num, K), np.uint8)
    boxes, joints = np.zeros((num, K, 4), np.float32), np.zeros((num, K, J, 3), np.float32)
    for n in range(num):
        for k in range(K if n == num - 1 else rng.integers(0, K)):
            x0, y0 = 5 * k, rng.integers(0, 5)
            instances[n, y0 : y0 + 5, x0 : x0 + 4] = (k + 1) * rng.integers(0, 2, (5, 4))
            boxes[n, k], labels[n, k] = (x0 + 0.3, y0, x0 + 4, y0 + 5), rng.integers(1, 3)
            joints[n, k, 0] = x0 + 1.25, y0 + 2, rng.integers(1, 3)
    semantic = np.take_along_axis(np.pad(labels, ((0, 0), (1, 0))), instances.reshape(num, -1), 1).reshape(instances.shape)
    images = rng.integers(0, 256, (num, H, W, channels), dtype=np.uint8)
    return from_tree(Annotated(images, semantic, instances, boxes, labels, joints), "made", class_names=("ground", "a", "b"))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_reads_back_equal(tmp_path, channels):
    wholes = {split: made(seed=i, channels=channels) for i, split in enumerate(("train", "test"))}
    for split, whole in wholes.items():
        coco.write(tmp_path / split, whole)
    for split, read in zip(wholes, data.load_splits("coco", tmp_path), strict=True):
        for name, x, y in zip(Annotated._fields, read.arrays, wholes[split].arrays, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name)
        assert read.spec._replace(name="made") == wholes[split].spec
    assert read.spec.class_names == ("ground", "a", "b")
    with pytest.raises(UserError, match="is there already"):
        coco.write(tmp_path / "test", made())


def test_every_fifth_picture_is_held_out(tmp_path):
    coco.write(tmp_path, made(10))
    train, test = data.load_splits("coco", tmp_path)
    np.testing.assert_array_equal(test.images, made(10).images[4::5])
    assert (train.spec.num_examples, train.arrays.boxes.shape[1:]) == (8, (K, 4))


def test_run_lengths_are_those_of_coco():
    rng = np.random.default_rng(0)
    for mask in (*(rng.random((6, 5, 7)) < rng.random((6, 1, 1))), np.ones((5, 7), bool), np.zeros((5, 7), bool)):
        packed = coco_mask.frPyObjects({"size": [5, 7], "counts": coco.run_lengths(mask)}, 5, 7)
        np.testing.assert_array_equal(coco_mask.decode(packed), mask)


def document(folder, num=5, **entry):
    """A small file of annotations with its pictures; the first annotation has the fields of `entry`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for n in range(num):
        Image.new("RGB", (W, H), (n, 0, 0)).save(folder / "images" / f"{n}.png")
    content = {
        "images": [{"id": 10 + n, "file_name": f"{n}.png", "width": W, "height": H} for n in range(num)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 10, "category_id": 7, "bbox": [2, 3, 4, 5.5], **entry}]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return content


def test_polygons_have_the_pixels_whose_centres_lie_within(tmp_path):
    polygons = [[2, 2, 10, 2, 10, 8, 2, 8], [11, 1, 15.5, 5, 11, 11]]
    document(tmp_path, segmentation=polygons, bbox=[2, 1, 13.5, 10])
    read = coco.read(tmp_path, "train").arrays
    truth = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, H, W))) > 0
    mine = read.instances[0] == 1
    assert (mine & truth).sum() / (mine | truth).sum() > 0.85  # COCO counts half a pixel at the edges
    expected = np.zeros((H, W), bool)
    expected[2:8, 2:10] = True
    for y, x in np.ndindex(H, W):
        expected[y, x] |= x + 0.5 > 11 and y + 0.5 > 1 + (x - 10.5) * 4 / 4.5 and y + 0.5 < 11 - (x - 10.5) * 6 / 4.5
    np.testing.assert_array_equal(mine, expected)
    assert (read.semantic[0] == 2 * mine).all()  # cat has the higher id
    assert read.boxes[0, 0].tolist() == [2, 1, 15.5, 11]


def test_without_a_mask_the_box_is_it_and_the_smaller_is_seen(tmp_path):
    content = document(tmp_path)
    content["annotations"] += [{"id": 2, "image_id": 10, "category_id": 3, "bbox": [3, 4, 2, 2]},
                               {"id": 3, "image_id": 10, "category_id": 3, "bbox": [0, 0, 16, 12], "iscrowd": 1}]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    read = coco.read(tmp_path, "train").arrays
    expected = np.zeros((H, W))
    expected[3:8, 2:6], expected[4:6, 3:5] = 1, 2
    np.testing.assert_array_equal(read.instances[0], expected)
    np.testing.assert_array_equal(read.labels, [[2, 1], [0, 0], [0, 0], [0, 0]])


def test_pictures_are_scaled_into_a_square_with_what_is_in_them(tmp_path):
    content = document(tmp_path, keypoints=[4, 6, 2, 0, 0, 0])
    content["images"][1] |= {"width": 4, "height": 8}
    content["annotations"].append({"id": 2, "image_id": 11, "category_id": 3, "bbox": [0, 0, 4, 4]})
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    Image.new("RGB", (4, 8), (0, 200, 0)).save(tmp_path / "images" / "1.png")
    with pytest.raises(DataError, match=r"1.png has 4 x 8 pixels, and .*0.png has 16 x 12; .*reader\(size=\.\.\.\)"):
        coco.read(tmp_path, "train")
    read = coco.reader(8).read(tmp_path, "train").arrays
    assert read.images.shape == (4, 8, 8, 3)
    np.testing.assert_allclose(read.boxes[:2, 0], [[1, 1 + 1.5, 3, 1 + 4.25], [2, 0, 6, 4]])  # a bar of 1 row, one of 2 columns
    np.testing.assert_allclose(read.joints[0, 0], [[2, 4, 2], [0, 0, 0]])
    np.testing.assert_array_equal(read.images[1, :, :, 1] > 0, np.pad(np.ones((8, 4), bool), ((0, 0), (2, 2))))
    np.testing.assert_array_equal(read.instances[1], np.pad(np.ones((4, 4)), ((0, 4), (2, 2))))


RUNS = {"size": [H, W], "counts": [10, 5, H * W - 15]}


@pytest.mark.parametrize(("field", "value", "message"), [
    ("bbox", None, "annotation 1 must have a bbox that is a list of numbers, got nothing"),
    ("bbox", [1, 2, 3], "annotation 1 must have a bbox of x, y and a width"),
    ("bbox", [1, 2, 0, 3], "annotation 1 must have a bbox of x, y and a width and a height above 0"),
    ("bbox", [1, 2, -4, 3], "annotation 1 must have a bbox of x, y and a width and a height above 0"),
    ("bbox", [1, 2, float("nan"), 3], "annotations.json is not valid JSON: NaN"),
    ("bbox", [1e300, 2, 1e300, 3], "annotation 1 must have a bbox within the 16 x 12 pixels"),
    ("bbox", [10, 2, 9, 3], "annotation 1 must have a bbox within the 16 x 12 pixels of its picture, got the point 19, 5"),
    ("bbox", [16.5, 2, 0.2, 3], "annotation 1 must have a bbox within the picture"),
    ("bbox", ["1", 2, 3, 4], "annotation 1 must have a bbox that is a list of numbers"),
    ("bbox", [True, 2, 3, 4], "annotation 1 must have a bbox that is a list of numbers"),
    ("category_id", 9, "annotation 1 must have a category_id of categories, got 9"),
    ("category_id", "7", "annotation 1 must have a category_id that is a whole number, got '7'"),
    ("image_id", 99, "annotation 1 must have an image_id of images, got 99"),
    ("id", None, "entry 0 of annotations must have an id that is a whole number"),
    ("iscrowd", 5, "annotation 1 must have iscrowd 0 or 1, got 5"),
    ("segmentation", RUNS | {"size": [W, H]}, r"annotation 1 must have a segmentation of the size of its picture, \[12, 16\]"),
    ("segmentation", RUNS | {"counts": [10, 5]}, "annotation 1 must have a segmentation with counts .* add up to 192"),
    ("segmentation", RUNS | {"counts": [-10, 202]}, "annotation 1 must have a segmentation with counts of 0 or more"),
    ("segmentation", RUNS | {"counts": "abc"}, "annotation 1 has a segmentation whose counts are packed into a text"),
    ("segmentation", "all", "annotation 1 must have a segmentation"),
    ("segmentation", [[1, 2, 3, 4]], "annotation 1 must have a segmentation of polygons"),
    ("segmentation", [[1, 2] * 10_001], "annotation 1 must have a segmentation of 10,000 points at most"),
    ("segmentation", [[1, 2, 3, 4, 5, 99]], "annotation 1 must have a segmentation within .* got the point 5, 99"),
    ("keypoints", [1, 2], "annotation 1 must have keypoints of x, y and v"),
    ("keypoints", [1, 2, 3], "annotation 1 must have keypoints of x, y and v"),
    ("keypoints", [1, 20, 2], "annotation 1 must have a keypoints within the 16 x 12 pixels"),
])
def test_annotations_that_make_no_sense_are_refused(tmp_path, field, value, message):
    document(tmp_path, **{field: value})
    with pytest.raises(UserError, match=message) as e:
        coco.read(tmp_path, "train")
    assert "annotations.json" in str(e.value)
    assert len(str(e.value)) < 500


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c["images"][1].update(id=10), r"image 10 \(1.png\) comes twice"),
    (lambda c: c["images"][1].update(file_name="0.png"), r"image 11 \(0.png\) comes twice"),
    (lambda c: c["images"][1].update(file_name="../images/1.png"), "image 11 must have the file_name of a picture"),
    (lambda c: c["images"][1].update(file_name="/etc/1.png"), "image 11 must have the file_name of a picture"),
    (lambda c: c["images"][1].update(file_name="secret.txt"), "image 11 must have the file_name of a picture"),
    (lambda c: c["images"][1].update(file_name="link.png"), "image 11 has the file_name 'link.png', which leads out of"),
    (lambda c: c["images"][1].update(file_name="none.png"), "there is no picture .*none.png"),
    (lambda c: c["images"][1].update(file_name=5), "image 11 must have the file_name of a picture"),
    (lambda c: c["images"][1].update(width=0), "image 11 must have a width and a height above 0"),
    (lambda c: c["images"][1].update(width=10**9), "image 11 must have a width and a height above 0, and 67,108,864 pixels"),
    (lambda c: [image.update(width=15) for image in c["images"]], "0.png has 16 x 12 pixels, and its annotations say width 15"),
    (lambda c: c["images"].clear(), "must have a list images, which is not empty"),
    (lambda c: c.pop("annotations"), "must have a list annotations, got nothing"),
    (lambda c: c["annotations"].append(c["annotations"][0]), "annotation 1 comes twice"),
    (lambda c: c["annotations"].append([1]), "entry 1 of annotations must be an object"),
    (lambda c: c["categories"].append({"id": 7, "name": "x"}), r"category 7 \(x\) comes twice"),
    (lambda c: c["categories"].append({"id": 8, "name": "dog"}), r"category 8 \(dog\) comes twice"),
    (lambda c: c["categories"].append({"id": 8}), "category 8 must have a name"),
    (lambda c: c["categories"].extend({"id": 100 + i, "name": str(i)} for i in range(300)), "more than 254 categories"),
    (lambda c: c["annotations"].extend(c["annotations"][0] | {"id": 2 + i} for i in range(100_000)),
     "annotation 101 is one of more than 100 of the picture 0.png"),
])
def test_files_that_make_no_sense_are_refused(tmp_path, change, message):
    content = copy.deepcopy(document(tmp_path))
    (tmp_path / "outside.png").write_bytes((tmp_path / "images" / "1.png").read_bytes())
    os.symlink(tmp_path / "outside.png", tmp_path / "images" / "link.png")
    change(content)
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        coco.read(tmp_path, "train")


def test_folders_that_are_none_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"pass --data-dir \(data_dir\) with annotations.json and a folder images"):
        data.load("coco")
    with pytest.raises(DataError, match="must have a file annotations\\.json, or one JSON file alone, and has 0"):
        coco.read(tmp_path, "train")
    document(tmp_path / "train")
    with pytest.raises(DataError, match="has a folder train alone"):
        coco.read(tmp_path, "train")
    content = document(tmp_path / "test")
    content["categories"][0]["name"] = "cow"
    (tmp_path / "test" / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="must have the categories of"):
        coco.read(tmp_path, "train")
    (tmp_path / "test" / "annotations.json").write_bytes(b"")
    os.truncate(tmp_path / "test" / "annotations.json", 2**30)
    with pytest.raises(UserError, match=r"annotations\.json"):
        coco.read(tmp_path, "train")
    with pytest.raises(DataError, match="digits holds no annotated pictures"):
        coco.write(tmp_path / "x", data.load("digits"))
    with pytest.raises(DataError, match="holds no annotated pictures"):
        coco.write(tmp_path / "x", data.from_tree({"images": np.zeros((2, 4, 4, 1), np.uint8), "depth": np.zeros((2, 4, 4))}))
