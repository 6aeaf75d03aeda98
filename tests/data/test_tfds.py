"""TensorFlow Datasets by name: prepared sets are read, no other is asked for over the network."""

import os
import pathlib
import socket
import time

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A directory of prepared sets: boxes of two classes, masks, 16-bit depth; and binarized pixels."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("prepared")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["indoor", "outdoor"]),
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.BBoxFeature(),
                    "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                    "pose": tfds.features.Text(),
                }
            ),
            "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
            "title": tfds.features.Text(),
        }
    )
    records = [
        {
            "image": np.full([10, 20, 3], 51 * number, np.uint8),
            "label": number % 2,
            "objects": [{"bbox": tfds.features.BBox(0.1, 0.2, 0.5, 1.0), "label": 1, "pose": "left"}] * number,
            "segmentation_mask": np.full([10, 20, 1], number, np.uint8),
            "title": f"picture {number}",
        }
        for number in range(4)
    ]
    _store(root, "own_scenes", features, {"train": records[:3], "test": records[3:]})
    bits = np.arange(28 * 28).reshape(28, 28, 1) % 2
    image = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(28, 28, 1))})
    _store(root, "binarized_mnist", image, {"train": [{"image": bits.astype(np.uint8)}]})
    return root


def _store(root, name, features, splits):
    import tensorflow_datasets as tfds

    directory = root / name / "1.0.0"
    directory.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(name=name, version="1.0.0", data_dir=os.fspath(directory), module_name="")
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
    writer.initialize_splits(list(splits))
    for split, records in splits.items():
        writer.add_examples({split: records})
    writer.close_all()


def test_a_prepared_set_comes_in_this_packages_keys_and_units(prepared):
    dataset = data.load("own_scenes", data_dir=prepared)
    assert dataset.cardinality() == 3
    records = list(dataset.as_numpy_iterator())
    assert set(records[0]) == {"image", "label", "boxes", "classes", "objects", "semantic", "title"}
    for number, record in enumerate(records):
        np.testing.assert_allclose(record["image"], np.full([10, 20, 3], number / 5), rtol=1e-6)
        assert record["image"].dtype == np.float32
        assert record["label"] == number % 2
        np.testing.assert_allclose(record["boxes"], np.full([number, 4], [4, 1, 20, 5]), rtol=1e-6)
        np.testing.assert_array_equal(record["classes"], np.ones(number))
        assert record["objects"]["pose"].tolist() == [b"left"] * number
        np.testing.assert_array_equal(record["semantic"], np.full([10, 20], number))
        kinds = [record[key].dtype for key in ("boxes", "classes", "semantic", "label")]
        assert kinds == [np.float32, np.int32, np.int32, np.int32]
    assert data.class_names("own_scenes", data_dir=prepared) == ["indoor", "outdoor"]


def test_the_order_is_the_files_order_every_time(prepared):
    titles = [[r["title"] for r in data.load("own_scenes", data_dir=prepared).as_numpy_iterator()] for _ in range(2)]
    assert titles[0] == titles[1] == [b"picture 0", b"picture 1", b"picture 2"]


def test_splits_are_those_of_tfds_with_slices(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", os.fspath(prepared))
    assert data.load("own_scenes", "train[:2]").cardinality() == 2
    assert data.load("own_scenes:1.0.0", "train[1:]+test").cardinality() == 3
    for split in ("validation", "train[:2", "train[:9]"):
        with pytest.raises(ValueError, match="own_scenes has the splits train, test, not"):
            data.load("own_scenes", split)


def test_binarized_pixels_stay_zero_and_one(prepared):
    record = next(data.load("binarized_mnist", data_dir=prepared).as_numpy_iterator())
    assert set(np.unique(record["image"])) == {0.0, 1.0}
    with pytest.raises(ValueError, match="names no classes; its features are image"):
        data.class_names("binarized_mnist", data_dir=prepared)


@pytest.mark.parametrize("name", ["cifar10", "voc/2007", "cifar10:3.0.2", "binarized_mnist"])
def test_a_set_that_is_not_prepared_is_refused_at_once_and_without_the_network(name, tmp_path, monkeypatch):
    def no_network(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    start = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"not prepared in .*TFDS_DATA_DIR, or allow the network by download"):
        data.load(name, data_dir=tmp_path)
    assert time.monotonic() - start < 5


def test_the_refusal_names_the_sets_that_are_there(prepared):
    with pytest.raises(FileNotFoundError, match=r"\(there: binarized_mnist, own_scenes\)"):
        data.load("cifar10", data_dir=prepared)


def test_only_download_true_prepares_a_set(tmp_path, monkeypatch, prepared):
    import tensorflow_datasets as tfds

    asked = []

    class Builder:
        def __init__(self, name, data_dir):
            asked.append((name, pathlib.Path(data_dir)))
            self.prepared = tfds.core.read_only_builder.builder_from_files("own_scenes", data_dir=os.fspath(prepared))
            self.name, self.info, self.as_dataset = "own_scenes", self.prepared.info, self.prepared.as_dataset

        def download_and_prepare(self):
            asked.append("prepared")

    monkeypatch.setattr(tfds, "builder", Builder)
    assert data.load("cifar10", data_dir=tmp_path, download=True).cardinality() == 3
    assert asked == [("cifar10", tmp_path), "prepared"]
    asked.clear()
    data.load("own_scenes", data_dir=prepared, download=True)
    assert asked == []


def test_mnist_is_read_where_it_is_prepared():
    if not pathlib.Path(os.environ.get("TFDS_DATA_DIR", ""), "mnist").is_dir() or "TFDS_DATA_DIR" not in os.environ:
        pytest.skip("TFDS_DATA_DIR names no directory that holds mnist")
    dataset = data.load("mnist", "train[:50000]")
    assert dataset.cardinality() == 50000
    assert dataset.element_spec == {
        "image": tf.TensorSpec([28, 28, 1], tf.float32),
        "label": tf.TensorSpec([], tf.int32),
    }
    assert next(dataset.as_numpy_iterator())["image"].max() == 1
    assert data.class_names("mnist") == list("0123456789")
