"""Binary pictures under a stated protocol."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.data import binarization, load, to_arrays


def test_the_threshold_is_half_and_leaves_the_order():
    grey = to_arrays(load("digits", "test"))["image"]
    np.testing.assert_array_equal(binarization.images("digits", "test", "threshold"), grey * 16 >= 8)
    np.testing.assert_array_equal(binarization.images("digits", "test", "none"), grey)


def test_a_pixel_is_drawn_with_the_probability_of_its_grey_value():
    grey = np.broadcast_to(np.array([0.0, 0.25, 0.75, 1.0], "float32")[:, None, None], (4000, 4, 1, 1))
    (drawn,) = binarization.draw(tf.data.Dataset.from_tensors(grey), 1)
    assert set(np.unique(drawn)) == {0, 1}
    np.testing.assert_allclose(np.mean(drawn, axis=0).ravel(), [0, 0.25, 0.75, 1], atol=5 * (0.25 * 0.75 / 4000) ** 0.5)


def test_a_draw_is_a_function_of_seed_and_batch_alone():
    grey = tf.data.Dataset.from_tensors(np.full((2, 8, 8, 1), 0.5, "float32")).repeat(2)
    first, again, other = ([np.array(x) for x in binarization.draw(grey, seed)] for seed in (3, tf.constant(3), 4))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()
    assert (np.array(first) != np.array(other)).any()


@pytest.mark.parametrize(("name", "protocol"), [("digits", "fixed"), ("mnist", "sometimes")])
def test_an_unknown_protocol_is_refused(name, protocol):
    with pytest.raises(ValueError, match=f"mnist alone; received '{protocol}'"):
        binarization.images(name, "test", protocol)
