"""From records to batches: small sets are held in memory and gathered by index, at no cost per record."""

import numpy as np
import tensorflow as tf


def to_arrays(dataset):
    """An unbatched dataset of dicts, all records of one shape -> `{key: array [N, ...]}`.

    Raises:
        ValueError: if the dataset is empty, its elements are no dicts or its records differ in shape; one that does not
            tell its shapes beforehand is read until a record differs.
    """
    if not isinstance(dataset.element_spec, dict):
        raise ValueError(f"expected a dataset of dicts, received one of {dataset.element_spec}")
    if all(spec.shape.is_fully_defined() for spec in dataset.element_spec.values()):
        parts = list(dataset.batch(1000).as_numpy_iterator())
    else:
        parts = list(_records(dataset))
    if not parts:
        raise ValueError("expected a dataset of at least one record, received an empty one")
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _records(dataset):
    """Each record as a batch of one; ValueError at the first that differs in shape."""
    shapes = {}
    for number, record in enumerate(dataset.as_numpy_iterator()):
        record = {key: np.asarray(value)[None] for key, value in record.items()}
        for key, value in record.items():
            if value.shape != shapes.setdefault(key, value.shape):
                received = f"{list(shapes[key][1:])} and, in record {number}, {list(value.shape[1:])}"
                raise ValueError(
                    f"records differ in the shape of {key}: {received}; resize, pad or unbatch() them first"
                )
        yield record


def batches(arrays, batch_size, seed=None, drop_remainder=False):
    """Batches of arrays in memory, shuffled if a seed is given.

    Args:
        arrays: an array `[N, ...]`, a dict or tuple of such, or an unbatched dataset of dicts (read by `to_arrays`).
        batch_size: records per batch.
        seed: int64 scalar, a number or a tensor; the order is a function of it alone. None keeps the given order.
        drop_remainder: whether a last, smaller batch is left out.

    Returns:
        A `tf.data.Dataset` of known cardinality whose elements have the structure of `arrays`.

    Raises:
        ValueError: for arrays of different or no lengths, a batch size below one, or a remainder that is everything.
    """
    if isinstance(arrays, tf.data.Dataset):
        arrays = to_arrays(arrays)
    with tf.init_scope():  # inside a traced function the arrays would become constants of its graph
        arrays = tf.nest.map_structure(tf.convert_to_tensor, arrays)
        lengths = [array.shape[0] if array.shape.rank else 0 for array in tf.nest.flatten(arrays)]
    if len(set(lengths)) != 1 or lengths[0] == 0:
        raise ValueError(f"expected arrays of one and the same number of records, received {lengths}")
    count = lengths[0]
    if batch_size < 1 or (drop_remainder and batch_size > count):
        raise ValueError(f"batch_size must be from 1 to the {count} records, received {batch_size}")
    order = tf.range(count)
    if seed is not None:
        order = tf.random.experimental.stateless_shuffle(order, tf.stack([tf.cast(seed, "int64"), 0]))
    indices = tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder)
    return indices.map(lambda index: tf.nest.map_structure(lambda array: tf.gather(array, index), arrays))
