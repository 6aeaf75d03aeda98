"""What the filter bank of a pixel owes: the right filters, and no word of brightness or, unless asked, of place."""

import numpy as np
import pytest
from scipy import ndimage

from dmkeras.parts.pixel_features import DIRECTIONS, REACH, filter_bank

IMAGE = np.random.default_rng(0).uniform(0.2, 0.7, (20, 24, 2)).astype("float32")


def test_it_has_the_features_of_its_table():
    bank = filter_bank(IMAGE, position=True)
    standard = (IMAGE - IMAGE.mean((0, 1))) / IMAGE.std((0, 1))
    grey = standard.mean(-1)
    assert bank.shape == (20, 24, 3 * 2 + 2 + 6 + 3 + 24 + 2)
    assert bank.dtype == np.float32
    np.testing.assert_allclose(bank[..., :2], standard, atol=1e-5)
    np.testing.assert_allclose(bank[..., 3], ndimage.gaussian_filter(standard[..., 1], 1, mode="nearest"), atol=1e-5)
    np.testing.assert_allclose(bank[..., 6], ndimage.gaussian_filter(grey, 4, mode="nearest"), atol=1e-5)
    np.testing.assert_allclose(bank[..., 14], ndimage.gaussian_laplace(grey, 1, mode="nearest"), atol=1e-5)
    smooth = ndimage.gaussian_filter(grey, 1, mode="nearest")
    places = [(r * y, r * x) for r in REACH for y, x in DIRECTIONS]
    for i, (y, x) in enumerate(places):
        assert abs(bank[10, 11, 17 + i] - smooth[np.clip(10 + y, 0, 19), np.clip(11 + x, 0, 23)]) < 1e-5, (y, x)
    np.testing.assert_allclose(bank[0, :, -1], (2 * np.arange(24) + 1) / 24 - 1, atol=1e-6)
    np.testing.assert_allclose(bank[:, 0, -2], (2 * np.arange(20) + 1) / 20 - 1, atol=1e-6)


def test_brightness_and_contrast_of_a_channel_say_nothing():
    np.testing.assert_allclose(filter_bank(IMAGE), filter_bank(IMAGE * [0.5, 1.2] + [0.3, 0.0]), atol=2e-4)


def test_without_position_a_feature_moves_with_the_picture():
    wide = np.random.default_rng(1).uniform(size=(80, 80, 1))
    moved = np.roll(wide, (5, 7), (0, 1))  # the same values, so the same mean and variance
    inner = slice(40, 45)
    np.testing.assert_allclose(filter_bank(moved)[45:50, 47:52], filter_bank(wide)[inner, inner], atol=1e-4)
    assert np.abs(filter_bank(moved, True)[45:50, 47:52] - filter_bank(wide, True)[inner, inner]).max() > 0.05


def test_a_flat_picture_has_finite_features():
    np.testing.assert_allclose(filter_bank(np.full((8, 8, 3), 0.4)), 0, atol=1e-3)


@pytest.mark.parametrize("image", [np.zeros((4, 4)), np.zeros((0, 4, 1)), np.full((4, 4, 1), np.nan)])
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(ValueError, match=r"one picture \[H, W, C\]"):
        filter_bank(image)
