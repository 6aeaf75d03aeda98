"""What a forest of pixels owes: it learns one picture, of drawn pixels, and says a lone label everywhere."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from dmkeras.parts import pixel_forest
from dmkeras.parts.pixel_forest import bank_of

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 0.4, (3, 16, 20, 1)).astype("float32")
LABELS = np.zeros((3, 16, 20), "int32")
for image, labels, column in zip(IMAGES, LABELS, (3, 8, 12)):
    image[5:12, column : column + 6], labels[5:12, column : column + 6] = 0.9, 2
BANK = bank_of(IMAGES[1:])
segment_others = lambda *args, **options: pixel_forest.segment_others(*args, BANK, 3, **options)


@pytest.mark.parametrize("calibration", [None, "sigmoid", "isotonic"])
def test_it_learns_a_picture_and_finds_the_same_in_others(calibration):
    found = segment_others(IMAGES[0], LABELS[0], trees=10, calibration=calibration)
    assert found.shape == (2 * 16 * 20, 3)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found[:, 1], 0)  # a label that is not there
    assert (found.argmax(-1).reshape(2, 16, 20) == LABELS[1:]).mean() > 0.97


def test_it_learns_so_many_pixels_with_an_answer_and_no_others(monkeypatch):
    seen = []

    class Spy(RandomForestClassifier):
        def fit(self, features, labels):
            seen.append((features, labels))
            return super().fit(features, labels)

    monkeypatch.setattr("sklearn.ensemble.RandomForestClassifier", Spy)
    labels = LABELS[0].copy()
    labels[:, 10:] = -1
    segment_others(IMAGES[0], labels, trees=2, pixels=50)
    ((features, found),) = seen
    assert features.shape == (50, BANK.shape[1])
    assert set(found) == {0, 2}
    own = bank_of(IMAGES[:1]).reshape(16, 20, -1)[:, :10].reshape(160, -1)
    assert all((own == row).all(1).any() for row in features)
    assert len(np.unique(features, axis=0)) == 50


def test_a_lone_label_is_said_everywhere_and_none_is_zero():
    np.testing.assert_array_equal(segment_others(IMAGES[0], np.full((16, 20), 2)).argmax(-1), 2)
    np.testing.assert_array_equal(segment_others(IMAGES[0], np.full((16, 20), -1)).argmax(-1), 0)


def test_probabilities_of_a_label_of_few_pixels_are_left_as_they_are():
    labels = np.zeros((16, 20), "int32")
    labels[0, :2] = 1
    plain, calibrated = (segment_others(IMAGES[0], labels, trees=3, calibration=c) for c in (None, "sigmoid"))
    np.testing.assert_array_equal(plain, calibrated)
