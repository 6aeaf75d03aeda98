"""The fixed draw of binary MNIST is the documented one, bit for bit, and its labels are those of its pictures."""

import functools
import hashlib
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import data

SPLITS = {"train": (50_000, 0.1310), "validation": (10_000, 0.1292), "test": (10_000, 0.1325)}


@pytest.fixture(scope="module")
def splits():
    place = os.environ.get("TFDS_DATA_DIR")
    if not place or not pathlib.Path(place, "mnist").is_dir():
        pytest.skip("TFDS_DATA_DIR names no directory that holds mnist")
    load = data.load
    stored = functools.cache(lambda part: data.to_arrays(load("mnist", part)))
    with pytest.MonkeyPatch.context() as patch:  # MNIST is read once instead of once for each of the three splits
        patch.setattr(data, "load", lambda name, part, **_: tf.data.Dataset.from_tensor_slices(stored(part)))
        datasets = {split: load("mnist_binarized", split) for split in SPLITS}
    for dataset in datasets.values():
        assert dataset.element_spec == {
            "image": tf.TensorSpec([28, 28, 1], tf.float32),
            "label": tf.TensorSpec([], tf.int32),
        }
    return {split: data.to_arrays(dataset) for split, dataset in datasets.items()}


def test_the_draw_is_the_documented_one(splits):
    images = np.concatenate([splits[split]["image"].reshape(-1, 784) for split in SPLITS])
    assert set(np.unique(images)) == {0, 1}
    bits = np.packbits(images.astype(bool)).tobytes()
    assert hashlib.sha1(bits).hexdigest() == "1873c6548c473818ee4a49db31ee4c666eb911ed"


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_has_its_size_and_its_share_of_pixels_that_are_on(splits, split):
    count, share = SPLITS[split]
    assert splits[split]["image"].shape == (count, 28, 28, 1)
    assert splits[split]["image"].mean() == pytest.approx(share, abs=5e-5)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_labels_belong_to_their_pictures(splits, split):
    """The nearest class mean is right four times in five; labels of another order would be right once in ten."""
    images, labels = splits["train"]["image"].reshape(-1, 784), splits["train"]["label"]
    means = np.stack([images[labels == digit].mean(axis=0) for digit in range(10)])
    pictures = splits[split]["image"].reshape(-1, 784)
    nearest = (pictures @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1)
    assert (nearest == splits[split]["label"]).mean() > 0.75
    rolled = np.roll(splits[split]["label"], 1)
    assert (nearest == rolled).mean() < 0.2


def test_an_unknown_split_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="splits train, validation, test; received 'valid'"):
        data.load("mnist_binarized", "valid", data_dir="nowhere")
