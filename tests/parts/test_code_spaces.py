"""Laws of code spaces: shapes, bounds and first codes of models that make pictures."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dmkeras.parts import code_spaces

MAPS = (2, 3, 1)


@pytest.fixture(scope="module")
def maps():
    """Codes [B, 2, 3, 1] -> pictures [B, 4, 6, 1]."""
    return keras.Sequential([keras.Input(MAPS), layers.UpSampling2D(2), layers.Activation("sigmoid")])


def test_codes_of_any_shape_are_decoded_in_their_own_dtype(maps):
    space = code_spaces.space(maps, (4, 6, 1))
    codes = np.random.default_rng(0).normal(size=(2, *MAPS))
    assert space.shape == MAPS
    assert space.decode(tf.constant(codes)).dtype == tf.float64
    np.testing.assert_allclose(space.decode(codes), 1 / (1 + np.exp(-codes.repeat(2, 1).repeat(2, 2))), rtol=1e-5)


def test_bounds_hold_on_both_sides_on_one_or_on_none(maps):
    codes = tf.constant(np.linspace(-4, 4, 6).reshape(1, *MAPS))
    for low, high in ((-1, 2), (None, 2), (-1, None), (None, None)):
        space = code_spaces.space(maps, (4, 6, 1), (low, high))
        expected = np.clip(codes, -np.inf if low is None else low, np.inf if high is None else high)
        np.testing.assert_array_equal(space.bounded(codes), expected)
        assert space.given == [low, high]
    own = code_spaces.space(maps, (4, 6, 1))
    np.testing.assert_array_equal(own.bounded(codes), codes)
    assert own.given is None


def test_first_codes_reach_one_standard_deviation(maps):
    high = np.arange(6.0).reshape(MAPS)
    np.testing.assert_allclose(code_spaces.space(maps, (4, 6, 1), (0, high)).scale, high / 3)
    assert code_spaces.space(maps, (4, 6, 1)).scale == 1


def test_bounds_that_are_none_are_refused(maps):
    for bounds, words in (((0, np.nan), "finite"), ((0, 1, 2), "low, high"), ((0, "x"), "a number or")):
        with pytest.raises(ValueError, match=words):
            code_spaces.space(maps, (4, 6, 1), bounds)
