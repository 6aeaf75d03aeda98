"""Laws of matching: thresholds, each truth's best anchor, the bipartite step; padding changes nothing."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts.matching import bipartite, match

# detectron2's tests/modeling/test_matcher.py, anchors first.
OVERLAPS = np.array([[0.15, 0.45, 0.2, 0.6], [0.3, 0.65, 0.05, 0.1], [0.05, 0.4, 0.25, 0.4]], "float32").T
ALL = np.ones(3, bool)


def drawn(seed, anchors=12, truths=5, pictures=3, ties=False):
    """IoU of which a third is 0, and which truths are real: all, some, none."""
    generator = np.random.default_rng(seed)
    overlaps = generator.random((pictures, anchors, truths)) * (generator.random((pictures, anchors, truths)) > 0.33)
    real = np.stack([np.ones(truths, bool), np.arange(truths) % 2 == 0, np.zeros(truths, bool)])[:pictures]
    return (np.round(overlaps, 1) if ties else overlaps).astype("float32"), real


def by_thresholds(overlaps, real, thresholds, labels, force_best):
    """One picture in loops, after detectron2's Matcher and SSD's MatchBBox."""
    columns = np.flatnonzero(real)
    index, label = np.zeros(len(overlaps), int), np.full(len(overlaps), labels[0])
    for anchor, row in enumerate(overlaps):
        if len(columns):
            index[anchor] = columns[row[columns].argmax()]
            label[anchor] = labels[sum(row[columns].max() >= t for t in thresholds)]
    if force_best is True:
        for truth in columns:
            best = overlaps[:, truth].max()
            label[(overlaps[:, truth] == best) & (best > 0)] = labels[-1]
    if force_best == "bipartite":
        for anchor, truth in pairs(overlaps, real):
            index[anchor], label[anchor] = truth, labels[-1]
    return index, label


def pairs(overlaps, real):
    """The best pair, then the best of what is left, and so on."""
    left, found = np.where(real, overlaps, 0).astype("float64"), []
    while left.size and left.max() > 0:
        anchor, truth = np.unravel_index(left.argmax(), left.shape)
        found.append((anchor, truth))
        left[anchor], left[:, truth] = 0, 0
    return found


def test_matches_are_those_of_detectron2():
    index, label = match(OVERLAPS, ALL, (0.3, 0.7), (0, -1, 1), force_best=True)
    np.testing.assert_array_equal(index, [1, 1, 2, 0])
    np.testing.assert_array_equal(label, [-1, 1, 0, 1])
    np.testing.assert_array_equal(match(OVERLAPS, ALL, (0.3, 0.7), (0, -1, 1))[1], [-1, -1, 0, -1])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("force_best", [False, True, "bipartite"])
def test_matches_are_those_of_the_rules_in_loops(force_best, ties):
    for seed in range(5):
        overlaps, real = drawn(seed, ties=ties)
        for thresholds, labels in (((0.5,), (0, 1)), ((0.3, 0.7), (0, -1, 1)), ((0.3, 0.7), (-1, 0, 1)), ((), (1,))):
            index, label = match(overlaps, real, thresholds, labels, force_best)
            for picture in range(3):
                expected = by_thresholds(overlaps[picture], real[picture], thresholds, labels, force_best)
                np.testing.assert_array_equal(index[picture], expected[0])
                np.testing.assert_array_equal(label[picture], expected[1])


def test_a_threshold_belongs_to_the_range_above():
    label = match([[0.29999], [0.3], [0.7]], [True], (0.3, 0.7), (0, -1, 1))[1]
    np.testing.assert_array_equal(label, [0, -1, 1])


def test_all_anchors_that_tie_for_a_truth_are_forced_and_none_for_a_truth_that_none_overlaps():
    overlaps = np.array([[0.4, 0], [0.4, 0], [0.1, 0], [0, 0]], "float32")
    index, label = match(overlaps, [True, True], (0.5,), (0, 1), force_best=True)
    np.testing.assert_array_equal(label, [1, 1, 0, 0])
    np.testing.assert_array_equal(index, 0)
    np.testing.assert_array_equal(bipartite(overlaps, [True, True])[1], [True, False, False, False])


def test_each_truth_that_is_overlapped_gets_an_anchor_of_its_own():
    """Known wrong: the best anchor of each truth, without regard to the others, serves two truths at once."""
    overlaps = np.array([[0.9, 0.8, 0.1], [0.5, 0.7, 0.2], [0.0, 0.1, 0.05]], "float32")
    index, taken = bipartite(overlaps, ALL)
    np.testing.assert_array_equal(index, [0, 1, 2])
    assert taken.numpy().all()
    assert len(set(overlaps.argmax(0))) < 3
    for seed in range(5):
        overlaps, real = drawn(seed)
        index, taken = bipartite(overlaps + 0.01, real)
        for picture in range(3):
            np.testing.assert_array_equal(np.sort(index[picture][taken[picture]]), np.flatnonzero(real[picture]))


def test_more_truths_than_anchors_leave_some_without():
    overlaps, real = drawn(0, anchors=3, truths=7)
    index, taken = bipartite(overlaps, real)
    for picture in range(3):
        expected = dict(pairs(overlaps[picture], real[picture]))
        assert expected == {a: int(index[picture, a]) for a in np.flatnonzero(taken[picture])}


@pytest.mark.parametrize("force_best", [False, True, "bipartite"])
def test_padding_holds_anything_and_changes_nothing(force_best):
    overlaps, _ = drawn(1)
    options = {"thresholds": (0.3, 0.7), "labels": (0, -1, 1), "force_best": force_best}
    real = np.array([[True] * 5 + [False] * 3] * 3)
    for padding in (1.0, 0.0, np.nan, 2.0):
        padded = np.concatenate([overlaps, np.full((3, 12, 3), padding)], -1)
        for found, expected in zip(match(padded, real, **options), match(overlaps, real[:, :5], **options)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("force_best", [False, True, "bipartite"])
@pytest.mark.parametrize("truths", [0, 4])
def test_without_truths_all_is_background(force_best, truths):
    index, label = match(np.ones((2, 6, truths)), np.zeros((2, truths)), (0.5,), (7, 1), force_best)
    np.testing.assert_array_equal(label, np.full((2, 6), 7))
    np.testing.assert_array_equal(index, np.zeros((2, 6)))
    assert index.dtype == label.dtype == tf.int32


@pytest.mark.parametrize("force_best", [True, "bipartite"])
def test_a_compiled_match_is_the_same(force_best):
    overlaps, real = drawn(2, anchors=40, ties=True)
    rules = ((0.3, 0.7), (0, -1, 1), force_best)
    compiled = tf.function(lambda iou, real: match(iou, real, *rules), jit_compile=True)
    for found, expected in zip(compiled(overlaps, real), match(overlaps, real, *rules)):
        np.testing.assert_array_equal(found, expected)


def test_unknown_shapes_and_more_axes_are_taken():
    overlaps, real = drawn(3)
    spec = [tf.TensorSpec([None, None, None]), tf.TensorSpec([None, None], tf.bool)]
    traced = tf.function(lambda iou, real: match(iou, real, (0.5,), (0, 1), "bipartite"), input_signature=spec)
    deep = match(overlaps[None], real[None], (0.5,), (0, 1), "bipartite")
    for found, expected in zip(traced(overlaps, real), deep):
        np.testing.assert_array_equal(found, expected[0])


def test_the_callers_lists_stay_as_they_were():
    thresholds, labels = [0.3, 0.7], [0, -1, 1]
    match(OVERLAPS, ALL, thresholds, labels)
    assert (thresholds, labels) == ([0.3, 0.7], [0, -1, 1])


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (((0.7, 0.3), (0, -1, 1)), "thresholds that rise"),
        (((0.5,), (0, -1, 1)), "one more label"),
        (((-0.5,), (0, 1)), "at least 0"),
        (((0.5,), (0, 1), "ties"), "force_best must be"),
    ],
)
def test_wrong_rules_are_refused(rules, words):
    with pytest.raises(ValueError, match=words):
        match(OVERLAPS, ALL, *rules)
