"""Detections whose scores are one but for rounding may stand in either order; nothing else may."""

import numpy as np
import pytest

from dmkeras.serving.exporting.comparison import in_order

BOXES = np.array([[[0.1, 0.1, 0.5, 0.5], [0.2, 0.3, 0.9, 0.8], [0.0, 0.4, 0.3, 0.6]]], "float32")
EXPECTED = {
    "detection_scores": np.array([[0.9, 0.2996785, 0.2996784]], "float32"),
    "detection_boxes": BOXES,
    "detection_classes": np.array([[1, 2, 0]], "int32"),
    "num_detections": np.array([3], "int32"),
}


def swapped(first, second, **others):
    order = [0, 1, 2]
    order[first], order[second] = order[second], order[first]
    found = {key: value[:, order] if value.ndim > 1 else value for key, value in EXPECTED.items()}
    return {**found, "detection_scores": EXPECTED["detection_scores"], **others}


def test_detections_of_one_score_come_back_into_order_with_all_that_belongs_to_them():
    found = in_order(swapped(1, 2), EXPECTED)
    for key, value in EXPECTED.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-6)


@pytest.mark.parametrize(
    "answer",
    [
        swapped(0, 1),  # scores apart
        swapped(1, 2, detection_boxes=BOXES[:, [0, 2, 2]]),  # a box that is not expected
        {"detection_boxes": BOXES[:, ::-1]},  # no scores
        {**EXPECTED, "detection_boxes": BOXES + 0.1},
    ],
)
def test_what_differs_otherwise_is_left_as_it_is(answer):
    found = in_order(answer, EXPECTED)
    assert all(np.array_equal(found[key], answer[key]) for key in answer)


def test_a_detection_stands_for_one_expected_alone():
    first, second, third = BOXES[0]
    scores = np.full((1, 3), 0.5, "float32")
    expected = {"detection_scores": scores, "detection_boxes": np.stack([first, first, second])[None]}
    answer = {"detection_scores": scores, "detection_boxes": np.stack([second, third, first])[None]}
    found = in_order(answer, expected)
    np.testing.assert_array_equal(found["detection_boxes"], answer["detection_boxes"])
