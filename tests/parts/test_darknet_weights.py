"""Laws of darknet's weight files and of its reorg, against darknet's loops written out in NumPy."""

import struct
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts import darknet_weights


def block(name, filters, channels, size=3, batch_norm=True):
    """A convolution and its normalization, as blocks have them."""
    conv = keras.layers.Conv2D(filters, size, padding="same", use_bias=not batch_norm)
    conv.build((None, None, None, channels))
    bn = keras.layers.BatchNormalization(epsilon=1e-5) if batch_norm else None
    if bn:
        bn.build((None, None, None, filters))
    return types.SimpleNamespace(name=name, conv=conv, bn=bn)


@pytest.fixture
def layers():
    """3x3 with normalization, 1x1 without, and a bare convolution: 110 + 24 + 18 numbers."""
    head = keras.layers.Conv2D(6, 1, name="head")
    head.build((None, None, None, 2))
    return [block("first", 5, 2, batch_norm=True), block("second", 4, 5, 1, batch_norm=False), head]


def weights(layers):
    variables = [getattr(layer, "conv", layer).weights for layer in layers]
    variables += [layer.bn.weights for layer in layers if getattr(layer, "bn", None)]
    return [variable.numpy() for group in variables for variable in group]


def same(layers, before):
    return all(np.array_equal(a, b) for a, b in zip(weights(layers), before, strict=True))


NUMBERS = np.random.default_rng(0).uniform(0.1, 1, 5 * 4 + 90 + 4 + 20 + 6 + 12).astype("<f4")  # 152
HEADER = struct.pack("<iiiQ", 0, 2, 0, 77)


def written(path, numbers=NUMBERS, header=HEADER):
    path.write_bytes(header + numbers.tobytes())
    return path


