"""What filters owe beside the contract: the layer's own weights as pictures, their roughness, its answers, doors."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import dmkeras
from dmkeras.backbones.small_cnn import SmallCNN
from dmkeras.understanding.filters import Filters, sheets

RNG = np.random.default_rng(0)
SHAPE = (9, 7, 3)


def classifier(shape=SHAPE, dtype="float32"):
    stack = [
        keras.Input(shape),
        layers.Conv2D(5, (3, 2), activation="relu", name="first", dtype=dtype),
        layers.DepthwiseConv2D(2, depth_multiplier=2, name="depth", dtype=dtype),
        layers.Conv2DTranspose(4, 3, name="up", dtype=dtype),
        layers.MaxPooling2D(2, name="pool", dtype=dtype),
        layers.Flatten(name="flat", dtype=dtype),
        layers.Dense(6, "relu", name="dense", dtype=dtype),
        layers.Dense(3, "softmax", name="end", dtype=dtype),
    ]
    model = keras.Sequential(stack)
    model.set_weights([RNG.normal(size=weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def net():
    return classifier()


@pytest.fixture(scope="module")
def images():
    return RNG.random((2, *SHAPE), "float32")


# --- weights --------------------------------------------------------------------------------------------------------


def test_the_filters_are_the_layers_weights_output_by_output(net):
    weights = {name: net.get_layer(name).kernel.numpy() for name in ("first", "depth", "up", "dense")}
    found = {name: Filters(net, name).filters() for name in weights}
    assert [values.shape for values in found.values()] == [(5, 3, 2, 3), (10, 2, 2, 1), (4, 3, 3, 10), (6, 1, 1, 48)]
    for f in range(5):
        np.testing.assert_array_equal(found["first"][f], weights["first"][:, :, :, f])
    for i in range(5):
        for m in range(2):
            np.testing.assert_array_equal(found["depth"][2 * i + m, :, :, 0], weights["depth"][:, :, i, m])
    np.testing.assert_array_equal(found["up"][3, :, :, 7], weights["up"][:, :, 3, 7])
    np.testing.assert_array_equal(found["dense"][4, 0, 0], weights["dense"][:, 4])


def test_the_first_convolution_of_the_pictures_channels_is_taken_where_none_is_named(net):
    assert Filters(net).layer_name == "first"
    small = SmallCNN((8, 8, 3), 3, filters=2, seed=0)
    assert Filters(small).layer_name == "stage_0_conv"
    dense = keras.Sequential([keras.Input((4, 3, 2)), layers.Flatten(), layers.Dense(3, name="whole")])
    with pytest.raises(ValueError, match="has no convolution of 2 channels; name a layer with a kernel"):
        Filters(dense)
    whole = Filters(dense, "whole").filters()  # a dense layer of the whole picture has filters of its size
    np.testing.assert_array_equal(whole[1], dense.layers[-1].kernel.numpy()[:, 1].reshape(4, 3, 2))


def test_a_deeper_convolution_that_is_listed_before_is_not_the_first():
    class Backwards(keras.Model):
        image_shape = (6, 6, 3)

        def __init__(self):
            super().__init__()
            self.deep, self.near = layers.Conv2D(2, 1, name="deep"), layers.Conv2D(4, 3, name="near")
            self(keras.Input(self.image_shape))

        def call(self, images):
            return tf.reduce_mean(self.deep(self.near(images)), axis=(1, 2))

    assert Filters(Backwards()).layer_name == "near"


def test_a_tile_has_grey_at_zero_and_its_largest_weight_at_black_or_white(net):
    model, kernel = Filters(net), net.get_layer("first").kernel.numpy()
    tiles = model.tiles()
    for f in range(5):
        filter_ = kernel[..., f]
        np.testing.assert_allclose(tiles[f], 0.5 + filter_ / (2 * np.abs(filter_).max()), atol=1e-6)
    together = 0.5 + np.moveaxis(kernel, 3, 0) / (2 * np.abs(kernel).max())  # the known-wrong scale, of all filters
    assert np.abs(together - tiles).max() > 0.01
    assert model.tiles(2).shape == (2, 3, 2, 3)
    assert Filters(net, "depth").tiles().shape == (10, 2, 2, 1)
    zero = classifier()
    zero.get_layer("first").kernel.assign(tf.zeros((3, 2, 3, 5)))
    np.testing.assert_array_equal(Filters(zero).tiles(), 0.5)


def test_filters_of_other_inputs_stand_side_by_side_red_above_and_blue_below_zero():
    net = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(2, (2, 3), name="c"), layers.Flatten(), layers.Dense(2)]
    )
    kernel = np.zeros((2, 3, 2, 2), "float32")
    kernel[0, 1, 0, 0], kernel[1, 2, 1, 0] = 4.0, -2.0
    net.get_layer("c").kernel.assign(kernel)
    tile = Filters(net, "c").tiles()[0]
    assert tile.shape == (2, 2 * 4 - 1, 3)
    red, blue, white = tile[0, 1], tile[1, 4 + 2], tile[0, 0]
    assert red[0] > 2 * red[2]
    assert blue[2] > 1.3 * blue[0]
    assert white.min() > 0.95
    assert (tile[:, 3] == 1).all()  # between two inputs
    assert abs(red - white).max() > abs(blue - white).max()  # one scale for the inputs of a filter
    assert Filters(net, "c").tiles(inputs=1).shape == (2, 2, 3, 3)


def rough(filter_):
    """(3) pair by pair."""
    height, width, inputs = filter_.shape
    squares = []
    for c in range(inputs):
        for y in range(height):
            for x in range(width):
                squares += [(filter_[y, x, c] - filter_[y, x + 1, c]) ** 2] if x + 1 < width else []
                squares += [(filter_[y, x, c] - filter_[y + 1, x, c]) ** 2] if y + 1 < height else []
    return np.mean(squares) / (2 * np.mean(filter_**2))


def test_roughness_is_the_mean_square_between_neighbours(net):
    model = Filters(net)
    np.testing.assert_allclose(model.roughness(), [rough(np.float64(w)) for w in model.filters()], rtol=1e-6)
    wide = keras.Sequential(
        [keras.Input((60, 60, 1)), layers.Conv2D(4, 50, name="c"), layers.Flatten(), layers.Dense(2)]
    )
    y, x = np.mgrid[:50, :50]
    kernel = [np.ones((50, 50)), (-1.0) ** (x + y), RNG.normal(size=(50, 50)), np.zeros((50, 50))]
    wide.get_layer("c").kernel.assign(np.stack(kernel, -1)[:, :, None])
    found = Filters(wide).roughness()
    np.testing.assert_allclose(found[:3], [0, 2, 1], atol=0.05)
    assert np.isnan(found[3])
    with pytest.raises(ValueError, match="dense has kernels of 1x1"):
        Filters(net, "dense").roughness()


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["first", "depth", "dense"])
def test_the_responses_are_what_the_layer_answers(name, net, images):
    expected = keras.Model(net.inputs[0], net.get_layer(name).output)(images)
    model = Filters(net, name)
    np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        model.signatures()["serving_default"][0](tf.constant(images))["responses"], expected, 1e-5
    )
    np.testing.assert_allclose(np.concatenate([model(image[None]) for image in images]), expected, rtol=1e-4, atol=1e-5)
    compiled = tf.function(model.__call__, jit_compile=True, autograph=False)(tf.constant(images))
    np.testing.assert_allclose(compiled, expected, rtol=1e-4, atol=1e-5)


def test_the_first_responses_are_the_convolution_by_hand(net, images):
    model = Filters(net)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 2), (1, 2))  # [B, h, w, C, 3, 2]
    expected = np.einsum("bhwcij,fijc->bhwf", windows, model.filters()) + net.get_layer("first").bias.numpy()
    np.testing.assert_allclose(model(images), np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def test_a_sheet_shows_map_after_map_from_the_least_to_the_greatest_value():
    maps = RNG.normal(size=(2, 3, 4, 5)).astype("float32")
    found = sheets(tf.constant(maps)).numpy()
    assert found.shape == (2, 2 * 4 - 1, 3 * 5 - 1, 3)
    from matplotlib import colormaps

    for b in range(2):
        for f in range(5):
            y, x = 4 * (f // 3), 5 * (f % 3)
            share = (maps[b, ..., f] - maps[b, ..., f].min()) / np.ptp(maps[b, ..., f])
            expected = colormaps["viridis"](np.round(255 * share).astype(int))[..., :3]
            np.testing.assert_allclose(found[b, y : y + 3, x : x + 4], expected, atol=0.02)
    assert (found[:, 3] == 1).all()  # the lines between
    assert (found[:, :, 4] == 1).all()
    assert (found[:, 4:, 10:] == 1).all()  # there is no sixth
    assert sheets(tf.constant(maps[:, 0, 0])).shape == (2, 3, 5, 3)


def test_files_are_answered_by_sheets_of_their_responses(net, images):
    model, files = Filters(net), []
    pixels = [np.round(255 * image).astype("uint8") for image in images]
    for picture in pixels:
        held = io.BytesIO()
        Image.fromarray(picture).save(held, "png")
        files.append(held.getvalue())
    answer = model.signatures()["responses_bytes"][0](tf.constant(files))["sheet_bytes"]
    expected = sheets(model(np.float32(pixels) / np.float32(255))).numpy()
    for file, sheet in zip(answer.numpy(), expected, strict=True):
        np.testing.assert_allclose(np.array(Image.open(io.BytesIO(file))), np.round(255 * sheet), atol=12)


# --- doors ----------------------------------------------------------------------------------------------------------


def test_layers_that_do_not_exist_or_have_no_kernel_are_refused(net):
    with pytest.raises(ValueError, match=r"has no layer 'frist'; did you mean first"):
        Filters(net, "frist")
    for name in ("pool", "flat"):
        with pytest.raises(ValueError, match=rf"layer '{name}' has no kernel; .*first, depth, up, dense, end"):
            Filters(net, name)
    line = keras.Sequential([keras.Input((6, 5, 1)), layers.Reshape((6, 5)), layers.Conv1D(2, 3, name="line")])
    line = keras.Sequential([keras.Input((6, 5, 1)), *line.layers, layers.Flatten(), layers.Dense(2, name="end")])
    with pytest.raises(ValueError, match=r"layer 'line' has a kernel of 3 axes; .* are end"):
        Filters(line, "line")


def test_pictures_of_another_shape_or_range_are_refused(net, images):
    model = Filters(net)
    with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
        model(255 * images)
    with pytest.raises(ValueError, match=r"expected images \[B, 9, 7, 3\]"):
        model(images[:, :5])
    for most in ({"most": 0}, {"inputs": 0.5}):
        with pytest.raises(ValueError, match="must be"):
            Filters(net, "up").tiles(**most)


def test_other_arithmetic_and_grey_pictures(images):
    grey = classifier((9, 7, 1))
    assert Filters(grey).tiles().shape == (5, 3, 2, 1)
    assert list(Filters(grey).signatures()) == ["serving_default", "responses_bytes"]
    two = keras.Sequential([keras.Input((5, 5, 2)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)])
    assert list(Filters(two).signatures()) == ["serving_default"]
    assert Filters(classifier(dtype="mixed_bfloat16"))(images).dtype == "float32"
    assert Filters(classifier(dtype="float64"))(np.float64(images)).dtype == "float64"


def test_a_reloaded_one_answers_the_same(net, images, tmp_path):
    model = Filters(net, "dense")
    model.save(tmp_path / "m.keras")
    again = dmkeras.load(tmp_path / "m.keras")
    np.testing.assert_array_equal(again(images), model(images))
    assert (again.layer, again.image_shape) == ("dense", SHAPE)
    any_size = dmkeras.SqueezeNet(num_classes=3, image_shape=(24, 24, 3))
    assert Filters(any_size, image_shape=(40, 30, 3)).image_shape == (40, 30, 3)
