"""What recipes of detectors report, of a detector that is known to be right or wrong."""

import types

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import figures
from dmkeras.parts import detection_report

NAMES = ("square", "disc")


def told(boxes, classes, scores):
    """A model that finds the same in every batch of six pictures."""
    count = tf.constant((np.asarray(classes) >= 0).sum(1))
    answer = {"boxes": boxes, "classes": classes, "scores": scores, "num_detections": count}
    return types.SimpleNamespace(detect=lambda images: {key: tf.constant(value) for key, value in answer.items()})


@pytest.fixture
def truths():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 20, (6, 3, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 12, (6, 3, 2))], -1).astype("float32")
    classes = np.array([[0, 1, -1], [0, -1, -1], [1, 1, 0], [0, 0, 1], [1, -1, -1], [-1, -1, -1]], "int32")
    return np.random.default_rng(1).uniform(0, 1, (6, 32, 32, 3)).astype("float32"), boxes, classes


def test_a_perfect_detector_has_average_precision_one_and_a_wrong_one_none(truths):
    _images, boxes, classes = truths
    scores = np.where(classes >= 0, 0.9, 0).astype("float32")
    right = detection_report.figures(told(boxes, classes, scores), *truths, NAMES)
    assert right["map"] == right["map50"] == right["ap_disc"] == right["ap50_square"] == pytest.approx(1)
    assert right["milliseconds"] > 0
    swapped = np.where(classes >= 0, 1 - classes, -1)
    wrong = detection_report.figures(told(boxes, swapped, scores), *truths, NAMES)
    assert wrong["map50"] < 0.3


def test_truths_of_padding_or_without_area_do_not_count(truths):
    _, boxes, classes = truths
    boxes[0, 1, 2] = boxes[0, 1, 0]
    found = detection_report.truths_of(boxes, classes)
    assert [len(one["boxes"]) for one in found] == [1, 1, 3, 3, 1, 0]
    np.testing.assert_array_equal(found[0]["boxes"], boxes[0, :1])


def test_the_worst_pictures_are_those_whose_truths_were_missed(truths):
    images, boxes, classes = truths
    scores = np.where(classes >= 0, 0.9, 0).astype("float32")
    scores[3] = 0.1  # not drawn
    seen = []
    draw = types.SimpleNamespace(
        boxes=lambda image, *args, **options: seen.append(image) or figures.boxes(image, *args, **options),
        grid=figures.grid,
    )
    sheets = detection_report.sheets(told(boxes, classes, scores), *truths, NAMES, draw, count=1)
    assert set(sheets) == {"detections", "worst"}
    np.testing.assert_array_equal(seen[0], images[0])
    np.testing.assert_array_equal(seen[2], images[3])
    assert all(sheet.dtype == np.uint8 and sheet.ndim == 3 for sheet in sheets.values())


def test_anchors_are_drawn_over_the_sizes_that_they_fit():
    seen = {}
    draw = types.SimpleNamespace(scatter=lambda points, labels, **options: seen.update(options, p=points, l=labels))
    detection_report.clusters([[10, 10], [11, 10], [30, 20]], [[10, 10], [30, 20]], draw)
    np.testing.assert_array_equal(seen["l"], [0, 0, 1, 2, 2])
    assert seen["names"] == ["10x10", "30x20", "anchors"]
    assert f"{(1 + 10 / 11 + 1) / 3:.3f}" in seen["title"]


def test_an_ablation_adds_step_upon_step_and_prints_means(capsys):
    trained = []

    def train(options, seed):
        trained.append((options, seed))
        return options["a"] + options.get("b", 0) + seed

    measure = lambda model: {"map": model / 10, "map50": model / 5}
    found = detection_report.ablation({"plain": {"a": 1}, "with b": {"b": 2}}, train, (0, 1), measure)
    assert trained == [({"a": 1}, 0), ({"a": 1}, 1), ({"a": 1, "b": 2}, 0), ({"a": 1, "b": 2}, 1)]
    assert found == pytest.approx({"map plain": 0.15, "map50 plain": 0.3, "map with b": 0.35, "map50 with b": 0.7})
    text = capsys.readouterr().out
    assert "0.150 +-0.071" in text
    assert "with b" in text
