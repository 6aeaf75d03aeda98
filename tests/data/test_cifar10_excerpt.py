"""The excerpt of CIFAR-10: every pixel of the sheets comes out in its picture, and other files are refused by name."""

import os

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from dmkeras import data
from dmkeras.data import binarization


def write(path, pixels):
    PIL.Image.fromarray(pixels).save(path)


@pytest.fixture
def excerpt(tmp_path):
    """(DIR, pictures and labels of the sheets, pictures and labels of the test): 11 sheets of 2, 2 x 3 tiles."""
    generator = np.random.default_rng(0)
    train = generator.integers(0, 256, (22, 32, 32, 3), "uint8")
    labels = generator.integers(0, 10, 22)
    test, test_labels = (
        generator.choice([0, 2, 3, 254, 255], (6, 32, 32, 3)).astype("uint8"),
        np.arange(6, dtype="uint8"),
    )
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    for sheet in range(11):
        rows = train[2 * sheet : 2 * sheet + 2].reshape(2, 1024, 3)
        write(tmp_path / f"train/cifar10_batch_{sheet}.png", rows)
    (tmp_path / "train/labels_0-21.txt").write_text("".join(map(str, labels)) + "\n")
    lowered = np.where(test > 0, test - 1, 0).astype("uint8")
    tiles = np.concatenate([np.concatenate(list(lowered[row : row + 3]), axis=1) for row in (0, 3)])
    write(tmp_path / "test/input-test.png", tiles)
    (tmp_path / "test/labels-test.bin").write_bytes(test_labels.tobytes())
    return tmp_path, (train, labels), (test, test_labels)


def test_the_pictures_are_those_of_the_sheets_in_order_and_their_last_tenth_is_the_validation(excerpt):
    root, (train, labels), _ = excerpt
    name = f"cifar10_excerpt:{root}"
    for split, rows in (("train", slice(20)), ("validation", slice(20, None))):
        dataset = data.load(name, split)
        assert dataset.element_spec == {
            "image": tf.TensorSpec([32, 32, 3], tf.float32),
            "label": tf.TensorSpec([], tf.int32),
        }
        found = data.to_arrays(dataset)
        np.testing.assert_array_equal(found["image"], train[rows] / np.float32(255))
        np.testing.assert_array_equal(found["label"], labels[rows])


def test_the_tiles_of_the_test_get_their_values_back(excerpt):
    root, _, (test, labels) = excerpt
    found = data.to_arrays(data.load(f"cifar10_excerpt:{root.name}", "test", data_dir=root.parent))
    np.testing.assert_array_equal(found["image"], test / np.float32(255))
    np.testing.assert_array_equal(found["label"], labels)


def test_its_own_three_splits_are_those_of_the_protocols(excerpt):
    root = excerpt[0]
    counts = [len(binarization.images(f"cifar10_excerpt:{root}", s, "none")) for s in ("train", "validation", "test")]
    assert counts == [20, 2, 6]


def test_the_classes_are_named():
    names = data.class_names("cifar10_excerpt:anywhere")
    assert (len(names), names[0], names[9]) == (10, "airplane", "truck")


def no_sheet(root):
    for path in root.glob("train/*.png"):
        path.unlink()


@pytest.mark.parametrize(
    ("split", "spoil", "error", "message"),
    [
        ("all", lambda root: None, ValueError, "has the splits train, validation, test, not 'all'"),
        ("train", no_sheet, FileNotFoundError, "train holds no sheet cifar10_batch_0.png"),
        ("train", lambda root: (root / "train/labels_0-21.txt").unlink(), FileNotFoundError, "holds 0 files labels"),
        ("train", lambda root: (root / "train/labels.txt").write_text("1"), FileNotFoundError, "2 files labels"),
        ("train", lambda root: (root / "train/labels_0-21.txt").write_text("12"), ValueError, "2 labels.* 22 pictures"),
        ("train", lambda root: (root / "train/labels_0-21.txt").write_text("x" * 22), ValueError, "from 0 to 9"),
        (
            "validation",
            lambda root: write(root / "train/cifar10_batch_3.png", np.zeros((2, 1023, 3), "uint8")),
            ValueError,
            r"batch_3.png is a sheet uint8 \[2, 1023, 3\].* expected 1024 pixels wide",
        ),
        ("train", lambda root: (root / "train/cifar10_batch_4.png").write_text("x"), ValueError, "batch_4.*damaged"),
        (
            "test",
            lambda root: write(root / "test/input-test.png", np.zeros((32, 33, 3), "uint8")),
            ValueError,
            "expected whole tiles of 32x32",
        ),
        (
            "test",
            lambda root: write(root / "test/input-test.png", np.full((32, 32, 3), 255, "uint8")),
            ValueError,
            "values up to 255, expected .* at most 254",
        ),
        (
            "test",
            lambda root: write(root / "test/input-test.png", np.zeros((32, 32), "uint8")),
            ValueError,
            "expected three colours",
        ),
        ("test", lambda root: (root / "test/labels-test.bin").unlink(), FileNotFoundError, "no file .*labels-test.bin"),
    ],
)
def test_other_files_are_refused_by_name(excerpt, split, spoil, error, message):
    root = excerpt[0]
    spoil(root)
    with pytest.raises(error, match=message):
        data.load(f"cifar10_excerpt:{root}", split)


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no directory .*nowhere"):
        data.load(f"cifar10_excerpt:{tmp_path}/nowhere")


def test_the_public_sheets_hold_the_pictures_that_they_should():
    """The first pixels of CIFAR-10's first training and test pictures, a frog and a cat."""
    place = os.environ.get("DMKERAS_CIFAR10_EXCERPT")
    if not place:
        pytest.skip("DMKERAS_CIFAR10_EXCERPT names no directory of the excerpt")
    splits = {s: data.to_arrays(data.load(f"cifar10_excerpt:{place}", s)) for s in ("train", "validation", "test")}
    assert [len(arrays["label"]) for arrays in splits.values()] == [3600, 400, 1000]
    for split, pixel, label in (("train", (59, 62, 63), 6), ("test", (158, 112, 49), 3)):
        np.testing.assert_array_equal(np.rint(255 * splits[split]["image"][0, 0, 0]), pixel)
        assert splits[split]["label"][0] == label
