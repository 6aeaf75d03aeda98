"""Laws of upsampling: each way by loops in NumPy, its adjoint, and what it keeps of the maps it came from."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import dmkeras
from dmkeras.parts import upsampling
from dmkeras.parts.upsampling import (
    bed_of_nails,
    bilinear_kernel,
    max_pool,
    max_unpool,
    nearest,
    transposed_convolution,
)

SHAPES = [((2, 4, 6, 3), 2), ((2, 5, 7, 3), 2), ((1, 4, 8, 2), 3), ((2, 6, 5, 4), (3, 2)), ((1, 1, 1, 1), 2)]


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def pooled(maps, size):
    """Maxima, and the row and column in the picture where each is, by loops; the first of equals."""
    h, w = np.broadcast_to(size, 2)
    (count, height, width, channels) = maps.shape
    shape = count, -(-height // h), -(-width // w), channels
    best, places = np.zeros(shape, maps.dtype), np.zeros((*shape, 2), int)
    for b, y, x, c in np.ndindex(shape):
        window = maps[b, y * h : (y + 1) * h, x * w : (x + 1) * w, c]
        i, j = np.unravel_index(np.argmax(window), window.shape)
        best[b, y, x, c], places[b, y, x, c] = window[i, j], (y * h + i, x * w + j)
    return best, places


def put(values, places, shape):
    large = np.zeros(shape, values.dtype)
    for b, y, x, c in np.ndindex(values.shape):
        large[(b, *places[b, y, x, c], c)] = values[b, y, x, c]
    return large


# --- maxima and their places ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_pooling_finds_each_windows_maximum_and_unpooling_puts_it_where_it_was(shape, size):
    maps, expected = drawn(shape), pooled(drawn(shape), size)
    best, positions = max_pool(maps, size)
    np.testing.assert_array_equal(best, expected[0])
    assert positions.dtype == "uint8"
    large = max_unpool(best, positions, size, shape[1:3])
    np.testing.assert_array_equal(large, put(*expected, shape))
    assert np.all((large == 0) | (large == maps))
    other = drawn(best.shape, seed=1)  # unpooled by the positions of other maps, as a decoder's are
    np.testing.assert_array_equal(max_unpool(other, positions, size, shape[1:3]), put(other, expected[1], shape))
    np.testing.assert_array_equal(max_pool(np.abs(large), size)[0], np.abs(best))


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_pooling_what_was_unpooled_gives_the_maxima_again(shape, size):
    best, positions = max_pool(np.exp(drawn(shape)), size)  # above 0, which unpooling fills in
    again, where = max_pool(max_unpool(best, positions, size, shape[1:3]), size)
    np.testing.assert_array_equal(again, best)
    np.testing.assert_array_equal(where, positions)


def wrong_unpool(kind):
    """Unpoolings that are wrong in one way each."""

    def unpool(maps, positions, size):
        if kind == "one position for all channels":
            positions = tf.tile(positions[..., :1], (1, 1, 1, maps.shape[-1]))
        if kind == "positions of the first picture":
            positions = tf.tile(positions[:1], (len(maps), 1, 1, 1))
        if kind == "rows and columns swapped":
            positions = positions % 2 * 2 + positions // 2
        if kind == "always the top left":
            positions = tf.zeros_like(positions)
        return max_unpool(maps, positions, size)

    return unpool


@pytest.mark.parametrize(
    "kind",
    [
        "right",
        "one position for all channels",
        "positions of the first picture",
        "rows and columns swapped",
        "always the top left",
    ],
)
def test_an_unpooling_that_forgets_something_is_told_from_the_right_one(kind):
    maps = drawn((2, 4, 6, 3))
    large = wrong_unpool(kind)(*max_pool(maps, 2), 2)
    assert np.array_equal(large, put(*pooled(maps, 2), maps.shape)) == (kind == "right")


def test_positions_are_those_of_tensorflows_operation():
    maps = drawn((3, 4, 6, 5))
    best, flat = tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID", include_batch_in_index=True)
    large = tf.scatter_nd(tf.reshape(flat, (-1, 1)), tf.reshape(best, [-1]), [maps.size])
    np.testing.assert_array_equal(max_unpool(*max_pool(maps), 2), tf.reshape(large, maps.shape))


def test_of_equal_maxima_the_first_counts():
    best, positions = max_pool(np.ones((1, 4, 4, 1), "float32"))
    np.testing.assert_array_equal(max_unpool(best, positions), bed_of_nails(best))


def test_windows_that_do_not_fit_hold_no_pixel_from_outside():
    best, positions = max_pool(np.full((1, 3, 3, 1), -5.0, "float32"))
    np.testing.assert_array_equal(best, np.full((1, 2, 2, 1), -5.0))
    np.testing.assert_array_equal(positions, np.zeros((1, 2, 2, 1)))


def test_the_gradient_goes_to_the_maximum_alone():
    maps, gradient = tf.constant(drawn((2, 5, 6, 3)).round()), drawn((2, 3, 3, 3), 1)  # whole numbers: many ties
    with tf.GradientTape() as tape:
        tape.watch(maps)
        best, positions = max_pool(maps)
    found = tape.gradient(best, maps, gradient)
    np.testing.assert_array_equal(found, max_unpool(gradient, positions, 2, (5, 6)))


def test_unpoolings_gradient_is_taken_where_the_maxima_were():
    _, positions = max_pool(drawn((2, 5, 6, 3)))
    small, gradient = tf.constant(drawn((2, 3, 3, 3), 1)), drawn((2, 5, 6, 3), 2)
    with tf.GradientTape() as tape:
        tape.watch(small)
        large = max_unpool(small, positions, 2, (5, 6))
    places = pooled(drawn((2, 5, 6, 3)), 2)[1]
    expected = [gradient[(b, *places[b, y, x, c], c)] for b, y, x, c in np.ndindex(*small.shape)]
    np.testing.assert_array_equal(tape.gradient(large, small, gradient), np.reshape(expected, tuple(small.shape)))


# --- nearest and bed of nails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, (2, 3)])
def test_nearest_repeats_and_nails_stand_at_the_top_left(size):
    maps, (h, w) = drawn((2, 3, 4, 2)), np.broadcast_to(size, 2)
    np.testing.assert_array_equal(nearest(maps, size), maps.repeat(h, 1).repeat(w, 2))
    nails = bed_of_nails(maps, size).numpy()
    np.testing.assert_array_equal(nails[:, ::h, ::w], maps)
    assert np.count_nonzero(nails) == np.count_nonzero(maps)
    np.testing.assert_array_equal(nearest(maps, size)[:, ::h, ::w], maps)


# --- transposed convolution -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "first"), [(4, [0.25, 0.75, 0.75, 0.25]), (3, [0.5, 1, 0.5]), (1, [1]), (2, [0.5, 0.5])]
)
def test_the_bilinear_kernel_is_the_fixtures(size, first):
    np.testing.assert_allclose(bilinear_kernel(size), np.outer(first, first), rtol=1e-6)


def test_the_bilinear_kernel_of_sixteen_starts_as_the_fixture():
    ramp = np.sqrt(np.diag(bilinear_kernel(16)))
    np.testing.assert_allclose(ramp[:3], [0.0625, 0.1875, 0.3125], rtol=1e-6)
    np.testing.assert_allclose(ramp, ramp[::-1], rtol=1e-6)


def plane(height, width, step=1.0):
    """A ramp in both directions at the centres of pixels of `step`."""
    y, x = (np.arange(height) + 0.5) * step, (np.arange(width) + 0.5) * step
    return (2 * y[:, None] - 3 * x + 1).astype("float32")[None, ..., None]


def off_by_half_a_pixel(size):
    ramp = 1 - np.abs(np.arange(size) - ((size + 1) // 2 - 1)) / ((size + 1) // 2)
    return np.outer(ramp, ramp).astype("float32")


@pytest.mark.parametrize("stride", [2, 3, 4, 8])
def test_bilinear_interpolation_is_exact_on_ramps(stride):
    size, inside = 2 * stride - stride % 2, slice(stride, -stride)
    for kernel, right in ((bilinear_kernel(size), True), (off_by_half_a_pixel(size), stride % 2 == 1)):
        large = transposed_convolution(plane(5, 6), kernel[..., None, None], stride)
        difference = np.abs(large - plane(5 * stride, 6 * stride, 1 / stride))[:, inside, inside].max()
        assert (difference < 1e-4) == right


def test_ones_stay_ones_inside_and_fade_at_the_border():
    large = transposed_convolution(np.ones((1, 4, 4, 1), "float32"), bilinear_kernel(4)[..., None, None], 2)[0, ..., 0]
    np.testing.assert_allclose(large[1:-1, 1:-1], 1)
    np.testing.assert_allclose(large[0], [0.5625, *[0.75] * 6, 0.5625])


@pytest.mark.parametrize(("stride", "size"), [(1, 3), (2, 2), (2, 3), (2, 4), (2, 5), (3, 5), (4, 4)])
@pytest.mark.parametrize("per_channel", [False, True])
def test_the_transposed_convolution_is_the_adjoint_of_the_convolution(stride, size, per_channel):
    """<convolved u, v> = <u, transposed v>, in float64 sums."""
    kernel = drawn((size, size, 3) if per_channel else (size, size, 3, 2))
    u, v = drawn((2, 4 * stride, 5 * stride, 3), 1), drawn((2, 4, 5, 3 if per_channel else 2), 2)
    if per_channel:
        convolved = tf.nn.depthwise_conv2d(u, kernel[..., None], [1, stride, stride, 1], "SAME")
    else:
        convolved = tf.nn.conv2d(u, kernel, stride, "SAME")
    transposed = transposed_convolution(v, kernel, stride)
    assert transposed.shape == u.shape
    inner = lambda a, b: np.sum(np.float64(a) * np.float64(b))
    np.testing.assert_allclose(inner(convolved, v), inner(u, transposed), rtol=1e-4, atol=1e-3)
    turned = transposed_convolution(v, kernel[::-1, ::-1], stride)  # a convolution by the kernel as it is: not adjoint
    assert abs(inner(convolved, v) - inner(u, turned)) > 0.1


def test_a_transposed_convolution_by_channel_is_that_of_a_diagonal_kernel():
    maps, kernel = drawn((2, 3, 4, 3)), drawn((4, 4, 3), 1)
    full = kernel[..., None] * np.eye(3, dtype="float32")
    np.testing.assert_allclose(
        transposed_convolution(maps, kernel, 2), transposed_convolution(maps, full, 2), rtol=1e-4, atol=1e-5
    )


# --- layers ---------------------------------------------------------------------------------------------------------

LAYERS = {
    "NearestUpsampling": {"size": (2, 3)},
    "BedOfNails": {"size": 2},
    "MaxUnpooling": {"size": (2, 2)},
    "TransposedConvolution": {},
}


def network(name, options, sides):
    """Maps -> the layer; for unpooling, pooled before, and cut to the sides they had."""
    maps = keras.Input((*sides, 3))
    if name != "MaxUnpooling":
        return keras.Model(maps, getattr(dmkeras.layers, name)(**options)(maps))
    best, positions = dmkeras.layers.MaxPooling(options["size"])(maps)
    return keras.Model(maps, dmkeras.layers.MaxUnpooling(**options)(best, positions, maps))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_answers_the_same_in_a_graph_compiled_exported_and_reloaded(name, tmp_path):
    maps = drawn((2, 5, 7, 3))
    model = network(name, LAYERS[name], (None, None))
    expected = model(maps)
    assert expected.shape == model.compute_output_shape(maps.shape)
    graph = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
    np.testing.assert_allclose(graph(maps), expected, rtol=1e-6)
    np.testing.assert_allclose(tf.function(model, jit_compile=True)(maps), expected, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(dmkeras.load(tmp_path / "model.keras")(maps), expected, rtol=1e-6)
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(served.serve(maps), expected, rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", LAYERS)
def test_mixed_precision_computes_in_it_and_trains(name, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = network(name, LAYERS[name], (4, 6))
    finally:
        keras.config.set_dtype_policy("float32")
    maps = tf.constant(drawn((2, 4, 6, 3)))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        large = model(maps)
        total = tf.reduce_sum(tf.cast(large, "float32") ** 2)
    assert large.dtype == policy.removeprefix("mixed_")
    assert np.all(np.isfinite(tape.gradient(total, maps)))
    assert all(weight.dtype == "float32" for weight in model.weights)


def test_a_learned_upsampling_starts_bilinear_and_a_fixed_one_stays_so():
    maps = plane(4, 5)
    for per_channel in (False, True):
        layer = dmkeras.layers.TransposedConvolution(per_channel=per_channel)
        large = layer(np.repeat(maps, 2, -1))[:, 2:-2, 2:-2]
        expected = np.repeat(plane(8, 10, 0.5), 2, -1)[:, 2:-2, 2:-2]
        np.testing.assert_allclose(large, expected, rtol=1e-5)
        assert len(layer.trainable_weights) == 1
    fixed = dmkeras.layers.TransposedConvolution(trainable=False)
    fixed(maps)
    assert not fixed.trainable_weights
    assert not keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(fixed)).trainable


def test_a_transposed_convolution_of_other_filters_starts_as_it_is_told():
    layer = dmkeras.layers.TransposedConvolution(5, 3, 4, kernel_initializer="he_normal", name="up")
    maps = drawn((1, 2, 3, 4))
    assert layer(maps).shape == (1, 6, 9, 5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(maps), layer(maps))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: nearest(np.zeros((4, 4, 1), "float32")),
            r"expected maps \[B, H, W, C\] of floats, received \(4, 4, 1\)",
        ),
        (lambda: bed_of_nails(np.zeros((1, 4, 4, 1), "int32")), "of floats, received .* int32"),
        (lambda: max_pool(drawn((1, 4, 4, 1)), 0), "each side of a window must be at least 1"),
        (lambda: max_pool(drawn((1, 4, 4, 1)), (1, 2, 3)), "a window must be a number or"),
        (lambda: max_pool(drawn((1, 64, 64, 1)), (32, 16)), "at most 256 pixels, received 32x16"),
        (lambda: max_unpool(drawn((1, 2, 2, 3)), np.zeros((1, 2, 2, 1), "uint8")), "expected a position for each"),
        (lambda: bilinear_kernel(0), "size must be at least 1"),
        (lambda: dmkeras.layers.TransposedConvolution(stride=4, kernel_size=3), "kernel_size must be at least 4"),
        (lambda: dmkeras.layers.TransposedConvolution(2)(drawn((1, 2, 2, 3))), "received 2 for 3 channels"),
        (lambda: dmkeras.layers.BedOfNails(1.5), "must be a whole number, received 1.5"),
    ],
)
def test_what_cannot_be_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_public_layers_are_all_listed():
    assert set(dmkeras.layers.__all__) >= {"MaxPooling", *LAYERS}
    assert all(hasattr(dmkeras.layers, name) for name in dmkeras.layers.__all__)
    assert upsampling.check_window(np.int64(2)) == (2, 2)
