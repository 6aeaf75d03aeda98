"""Pictures of any size through a detector of one size, and what its endpoints take and answer."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dmkeras.parts import detector_doors

SIZE = (20, 30)


def bright(images):
    """A detector whose one box is what is brighter than 0.9, and whose other row is padding."""
    assert tuple(images.shape[1:3]) == SIZE
    inside = tf.reduce_max(images, -1) > 0.9  # [B, H, W]
    sides = []
    for axis, length in ((1, SIZE[1]), (2, SIZE[0])):
        there = tf.cast(tf.reduce_any(inside, axis), "float32")
        place = tf.range(length, dtype="float32")
        sides += [tf.reduce_min(place + 1e3 * (1 - there), -1), tf.reduce_max((place + 1) * there, -1)]
    box = tf.stack([sides[0], sides[2], sides[1], sides[3]], -1)
    rows = tf.stack([box, tf.zeros_like(box)], 1)
    count = tf.shape(images)[0]
    return {
        "boxes": rows,
        "scores": tf.tile([[0.9, 0.0]], [count, 1]),
        "classes": tf.tile([[1, -1]], [count, 1]),
        "num_detections": tf.ones([count], "int32"),
    }


def picture(height, width, box):
    image = np.full((height, width, 3), 0.2, "float32")
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 1
    return image


@pytest.mark.parametrize(
    ("height", "width", "box"), [(20, 30, (3, 4, 9, 11)), (40, 60, (6, 8, 18, 22)), (80, 40, (0, 20, 40, 60))], ids=str
)
def test_boxes_are_in_pixels_of_the_pictures_given(height, width, box):
    images = picture(height, width, box)[None]
    found = detector_doors.any_size(bright, images, SIZE)
    slack = height / SIZE[0] if height != SIZE[0] else 1e-6
    np.testing.assert_allclose(found["boxes"][0, 0], box, atol=slack)
    assert not found["boxes"][0, 1].numpy().any()
    alone = detector_doors.any_size(bright, images[0], SIZE)
    np.testing.assert_array_equal(alone["boxes"], found["boxes"][0])
    assert alone["num_detections"].shape == ()


def test_the_endpoints_answer_in_parts_of_the_picture_sent():
    ends = detector_doors.signatures(bright, (*SIZE, 3))
    assert set(ends) == {"serving_default", "detect", "detect_bytes"}
    image = picture(40, 60, (6, 8, 18, 22))
    file = io.BytesIO()
    Image.fromarray(np.uint8(255 * image)).save(file, "PNG")
    answer, (spec,) = ends["detect_bytes"]
    assert (spec.name, spec.dtype) == ("image_bytes", "string")
    found = answer(tf.constant([file.getvalue()] * 2))
    np.testing.assert_allclose(found["detection_boxes"][1, 0], [8 / 40, 6 / 60, 22 / 40, 18 / 60], atol=0.05)
    assert found["detection_classes"].numpy().tolist() == [[1, -1]] * 2
    plain = ends["detect"][0](picture(*SIZE, (3, 4, 9, 11))[None])
    np.testing.assert_allclose(plain["detection_boxes"][0, 0], [4 / 20, 3 / 30, 11 / 20, 9 / 30], rtol=1e-5)
    assert "detect_bytes" not in detector_doors.signatures(bright, (*SIZE, 1))


GOOD = {"boxes": np.array([[[1, 2, 9, 9], [0, 0, 0, 0]]], "float32"), "classes": np.array([[1, -1]])}


@pytest.mark.parametrize(
    ("truths", "words"),
    [
        ([1], "received list"),
        ({"boxes": GOOD["boxes"]}, "a dict of boxes"),
        ({**GOOD, "boxes": GOOD["boxes"][0]}, r"\[B, M, 4\]"),
        ({**GOOD, "classes": np.array([[2, -1]])}, "from 0 to 1"),
        ({**GOOD, "classes": np.array([[1, -2]])}, "-1 for padding"),
        ({**GOOD, "classes": np.array([[0.5, -1]])}, "from 0 to 1"),
        ({**GOOD, "boxes": np.full_like(GOOD["boxes"], np.inf)}, "finite"),
        ({**GOOD, "boxes": GOOD["boxes"][..., ::-1]}, "x2 < x1"),
        ({**GOOD, "boxes": GOOD["boxes"] / 20}, "in pixels"),
    ],
    ids=str,
)
def test_truths_that_cannot_be_are_refused(truths, words):
    with pytest.raises(ValueError, match=words):
        detector_doors.check_truths(truths, 2)


def test_sound_truths_pass_and_so_do_padding_and_a_box_without_area():
    detector_doors.check_truths(GOOD, 2)
    padding = {"boxes": np.full((2, 3, 4), np.nan), "classes": np.full((2, 3), -1)}
    detector_doors.check_truths(padding, 2)
    flat = {"boxes": np.array([[[1, 2, 9, 9], [5, 5, 5, 9]]]), "classes": np.array([[1, 0]])}
    detector_doors.check_truths(flat, 2)
    detector_doors.check_truths({"boxes": np.zeros((1, 0, 4)), "classes": np.zeros((1, 0))}, 2)


@pytest.mark.parametrize("value", [-0.1, 1.1, "0.5", None, True])
def test_thresholds_outside_of_zero_to_one_are_refused(value):
    with pytest.raises(ValueError, match="threshold must be a number in"):
        detector_doors.check_threshold("threshold", value)
