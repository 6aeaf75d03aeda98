"""Laws of masked convolutions: the mask by the paper's rule, the sum by loops, nothing under the mask takes part."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts.masked_conv import MaskedConv2D, mask


def group(map_, count, colours):
    """The colour that a map belongs to: contiguous blocks, in the order of colours."""
    return map_ * colours // count


def is_seen(dy, dx, channel, filter_, channels, filters, kind, colours):
    """Figure 2 of the paper, of a place (dy, dx) from the pixel."""
    if (dy, dx) == (0, 0):
        own, other = group(filter_, filters, colours), group(channel, channels, colours)
        return other < own or (kind == "B" and other == own)
    return dy < 0 or (dy == 0 and dx < 0)


def convolved(maps, kernel, bias, kernel_size, kind, colours, gates):
    """The convolution by loops, float64: maps [B, H, W, C], kernel without the rows below, [R, K, C, gates * F]."""
    (rows, columns), (_, height, width, channels) = kernel_size, maps.shape
    filters = len(bias) // gates
    answer = np.zeros((*maps.shape[:3], len(bias))) + bias
    for y, x, v, u in np.ndindex(height, width, height, width):
        dy, dx = v - y, u - x
        if -(rows // 2) <= dy <= 0 and abs(dx) <= columns // 2 and (dy < 0 or dx <= 0):
            for channel, gate, filter_ in np.ndindex(channels, gates, filters):
                if is_seen(dy, dx, channel, filter_, channels, filters, kind, colours):
                    weight = kernel[rows // 2 + dy, columns // 2 + dx, channel, gate * filters + filter_]
                    answer[:, y, x, gate * filters + filter_] += weight * maps[:, v, u, channel]
    return answer


CASES = [  # channels, filters, kernel size, kind, colours, gates
    (1, 4, 7, "A", 1, 1),
    (4, 2, 3, "B", 1, 1),
    (3, 7, 3, "A", 3, 1),
    (7, 5, 1, "B", 3, 1),
    (6, 3, (1, 3), "B", 3, 4),
    (5, 6, (3, 5), "B", 2, 2),
]


def built(channels, filters, kernel_size, kind, colours, gates):
    layer, generator = MaskedConv2D(filters, kernel_size, kind, colours, gates), np.random.default_rng(0)
    layer.build((None, None, None, channels))
    layer.set_weights([generator.normal(size=weight.shape) for weight in layer.get_weights()])
    return layer, generator.normal(size=(2, 4, 5, channels)).astype("float32")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_sum_is_over_earlier_pixels_and_within_a_pixel_over_earlier_colours(case):
    layer, maps = built(*case)
    kernel, bias = layer.get_weights()
    expected = convolved(maps, kernel, bias, layer.kernel_size, *case[3:])
    np.testing.assert_allclose(layer(maps), expected, rtol=1e-4, atol=1e-4)
    assert layer.compute_output_shape(maps.shape) == expected.shape


def test_the_mask_of_three_colours_is_that_of_figure_two():
    first, other = (mask(1, 1, 1, 3, 6, kind, colours=3)[0, 0] for kind in "AB")
    np.testing.assert_array_equal(first, [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]])
    np.testing.assert_array_equal(other, [[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]])


def test_what_stands_under_the_mask_takes_part_in_nothing():
    layer, maps = built(3, 6, 3, "A", 3, 2)
    hidden, (kernel, bias) = layer.mask == 0, layer.get_weights()
    assert 0 < hidden.sum() < hidden.size
    before = layer(maps).numpy()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(maps) ** 2)
    gradient = tape.gradient(total, layer.kernel.value).numpy()
    np.testing.assert_array_equal(gradient[hidden], 0)
    assert np.all(gradient[~hidden] != 0)
    layer.set_weights([np.where(hidden, 1e3, kernel), bias])
    np.testing.assert_array_equal(layer(maps), before)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_at_one_pixel_the_layer_answers_as_it_does_for_the_picture(case):
    layer, maps = built(*case)
    margin = [(0, 0), *layer.margin[1:3], (0, 0)]
    padded, answer, at_pixel = np.pad(maps, margin), layer(maps).numpy(), layer.at_pixel()
    rows, columns = layer.mask.shape[:2]
    for y, x in ((0, 0), (2, 0), (3, 4)):
        window = padded[:, y : y + rows, x : x + columns].reshape(len(maps), -1)
        np.testing.assert_allclose(at_pixel(window), answer[:, y, x], rtol=1e-4, atol=1e-5)


def test_whole_numbers_are_convolved_as_numbers():
    layer, _ = built(3, 3, 3, "A", 3, 1)
    maps = np.random.default_rng(0).integers(3, size=(2, 4, 5, 3))
    for kind in ("int32", "uint8", "float64"):
        np.testing.assert_array_equal(layer(maps.astype(kind)), layer(maps.astype("float32")))


def test_the_configuration_makes_the_same_layer():
    layer, maps = built(6, 3, (1, 3), "B", 3, 4)
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)  # and builds it
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(maps), layer(maps))
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((4, 3, "C"), "kind must be 'A' .* received 'C'"),
        ((4, 2, "A"), "kernel_size must be odd.* received 2"),
        ((4, (3, 4), "A"), r"kernel_size must be odd.* received \(3, 4\)"),
        ((4, (3, 3, 3), "A"), "kernel_size must be odd"),
        ((4, -1, "A"), "kernel_size must be odd"),
        ((2, 3, "A", 3), "each of 3 colours needs a map of its own, received filters=2"),
    ],
)
def test_what_makes_no_layer_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        MaskedConv2D(*arguments)


def test_fewer_maps_than_colours_are_refused():
    with pytest.raises(ValueError, match="each of 3 colours needs a map of its own, received 2 channels"):
        MaskedConv2D(3, 3, "B", 3).build((None, 4, 4, 2))
