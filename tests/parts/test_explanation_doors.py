"""What the doors of an explanation owe: classes that exist, pictures of any size, and the colours of figures."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dmkeras import figures
from dmkeras.parts import explanation_doors as doors

RNG = np.random.default_rng(0)


def file_of(picture, kind="PNG", **options):
    held = io.BytesIO()
    Image.fromarray(picture).save(held, kind, **options)
    return held.getvalue()


def opened(file):
    return np.asarray(Image.open(io.BytesIO(file)))


# --- classes --------------------------------------------------------------------------------------------------------


def test_classes_are_whole_numbers_below_k_and_one_may_stand_for_all():
    for given, count, right in (
        (np.array([0, 4, -1]), 3, [0, 4, -1]),
        (np.array([2], "uint8"), 1, [2]),
        ([1, 2], 2, [1, 2]),
        (3, 2, [3, 3]),
        (None, 2, [-1, -1]),
        (tf.constant([1, 0]), None, [1, 0]),
        (np.zeros(0, "int64"), 0, []),
    ):
        found = doors.check_classes(given, 5, count)
        assert found.dtype == tf.int32
        np.testing.assert_array_equal(found, right)
    for given, count, words in (
        ([5], 1, r"from 0 to 4, or -1 for the predicted, received 5 to 5"),
        ([0, -2], 2, "received -2 to 0"),
        ([0.0], 1, r"whole numbers, or -1 for the predicted, received float64 \[1\]"),
        ([[1]], 1, r"received int64 \[1, 1\]"),
        (1, None, r"received int64 \[\]"),
        ([1, 2], 3, "a class for each of 3 pictures, received 2"),
        (["cat"], 1, "whole numbers"),
        ([True], 1, "whole numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            doors.check_classes(given, 5, count)
    np.testing.assert_array_equal(doors.check_classes([0, 4], 5, absent=None), [0, 4])
    for given in ([-1], [5], [0.5]):
        with pytest.raises(ValueError, match=r"expected classes (from 0 to 4|\[B\] of whole numbers), received"):
            doors.check_classes(given, 5, absent=None)


def test_classes_of_a_graph_pass_as_they_are():
    seen = tf.function(lambda classes: doors.check_classes(classes, 5, 3), autograph=False)
    found = seen(tf.constant([7, 0, -1], "int64"))
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found, [7, 0, -1])


def test_the_predicted_class_is_that_of_the_highest_logit():
    logits = tf.constant([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0], [-3.0, -2.0, -1.0], [0.0, 0.0, 9.0]])
    found = doors.chosen(tf.constant([-1, -1, -1, 0]), logits)
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found, [1, 0, 2, 0])
    np.testing.assert_array_equal(doors.chosen(tf.constant([2, 3, 99, -9]), logits), [2, 2, 2, 2])


def test_pictures_are_as_precise_as_the_classifier_or_what_it_takes():
    dense = lambda dtype: keras.layers.Dense(2, dtype=dtype)
    doubles = keras.Sequential([keras.Input((3,), dtype="float64"), dense("float64")])
    assert doubles.compute_dtype == "float32"
    assert doors.precision_of(doubles) == "float64"
    assert doors.precision_of(keras.Sequential([dense("float64")], name="open")) == "float32"
    assert doors.precision_of(keras.Model(dtype="float64")) == "float64"
    for dtype in ("float32", "mixed_float16", "mixed_bfloat16"):
        assert doors.precision_of(keras.Sequential([keras.Input((3,)), dense(dtype)])) == "float32"


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG"])
def test_files_of_any_size_and_kind_become_pictures_of_the_classifier(kind, channels):
    flat = np.full((31, 17, 3), (200, 100, 50), "uint8")
    files = tf.constant([file_of(flat, kind), file_of(flat[:9], kind), file_of(flat[:, :, 0], "PNG")])
    found = doors.decoded(files, (8, 12, channels)).numpy()
    assert found.shape == (3, 8, 12, channels)
    assert found.dtype == np.float32
    grey = (0.299 * 200 + 0.587 * 100 + 0.114 * 50) / 255
    right = [[grey]] * 2 + [[200 / 255]] if channels == 1 else [np.array([200, 100, 50]) / 255] * 2 + [[200 / 255] * 3]
    for picture, colour in zip(found, right):
        np.testing.assert_allclose(picture, np.broadcast_to(colour, picture.shape), atol=0.012)


def test_pictures_keep_their_pixels_and_their_sides_apart():
    levels = RNG.integers(0, 256, (8, 12, 3)).astype("uint8")
    np.testing.assert_allclose(doors.decoded([file_of(levels)], (8, 12, 3))[0], levels / 255, atol=1e-6)
    larger = levels.repeat(2, 0).repeat(3, 1)
    found = doors.decoded([file_of(larger)], (8, 12, 3)).numpy()
    assert 0 <= found.min() <= found.max() <= 1
    right = np.asarray(tf.image.resize(larger / 255, (8, 12), antialias=True))
    np.testing.assert_allclose(found[0], np.clip(right, 0, 1), atol=1e-5)
    assert np.abs(found[0] - levels / 255).mean() < np.abs(found[0, ::-1] - levels / 255).mean()
    clear = np.dstack([levels, RNG.integers(0, 256, (8, 12)).astype("uint8")])
    np.testing.assert_allclose(doors.decoded([file_of(clear)], (8, 12, 3))[0], levels / 255, atol=1e-6)


def test_bytes_that_are_no_picture_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        doors.decoded(tf.constant([b"no picture"]), (8, 12, 3))
    with pytest.raises(tf.errors.InvalidArgumentError, match="Shape of tensor"):
        doors.decoded(tf.constant([[b""]]), (8, 12, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_pictures_are_the_nearest_levels(channels):
    images = RNG.uniform(-0.2, 1.2, (2, 5, 7, channels)).astype("float32")
    for file, image in zip(doors.encoded(images).numpy(), images, strict=True):
        levels = np.round(255 * np.clip(image, 0, 1))
        np.testing.assert_array_equal(opened(file).reshape(5, 7, channels), levels)


# --- maps -----------------------------------------------------------------------------------------------------------


def drawn_by_figures(values, picture, signed):
    """The map as `figures.heat_map` mixes its colours, without the scale beside it."""
    import matplotlib

    most = np.abs(values).max()
    low, high = (-most, most) if signed else (values.min(), values.max())
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    colours = matplotlib.colormaps["RdBu_r" if signed else "viridis"](share)[..., :3]
    return 255 * ((1 - 0.6) * picture + 0.6 * colours)


@pytest.mark.parametrize("signed", [False, True])
def test_overlays_have_the_size_of_the_pictures_sent_and_the_colours_of_figures(signed):
    pictures = [RNG.integers(0, 256, (12, 16, 3)).astype("uint8"), RNG.integers(0, 256, (6, 8, 3)).astype("uint8")]
    maps = RNG.normal(size=(2, 6, 8)).astype("float32") * np.float32([[[3.0]], [[0.01]]]) + np.float32(0.005)
    files = doors.overlays(tf.constant([file_of(picture) for picture in pictures]), maps, signed).numpy()
    large = maps[0].repeat(2, 0).repeat(2, 1)
    for file, values, picture in zip(files, (large, maps[1]), pictures, strict=True):
        found = opened(file).astype(float)
        assert found.shape == picture.shape
        right = drawn_by_figures(values, picture / 255, signed)
        assert np.abs(found - right).max() < 3  # half a step of the palette
        assert np.abs(found - drawn_by_figures(values, picture / 255, not signed)).max() > 20
    assert doors.OPACITY == 0.6
    assert figures.heat_map.__kwdefaults__["opacity"] == doors.OPACITY


def test_a_map_over_a_grey_file_is_in_colours_too():
    grey = RNG.integers(0, 256, (6, 8)).astype("uint8")
    (file,) = doors.overlays(tf.constant([file_of(grey)]), RNG.random((1, 6, 8), "float32")).numpy()
    assert opened(file).shape == (6, 8, 3)


def test_colours_go_from_least_to_greatest_or_are_white_at_zero():
    import matplotlib

    viridis, ends = matplotlib.colormaps["viridis"], matplotlib.colormaps["RdBu_r"]
    values = np.float32([[-2.0, 0.0, 1.0], [6.0, 2.0, 3.0]])
    found = doors.coloured(values).numpy()
    np.testing.assert_allclose(found[0, 0], viridis(0)[:3], atol=1e-6)
    np.testing.assert_allclose(found[1, 0], viridis(255)[:3], atol=1e-6)
    np.testing.assert_allclose(found[1, 1], viridis(round(255 * 0.5))[:3], atol=1e-6)
    for sign in (1, -1):
        found = doors.coloured(sign * values, signed=True).numpy()
        np.testing.assert_allclose(found[1, 0], ends(255 if sign > 0 else 0)[:3], atol=1e-6)
        np.testing.assert_allclose(found[0, 0], ends(round(255 * (0.5 - sign * 2 / 12)))[:3], atol=0.02)
        assert found[0, 1].min() > 0.95  # zero is white
    for flat in (np.zeros((2, 3), "float32"), np.ones((2, 3), "float32")):
        np.testing.assert_allclose(doors.coloured(flat), np.broadcast_to(viridis(0)[:3], (2, 3, 3)), atol=1e-6)
        assert np.isfinite(doors.coloured(flat, signed=True)).all()
