"""What a network that learns one picture in the graph owes: Adam as Keras has it, rows for themselves, no void."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import pixel_network
from dmkeras.parts.pixel_network import first_weights, logits, network_input

RNG = np.random.default_rng(0)
SHAPE = (13, 18, 1)
IMAGES = RNG.uniform(0, 0.4, (2, *SHAPE)).astype("float32")
LABELS = np.zeros((2, *SHAPE[:2]), "int32")
for image, labels, column in zip(IMAGES, LABELS, (3, 9)):
    image[4:11, column : column + 6], labels[4:11, column : column + 6] = 0.9, 1
OTHERS = IMAGES[::-1]
segment_others = lambda *args: pixel_network.segment_others(*args).numpy().argmax(-1)


def test_it_learns_a_picture_and_finds_the_same_in_others():
    found = pixel_network.segment_others(IMAGES, LABELS, OTHERS, 2, 8, 60).numpy()
    assert found.shape == (2, 2, *SHAPE[:2], 2)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    assert all((row == LABELS[::-1]).mean() > 0.95 for row in found.argmax(-1))


def test_the_steps_are_those_of_adam_with_a_falling_rate():
    """Three steps beside keras.optimizers.Adam on the same loss."""
    seen, labels = network_input(IMAGES[:1]), LABELS[:1].copy()
    labels[0, :5] = -1
    start = first_weights(seen.shape[-1], 4, 3, 0)
    found = pixel_network._train(seen, labels, start, tf.constant([True, True, False]), 3, 1e-2)
    variables = [tf.Variable(weight) for weight in start]
    rate = lambda step: 1e-2 * 0.5 * (1 + np.cos(np.pi * step / 3))
    optimizer = keras.optimizers.Adam(1e-2, 0.9, 0.99, 1e-7)
    for step in range(3):
        optimizer.learning_rate = rate(step)
        with tf.GradientTape() as tape:
            scores = logits(seen, variables, SHAPE[:2])[labels >= 0][:, :2]  # label 2 is not there
            loss = keras.losses.sparse_categorical_crossentropy(labels[labels >= 0], scores, from_logits=True)
            loss = tf.reduce_mean(loss)
        gradients = tape.gradient(loss, variables)
        optimizer.apply([tf.zeros_like(v) if g is None else g for g, v in zip(gradients, variables)], variables)
    for ours, theirs, first in zip(found, variables, start):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
        assert first.shape[-1] == 3 or np.abs(ours - first).max() > 1e-3


def test_a_row_is_the_same_in_any_company():
    together = segment_others(IMAGES, LABELS, OTHERS, 2, 4, 10)
    for row in range(2):
        alone = segment_others(IMAGES[row : row + 1], LABELS[row : row + 1], OTHERS, 2, 4, 10)
        np.testing.assert_array_equal(alone[0], together[row])


def test_a_label_that_is_not_there_is_never_found():
    found = segment_others(IMAGES[:1], 3 * LABELS[:1], OTHERS, 5, 4, 1)
    assert set(np.unique(found)) <= {0, 3}
    np.testing.assert_array_equal(segment_others(IMAGES[:1], np.full_like(LABELS[:1], 2), OTHERS, 5, 4, 1), 2)
    np.testing.assert_array_equal(segment_others(IMAGES[:1], np.full_like(LABELS[:1], -1), OTHERS, 5, 4, 1), 0)


def test_the_input_forgets_brightness_and_knows_the_place_if_asked():
    np.testing.assert_allclose(network_input(IMAGES), network_input(0.2 + 0.5 * IMAGES), atol=1e-4)
    plain, placed = network_input(IMAGES), network_input(IMAGES, position=True)
    assert plain.shape == (2, 7, 9, 7)
    np.testing.assert_array_equal(placed[..., :7], plain)
    np.testing.assert_allclose(placed[0, :, 0, 7], np.linspace(-1, 1, 7), atol=1e-6)
    np.testing.assert_allclose(placed[1, 0, :, 8], np.linspace(-1, 1, 9), atol=1e-6)


@pytest.mark.parametrize("side", [8, 9])
def test_logits_have_the_size_of_the_picture(side):
    maps = network_input(np.zeros((1, side, side + 1, 3), "float32"))
    assert logits(maps, first_weights(21, 4, 3, 0), (side, side + 1)).shape == (1, side, side + 1, 3)


def test_first_weights_are_a_function_of_the_seed():
    one, same, other = (first_weights(7, 4, 2, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, same))
    assert not np.array_equal(one[0], other[0])
    wide = first_weights(64, 64, 2, 0)[0]
    assert abs(wide.std() / np.sqrt(2 / (9 * 64)) - 1) < 0.02
