"""What spoiled segmentations owe: nothing at strength 0, more at more, the labels that were there, void left alone."""

import numpy as np
import pytest

from dmkeras.parts.segmentation_metrics import dice
from dmkeras.parts.spoiled_segmentations import KINDS, spoil

Y, X = np.mgrid[:48, :48]
ORGANS = np.select(
    [np.hypot(Y - 20, X - 16) < 7, np.hypot(Y - 20, X - 32) < 7, np.hypot(Y - 24, X - 24) < 20], [1, 2, 3]
)
NUCLEI = np.zeros((48, 48), "int32")
for n in range(16):
    NUCLEI[np.hypot(Y - 6 - 12 * (n // 4), X - 6 - 12 * (n % 4)) < 4] = 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [ORGANS, NUCLEI], ids=["organs", "nuclei"])
def test_strength_is_how_much_it_gets_worse(kind, labels):
    np.testing.assert_array_equal(spoil(labels, kind, 0.0), labels)
    classes = labels.max() + 1
    mean = [
        np.mean([np.nanmean(dice(labels, spoil(labels, kind, strength, seed), classes)[1:]) for seed in range(12)])
        for strength in (0.25, 0.5, 0.9)
    ]
    assert mean[0] < 1, mean
    assert mean[0] - 0.03 > mean[1], mean
    assert mean[1] - 0.03 > mean[2], mean


@pytest.mark.parametrize("kind", KINDS)
def test_it_invents_no_label_and_leaves_void_alone(kind):
    labels = ORGANS.astype("int32")
    labels[30:34] = -1
    found = spoil(labels, kind, 0.5, 1)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found == -1, labels == -1)
    assert set(np.unique(found)) <= {-1, 0, 1, 2, 3}
    np.testing.assert_array_equal(found, spoil(labels, kind, 0.5, 1))


def test_each_kind_does_what_its_name_says():
    nuclei = NUCLEI > 0
    eroded, grown = spoil(NUCLEI, "erosion", 0.3) > 0, spoil(NUCLEI, "dilation", 0.3) > 0
    assert np.all(nuclei[eroded]) and 0 < eroded.sum() < nuclei.sum()  # noqa: PT018 - one sentence
    assert np.all(grown[nuclei]) and grown.sum() > nuclei.sum()  # noqa: PT018
    holes, missing = spoil(NUCLEI, "holes", 0.3) > 0, spoil(NUCLEI, "missing", 0.5, 3) > 0
    assert np.all(nuclei[holes]) and holes.sum() < nuclei.sum()  # noqa: PT018
    for n in range(16):
        one = np.hypot(Y - 6 - 12 * (n // 4), X - 6 - 12 * (n % 4)) < 4
        assert missing[one].all() or not missing[one].any()
    shifted = spoil(NUCLEI, "shift", 0.5, 1)
    moves = [
        np.array_equal(np.roll(NUCLEI, (y, x), (0, 1))[8:-8, 8:-8], shifted[8:-8, 8:-8])
        for y in range(-6, 7)
        for x in range(-6, 7)
    ]
    assert sum(moves) == 1
    counts = np.bincount(ORGANS.ravel())
    swapped = np.bincount(spoil(ORGANS, "swapped", 1.0).ravel())
    assert sorted(swapped) == sorted(counts)
    assert (swapped != counts).sum() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_maps_of_one_label_end_well(kind):
    empty, full = np.zeros((9, 9), "int32"), np.ones((9, 9), "int32")
    np.testing.assert_array_equal(spoil(empty, kind, 0.7), empty)
    assert set(np.unique(spoil(full, kind, 0.7))) <= {0, 1}


@pytest.mark.parametrize(
    ("labels", "kind", "strength", "words"),
    [
        (ORGANS[None], "shift", 0.5, "whole numbers"),
        (ORGANS / 2, "shift", 0.5, "whole numbers"),
        (ORGANS, "blur", 0.5, "kind must be one of"),
        (ORGANS, "shift", 1.5, "strength"),
    ],
)
def test_what_cannot_be_is_refused(labels, kind, strength, words):
    with pytest.raises(ValueError, match=words):
        spoil(labels, kind, strength)