def darknet_forward(x, beta, gamma, mean, variance, kernel):
    """convolutional_layer.c and blas.c: x [c, h, w], kernel [n, c, k, k], zeros around, leaky rectifier."""
    pad = kernel.shape[-1] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(1, 2))
    out = np.einsum("chwij,ncij->nhw", windows, kernel)
    out = (out - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    out = out * gamma[:, None, None] + beta[:, None, None]
    return np.where(out > 0, out, 0.1 * out)


def test_a_layer_read_from_a_file_computes_what_darknet_computes(layers, tmp_path):
    assert darknet_weights.read(written(tmp_path / "w"), layers) == 77
    beta, gamma, mean, variance = NUMBERS[:20].reshape(4, 5)
    kernel = NUMBERS[20:110].reshape(5, 2, 3, 3)
    x = np.random.default_rng(1).normal(size=(2, 4, 6)).astype("float32")
    first = layers[0]
    found = tf.nn.leaky_relu(first.bn(first.conv(x.transpose(1, 2, 0)[None])), 0.1)[0]
    expected = darknet_forward(x, beta, gamma, mean, variance, kernel)
    np.testing.assert_allclose(found, expected.transpose(1, 2, 0), rtol=1e-4, atol=1e-5)
    swapped = darknet_forward(x, gamma, beta, mean, variance, kernel)
    assert np.abs(swapped.transpose(1, 2, 0) - found).max() > 0.1  # scales before biases would be seen
    np.testing.assert_array_equal(layers[1].conv.bias, NUMBERS[110:114])
    np.testing.assert_array_equal(layers[1].conv.kernel[0, 0], NUMBERS[114:134].reshape(4, 5).T)
    np.testing.assert_array_equal(layers[2].bias, NUMBERS[134:140])
    np.testing.assert_array_equal(layers[2].kernel[0, 0], NUMBERS[140:].reshape(6, 2).T)


@pytest.mark.parametrize(
    ("version", "seen", "form"),
    [
        ((0, 2, 0), 2**40 + 3, "<iiiQ"),  # more than 32 bits hold
        ((0, 2, 5), 32013312, "<iiiQ"),
        ((1, 0, 0), 2**63, "<iiiQ"),
        ((0, 1, 0), 2**31 - 1, "<iiii"),
        ((0, 0, 9), 0, "<iiii"),
        ((1000, 2, 0), 5, "<iiii"),  # dense layers transposed
        ((0, 1001, 0), 5, "<iiii"),
    ],
)
def test_both_headers_are_read_and_written(version, seen, form, layers, tmp_path):
    header = struct.pack(form, *version, seen)
    assert darknet_weights.read(written(tmp_path / "theirs", header=header), layers) == seen
    darknet_weights.write(tmp_path / "ours", layers, seen, version)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize(
    ("held", "layer", "words"),
    [
        (0, "first, number 1", "ends before"),
        (1, "first, number 1", "ends within"),
        (109, "first, number 1", "ends within"),
        (110, "second, number 2", r"before .*include_head=False"),
        (113.25, "second, number 2", "ends within"),
        (134, "head, number 3", "ends before"),
        (151, "head, number 3", "ends within"),
    ],
)
def test_a_file_that_ends_early_is_refused_and_changes_nothing(held, layer, words, layers, tmp_path):
    before, path = weights(layers), tmp_path / "w"
    path.write_bytes(HEADER + NUMBERS.tobytes()[: int(4 * held)])
    with pytest.raises(ValueError, match=f"holds {held} numbers, expected 152 of 3 convolutions") as error:
        darknet_weights.read(path, layers)
    assert layer in str(error.value)
    error.match(words)
    assert same(layers, before)


@pytest.mark.parametrize("more", [1, 4, 400])
def test_a_file_with_bytes_left_over_is_refused_and_changes_nothing(more, layers, tmp_path):
    before, path = weights(layers), tmp_path / "w"
    path.write_bytes(HEADER + NUMBERS.tobytes() + bytes(more))
    with pytest.raises(ValueError, match=rf"expected 152 of 3 .*: {more} bytes are left over after head"):
        darknet_weights.read(path, layers)
    assert same(layers, before)


def test_a_cut_off_file_gives_the_first_layers_theirs_and_leaves_the_others(layers, tmp_path):
    before = weights(layers)
    darknet_weights.read(written(tmp_path / "w", NUMBERS[:134]), layers[:2])
    after = weights(layers)
    changed = [not np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
    assert changed == [True, True, True, False, False, True, True, True, True]


@pytest.mark.parametrize("size", [0, 11, 15, 19])
def test_a_file_without_a_whole_header_is_refused(size, layers, tmp_path):
    (tmp_path / "w").write_bytes(HEADER[:size])
    with pytest.raises(ValueError, match=f"has {size} bytes, expected a header"):
        darknet_weights.read(tmp_path / "w", layers)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [(151, np.nan, "not finite in kernel of head"), (17, -0.5, "variance of -0.5 in first"), (30, np.inf, "of first")],
)
def test_values_that_cannot_be_weights_are_refused_and_change_nothing(place, value, words, layers, tmp_path):
    before, numbers = weights(layers), NUMBERS.copy()
    numbers[place] = value
    with pytest.raises(ValueError, match=words):
        darknet_weights.read(written(tmp_path / "w", numbers), layers)
    assert same(layers, before)


@pytest.mark.parametrize(
    ("seen", "version", "words"),
    [
        (2**31, (0, 1, 0), r"less than 2\*\*31 in seen"),
        (2**64, (0, 2, 0), r"less than 2\*\*64 in seen"),
        (-1, (0, 2, 0), "seen must be at least 0"),
        (0, (0, "2", 0), "version must be a whole number"),
        (0, (0, 2), "version must be"),
    ],
)
def test_a_header_that_cannot_be_written_is_refused(seen, version, words, layers, tmp_path):
    with pytest.raises(ValueError, match=words):
        darknet_weights.write(tmp_path / "w", layers, seen, version)
    assert not (tmp_path / "w").exists()


def test_a_layer_with_a_bias_beside_normalization_has_no_place_in_a_file(layers, tmp_path):
    layers[1].bn = layers[0].bn
    with pytest.raises(ValueError, match="expected second with batch normalization or a bias, received both"):
        darknet_weights.read(written(tmp_path / "w"), layers)


# --- reorg ----------------------------------------------------------------------------------------------------------


def reorg_cpu(x, w, h, c, batch, stride):
    """src/blas.c, forward = 0, loop by loop, on memory."""
    out, out_c = np.empty_like(x), c // (stride * stride)
    for b in range(batch):
        for k in range(c):
            for j in range(h):
                for i in range(w):
                    in_index = i + w * (j + h * (k + c * b))
                    c2 = k % out_c
                    offset = k // out_c
                    w2 = i * stride + offset % stride
                    h2 = j * stride + offset // stride
                    out_index = w2 + w * stride * (h2 + h * stride * (c2 + out_c * b))
                    out[in_index] = x[out_index]
    return out


def darknet_reorg(maps, stride):
    batch, h, w, c = maps.shape
    out = reorg_cpu(maps.transpose(0, 3, 1, 2).ravel(), w, h, c, batch, stride)
    return out.reshape(batch, c * stride**2, h // stride, w // stride).transpose(0, 2, 3, 1)


SHAPES = [((2, 4, 6, 4), 2), ((1, 26, 26, 8), 2), ((2, 6, 3, 9), 3), ((1, 2, 2, 12), 2), ((2, 3, 5, 2), 1)]


@pytest.mark.parametrize(("shape", "stride"), SHAPES, ids=str)
def test_reorg_is_darknets(shape, stride):
    maps = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    np.testing.assert_array_equal(darknet_weights.reorg(maps, stride), darknet_reorg(maps, stride))


def test_reorg_takes_maps_of_unknown_sides_and_gives_channels_that_are_known():
    traced = tf.function(darknet_weights.reorg, input_signature=[tf.TensorSpec((None, None, None, 4))])
    assert traced.get_concrete_function().output_shapes[-1] == 16
    for shape in ((2, 4, 6, 4), (1, 8, 2, 4)):
        maps = np.random.default_rng(0).normal(size=shape).astype("float32")
        np.testing.assert_array_equal(traced(maps), darknet_reorg(maps, 2))


def test_reorg_is_no_permutation_of_the_channels_of_space_to_depth():
    maps = np.arange(4 * 4 * 4, dtype="float32").reshape(1, 4, 4, 4)
    own, plain = darknet_weights.reorg(maps, 2), tf.nn.space_to_depth(maps, 2)
    assert own.shape == plain.shape
    np.testing.assert_array_equal(np.sort(own, axis=None), np.arange(64))  # each number once
    for row in range(2):
        for column in range(2):
            assert set(own[0, row, column].numpy()) != set(plain[0, row, column].numpy())


@pytest.mark.parametrize("shape", [(1, 5, 4, 4), (1, 4, 5, 4), (1, 4, 4, 6)])
def test_reorg_refuses_what_its_stride_does_not_divide(shape):
    with pytest.raises(ValueError, match=r"H and W divisible by 2 and C by 4, received \[1, "):
        darknet_weights.reorg(tf.zeros(shape), 2)
