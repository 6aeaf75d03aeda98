"""What recipes of segmenters report, of a model that is known to be right or wrong."""

import types

import numpy as np
import pytest
import tensorflow as tf

from dmkeras import figures
from dmkeras.parts import segmentation_metrics, segmentation_report

NAMES = ("background", "square", "disc", "star")


@pytest.fixture
def held_out():
    """Seven pictures that show their labels in their first channel; class 3 is in none."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (7, 6, 8)).repeat(4, 1).repeat(4, 2).astype("int32")
    labels[:, 0] = -1
    images = np.repeat(labels[..., None].clip(0) / 4 + 0.1, 3, -1).astype("float32")
    return images, labels


def told(change=lambda classes: classes):
    """A model that reads the labels off the pictures and changes them."""
    return types.SimpleNamespace(segment=lambda images: change(tf.cast(tf.round(4 * images[..., 0] - 0.4), "int32")))


def test_a_perfect_segmenter_has_figures_of_one_and_absent_classes_none(held_out):
    found = segmentation_report.figures(told(), *held_out, NAMES, batch_size=3)
    assert found.pop("milliseconds") > 0
    assert set(found) == {"mean_iou", "pixel_accuracy", "frequency_weighted_iou"} | {
        f"{kind}_{name}" for kind in ("iou", "dice") for name in NAMES[:3]
    }
    assert all(value == 1 for value in found.values())


def test_figures_are_those_of_pooled_pixels(held_out):
    images, labels = held_out
    mistaken = told(lambda classes: tf.where(classes == 2, 3, classes))
    found = segmentation_report.figures(mistaken, images, labels, NAMES)
    answer = np.where(labels == 2, 3, labels.clip(0))
    expected = segmentation_metrics.scores(segmentation_metrics.confusion_matrix(labels, answer, 4))
    assert found["mean_iou"] == pytest.approx(expected["mean_iou"]) == pytest.approx(0.5)
    assert found["iou_disc"] == found["iou_star"] == 0
    assert found["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"])


def test_all_pictures_are_answered_in_batches_that_do_not_divide(held_out):
    images, labels = held_out
    answer, _ = segmentation_report.segmented(told(), images, batch_size=3)
    np.testing.assert_array_equal(answer, labels.clip(0))


def test_errors_tell_missed_from_invented_from_confused_and_forgive_void():
    truth, found = np.array([[0, 1, 1, 0, -1, 2]]), np.array([[0, 1, 0, 1, 1, 1]])
    np.testing.assert_array_equal(segmentation_report.errors(truth, found), [[0, 0, 1, 2, 0, 3]])


def test_the_best_and_the_worst_pictures_are_found(held_out):
    images, labels = held_out
    images = images.copy()
    images[4] = 0.1  # everything missed
    images[2] = np.where((labels[2] == 2)[..., None], 0.35, images[2])  # discs taken for squares
    seen = []
    draw = types.SimpleNamespace(
        masks=lambda image, *args, **options: seen.append(image) or figures.masks(image, *args, **options)
    )
    titles = []
    draw.grid = lambda *args, **options: titles.append(options["title"]) or figures.grid(*args, **options)
    sheets = segmentation_report.sheets(told(), images, labels, NAMES, draw, count=2)
    assert all(title.startswith("orange square, green disc; errors: orange missed") for title in titles)
    assert list(sheets) == ["segmentations", "best", "worst"]
    first = [next(i for i in range(7) if np.array_equal(image, images[i])) for image in seen[::3]]
    assert first[:2] == [0, 1]
    assert not {2, 4} & set(first[2:4])
    assert first[4:] == [4, 2]
    assert all(sheet.dtype == np.uint8 and sheet.ndim == 3 for sheet in sheets.values())


def test_pictures_of_nothing_but_void_are_neither_best_nor_worst(held_out):
    images, labels = held_out[0][:1], np.full_like(held_out[1][:1], -1)
    assert set(segmentation_report.sheets(told(), images, labels, NAMES, figures)) == {"segmentations"}
