"""What is used of KerasCV is right, and what is written here instead is wrong there.

Each test of a fault passes while the fault stands. It turns red when a release mends it, and says what can go then.
"""

import itertools

import keras
import keras_cv
import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import boxes, matching

BOX = np.array([[10, 20, 30, 60], [0, 0, 5, 9]], "float32")


def fault(stands, mended):
    assert stands, f"KerasCV {keras_cv.__version__} is right now: {mended}"


# Used.


def test_every_format_comes_back_from_every_other():
    for source, target in itertools.permutations(boxes.FORMATS, 2):
        first = boxes.convert(BOX, "xyxy", source, (100, 200))
        there = boxes.convert(first, source, target, (100, 200))
        np.testing.assert_allclose(boxes.convert(there, target, source, (100, 200)), first, atol=1e-5)
        np.testing.assert_allclose(there, boxes.convert(BOX, "xyxy", target, (100, 200)), atol=1e-5)


def test_box_matcher_without_force_keeps_its_thresholds():
    overlaps = np.array([[0.2, 0.1], [0.3, 0.6], [0.1, 0.9]], "float32")[None]
    index, label = keras_cv.layers.BoxMatcher([0.3, 0.7], [0, -1, 1])(overlaps)
    np.testing.assert_array_equal(index, [[0, 1, 1]])
    np.testing.assert_array_equal(label, [[0, -1, 1]])


# Why the rest is ours.


def test_box_matcher_forces_a_column_of_padding():
    overlaps = np.array([[0.15, 0.3, 0.05], [0.45, 0.65, 0.4], [0.2, 0.05, 0.25], [0.6, 0.1, 0.4]], "float32")
    index, label = keras_cv.layers.BoxMatcher([0.3, 0.7], [0, -1, 1], force_match_for_each_col=True)(overlaps)
    right = np.array_equal(index, [1, 1, 2, 0]) and np.array_equal(label, [-1, 1, 0, 1])
    fault(not right, "the force step of parts/matching.py may be BoxMatcher's, if ties are forced too")


def test_box_matcher_changes_its_callers_list():
    thresholds = [0.3, 0.7]
    keras_cv.layers.BoxMatcher(thresholds, [0, -1, 1])
    fault(thresholds != [0.3, 0.7], "matching.matcher need not copy the thresholds")


def test_compute_ciou_squares_its_constant():
    pair = np.array([[-1, -1, 1, 1], [0, -1, 1, 1]], "float32")
    theirs = float(keras_cv.bounding_box.compute_ciou(pair[:1], pair[1:], "xyxy")[0])
    fault(abs(1 - theirs - 0.5345) > 1e-3, "boxes.ciou could be compute_ciou, if its gradients are finite too")
    np.testing.assert_allclose(1 - boxes.ciou(pair[0], pair[1]), 0.5345, atol=1e-4)


def test_smooth_l1_jumps_at_other_cutoffs():
    theirs = keras_cv.losses.SmoothL1Loss(l1_cutoff=0.5, reduction="none")(tf.zeros((1, 1)), tf.fill((1, 1), 2.0))
    fault(abs(float(np.ravel(theirs)[0]) - 1.75) > 0.1, "a smooth L1 loss of our own could be SmoothL1Loss")
    huber = keras.losses.Huber(0.5, reduction="none")([[0.0]], [[2.0]]) / 0.5
    np.testing.assert_allclose(huber, [1.75])  # what stands in for it: Huber(beta) / beta


def test_iou_loss_has_no_gradient_for_boxes_that_are_apart():
    box, other = tf.constant(BOX[:1]), tf.constant(BOX[:1] + 200)
    with tf.GradientTape() as tape:
        tape.watch(box)
        loss = keras_cv.losses.IoULoss("xyxy", mode="log", reduction="sum")(other, box)
    fault(not np.isfinite(tape.gradient(loss, box)).all(), "a logarithmic IoU loss could be IoULoss")


SCORES = np.array([[[0.9, 0.0], [0.0, 0.8]]], "float32")  # two boxes at one place, of two classes


def test_non_max_suppression_is_blind_to_classes():
    layer = keras_cv.layers.NonMaxSuppression("xyxy", from_logits=False, confidence_threshold=0.1)
    count = int(layer(np.repeat(BOX[:1], 2, 0)[None], SCORES)["num_detections"][0])
    fault(count == 1, "parts/nms.py could be NonMaxSuppression, if it is as fast")


def test_multi_class_non_max_suppression_does_not_compile():
    layer = keras_cv.layers.MultiClassNonMaxSuppression("xyxy", from_logits=False, confidence_threshold=0.1)
    two = np.repeat(BOX[:1], 2, 0)[None]
    assert layer(two, SCORES)["num_detections"] == 2
    try:
        tf.function(lambda b, s: layer(b, s)["num_detections"], jit_compile=True)(two, SCORES)
        compiles = True
    except tf.errors.OpError:
        compiles = False
    fault(not compiles, "parts/nms.py could be MultiClassNonMaxSuppression, if it is as fast")


def test_anchor_generator_joins_sizes_and_ratios_one_to_one():
    options = {"sizes": [[16.0, 32.0, 64.0]], "scales": [1.0], "aspect_ratios": [0.5, 1.0, 2.0], "strides": [8]}
    anchors = keras_cv.layers.AnchorGenerator("xyxy", **options)(image_shape=(8, 8, 3))[0]
    fault(len(anchors) != 9, "anchors.grid could be AnchorGenerator where the offset is 0.5")


def test_coco_metrics_leave_out_pictures_without_detections():
    pytest.importorskip("pycocotools")
    metric = keras_cv.metrics.BoxCOCOMetrics(bounding_box_format="xyxy", evaluate_freq=1)
    truth = {"boxes": np.tile(BOX[:1, None], (4, 1, 1)), "classes": np.zeros((4, 1), "float32")}
    found = {
        "boxes": truth["boxes"].copy(),
        "classes": truth["classes"].copy(),
        "confidence": np.ones((4, 1), "float32"),
    }
    for name in ("boxes", "classes", "confidence"):
        found[name][1:] = -1
    metric.update_state(truth, found)
    score = float(metric.result(force=True)["MaP"])
    fault(score > 0.9, "parts/average_precision.py could be BoxCOCOMetrics: one of four found is a mAP of 0.257")


def test_matching_takes_its_own_force_step():
    """The case above through our part."""
    overlaps = np.array([[0.15, 0.3, 0.05], [0.45, 0.65, 0.4], [0.2, 0.05, 0.25], [0.6, 0.1, 0.4]], "float32")
    index, label = matching.match(overlaps, [True] * 3, (0.3, 0.7), (0, -1, 1), force_best=True)
    np.testing.assert_array_equal([index, label], [[1, 1, 2, 0], [-1, 1, 0, 1]])
