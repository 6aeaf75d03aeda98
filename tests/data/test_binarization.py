"""Binary pictures under a stated protocol."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import data
from dmkeras.data import binarization, load, to_arrays


def test_the_threshold_is_half_and_leaves_the_order():
    grey = to_arrays(load("digits", "test"))["image"]
    np.testing.assert_array_equal(binarization.images("digits", "test", "threshold"), grey * 16 >= 8)
    np.testing.assert_array_equal(binarization.images("digits", "test", "none"), grey)


def test_labels_are_those_of_the_pictures():
    labels = binarization.labels("digits", "test", "threshold")
    np.testing.assert_array_equal(labels, to_arrays(load("digits", "test"))["label"])


def test_a_pixel_is_drawn_with_the_probability_of_its_grey_value():
    grey = np.broadcast_to(np.array([0.0, 0.25, 0.75, 1.0], "float32")[:, None, None], (4000, 4, 1, 1))
    (drawn,) = binarization.draw(tf.data.Dataset.from_tensors(grey), 1)
    assert set(np.unique(drawn)) == {0, 1}
    np.testing.assert_allclose(np.mean(drawn, axis=0).ravel(), [0, 0.25, 0.75, 1], atol=5 * (0.25 * 0.75 / 4000) ** 0.5)


def test_a_draw_is_a_function_of_seed_and_batch_alone():
    grey = tf.data.Dataset.from_tensors(np.full((2, 8, 8, 1), 0.5, "float32")).repeat(2)
    first, again, other = ([np.array(x) for x in binarization.draw(grey, seed)] for seed in (3, tf.constant(3), 4))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()
    assert (np.array(first) != np.array(other)).any()


@pytest.mark.parametrize(("name", "protocol"), [("digits", "fixed"), ("mnist", "sometimes")])
def test_an_unknown_protocol_is_refused(name, protocol):
    with pytest.raises(ValueError, match=f"mnist alone; received '{protocol}'"):
        binarization.images(name, "test", protocol)


@pytest.mark.parametrize(("name", "side"), [("digits", 14), ("fashion_mnist", 28), ("mnist", 7)])
def test_a_side_is_refused_where_there_is_none(name, side):
    with pytest.raises(ValueError, match=f"for mnist alone; received side={side}"):
        binarization.images(name, "test", "none", side=side)


@pytest.fixture
def stored(monkeypatch):
    """What `images` asks of `load`, and one grey picture of noise as the answer to all of it."""
    asked, grey = [], np.random.default_rng(0).random((1, 28, 28, 1), "float32")

    def load(name, split, *, data_dir, download, **options):
        asked.append((name, split, options))
        return tf.data.Dataset.from_tensor_slices({"image": grey})

    monkeypatch.setattr(data, "load", load)
    return asked, grey


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("mnist", "train", "fixed"), ("mnist_binarized", "train", {"side": 14})),
        (("mnist", "test", "dynamic"), ("mnist_binarized", "test", {"side": 14})),
        (("mnist_binarized", "test", "fixed"), ("mnist_binarized", "test", {"side": 14})),
    ],
)
def test_a_draw_of_a_side_is_asked_of_its_module(stored, arguments, asked):
    binarization.images(*arguments, side=14)
    assert stored[0] == [asked]


def test_grey_pictures_of_a_side_are_pooled_before_the_threshold(stored):
    grey = stored[1].reshape(1, 14, 2, 14, 2, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(binarization.images("mnist", "train", "none", side=14), grey, rtol=1e-6)
    np.testing.assert_array_equal(binarization.images("mnist", "train", "threshold", side=14), grey >= 0.5)
    assert binarization.images("mnist", "train", "dynamic").shape == (1, 28, 28, 1)


@pytest.mark.parametrize(
    ("name", "split", "asked"),
    [
        ("fashion_mnist", "train", "train[:-10000]"),
        ("fashion_mnist:3.0.1", "validation", "train[-10000:]"),
        ("fashion_mnist", "test", "test"),
        ("digits", "validation", "validation"),
        ("folder:pictures", "validation", "validation"),
        ("cifar10_excerpt:sheets", "train", "train"),
    ],
)
def test_a_set_with_three_splits_is_asked_for_its_own(stored, name, split, asked):
    binarization.images(name, split, "none")
    assert stored[0] == [(name, asked, {})]


@pytest.mark.parametrize(("protocol", "expected"), [("none", 17), ("threshold", 2)])
def test_pictures_have_the_levels_that_are_told(protocol, expected):
    grey = binarization.images("digits", "train", protocol)
    count = binarization.levels("digits", protocol)
    assert count == expected
    np.testing.assert_array_equal(np.unique(grey), np.arange(count, dtype="float32") / np.float32(count - 1))


def test_8_bit_pictures_have_256_levels_where_nothing_is_binarized():
    assert [binarization.levels("mnist", protocol) for protocol in binarization.PROTOCOLS] == [2, 2, 2, 256]
    assert binarization.levels("cifar10_excerpt:somewhere", "none") == 256


def test_only_training_leaves_out_a_smaller_batch():
    for drop, expected in ((True, {"train": [500, 500]}), (False, {"train": [500, 500, 297]})):
        _, batched = binarization.splits("digits", "none", 500, drop_remainder=drop)
        expected |= {"validation": [200], "test": [300]}
        assert {split: [len(batch) for batch in batched(split, 0)] for split in expected} == expected


def test_batches_may_have_their_labels_beside():
    pictures, batched = binarization.splits("digits", "none", 100, drop_remainder=True, labelled=True)
    for split in pictures:
        labels, seen = binarization.labels("digits", split, "none"), 0
        for x, y in batched(split, 3):
            index = [np.flatnonzero((pictures[split] == one).all(axis=(1, 2, 3)))[0] for one in x.numpy()]
            np.testing.assert_array_equal(y, labels[index])
            seen += len(y)
        assert seen == {"train": 1200, "validation": 200, "test": 300}[split]


def test_labels_beside_dynamic_pictures_are_refused():
    with pytest.raises(ValueError, match="received labelled=True"):
        binarization.splits("digits", "dynamic", 100, labelled=True)
