"""The door of dmkeras.data: names, options, the digits, the photographs."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import data
from dmkeras.data import photos


def arrays(dataset):
    records = list(dataset.as_numpy_iterator())
    return {key: np.stack([record[key] for record in records]) for key in records[0]}


@pytest.fixture(scope="module")
def digits():
    return {split: arrays(data.load("digits", split)) for split in ("train", "validation", "test")}


def test_digits_are_pictures_in_the_unit_interval_with_an_integer_label():
    dataset = data.load("digits")
    assert dataset.element_spec == {
        "image": tf.TensorSpec([8, 8, 1], tf.float32),
        "label": tf.TensorSpec([], tf.int32),
    }
    assert data.class_names("digits") == list("0123456789")


def test_the_split_of_the_digits_is_the_documented_permutation(digits):
    from sklearn.datasets import load_digits

    source = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    for split, rows in zip(("train", "validation", "test"), np.split(order, [1297, 1497]), strict=True):
        assert data.load("digits", split).cardinality() == len(rows) == len(digits[split]["label"])
        np.testing.assert_array_equal(digits[split]["image"][..., 0], source.images[rows] / 16)
        np.testing.assert_array_equal(digits[split]["label"], source.target[rows])


def test_the_digits_are_the_same_bytes_everywhere(digits):
    content = b"".join(np.round(digits[split]["image"] * 16).astype("uint8").tobytes() for split in digits)
    assert hashlib.sha256(content).hexdigest()[:16] == "41f1cde3d1230a38"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("digit", "digits"),
        ("minst", "mnist"),
        ("simple_shape", "simple_shapes"),
        ("vocs:x", "voc:DIR"),
        ("foto", "photos"),
        ("qqqqqq", None),
    ],
)
def test_a_misspelt_name_is_told_its_near_matches(name, near):
    with pytest.raises(ValueError, match=f"unknown data set '{name}': " + (f"did you mean .*{near}" if near else "no")):
        data.load(name)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((7,), {}, TypeError, "a string such as 'digits'"),
        (("",), {}, TypeError, "a string such as 'digits'"),
        (("digits", 3), {}, TypeError, "a split is a string"),
        (("digits", "valid"), {}, ValueError, "digits has the splits train, validation, test, not 'valid'"),
        (("digits",), {"strict": True}, TypeError, "'digits' has no option strict: it takes none"),
        (("voc:x",), {"strikt": True}, TypeError, "no option strikt: it takes strict, verify, classes"),
        (("voc:x",), {"classes": "cat"}, TypeError, "classes is a list of names, not the string 'cat'"),
        (("voc:",), {}, ValueError, "write voc:DIR"),
        (("coco:",), {}, ValueError, "write coco:JSON"),
        (("photos", "some"), {}, ValueError, "photos has the splits train, validation, test, all, not 'some'"),
        (("photos",), {"names": ["cofee"]}, ValueError, "photos has no cofee in the split 'train', but china"),
    ],
)
def test_bad_arguments_are_refused_at_the_door(arguments, options, error, message):
    with pytest.raises(error, match=message):
        data.load(*arguments, **options)


def test_what_has_no_classes_and_no_problems_says_so():
    with pytest.raises(ValueError, match="'photos' has no classes"):
        data.class_names("photos")
    assert data.check("digits", "test") == []


def test_photos_are_distinct_pictures_split_without_overlap():
    dataset = data.load("photos", "all")
    records = list(dataset.as_numpy_iterator())
    assert dataset.cardinality() == len(records) == 27
    assert all(r["image"].dtype == np.float32 and r["image"].shape[2] == 3 for r in records)
    assert all(r["image"].min() >= 0 and 0.2 < r["image"].max() <= 1 for r in records)
    assert len({(r["image"].shape, r["image"].tobytes()) for r in records}) == 27
    counts = [data.load("photos", split).cardinality() for split in ("train", "validation", "test")]
    assert counts == [15, 2, 3]
    parts = photos.SPLITS["train"] + photos.SPLITS["validation"] + photos.SPLITS["test"]
    assert len(set(parts)) == len(parts) == 20


def test_photos_can_be_picked_in_an_order_of_ones_own():
    picked = [r["name"].decode() for r in data.load("photos", "all", names=["flower", "china"]).as_numpy_iterator()]
    assert picked == ["flower", "china"]


def test_photos_without_scikit_image_are_those_of_scikit_learn(monkeypatch, caplog):
    path = photos._path
    monkeypatch.setattr(photos, "_path", lambda file: path(file) if file in photos.SKLEARN else None)
    assert [r["name"] for r in data.load("photos", "test").as_numpy_iterator()] == [b"flower"]
    assert "lack coffee, rocket" in caplog.text
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-image"):
        data.load("photos", "validation")


def test_the_door_imports_no_tensorflow_before_a_set_is_asked_for():
    code = "import sys, dmkeras.data; sys.exit('tensorflow' in sys.modules or 'tensorflow_datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
