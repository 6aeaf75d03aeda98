"""Laws of picture priors, against NumPy and SciPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from dmkeras.parts import picture_priors as priors
from dmkeras.parts.seeds import row_seeds

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 9, 7, 2))


def test_penalties_are_sums_of_squares_of_each_picture():
    down, across = np.diff(X, axis=1), np.diff(X, axis=2)
    expected = (down**2).sum((1, 2, 3)) + (across**2).sum((1, 2, 3))
    np.testing.assert_allclose(priors.total_variation(tf.constant(X)), expected)
    np.testing.assert_allclose(priors.squared_norm(tf.constant(X)), (X**2).sum((1, 2, 3)))
    assert not np.allclose(expected, (down**2).sum((1, 2, 3)))
    codes = RNG.normal(size=(2, 5))
    np.testing.assert_allclose(priors.squared_norm(tf.constant(codes)), (codes**2).sum(1))


@pytest.mark.parametrize("radius", [0.3, 0.5, 1.0, 2.5, 6.0])
def test_blur_is_scipys_gaussian(radius):
    expected = ndimage.gaussian_filter(X, (0, radius, radius, 0))
    np.testing.assert_allclose(priors.blurred(tf.constant(X), radius), expected, atol=1e-12)
    down = ndimage.gaussian_filter(X, (0, radius, 0, 0))
    assert not np.allclose(expected, down, atol=1e-3)


def test_a_radius_below_three_tenths_does_nothing():
    np.testing.assert_array_equal(priors.blurred(tf.constant(X), 0.29), X)
    assert np.abs(priors.blurred(tf.constant(X), 0.3) - X).max() > 1e-3


def test_decay_takes_its_share():
    np.testing.assert_allclose(priors.decayed(tf.constant(X), 0.2), 0.8 * X)


def test_a_change_happens_at_the_end_of_every_nth_step():
    change = lambda x: x + 1.0
    happened = [float(priors.every(tf.constant(0.0), tf.constant(step), 4, change)) for step in range(12)]
    assert happened == [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("percentile", [0, 1, 35, 50, 99])
def test_pixels_of_small_norm_are_zeroed_row_by_row(percentile):
    scaled = X * np.array([1.0, 10.0, 0.1])[:, None, None, None]  # a limit of the batch would be another
    norms = np.sqrt((scaled**2).sum(-1))
    limits = np.percentile(norms, percentile, axis=(1, 2))
    expected = np.where(norms[..., None] >= limits[:, None, None, None], scaled, 0)
    found = priors.without_small_norms(tf.constant(scaled), percentile)
    np.testing.assert_array_equal(found, expected)
    assert (found.numpy() == 0).any() == (percentile > 0)


def test_pixels_of_small_contribution_are_zeroed_by_the_size_of_the_sum_over_channels():
    gradient = RNG.normal(size=X.shape)
    sizes = np.abs((X * gradient).sum(-1))
    limits = np.percentile(sizes, 40, axis=(1, 2))
    expected = np.where(sizes[..., None] >= limits[:, None, None, None], X, 0)
    found = priors.without_small_contributions(tf.constant(X), tf.constant(gradient), 40)
    np.testing.assert_array_equal(found, expected)
    for wrong in (np.abs(X * gradient).sum(-1), (X * gradient).sum(-1)):  # sizes of channels, signed ones
        limits = np.percentile(wrong, 40, axis=(1, 2))
        assert not np.array_equal(found, np.where(wrong[..., None] >= limits[:, None, None, None], X, 0))


def test_jitter_rolls_each_picture_by_its_own_offset_and_back():
    offsets = np.array([[1, -2], [0, 3], [-8, 20]])
    found = priors.jittered(tf.constant(X), tf.constant(offsets, "int32"))
    expected = [np.roll(x, offset, (0, 1)) for x, offset in zip(X, offsets)]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(priors.jittered(found, tf.constant(-offsets, "int32")), X)


def test_offsets_reach_from_minus_the_most_to_the_most_and_follow_a_rows_seed_alone():
    seed = row_seeds(4, 7)
    offsets = priors.offsets(seed, 300, 2).numpy()
    assert offsets.shape == (300, 4, 2)
    values, counts = np.unique(offsets, return_counts=True)
    np.testing.assert_array_equal(values, [-2, -1, 0, 1, 2])
    assert counts.min() > 0.15 * counts.sum()
    np.testing.assert_array_equal(offsets[:, 2:3], priors.offsets(seed[2:3], 300, 2))
    assert (offsets[:, 0] != offsets[:, 1]).any()
    assert (offsets[:, 0, 0] != offsets[:, 0, 1]).any()


def test_all_of_it_is_the_same_under_xla():
    def all_of_it(x, seed):
        x = priors.blurred(priors.jittered(x, priors.offsets(seed, 3, 4)[1]), 0.8)
        return priors.without_small_contributions(priors.without_small_norms(x, 20), x[..., ::-1], 30)

    plain, compiled = (tf.function(all_of_it, jit_compile=jit, autograph=False) for jit in (False, True))
    x, seed = tf.constant(X), row_seeds(3, 1)
    np.testing.assert_allclose(compiled(x, seed), plain(x, seed), atol=1e-12)
