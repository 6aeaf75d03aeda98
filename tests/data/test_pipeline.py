"""Laws of the batches: order is a function of the seed alone, every record comes once, bad arrays are refused."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from dmkeras.data import batches, to_arrays


def order(dataset):
    return np.concatenate(list(dataset.as_numpy_iterator()))


def test_without_a_seed_the_order_is_kept():
    parts = list(batches(np.arange(10), 4).as_numpy_iterator())
    assert [part.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("batch_size", [1, 7, 100, 1000])
def test_every_record_comes_once_in_an_epoch(batch_size):
    assert sorted(order(batches(np.arange(100), batch_size, seed=3))) == list(range(100))


def test_the_order_is_a_function_of_the_seed_alone():
    first = order(batches(np.arange(100), 10, seed=5))
    tf.random.set_seed(1)
    np.random.seed(1)
    dataset = batches(np.arange(100, 200), 7, seed=np.int64(5))
    np.testing.assert_array_equal(order(dataset), first + 100)
    np.testing.assert_array_equal(order(dataset), first + 100)  # an epoch repeated
    np.testing.assert_array_equal(order(batches(np.arange(100), 10, seed=tf.constant(5))), first)
    orders = [tuple(order(batches(np.arange(100), 10, seed))) for seed in (0, 1, 5, -1, 2**40, 2**40 + 5)]
    assert len(set(orders)) == 6


def test_every_order_is_equally_likely():
    epochs = tf.data.Dataset.range(2400).flat_map(lambda seed: batches(np.arange(4), 4, seed))
    found = [tuple(row) for row in epochs.as_numpy_iterator()]
    counts = [found.count(each) for each in itertools.permutations(range(4))]
    assert sum(counts) == 2400
    assert stats.chisquare(counts).pvalue > 1e-3


def test_epochs_inside_a_flat_map_are_those_outside():
    images = np.arange(24.0).reshape(12, 2)
    epochs = tf.data.Dataset.range(7, 10).flat_map(lambda epoch: batches(images, 5, 1000 + epoch))
    inside = list(epochs.as_numpy_iterator())
    outside = [part for epoch in (7, 8, 9) for part in batches(images, 5, 1000 + epoch).as_numpy_iterator()]
    assert [len(part) for part in inside] == [5, 5, 2] * 3
    for part, same in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(part, same)


def test_arrays_are_no_constants_of_the_graph_that_reads_them():
    images = np.zeros((1000, 1000), "float32")
    epochs = tf.data.Dataset.range(2).flat_map(lambda epoch: batches(images, 10, epoch))
    assert epochs._map_func.function.graph.as_graph_def().ByteSize() < 100_000


@pytest.mark.parametrize(("drop_remainder", "cardinality", "rows"), [(False, 4, None), (True, 3, 3)])
def test_the_number_of_batches_is_known(drop_remainder, cardinality, rows):
    dataset = batches(np.arange(10), 3, seed=0, drop_remainder=drop_remainder)
    assert dataset.cardinality() == cardinality == len(list(dataset))
    assert dataset.element_spec.shape.as_list() == [rows]


def test_batches_have_the_structure_of_the_arrays():
    images, labels = np.arange(12.0, dtype="float32").reshape(6, 2), np.arange(6, dtype="int32")
    records = {"image": images, "label": labels}
    pairs = next(batches((images, labels), 4, seed=1).as_numpy_iterator())
    dicts = next(batches(records, 4, seed=1).as_numpy_iterator())
    read = next(batches(tf.data.Dataset.from_tensor_slices(records), 4, seed=1).as_numpy_iterator())
    assert isinstance(pairs, tuple)
    assert dicts.keys() == read.keys() == {"image", "label"}
    for image, label in (pairs, dicts.values(), read.values()):
        assert (image.dtype, label.dtype) == ("float32", "int32")
        np.testing.assert_array_equal(image, images[label])  # rows stay together
        np.testing.assert_array_equal(label, pairs[1])


def test_a_dataset_becomes_arrays():
    records = {"image": np.random.default_rng(0).random((2500, 2, 2)), "name": np.array([b"a", b"b"] * 1250)}
    arrays = to_arrays(tf.data.Dataset.from_tensor_slices(records))
    for key, values in records.items():
        np.testing.assert_array_equal(arrays[key], values)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_at_least_one_record(batch_size):
    with pytest.raises(ValueError, match=rf"batch_size must be from 1 to the 5 records, received {batch_size}"):
        batches(np.arange(5), batch_size)


def test_a_remainder_that_is_everything_is_refused():
    with pytest.raises(ValueError, match="batch_size must be from 1 to the 5 records, received 6"):
        batches(np.arange(5), 6, drop_remainder=True)
    assert batches(np.arange(5), 6).cardinality() == 1


@pytest.mark.parametrize(
    ("arrays", "lengths"),
    [
        ((np.zeros(5), np.zeros(4)), r"\[5, 4\]"),
        ({"a": np.zeros(4), "b": np.zeros(5)}, r"\[4, 5\]"),
        (np.zeros((0, 3)), r"\[0\]"),
        (np.float32(3), r"\[0\]"),
        ({}, r"\[\]"),
    ],
)
def test_arrays_without_a_common_length_are_refused(arrays, lengths):
    with pytest.raises(ValueError, match=rf"same number of records, received {lengths}"):
        batches(arrays, 2)


def boxes(*counts):
    records = ({"image": np.zeros(2), "name": "a", "boxes": np.full((count, 4), count)} for count in counts)
    spec = {"image": tf.TensorSpec([2]), "name": tf.TensorSpec([], "string"), "boxes": tf.TensorSpec([None, 4])}
    return tf.data.Dataset.from_generator(lambda: records, output_signature=spec)


def test_records_of_one_shape_need_not_tell_it_beforehand():
    arrays = to_arrays(boxes(3, 3, 3))
    assert {key: array.shape for key, array in arrays.items()} == {"image": (3, 2), "name": (3,), "boxes": (3, 3, 4)}
    assert arrays["name"][0] == b"a"


def test_datasets_that_are_no_records_of_one_shape_are_refused():
    with pytest.raises(ValueError, match=r"boxes: \[1, 4\] and, in record 2, \[3, 4\]; resize, pad or unbatch"):
        to_arrays(boxes(1, 1, 3))
    records = tf.data.Dataset.from_tensor_slices({"image": np.zeros((4, 2))})
    with pytest.raises(ValueError, match="at least one record"):
        to_arrays(records.take(0))
    with pytest.raises(ValueError, match="expected a dataset of dicts"):
        batches(tf.data.Dataset.range(3), 2)
