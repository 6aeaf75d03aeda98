"""Laws of likelihoods and draws of pixels in levels: SciPy and NumPy beside them, far from the middle too."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from dmkeras.parts import explicit_density, raster_drawing
from dmkeras.parts.explicit_density import check_pixels, draw, in_levels, log_likelihood, value_log_prob

GENERATOR = np.random.default_rng(0)


def logits_of(levels, shape):
    return (3 * GENERATOR.normal(size=shape if levels == 2 else (*shape, levels))).astype("float32")


def probabilities(logits, levels):
    """p(value = k), [..., K], float64."""
    logits = np.asarray(logits, "float64")
    if levels == 2:
        return np.stack([special.expit(-logits), special.expit(logits)], axis=-1)
    return special.softmax(logits, axis=-1)


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_the_log_probability_of_a_value_is_that_of_scipy(levels):
    logits, index = logits_of(levels, (5, 7)), GENERATOR.integers(levels, size=(5, 7))
    expected = np.take_along_axis(np.log(probabilities(logits, levels)), index[..., None], axis=-1)[..., 0]
    values = (index / (levels - 1)).astype("float32")
    found = value_log_prob(logits, values, levels)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(value_log_prob(logits, values.astype("float64"), levels), expected, rtol=1e-4, atol=1e-5)


def test_log_probabilities_have_no_floor():
    logits = np.array([1e4, -1e4, 1e4, -1e4], "float32")
    found = value_log_prob(logits, np.array([1, 1, 0, 0], "float32"), 2)
    np.testing.assert_array_equal(found, [0, -1e4, -1e4, 0])
    far = np.array([[1e4, 0, -1e4]] * 3, "float32")
    np.testing.assert_array_equal(value_log_prob(far, np.array([0, 0.5, 1], "float32"), 3), [0, -1e4, -2e4])
    with tf.GradientTape() as tape:
        moved = tf.constant(logits)
        tape.watch(moved)
        total = value_log_prob(moved, np.ones(4, "float32"), 2)
    np.testing.assert_array_equal(tape.gradient(total, moved), [0, 1, 0, 1])


@pytest.mark.parametrize("levels", [2, 5])
def test_the_likelihood_of_a_picture_is_the_sum_over_its_values(levels):
    logits, index = logits_of(levels, (3, 2, 4, 3)), GENERATOR.integers(levels, size=(3, 2, 4, 3))
    values = (index / (levels - 1)).astype("float32")
    expected = np.sum(value_log_prob(logits, values, levels), axis=(1, 2, 3))
    np.testing.assert_allclose(log_likelihood(logits, values, levels), expected, rtol=1e-6)


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_a_value_is_drawn_where_the_distribution_function_passes_the_uniform_number(levels):
    logits, uniform = logits_of(levels, (400,)), GENERATOR.random(400).astype("float32")
    chances = probabilities(logits, levels)
    if levels == 2:  # from the other end: 1 below p(1)
        expected = (uniform < chances[:, 1]).astype(int)
    else:
        below = np.cumsum(chances, axis=1)
        expected = [np.searchsorted(row, number, side="right") for row, number in zip(below, uniform)]
    found = draw(logits, uniform, levels).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.rint(found * (levels - 1)), expected)
    np.testing.assert_allclose(found, np.asarray(expected) / (levels - 1), atol=1e-7)


@pytest.mark.parametrize("levels", [2, 4])
def test_drawn_values_have_the_frequencies_of_the_logits(levels):
    logits = logits_of(levels, ()) / 3
    uniform = (np.arange(20000) + 0.5) / 20000  # evenly spread: counts are exact to one
    found = np.rint(draw(tf.repeat(logits[None], 20000, axis=0), uniform.astype("float32"), levels) * (levels - 1))
    counts = np.bincount(found.astype(int), minlength=levels)
    np.testing.assert_allclose(counts, 20000 * probabilities(logits, levels), atol=1.1)


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(np.float32(1), np.float32(0))])
def test_a_value_without_probability_is_never_drawn(uniform):
    """Also where the sum of probabilities is rounded: the last of 256 cumulated ones may be below the number."""
    number = tf.constant(uniform, "float32")
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(size=256).astype("float32")
        logits[[0, 1, -2, -1]] = -1e4
        assert 2 <= round(float(draw(logits, number, 256)) * 255) <= 253
    assert draw(tf.constant(-1e4), number, 2) == 0
    assert draw(tf.constant(1e4), number, 2) == 1


def test_gradients_of_the_loss_weigh_pictures_and_trackers_mean_them():
    model = type("Model", (), {"levels": 2, "image_shape": (1, 2, 1), "trackers": explicit_density.trackers()})()
    images, logits = np.array([[1, 0], [1, 1]], "float32").reshape(2, 1, 2, 1), tf.zeros((2, 1, 2, 1)) + 1.0
    nll = -log_likelihood(logits, images, 2).numpy()
    weight = np.array([3.0, 1.0], "float32")
    np.testing.assert_allclose(explicit_density.loss(model, logits, images), nll.mean(), rtol=1e-6)
    np.testing.assert_allclose(model.trackers[0].result(), nll.mean(), rtol=1e-6)
    np.testing.assert_allclose(model.trackers[1].result(), nll.mean() / 2 / np.log(2), rtol=1e-6)
    for tracker in model.trackers:
        tracker.reset_state()
    np.testing.assert_allclose(explicit_density.loss(model, logits, images, weight), (weight * nll).mean(), rtol=1e-6)
    np.testing.assert_allclose(model.trackers[0].result(), (weight * nll).sum() / weight.sum(), rtol=1e-6)


# Drawing in raster order, with a step whose logits are known.


def previous_value(levels):
    """A step whose logits lean towards the value before, in raster order and within the pixel; at the start to 0."""

    def step(state, canvas, row, column):
        left, here = canvas[row + 3, column + 2], canvas[row + 3, column + 3]  # [C, B]
        before = tf.transpose(tf.concat([left[-1:], here[:-1]], axis=0))  # [B, C]
        if levels == 2:
            return 4 * before - 2, state + 1
        return -8 * tf.abs(before[..., None] - tf.range(levels, dtype="float32") / (levels - 1)), state + 1

    return step


@pytest.mark.parametrize(("shape", "levels"), [((2, 3, 1), 2), ((3, 2, 2), 3)])
def test_pictures_are_drawn_value_by_value_each_by_its_own_number(shape, levels):
    generator, count, size = np.random.default_rng(1), 3, int(np.prod(shape))
    uniform = generator.random((size, count)).astype("float32")
    known = generator.integers(2, size=(count, *shape[:2], 1)).astype("float32")
    images = (generator.integers(levels, size=(count, *shape)) / (levels - 1)).astype("float32")
    found, log_prob = tf.function(raster_drawing.draw_in_raster_order)(
        tf.constant(np.where(known, images, np.nan), "float32"), known, uniform, levels, previous_value(levels), 0
    )
    expected, total = np.zeros_like(images), np.zeros(count)
    for b in range(count):
        for d, (y, x, colour) in enumerate(np.ndindex(*shape)):
            before = expected[b, y, x, colour - 1] if colour else expected[b, y, x - 1, -1] if x else 0.0
            grid = np.arange(levels) / (levels - 1)
            logits = np.float32(4 * before - 2) if levels == 2 else (-8 * np.abs(before - grid)).astype("float32")
            value = images[b, y, x, colour] if known[b, y, x, 0] else draw(logits, uniform[d, b], levels).numpy()
            expected[b, y, x, colour] = value
            total[b] += value_log_prob(logits, np.float32(value), levels)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(log_prob, total, rtol=1e-5)


def test_a_row_starts_once_and_a_step_is_taken_for_each_value():
    start = lambda state, canvas, row: (state[0], state[1] + 10**row)
    step = lambda state, canvas, row, column: (tf.zeros((1, 2)), (state[0] + 1, state[1]))
    steps = []

    def watched(state, canvas, row, column):
        steps.append(canvas.shape)
        return step(state, canvas, row, column)

    zeros = tf.zeros((1, 3, 2, 2))
    images, log_prob = raster_drawing.draw_in_raster_order(
        zeros, zeros[..., :1], tf.zeros((12, 1)), 2, watched, (0, 0), start
    )
    assert len(steps) == 12
    assert set(steps) == {(3 + 3, 3 + 2 + 3, 2, 1)}
    np.testing.assert_array_equal(images, np.ones((1, 3, 2, 2)))  # 0 is below one half
    np.testing.assert_allclose(log_prob, 12 * np.log(0.5), rtol=1e-6)


def test_the_window_is_what_a_kernel_covers():
    canvas = tf.reshape(tf.range(5 * 8 * 2 * 3, dtype="float32"), (5, 8, 2, 3))  # two rows, two columns, C = 2, B = 3
    found = raster_drawing.window(canvas, 1, 1)
    expected = np.transpose(canvas[1:5, 1:8], (3, 0, 1, 2)).reshape(3, -1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("images", "levels", "words"),
    [
        (np.full((2, 2, 2, 1), 0.5), 2, r"expected pixels in \{0, 1\}, received 0.5 among others; binarize"),
        (np.full((2, 2, 2, 1), 0.4), 4, "expected pixels k / 3, received 0.4 among others"),
        (np.full((2, 2, 2, 1), 1 / 510), 256, "expected pixels k / 255, received 0.001961 among others"),
        (np.ones((2, 2, 2, 1), "uint8") * 3, 4, "received 3 to 3; divide 8-bit pixels by 255"),
        (np.ones((2, 2, 3, 1)), 2, r"expected images \[B, 2, 2, 1\], received \[2, 2, 3, 1\]"),
    ],
)
def test_pixels_of_other_values_are_refused(images, levels, words):
    with pytest.raises(ValueError, match=words):
        check_pixels(images, (2, 2, 1), levels)


@pytest.mark.parametrize("levels", [2, 3, 256])
def test_levels_pass_whatever_holds_them(levels):
    index = GENERATOR.integers(levels, size=(6, 2, 2, 1))
    for images in (
        index / (levels - 1),
        (index / (levels - 1)).astype("float32"),
        (index > 0).astype("uint8"),
        index > 0,
    ):
        check_pixels(images, (2, 2, 1), levels)
        check_pixels(tf.constant(images), (2, 2, 1), levels)
    check_pixels(index / (levels - 1) + 1e-6, (2, 2, 1), levels)  # rounded


def test_every_picture_of_many_is_looked_at():
    images = np.zeros((2500, 2, 2, 1))
    check_pixels(images, (2, 2, 1), 2)
    for place in (0, 999, 1000, 2499):
        wrong = images.copy()
        wrong[place, 1, 1] = 0.25
        with pytest.raises(ValueError, match=r"received 0\.25 among others"):
            check_pixels(wrong, (2, 2, 1), 2)


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_a_picture_with_a_value_that_is_no_level_is_told_from_the_others(levels):
    step = 1 / (levels - 1)
    pixels = [0.5 * step, 255.0, -step, 1 + step, np.nan, np.inf, -np.inf, 0.998 * step, step, 0.9995 * step, 0.0, 1.0]
    images = np.zeros((12, 1, 2, 1), "float32")
    images[:, 0, 1, 0] = pixels
    found, whole = in_levels(images, levels)
    np.testing.assert_array_equal(whole, np.arange(12) >= 8)
    np.testing.assert_array_equal(found[8:], images[8:])
    expected = [0, 1, 0, 1, 0, 1, 0, step]
    np.testing.assert_allclose(found[:8, 0, 1, 0], expected, rtol=1e-6)
