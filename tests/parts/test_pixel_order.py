"""Orders of pixels: by name, by hand, and what is drawn along them."""

import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import pixel_order

EVERY = ("raster", "column", "spiral", "random", "random:7")


@pytest.mark.parametrize("shape", [(3, 4, 1), (4, 3, 2), (1, 5, 1), (5, 1, 3), (1, 1, 1)])
@pytest.mark.parametrize("ordering", EVERY)
def test_every_order_visits_every_value_once(ordering, shape):
    order = pixel_order.permutation(ordering, shape)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(np.prod(shape)))


def test_named_orders_go_as_they_are_called():
    orders = {name: pixel_order.permutation(name, (3, 4, 1)).tolist() for name in EVERY}
    assert orders["raster"] == list(range(12))
    assert orders["column"] == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert orders["spiral"] == [0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6]
    assert pixel_order.permutation("spiral", (4, 2, 1)).tolist() == [0, 1, 3, 5, 7, 6, 4, 2]
    assert len({tuple(order) for order in orders.values()}) == 5


@pytest.mark.parametrize("name", ["raster", "column", "spiral"])
def test_the_colours_of_a_pixel_follow_one_another(name):
    pixels = pixel_order.permutation(name, (3, 2, 1))
    order = pixel_order.permutation(name, (3, 2, 3))
    np.testing.assert_array_equal(order, [3 * pixel + colour for pixel in pixels for colour in range(3)])


def test_a_random_order_is_the_same_in_every_process():
    assert pixel_order.permutation("random", (2, 3, 1)).tolist() == [5, 2, 1, 3, 0, 4]
    assert pixel_order.permutation("random:0", (2, 3, 1)).tolist() == [5, 2, 1, 3, 0, 4]


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda order: np.array(order, "uint8"), tf.constant])
def test_an_order_may_be_given_by_hand(kind):
    assert pixel_order.permutation(kind([2, 0, 3, 1]), (2, 2, 1)).tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize(
    "ordering",
    [
        "diagonal",
        "raster:3",
        "random:",
        "random:x",
        "random:-1",
        f"random:{2**32}",
        "",
        None,
        7,
        [0, 1, 2],
        [0, 1, 2, 2],
        [1, 2, 3, 4],
        [0, 1, 2, -1],
        [[0, 1], [2, 3]],
        [0.0, 1.0, 2.0, 3.0],
        [0, 1, 2, float("nan")],
    ],
)
def test_what_is_no_order_is_refused(ordering):
    with pytest.raises(ValueError, match=r"ordering must be .*permutation of"):
        pixel_order.permutation(ordering, (2, 2, 1))


@pytest.mark.parametrize("shape", [(3, 3), 3, (3, 0, 1), (2, 2, 1, 1)])
def test_what_is_no_shape_is_refused(shape):
    with pytest.raises(ValueError, match="image_shape must be"):
        pixel_order.permutation("raster", shape)


@pytest.mark.parametrize("ordering", EVERY)
def test_flat_values_come_back_to_their_places(ordering):
    shape = (3, 4, 2)
    order = pixel_order.permutation(ordering, shape)
    images = np.random.default_rng(0).random((5, *shape)).astype("float32")
    flat = pixel_order.flatten(images, order)
    np.testing.assert_array_equal(flat, images.reshape(5, -1)[:, order])
    np.testing.assert_array_equal(pixel_order.unflatten(flat, order, shape), images)


def test_the_marginals_are_finite_where_a_pixel_never_changes():
    order = pixel_order.permutation("column", (2, 2, 1))
    images = np.array([[0, 1, 0, 1], [0, 1, 1, 1], [0, 1, 0, 0]], "float32").reshape(3, 2, 2, 1)
    odds = np.array([0.5 / 3.5, 3.5 / 0.5, 1.5 / 2.5, 2.5 / 1.5])[[0, 2, 1, 3]]
    np.testing.assert_allclose(pixel_order.marginal_logits(images, order), np.log(odds), rtol=1e-5)


@pytest.mark.parametrize("ordering", EVERY)
def test_values_are_drawn_along_the_order_each_from_what_came_before(ordering):
    """A recurrence without chance: a value is 1 where the number of ones before it is even."""
    shape, count = (2, 3, 2), 4
    order = pixel_order.permutation(ordering, shape)
    generator = np.random.default_rng(0)
    images = generator.integers(2, size=(count, *shape)).astype("float32")
    known = generator.integers(2, size=(count, *shape[:2], 1)).astype("float32")
    logits_at = lambda ones, d: tf.where(ones % 2 == 0, 50.0, -50.0)
    add = lambda ones, d, values: ones + values
    numbers = (
        tf.constant(np.where(known, images, np.nan)),
        tf.constant(known),
        tf.constant(generator.random((12, count))),
    )
    draw = lambda *numbers: pixel_order.draw_in_order(order, *numbers, logits_at, tf.zeros(count), add)
    drawn, log_prob = tf.function(draw, autograph=False)(*(tf.cast(number, "float32") for number in numbers))
    expected, surprises = images.reshape(count, -1).copy(), np.zeros(count)
    given = np.broadcast_to(known, images.shape).reshape(count, -1)
    for row in range(count):
        ones = 0
        for place in order:
            likely = float(ones % 2 == 0)
            if not given[row, place]:
                expected[row, place] = likely
            surprises[row] += expected[row, place] != likely
            ones += expected[row, place]
    np.testing.assert_array_equal(drawn, expected.reshape(images.shape))
    np.testing.assert_allclose(log_prob, -50 * surprises, atol=1e-5)
    assert surprises.max() > 0
