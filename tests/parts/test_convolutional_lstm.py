"""Laws of the convolutional LSTM: NumPy step by step, automatic differentiation of the plain loop, skewing by hand."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from dmkeras.parts import convolutional_lstm
from dmkeras.parts.convolutional_lstm import ConvolutionalLSTM, forward, scan, shifted, skew, unskew

OFFSETS = {"rows": ((-1, 0), (-1, 0, 1)), "diagonals": ((0,), (-1, 0))}
STEPS, DIRECTIONS, MAPS_IN, MAPS, PLACES, BATCH = 4, 2, 3, 2, 5, 3


def arguments(offsets, seed=0):
    """x, kernel, h0, c0 in float64."""
    operands = MAPS_IN * len(offsets[0]) + MAPS * len(offsets[1]) + 1
    state = (DIRECTIONS, MAPS, PLACES, BATCH)
    shapes = (STEPS, DIRECTIONS, MAPS_IN, PLACES, BATCH), (DIRECTIONS, operands, 4 * MAPS), state, state
    generator = np.random.default_rng(seed)
    return [tf.constant(generator.normal(size=shape)) for shape in shapes]


def by_hand(x, kernel, h, c, offsets, gate=np.tanh):
    """Equation 3, one place and picture at a time: h of every step [T, D, F, P, B]."""
    x, kernel, h, c = (np.array(argument) for argument in (x, kernel, h, c))
    found = np.zeros((len(x), *h.shape))
    at = lambda maps, place: maps[:, place] if 0 <= place < PLACES else np.zeros(len(maps))
    for t, d, b in np.ndindex(STEPS, DIRECTIONS, BATCH):
        before_h, before_c = (found[t - 1, d, ..., b] if t else h[d, ..., b]), c[d, ..., b].copy()
        for place in range(PLACES):
            seen = [at(x[t, d, ..., b], place + offset) for offset in offsets[0]]
            seen += [at(before_h, place + offset) for offset in offsets[1]]
            o, f, i, g = np.split(kernel[d].T @ np.concatenate([*seen, [1.0]]), 4)
            c[d, :, place, b] = special.expit(f) * before_c[:, place] + special.expit(i) * gate(g)
            found[t, d, :, place, b] = special.expit(o) * np.tanh(c[d, :, place, b])
    return found


@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS)
def test_states_are_those_of_the_equations(offsets):
    given = arguments(offsets)
    np.testing.assert_allclose(scan(*given, offsets), by_hand(*given, offsets), atol=1e-12)
    with pytest.raises(AssertionError):  # a sigmoid on the fourth gate too, as a public implementation has it
        np.testing.assert_allclose(scan(*given, offsets), by_hand(*given, offsets, gate=special.expit), atol=1e-2)


def gradients(function, given, offsets):
    weights = np.random.default_rng(1).normal(size=(STEPS, DIRECTIONS, MAPS, PLACES, BATCH))
    with tf.GradientTape() as tape:
        tape.watch(given)
        total = tf.reduce_sum(function(*given, offsets) * weights)
    return tape.gradient(total, given)


@pytest.mark.parametrize("offsets", OFFSETS.values(), ids=OFFSETS)
def test_the_reverse_pass_is_automatic_differentiation_of_the_plain_loop(offsets, monkeypatch):
    given = arguments(offsets)
    plain = gradients(lambda *arguments: forward(*arguments)[-1], given, offsets)
    for own, reference in zip(gradients(scan, given, offsets), plain, strict=True):
        np.testing.assert_allclose(own, reference, atol=1e-12)
    backward = convolutional_lstm.backward
    same_step = lambda upstream, x, kernel, h0, c0, kept, offsets: backward(
        upstream,
        x,
        kernel,
        kept[-1][0],
        c0,
        kept,
        offsets,  # the state of the first step for that before it
    )
    monkeypatch.setattr(convolutional_lstm, "backward", same_step)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(gradients(scan, given, offsets)[1], plain[1], atol=1e-3)


def test_the_reverse_pass_of_a_compiled_scan_is_the_same():
    offsets = OFFSETS["rows"]
    given = arguments(offsets)
    compiled = tf.function(lambda *given: gradients(scan, list(given), offsets), jit_compile=True)
    for own, reference in zip(compiled(*given), gradients(scan, given, offsets), strict=True):
        np.testing.assert_allclose(own, reference, atol=1e-12)


def test_shifted_maps_leave_zeros_where_nothing_was():
    maps = tf.constant([[[1], [2], [3]]])  # [1, P, B]
    for offset, expected in ((-2, [0, 0, 1]), (-1, [0, 1, 2]), (0, [1, 2, 3]), (1, [2, 3, 0])):
        np.testing.assert_array_equal(shifted(maps, offset)[0, :, 0], expected)


@pytest.mark.parametrize(("height", "width"), [(3, 3), (2, 5), (5, 2), (1, 4), (4, 1)])
def test_skewing_moves_row_r_by_r_and_is_undone(height, width):
    maps = np.arange(1, 2 * height * width * 3 + 1).reshape(2, height, width, 3)
    skewed = skew(tf.constant(maps)).numpy()
    expected = np.zeros((2, height, height + width - 1, 3))
    for row in range(height):
        expected[:, row, row : row + width] = maps[:, row]
    np.testing.assert_array_equal(skewed, expected)
    np.testing.assert_array_equal(unskew(skewed, width), maps)


def test_each_gate_keeps_the_order_of_colours():
    """A change of the maps of colour k moves no state of an earlier colour at that place and step."""
    layer = ConvolutionalLSTM(6, 3, (-1, 0, 1), colours=3)
    x = np.random.default_rng(0).normal(size=(1, 1, 6, 4, 1)).astype("float32")
    before = layer(x).numpy().reshape(3, 2, 4)  # [colour, F / 3, P]
    for colour in range(3):
        other = x.copy()
        other[:, :, 2 * colour : 2 * colour + 2, 1] += 1
        moved = (np.abs(layer(other).numpy().reshape(3, 2, 4) - before) > 0).any(axis=1)
        expected = np.zeros((3, 4), bool)
        expected[colour:, 1] = True
        expected[:, 2] = True  # the place to the right of it sees all its colours
        np.testing.assert_array_equal(moved, expected)


def test_a_layer_starts_from_its_learned_states():
    layer = ConvolutionalLSTM(2, 1, (-1, 0), directions=2)
    x = tf.zeros((3, 2, 4, 5, 2))
    assert not layer(x).numpy().any()
    layer.c0.assign(np.random.default_rng(0).normal(size=layer.c0.shape))
    expected = 0.5 * np.tanh(0.5 * np.repeat(layer.c0.numpy(), 2, axis=-1))  # gates of zero: sigmoid(0) = 1/2
    np.testing.assert_allclose(layer(x)[0], expected, rtol=1e-6)
    layer.h0.assign(np.ones(layer.h0.shape))
    assert np.abs(layer(x)[0] - expected).max() > 0.01


def test_the_configuration_makes_the_same_layer():
    layer = ConvolutionalLSTM(6, 3, (-1, 0, 1), directions=2, colours=3)
    again = ConvolutionalLSTM.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    for one in (layer, again):
        one.build((4, 2, 6, 5, None))
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in layer.weights]
