"""The fixed draw of binary MNIST is the documented one, bit for bit, and its labels are those of its pictures."""

import hashlib
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import data
from dmkeras.data import mnist_binarized

COUNTS = {"train": 50_000, "validation": 10_000, "test": 10_000}
SHARES = {28: (0.1310, 0.1292, 0.1325), 14: (0.1310, 0.1293, 0.1326)}
SHA1 = {28: "1873c6548c473818ee4a49db31ee4c666eb911ed", 14: "597c3b8e8ef04c1fc52f6c8154a80a4f35800f4d"}


@pytest.fixture(scope="module")
def mnist():
    """{part: its arrays}, read once."""
    place = os.environ.get("TFDS_DATA_DIR")
    if not place or not pathlib.Path(place, "mnist").is_dir():
        pytest.skip("TFDS_DATA_DIR names no directory that holds mnist")
    return {part: data.to_arrays(data.load("mnist", part)) for part in ("train", "test")}


@pytest.fixture(scope="module", params=[28, 14])
def splits(mnist, request):
    side, load = request.param, data.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda name, part, **_: tf.data.Dataset.from_tensor_slices(mnist[part]))
        options = {} if side == 28 else {"side": side}
        datasets = {split: load("mnist_binarized", split, **options) for split in COUNTS}
    for dataset in datasets.values():
        assert dataset.element_spec == {
            "image": tf.TensorSpec([side, side, 1], tf.float32),
            "label": tf.TensorSpec([], tf.int32),
        }
    return {split: data.to_arrays(dataset) for split, dataset in datasets.items()}


def test_the_draw_is_the_documented_one(splits):
    images = np.concatenate([splits[split]["image"] for split in COUNTS])
    assert set(np.unique(images)) == {0, 1}
    bits = np.packbits(images.reshape(len(images), -1).astype(bool)).tobytes()
    assert hashlib.sha1(bits).hexdigest() == SHA1[images.shape[1]]


def test_a_split_has_its_size_and_its_share_of_pixels_that_are_on(splits):
    side = splits["test"]["image"].shape[1]
    for (split, count), share in zip(COUNTS.items(), SHARES[side]):
        assert splits[split]["image"].shape == (count, side, side, 1)
        assert splits[split]["image"].mean() == pytest.approx(share, abs=5e-5)


def test_a_pixel_is_on_as_often_as_the_mean_of_its_grey_values_says(splits, mnist):
    drawn = np.concatenate([splits[split]["image"] for split in ("train", "validation")])
    side = drawn.shape[1]
    step = 28 // side
    corners = [mnist["train"]["image"][:, i::step, j::step].mean(axis=0) for i in range(step) for j in range(step)]
    np.testing.assert_allclose(drawn.mean(axis=0), np.mean(corners, axis=0), atol=5 * (0.25 / 60_000) ** 0.5)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_labels_belong_to_their_pictures(splits, split):
    """The nearest class mean is right four times in five; labels of another order would be right once in ten."""
    flat = {part: arrays["image"].reshape(len(arrays["image"]), -1) for part, arrays in splits.items()}
    means = np.stack([flat["train"][splits["train"]["label"] == digit].mean(axis=0) for digit in range(10)])
    nearest = (flat[split] @ means.T - (means**2).sum(axis=1) / 2).argmax(axis=1)
    assert (nearest == splits[split]["label"]).mean() > 0.75
    rolled = np.roll(splits[split]["label"], 1)
    assert (nearest == rolled).mean() < 0.2


def test_pooling_takes_the_mean_of_each_square():
    images = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    expected = [[images[:, i : i + 2, j : j + 2].mean(axis=(1, 2)) for j in (0, 2)] for i in (0, 2)]
    np.testing.assert_allclose(mnist_binarized.pooled(images, 2), np.array(expected).transpose(2, 0, 1, 3))


def test_an_unknown_split_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="splits train, validation, test; received 'valid'"):
        data.load("mnist_binarized", "valid", data_dir="nowhere")


def test_an_unknown_side_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="sides 28, 14; received 7"):
        data.load("mnist_binarized", "test", data_dir="nowhere", side=7)
