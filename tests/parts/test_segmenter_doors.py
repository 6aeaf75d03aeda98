"""What a segmenter is asked and answers at its doors, by a function of logits that is known."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dmkeras import figures
from dmkeras.parts import segmenter_doors as doors

STRIDE, K = 8, 4


def by_brightness(images):
    """Logits of four classes that are quarters of brightness; it takes sides that the stride divides alone."""
    tf.debugging.assert_equal(tf.shape(images)[1:3] % STRIDE, 0)
    centres = (tf.range(K, dtype="float32") + 0.5) / K
    return -100 * tf.abs(tf.reduce_mean(images, -1, keepdims=True) - centres)


def told(image):
    return np.minimum(np.floor(K * image.mean(-1)), K - 1)


def file_of(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(255 * image)).squeeze()).save(file, kind)
    return file.getvalue()


def steps(height, width, channels=3):
    """A picture of brightness far from the quarters' borders."""
    rng = np.random.default_rng(height)
    levels = rng.choice([20, 90, 160, 230], (height // 3 + 1, width // 3 + 1)).repeat(3, 0).repeat(3, 1)
    return np.repeat(levels[:height, :width, None] / 255, channels, -1).astype("float32")


# --- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((2, 4, 4, 1), int), r"take labels\[\.\.\., 0\]"),
        (np.zeros((2, 4, 4, K), int), "argmax"),
        (np.zeros((4, 4), int), "received"),
        (np.zeros((2, 4, 4)), "cast them to int32"),
        (np.full((2, 4, 4), 255), "labels == 255"),
        (np.full((2, 4, 4), K), "from 4 to 4"),
        (np.full((2, 4, 4), -2), "from -2 to -2"),
        ({"semantic": 0}, "dict of semantic"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        doors.check_labels(labels, K)


@pytest.mark.parametrize("value", [0, K - 1, -1])
def test_maps_of_one_class_and_of_nothing_but_void_pass(value):
    doors.check_labels(np.full((2, 4, 4), value, "int32"), K)
    doors.check_labels(tf.fill((2, 4, 4), value), K)
    doors.check_labels(np.zeros((0, 4, 4), "uint8"), K)


def test_more_classes_than_a_byte_tells_apart_are_refused():
    assert doors.check_num_classes(np.int64(256)) == 256
    for wrong, words in ((257, "at most 256"), (1, "at least 2"), (2.5, "whole number")):
        with pytest.raises(ValueError, match=words):
            doors.check_num_classes(wrong)


# --- any size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 24), (13, 9), (1, 1), (8, 17)])
def test_pictures_of_any_size_are_answered_at_their_size(size):
    image = steps(*size)
    scores = doors.any_size(by_brightness, image, STRIDE)
    np.testing.assert_array_equal(np.argmax(scores, -1), told(image))
    both = doors.any_size(by_brightness, np.stack([image, 1 - image]), STRIDE)
    assert both.shape == (2, *size, K)
    np.testing.assert_allclose(both[0], scores)


def test_what_is_added_repeats_the_border_and_nothing_is_added_where_the_stride_divides():
    image = steps(9, 16)[None]
    seen = doors.padded(image, STRIDE)
    np.testing.assert_array_equal(seen, np.pad(image, [(0, 0), (0, 7), (0, 0), (0, 0)], mode="edge"))
    whole = tf.constant(steps(16, 16)[None])
    assert doors.padded(whole, STRIDE) is whole


def test_sizes_need_not_be_known_beforehand():
    traced = tf.function(
        lambda images: doors.any_size(by_brightness, images, STRIDE), [tf.TensorSpec([None, None, None, 3])]
    )
    for size in ((16, 24), (5, 11)):
        image = steps(*size)
        np.testing.assert_array_equal(np.argmax(traced(image[None])[0], -1), told(image))


# --- endpoints --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def endpoints():
    found = {}
    for channels in (1, 3):
        for name, (function, specs) in doors.signatures(by_brightness, STRIDE, channels).items():
            found[channels, name] = tf.function(function, specs)
    return found


def test_the_names_and_specs_of_the_endpoints():
    specs = {name: specs for name, (_, specs) in doors.signatures(by_brightness, STRIDE, 3).items()}
    assert set(specs) == {"serving_default", "segment", "segment_bytes"}
    assert specs["segment"][0].shape.as_list() == [None, None, None, 3]
    assert [spec.name for spec in specs["segment_bytes"]] == ["image_bytes"]
    assert set(doors.signatures(by_brightness, STRIDE, 5)) == {"serving_default", "segment"}


def test_segment_answers_classes_and_their_probabilities(endpoints):
    images = np.stack([steps(11, 18), 1 - steps(11, 18)])
    found = endpoints[3, "segment"](images)
    np.testing.assert_array_equal(found["classes"], told(images))
    probabilities = tf.nn.softmax(doors.any_size(by_brightness, images, STRIDE)).numpy()
    np.testing.assert_allclose(found["scores"], probabilities.max(-1), rtol=1e-6)
    assert found["classes"].dtype == "int32"
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible"):
        doors.signatures(by_brightness, STRIDE, 3)["segment"][0](images[..., :1])


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG"])
def test_files_of_different_sizes_are_answered_each_at_its_size(endpoints, kind):
    images = [steps(21, 12), steps(8, 30)]
    answer = endpoints[3, "segment_bytes"](tf.constant([file_of(image, kind) for image in images]))
    for image, class_map in zip(images, answer["class_map_bytes"].numpy()):
        file = Image.open(io.BytesIO(class_map))
        assert (file.format, file.mode) == ("PNG", "L")
        assert np.shape(file) == image.shape[:2]
        assert np.mean(np.asarray(file) == told(image)) > (0.95 if kind == "JPEG" else 0.999)


def test_the_overlay_is_what_figures_draws(endpoints):
    assert tuple(f"#{colour}" for colour in doors.COLOURS) == figures.PALETTE
    image = steps(21, 26) * np.array([1, 0.9, 0.8], "float32")
    image = np.rint(255 * image) / np.float32(255)
    (overlay,) = endpoints[3, "segment_bytes"](tf.constant([file_of(image)]))["overlay_bytes"].numpy()
    drawn = figures.masks(image, told(image).astype(int), scale=1)
    np.testing.assert_array_equal(Image.open(io.BytesIO(overlay)), drawn)
    assert (drawn != np.uint8(np.rint(255 * image))).any()


def test_a_model_of_grey_pictures_takes_grey_and_coloured_files(endpoints):
    image = steps(10, 10, 1)
    tinted = np.concatenate([0 * image, image, 0 * image], -1)
    files = [file_of(image), file_of(np.repeat(image, 3, -1)), file_of(tinted), file_of(image, "GIF")]
    maps = endpoints[1, "segment_bytes"](tf.constant(files))["class_map_bytes"].numpy()
    maps = [np.asarray(Image.open(io.BytesIO(one))) for one in maps]
    for i in (0, 1, 3):
        np.testing.assert_array_equal(maps[i], told(image))
    np.testing.assert_array_equal(maps[2], told(0.587 * image))
    levels = tf.range(256, dtype="float32")[:, None, None]
    np.testing.assert_array_equal(doors.grey(tf.repeat(levels, 3, -1)), levels)


def test_bytes_that_are_no_picture_are_refused_and_no_bytes_answered_by_none(endpoints):
    for wrong in (b"", b"no picture", file_of(steps(9, 9))[:60]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            endpoints[3, "segment_bytes"](tf.constant([wrong]))
    nothing = endpoints[3, "segment_bytes"](tf.constant([], "string"))
    assert all(value.shape == (0,) for value in nothing.values())


def test_two_hundred_and_fifty_six_classes_fit_in_a_map():
    levels = tf.range(256, dtype="float32") / 255
    logits = lambda images: -tf.abs(images[..., :1] - levels)
    image = (np.arange(256).reshape(16, 16, 1) / 255).repeat(3, -1)
    answer = doors.signatures(logits, 1, 3)["segment_bytes"][0](tf.constant([file_of(image)]))
    found = np.asarray(Image.open(io.BytesIO(answer["class_map_bytes"].numpy()[0])))
    np.testing.assert_array_equal(found, np.arange(256).reshape(16, 16))
