"""The loss of pixels against NumPy and Keras, void and empty batches, and median frequencies."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import segmentation_loss
from dmkeras.parts.segmentation_loss import checked_weights, median_frequency_weights

K = 3
WEIGHTS = (0.5, 2.0, 3.0)


def loss_of(*arguments):
    """The loss as a number that pytest.approx takes."""
    return segmentation_loss.pixel_cross_entropy(*arguments).numpy()


@pytest.fixture
def pixels():
    rng = np.random.default_rng(0)
    return rng.integers(-1, K, (2, 5, 7)).astype("int32"), rng.normal(0, 3, (2, 5, 7, K)).astype("float32")


def reference(labels, logits, weights=(1, 1, 1), pictures=(1, 1)):
    """The equation of the module, pixel by pixel."""
    above = below = 0.0
    for place in np.argwhere(labels >= 0):
        y, z = labels[tuple(place)], logits[tuple(place)].astype("float64")
        weight = weights[y] * pictures[place[0]]
        above += weight * (np.log(np.exp(z).sum()) - z[y])
        below += weight
    return above / below


def test_the_loss_is_the_weighted_mean_of_the_equation(pixels):
    labels, logits = pixels
    assert loss_of(labels, logits) == pytest.approx(reference(labels, logits), rel=1e-5)
    weighted = loss_of(labels, logits, WEIGHTS, np.array([1.0, 3.0]))
    assert weighted == pytest.approx(reference(labels, logits, WEIGHTS, (1, 3)), rel=1e-5)
    maps = np.ones(labels.shape) * np.array([1.0, 3.0])[:, None, None]
    assert loss_of(labels, logits, WEIGHTS, maps) == pytest.approx(weighted, rel=1e-6)


def test_without_weights_it_is_keras_own(pixels):
    labels, logits = pixels
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)(labels, logits)
    assert loss_of(labels, logits) == pytest.approx(float(theirs), rel=1e-5)


def test_void_pixels_and_the_scale_of_weights_change_nothing(pixels):
    labels, logits = pixels
    loss = loss_of(labels, logits, WEIGHTS)
    other = np.where(labels[..., None] < 0, 100.0, logits)
    assert loss_of(labels, other, WEIGHTS) == pytest.approx(loss, rel=1e-6)
    wider = [
        np.pad(labels, [(0, 0), (0, 9), (0, 0)], constant_values=-1),
        np.pad(logits, [(0, 0), (0, 9)] + [(0, 0)] * 2),
    ]
    assert loss_of(*wider, WEIGHTS) == pytest.approx(loss, rel=1e-6)
    assert loss_of(labels, logits, [10 * w for w in WEIGHTS]) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("how", ["void", "class of no weight", "picture of no weight"])
def test_where_nothing_counts_loss_and_gradient_are_zero(pixels, how):
    labels, logits = pixels
    arguments = {
        "void": (np.full_like(labels, -1), WEIGHTS, None),
        "class of no weight": (np.ones_like(labels), (1, 0, 1), None),
        "picture of no weight": (labels, None, np.zeros(2)),
    }[how]
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = segmentation_loss.pixel_cross_entropy(arguments[0], logits, *arguments[1:])
    assert loss == 0
    np.testing.assert_array_equal(tape.gradient(loss, logits), 0)


def test_the_gradient_of_a_pixel_is_its_weight_times_softmax_less_one_hot(pixels):
    labels, logits = pixels
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = segmentation_loss.pixel_cross_entropy(labels, logits, WEIGHTS)
    weights = np.where(labels >= 0, np.take(WEIGHTS, np.maximum(labels, 0)), 0)
    expected = (tf.nn.softmax(logits) - np.eye(K)[np.maximum(labels, 0)]) * (weights / weights.sum())[..., None]
    np.testing.assert_allclose(tape.gradient(loss, logits), expected, atol=1e-6)


def test_half_precision_and_large_logits_stay_finite(pixels):
    labels, logits = pixels
    half = tf.cast(logits, "float16")
    loss = loss_of(labels, half)
    assert loss.dtype == "float32"
    assert loss == pytest.approx(reference(labels, half.numpy()), rel=1e-4)
    assert np.isfinite(loss_of(labels, logits * 1e30 / 10))


def test_it_runs_under_xla_with_unknown_sizes(pixels):
    specs = [tf.TensorSpec([None, None, None], "int32"), tf.TensorSpec([None, None, None, K])]
    compiled = tf.function(lambda y, z: segmentation_loss.pixel_cross_entropy(y, z, WEIGHTS), specs, jit_compile=True)
    assert compiled(*pixels).numpy() == pytest.approx(reference(*pixels, WEIGHTS), rel=1e-5)


def test_labels_of_another_size_are_refused(pixels):
    labels, logits = pixels
    for wrong in (labels[:, :4], labels[..., None], labels[0]):
        with pytest.raises(ValueError, match="size of the pictures"):
            segmentation_loss.pixel_cross_entropy(wrong, logits)


@pytest.mark.parametrize("weights", [(1, 1), (1, -1, 1), (0, 0, 0), (1, np.nan, 1), "balanced", 2.0])
def test_weights_that_cannot_be_are_refused(weights):
    with pytest.raises(ValueError, match="class_weights must be 3 numbers"):
        checked_weights(weights, K)


# --- median frequencies -----------------------------------------------------------------------------------------------


def test_median_frequencies_are_counted_in_the_pictures_that_show_the_class():
    first = np.array([[0, 0, 0, 0], [0, 0, 1, 1]])  # 0: 6, 1: 2 of 8
    second = np.array([[0, 0, 0, 2], [-1, -1, -1, -1]])  # 0: 3, 2: 1 of 4; void is not counted
    frequency = np.array([9 / 12, 2 / 8, 1 / 4])
    found = median_frequency_weights([first, second], 4)
    np.testing.assert_allclose(found, [*(np.median(frequency) / frequency), 1])
    everywhere = np.array([9 / 12, 2 / 12, 1 / 12])  # the known-wrong variant: all pictures counted for all classes
    assert not np.allclose(found[:3], np.median(everywhere) / everywhere)


def test_one_class_alone_weighs_one_and_no_picture_weighs_nothing_more():
    assert median_frequency_weights(np.zeros((2, 4, 4), int), 2) == (1, 1)
    assert median_frequency_weights([], 2) == (1, 1)
    assert median_frequency_weights(np.full((1, 4, 4), -1), 2) == (1, 1)


def test_median_frequencies_refuse_classes_out_of_range():
    for wrong in (np.full((1, 2, 2), 255), np.zeros((1, 2, 2))):
        with pytest.raises(ValueError, match="from -1 to 1"):
            median_frequency_weights(wrong, 2)
