"""Laws of what classifiers share: the loss by NumPy, labels and pictures at the door, files as the pictures in them."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from dmkeras.parts import classification, picture_files

RNG = np.random.default_rng(0)


class Model:
    """Logits are the mean colour, so that nothing but the doors is tested."""

    def __init__(self, image_shape):
        self.image_shape = image_shape

    def __call__(self, images, training):
        assert training is False
        return tf.reduce_mean(images, axis=(1, 2))


@pytest.mark.parametrize("weight", [None, [1.0, 0.0, 2.5, 1.0]])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_the_cross_entropy_is_numpys(weight, shape):
    logits, labels = RNG.normal(size=(4, 3)), np.array([2, 0, 1, 1])
    nats = np.log(np.exp(logits).sum(axis=1)) - logits[range(4), labels]
    expected = (nats * (1.0 if weight is None else weight)).mean()
    found = classification.cross_entropy(labels.reshape(shape), logits.astype("float32"), weight)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_endpoints_answer_logits_and_their_softmax_and_files_of_one_or_three_colours():
    images = RNG.random((2, 4, 6, 3)).astype("float32")
    signatures = classification.signatures(Model((4, 6, 3)))
    found = signatures["serving_default"][0](tf.constant(images))
    mean = images.mean(axis=(1, 2))
    np.testing.assert_allclose(found["logits"], mean, rtol=1e-5)
    np.testing.assert_allclose(found["probabilities"], np.exp(mean) / np.exp(mean).sum(1, keepdims=True), rtol=1e-5)
    names = {colours: list(classification.signatures(Model((4, 6, colours)))) for colours in (1, 2, 3)}
    both = ["serving_default", "classify_bytes"]
    assert names == {1: both, 2: ["serving_default"], 3: both}
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        tf.function(signatures["serving_default"][0])(tf.constant(images[:, :3]))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_encoded_is_decoded_again_and_other_sizes_are_stretched(channels):
    levels = RNG.integers(0, 256, (3, 5, 4, channels))
    images = (levels / 255).astype("float32")
    files = picture_files.encoded(tf.constant(images))
    np.testing.assert_array_equal(np.round(255 * picture_files.decoded(files, (5, 4, channels)).numpy()), levels)
    assert picture_files.decoded(files, (7, 2, channels)).shape == (3, 7, 2, channels)
    held = io.BytesIO()
    Image.fromarray(np.full((9, 11), 51, "uint8")).save(held, "png")
    np.testing.assert_allclose(picture_files.decoded(tf.constant([held.getvalue()]), (3, 4, channels)), 0.2, rtol=1e-5)
    over = picture_files.encoded(tf.constant([[[[1.7], [-0.3]]]]))
    np.testing.assert_array_equal(picture_files.decoded(over, (1, 2, 1)).numpy().ravel(), [1, 0])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.eye(3), r"received \[3, 3\] of float64; one-hot rows: take the argmax"),
        (np.eye(3, dtype=int), "one-hot rows"),
        (np.array(1), "received"),
        (np.array([0, 3]), "expected labels from 0 to 2, received 0 to 3"),
        (np.array([-1, 2]), "expected labels from 0 to 2, received -1 to 2"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        classification.check_labels(labels, 3)


def test_labels_of_classes_and_symbolic_ones_pass():
    for labels in (np.array([0, 2]), np.array([[1], [2]]), np.array([], int)):
        classification.check_labels(labels, 3)
    tf.function(lambda labels: classification.check_labels(labels, 3))(tf.constant([9]))


def test_pictures_too_small_or_of_other_colours_are_refused():
    classification.check_pictures(np.zeros((2, 9, 40, 3)), (16, 16, 3), 9)
    with pytest.raises(ValueError, match=r"at least 9x9, received \(2, 40, 8, 3\); enlarge"):
        classification.check_pictures(np.zeros((2, 40, 8, 3)), (16, 16, 3), 9)
    for wrong in (np.zeros((2, 16, 16, 1)), np.zeros((16, 16, 3)), np.zeros((2, 16))):
        with pytest.raises(ValueError, match="expected"):
            classification.check_pictures(wrong, (16, 16, 3))
