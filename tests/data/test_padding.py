"""Laws of padded records: every object is there in its order, the rest is padding, misfits are refused."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.data import load
from dmkeras.data.padding import padded

COUNTS = (2, 0, 3, 1)


def records(counts=COUNTS, sides=(4,) * 9, difficult=False, known=True):
    def generate():
        for i, (n, side) in enumerate(zip(counts, sides)):
            boxes = np.arange(4 * n, dtype="float32").reshape(n, 4) + 100 * i
            record = {"image": np.full((side, 5, 1), i, "float32"), "boxes": boxes, "classes": np.arange(n) + i}
            yield record | ({"difficult": np.ones(n, bool)} if difficult else {"name": str(i)})

    spec = {"image": tf.TensorSpec([None, 5, 1]), "boxes": tf.TensorSpec([None, 4])}
    spec["classes"] = tf.TensorSpec([None], tf.int32)
    spec |= {"difficult": tf.TensorSpec([None], bool)} if difficult else {"name": tf.TensorSpec([], tf.string)}
    dataset = tf.data.Dataset.from_generator(generate, output_signature=spec)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(counts))) if known else dataset


def check(arrays, rows):
    assert arrays["image"].shape == (4, 4, 5, 1)
    assert arrays["boxes"].shape == (4, rows, 4)
    assert arrays["classes"].shape == (4, rows)
    assert [array.dtype for array in arrays.values()][:3] == ["float32", "float32", "int32"]
    for i, n in enumerate(COUNTS):
        assert (arrays["image"][i] == i).all()
        np.testing.assert_array_equal(arrays["boxes"][i, :n], np.arange(4 * n).reshape(n, 4) + 100 * i)
        assert arrays["classes"][i].tolist() == [*range(i, i + n), *[-1] * (rows - n)]
        assert not arrays["boxes"][i, n:].any()


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("max_boxes", [None, 3, 7])
def test_every_object_is_there_and_the_rest_is_padding(known, max_boxes):
    arrays = padded(records(known=known), max_boxes)
    assert list(arrays) == ["image", "boxes", "classes"]
    check(arrays, max_boxes or 3)


def test_difficult_is_kept_where_it_is_known():
    difficult = padded(records(difficult=True))["difficult"]
    assert difficult.tolist() == [[True, True, False], [False] * 3, [True] * 3, [True, False, False]]


def test_pictures_without_objects_have_a_row_of_padding():
    arrays = padded(records(counts=(0, 0)))
    assert arrays["boxes"].tolist() == [[[0] * 4]] * 2
    assert arrays["classes"].tolist() == [[-1]] * 2


def test_a_transform_is_mapped_first():
    def cut(record):
        return {**record, "image": record["image"][:4], "boxes": record["boxes"][:1], "classes": record["classes"][:1]}

    arrays = padded(records(sides=(4, 6, 9, 5)), transform=cut)
    assert arrays["image"].shape == (4, 4, 5, 1)
    assert arrays["classes"].tolist() == [[0], [-1], [2], [3]]


@pytest.mark.parametrize(
    ("dataset", "options", "words"),
    [
        (records(), {"max_boxes": 2}, "record 2 has 3 boxes, more than max_boxes=2; raise it"),
        (records(), {"max_boxes": 0}, "at least 1, received 0"),
        (records(), {"max_boxes": 2.5}, "whole number, received 2.5"),
        (records(sides=(4, 6, 9, 5)), {}, r"\[4, 5, 1\] and, in record 1, \[6, 5, 1\]; give a transform"),
        (records().take(0), {}, "at least one record"),
        (records().map(lambda r: {"image": r["image"]}), {}, "without boxes, classes"),
        (records().map(lambda r: r["image"]), {}, "with image, boxes and classes, received some of TensorSpec"),
        (records().map(lambda r: {**r, "classes": r["classes"][:1]}), {}, "record 0 has 1 classes for 2 boxes"),
    ],
)
def test_what_cannot_be_padded_is_refused(dataset, options, words):
    with pytest.raises(ValueError, match=words):
        padded(dataset, **options)


def test_simple_shapes_come_as_they_are():
    dataset = load("simple_shapes", "test", count=12)
    arrays = padded(dataset)
    assert arrays["image"].shape == (12, 96, 96, 3)
    for i, record in enumerate(dataset.as_numpy_iterator()):
        n = len(record["classes"])
        np.testing.assert_array_equal(arrays["image"][i], record["image"])
        np.testing.assert_array_equal(arrays["boxes"][i, :n], record["boxes"])
        assert (arrays["classes"][i, n:] == -1).all()


def test_blood_cells_are_letterboxed_into_arrays():
    """BCCD (https://github.com/Shenggan/BCCD_Dataset), where DMKERAS_BCCD names its directory."""
    place = os.environ.get("DMKERAS_BCCD")
    if not place or not pathlib.Path(place, "Annotations").is_dir():
        pytest.skip("DMKERAS_BCCD names no directory of the blood cells")
    from dmkeras.parts.letterbox import letterbox, to_model

    def small(record):
        image, placement = letterbox(record["image"], (96, 128))
        return {**record, "image": image, "boxes": to_model(record["boxes"], placement)}

    dataset = load(f"voc:{place}", "train", verify=False).take(20)
    arrays = padded(dataset, transform=small)
    assert arrays["image"].shape == (20, 96, 128, 3)
    assert not arrays["difficult"].any()
    for i, record in enumerate(dataset.as_numpy_iterator()):
        n = len(record["classes"])
        assert (arrays["classes"][i, :n] == record["classes"]).all()
        np.testing.assert_allclose(arrays["boxes"][i, :n] * 5, record["boxes"], atol=1e-3)  # 640 x 480
