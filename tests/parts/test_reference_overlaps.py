"""Overlaps in the graph against those of the metrics; -1 for what has no answer."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts.reference_overlaps import (
    against_references,
    check_labels,
    check_overlaps,
    of_nearest,
    real_overlaps,
)
from dmkeras.parts.segmentation_metrics import dice

RNG = np.random.default_rng(0)
FOUND, TRUTHS = RNG.integers(-1, 4, (2, 3, 6, 7)), RNG.integers(-1, 4, (3, 6, 7))
TRUTHS[2][TRUTHS[2] == 3] = 1


def by_hand(found, truth, k):
    """Of labels [H, W] or probabilities [H, W, 4]."""
    found = found if found.ndim == 3 else (found[..., None] == np.arange(4)).astype(float)
    first = (found[..., k] if k else found[..., 1:].sum(-1)) * (truth >= 0)
    second = truth == k if k else truth > 0
    total = first.sum() + second.sum()
    return 2 * (first * second).sum() / total if total else np.nan


@pytest.mark.parametrize("soft", [False, True])
def test_overlaps_with_references_are_dice_as_by_hand_and_minus_one_without_the_class(soft):
    found = (FOUND[..., None] == np.arange(4)).astype("float32")
    found = RNG.dirichlet(np.ones(4), FOUND.shape).astype("float32") if soft else found
    overlaps = tf.function(against_references)(found, TRUTHS.astype("int32"), 3).numpy()
    assert overlaps.shape == (2, 3, 4)
    for b in range(2):
        for r, truth in enumerate(TRUTHS):
            expected = [by_hand(found[b, r], truth, k) if k == 0 or (truth == k).any() else -1 for k in range(4)]
            np.testing.assert_allclose(overlaps[b, r], expected, rtol=1e-5)
    np.testing.assert_array_equal(overlaps[:, 2, 3], -1)
    np.testing.assert_array_equal(against_references(found, np.full_like(TRUTHS, -1, "int32"), 3), -1)


def test_real_overlaps_are_those_of_the_metrics():
    found = np.maximum(FOUND[0], 0)
    values = real_overlaps(FOUND[0], TRUTHS, 3)
    for one, truth, row in zip(found, TRUTHS, values):
        inner = dice(truth, one, 4)[1:]
        np.testing.assert_allclose(row, [np.nanmean(inner), by_hand(one, truth, 0), *inner], rtol=1e-6)
    nothing = np.zeros((1, 4, 4), "int32")
    np.testing.assert_array_equal(real_overlaps(nothing, nothing, 2), [[-1, -1, -1, -1]])


def test_the_nearest_references_are_those_of_like_pixels_wherever_these_are():
    dark, middle, light = (RNG.uniform(low, low + 0.2, (6, 6, 3)) for low in (0, 0.3, 0.8))
    references = np.stack([dark, light, middle]).astype("float32")
    images = np.stack([dark[::-1] + 0.02, light[:, ::-1] - 0.02, 1 - dark]).astype("float32")
    overlaps = RNG.uniform(size=(3, 3, 2)).astype("float32")
    overlaps[0, 0, 1] = -1  # the nearest of picture 0 has no class 1: all others are asked
    ask = tf.function(lambda count: of_nearest(overlaps, images, references, count))
    found = ask(1).numpy()
    np.testing.assert_array_equal(found[..., 0] >= 0, [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    np.testing.assert_array_equal(found[0, :, 1], overlaps[0, :, 1])
    np.testing.assert_array_equal(found[1:] >= 0, overlaps[1:] * [[[0], [1], [0]]] > 0)
    np.testing.assert_array_equal(ask(2)[:, :, 0] >= 0, [[1, 0, 1], [0, 1, 1], [0, 1, 1]])
    np.testing.assert_array_equal(ask(3), overlaps)


def test_labels_and_overlaps_that_cannot_be_are_refused():
    good = check_labels("maps", np.array([[[0, 1], [2, -1]]], "int64"), (2, 2), 2)
    assert good.dtype == np.int32
    for labels, words in (
        (np.zeros((1, 2, 2)), "argmax"),
        (np.zeros((1, 2, 3), int), "resize them by nearest pixel"),
        (np.full((1, 2, 2), 3), "received 3"),
        (np.full((1, 2, 2), 255, "uint8"), "received 255"),
        (np.full((1, 2, 2), -2), "received -2"),
    ):
        with pytest.raises(ValueError, match=words):
            check_labels("maps", labels, (2, 2), 2)
    check_overlaps("values", np.array([[0.0, 1.0], [-1, 0.3]]), (2,))
    for values in ([[0.5, 1.1]], [[-0.5, 0.1]], [[np.nan, 0.1]], [[0.1]]):
        with pytest.raises(ValueError, match="expected values"):
            check_overlaps("values", np.array(values), (2,))
