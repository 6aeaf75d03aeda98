"""Figures of segmentations against NumPy, SciPy and scikit-learn, and what they say of nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from scipy.spatial.distance import directed_hausdorff
from sklearn import metrics as references

from dmkeras.parts import segmentation_metrics as metrics

K = 4


@pytest.fixture
def maps():
    """Six pictures of classes 0, 1 and 3, class 2 in neither, and void in the truth."""
    rng = np.random.default_rng(0)
    truth = rng.choice([-1, 0, 1, 3], (6, 20, 24), p=[0.1, 0.5, 0.3, 0.1])
    found = np.where(rng.uniform(size=truth.shape) < 0.7, np.maximum(truth, 0), rng.choice([0, 1, 3], truth.shape))
    return truth.astype("int32"), found.astype("int32")


def blobs(seed, shape=(40, 50)):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 4) > 0.03


def test_the_confusion_matrix_is_scikit_learns_without_void(maps):
    truth, found = maps
    known = truth >= 0
    expected = references.confusion_matrix(truth[known], found[known], labels=range(K))
    np.testing.assert_array_equal(metrics.confusion_matrix(truth, found, K), expected)
    halves = sum(metrics.confusion_matrix(truth[part], found[part], K) for part in (slice(2), slice(2, 6)))
    np.testing.assert_array_equal(halves, expected)


def test_iou_dice_and_accuracies_are_scikit_learns_and_absent_classes_have_none(maps):
    truth, found = maps
    known, here = truth >= 0, [0, 1, 3]
    flat = truth[known], found[known]
    scores = metrics.scores(metrics.confusion_matrix(truth, found, K))
    iou = references.jaccard_score(*flat, labels=here, average=None)
    dice = references.f1_score(*flat, labels=here, average=None)
    np.testing.assert_allclose(scores["iou"][here], iou)
    np.testing.assert_allclose(scores["dice"][here], dice)
    np.testing.assert_allclose(metrics.dice(truth, found, K)[here], dice)
    assert all(np.isnan(scores[name][2]) for name in ("iou", "dice", "accuracy"))
    assert metrics.mean_iou(truth, found, K) == pytest.approx(iou.mean())
    assert metrics.pixel_accuracy(truth, found, K) == pytest.approx(references.accuracy_score(*flat))
    assert metrics.mean_accuracy(truth, found, K) == pytest.approx(references.balanced_accuracy_score(*flat))
    share = np.array([(flat[0] == k).mean() for k in here])
    assert metrics.frequency_weighted_iou(truth, found, K) == pytest.approx((share * iou).sum())
    assert scores["mean_iou"] != pytest.approx(np.nan_to_num(scores["iou"]).mean())  # the absent class counted as 0


def test_pictures_are_pooled_not_averaged():
    truth, found = np.zeros((2, 10, 10), int), np.zeros((2, 10, 10), int)
    truth[0, :5], found[0, :5] = 1, 1
    truth[1, 0, 0] = 1  # missed: IoU 0 in a picture of its own
    assert metrics.scores(metrics.confusion_matrix(truth, found))["iou"][1] == pytest.approx(50 / 51)
    alone = [metrics.scores(metrics.confusion_matrix(*pair))["iou"][1] for pair in zip(truth, found)]
    assert np.mean(alone) == pytest.approx(0.5)


def test_void_counts_nowhere_whatever_was_found_there(maps):
    truth, found = maps
    other = np.where(truth < 0, 2, found)
    np.testing.assert_array_equal(*(metrics.confusion_matrix(truth, answer, K) for answer in (found, other)))


def test_what_is_found_but_not_there_has_an_iou_of_zero():
    truth, found = np.zeros((4, 4), int), np.zeros((4, 4), int)
    found[0, 0] = 2
    scores = metrics.scores(metrics.confusion_matrix(truth, found, K))
    np.testing.assert_allclose(scores["iou"], [15 / 16, np.nan, 0, np.nan])
    assert scores["mean_iou"] == pytest.approx(15 / 32)
    assert scores["mean_accuracy"] == pytest.approx(15 / 16)


def test_nothing_to_measure_is_nan_without_a_warning():
    scores = metrics.scores(metrics.confusion_matrix(np.full((3, 3), -1), np.zeros((3, 3), int), 2))
    assert all(np.isnan(value).all() for value in scores.values())
    empty = np.zeros((3, 3), bool)
    assert np.isnan(metrics.dice(empty, empty))
    assert metrics.dice(empty, ~empty) == 0
    single = metrics.scores(metrics.confusion_matrix(empty, empty))
    assert single["mean_iou"] == single["pixel_accuracy"] == 1


def test_dice_of_masks_is_one_number():
    a, b = blobs(0), blobs(1)
    assert metrics.dice(a, b) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert metrics.dice(a, a) == 1
    np.testing.assert_allclose(metrics.dice(a.astype(int), b.astype(int))[1], metrics.dice(a, b))


@pytest.mark.parametrize(
    ("truth", "found", "words"),
    [
        (np.zeros((4, 4), int), np.zeros((4, 5), int), "of one shape"),
        (np.zeros((4, 4), int), np.zeros((4, 4)), "argmax"),
        (np.full((4, 4), 2), np.zeros((4, 4), int), "truth from -1 to 1"),
        (np.zeros((4, 4), int), np.full((4, 4), -1), "found from 0 to 1"),
    ],
)
def test_maps_that_cannot_be_are_refused(truth, found, words):
    with pytest.raises(ValueError, match=words):
        metrics.confusion_matrix(truth, found, 2)


# --- Hausdorff ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("border", [True, False])
def test_hausdorff_is_scipys_of_both_directions(seed, border):
    masks = [blobs(seed), blobs(seed + 10)]
    cross = ndimage.generate_binary_structure(2, 1)
    points = [np.argwhere(m & ~ndimage.binary_erosion(m, cross) if border else m) for m in masks]
    both = [directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0]]
    assert metrics.hausdorff(*masks, border=border) == pytest.approx(max(both))
    assert metrics.hausdorff(*masks[::-1], border=border) == pytest.approx(max(both))


@pytest.mark.parametrize("percentile", [50, 95])
def test_percentiles_of_hausdorff_are_those_of_distance_transforms(percentile):
    masks = [metrics.outline(blobs(3)), metrics.outline(blobs(4))]
    away = [ndimage.distance_transform_edt(~mask) for mask in masks]
    expected = max(np.percentile(away[1][masks[0]], percentile), np.percentile(away[0][masks[1]], percentile))
    assert metrics.hausdorff(blobs(3), blobs(4), percentile) == pytest.approx(expected)


def test_a_shifted_square_is_as_far_as_it_was_moved_and_one_pixel_astray_counts_only_at_the_maximum():
    truth, found = np.zeros((2, 60, 60), bool)
    truth[10:30, 10:30], found[13:33, 14:34] = True, True
    assert metrics.hausdorff(truth, found) == pytest.approx(5)
    stray = truth.copy()
    stray[59, 59] = True
    assert metrics.hausdorff(truth, stray) == pytest.approx(np.hypot(30, 30))
    assert metrics.hausdorff(truth, stray, 95) == 0


def test_empty_masks_are_at_no_distance_from_each_other_and_infinitely_far_from_others():
    empty, some = np.zeros((8, 8), bool), np.eye(8, dtype=bool)
    pairs = np.stack([empty, empty, some, some]), np.stack([empty, some, empty, some])
    np.testing.assert_array_equal(metrics.hausdorff(*pairs), [0, np.inf, np.inf, 0])
    assert metrics.hausdorff(np.zeros((0, 8, 8), bool), np.zeros((0, 8, 8), bool)).shape == (0,)


def test_hausdorff_refuses_classes_other_shapes_and_percentiles():
    mask = np.zeros((4, 4), int)
    for arguments, words in (
        ((mask + 2, mask), "compare truth == k"),
        ((mask, mask[:3]), "of one shape"),
        ((mask, mask, 101), "from 0 to 100"),
    ):
        with pytest.raises(ValueError, match=words):
            metrics.hausdorff(*arguments)


# --- the metric of fit ------------------------------------------------------------------------------------------------


def logits_of(found):
    return np.eye(K, dtype="float32")[found] * 5 - 2


def test_keras_mean_iou_serves_with_void_absent_classes_and_batches_pooled(maps):
    truth, found = maps
    metric = metrics.streaming_mean_iou(K)
    update = tf.function(metric.update_state)
    for part in (slice(0, 3), slice(3, 6)):
        update(truth[part], logits_of(found[part]))
    assert float(metric.result()) == pytest.approx(metrics.mean_iou(truth, found, K), abs=1e-5)
    metric.reset_state()
    metric.update_state(np.full_like(truth, -1), logits_of(found))
    assert float(metric.result()) == 0  # where ours is nan: a log wants a number


def test_keras_mean_iou_counts_beyond_what_float32_and_int32_hold():
    metric = metrics.streaming_mean_iou(K)
    assert metric.total_cm.dtype == "int64"


def test_keras_mean_iou_cannot_weight_pictures(maps):
    """Why it is given no sample weights: the day that it can, this test says so."""
    truth, found = maps
    metric = keras.metrics.MeanIoU(K, ignore_class=-1, sparse_y_pred=False)
    with pytest.raises(tf.errors.InvalidArgumentError):
        metric.update_state(truth, logits_of(found), sample_weight=np.array([1, 0, 1, 0, 1, 0]))
