"""Laws of the doors: which pictures pass, and that `fit` and `evaluate` look at the first batch and at no more."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from dmkeras.parts.checks import check_images, check_shape, looks_at_first_batch

SHAPE = (2, 3, 1)
GOOD = np.full((4, *SHAPE), 0.5, "float32")


@looks_at_first_batch
class Watchful(keras.Model):
    """Trains one number, and keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.level = self.add_weight(shape=())
        self.shown = []

    def call(self, images):
        return images - self.level

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return tf.reduce_mean(y_pred**2)

    def check_images(self, images):
        self.shown.append(len(images))
        check_images(images, SHAPE)


@pytest.fixture
def model():
    model = Watchful()
    model.compile("sgd", jit_compile=False, run_eagerly=True)
    return model


FORMS = {
    "array": lambda images: images,
    "tensor": tf.constant,
    "dataset": lambda images: tf.data.Dataset.from_tensor_slices(images).batch(2),
    "pairs": lambda images: tf.data.Dataset.from_tensor_slices((images, images)).batch(2),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", ["fit", "evaluate"])
def test_the_first_batch_is_looked_at(model, way, form):
    with pytest.raises(ValueError, match=r"expected pixels in \[0, 1\], received 127.5 to 127.5; divide 8-bit pixels"):
        getattr(model, way)(FORMS[form](GOOD * 255), verbose=0)
    assert len(model.shown) == 1
    getattr(model, way)(FORMS[form](GOOD), verbose=0)
    assert len(model.shown) == 2


def test_training_and_validation_pictures_are_looked_at_once_and_a_generator_is_not_used_up(model):
    model.fit(GOOD, validation_data=(GOOD[:3],), epochs=2, batch_size=2, verbose=0)
    assert model.shown == [4, 3]
    batches = ((batch,) for batch in np.split(GOOD, 2))
    model.fit(batches, steps_per_epoch=2, verbose=0)
    assert model.shown == [4, 3]


@pytest.mark.parametrize("form", [*FORMS.values(), lambda images: (images,), lambda images: (images, images)])
def test_other_validation_pictures_are_refused(model, form):
    with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
        model.fit(GOOD, validation_data=form(GOOD * 255), verbose=0)


def test_the_decorated_methods_are_named_and_take_what_keras_takes(model):
    assert Watchful.fit.__name__ == "fit"
    assert Watchful.fit.__doc__ == keras.Model.fit.__doc__
    history = model.fit(x=GOOD, batch_size=2, epochs=1, verbose=0)
    assert set(history.history) == {"loss"}
    assert model.evaluate(GOOD, batch_size=4, verbose=0, return_dict=True).keys() == {"loss"}


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (GOOD[..., 0], r"expected images \[B, 2, 3, 1\], received \[4, 2, 3\]"),
        (GOOD[0], r"received \[2, 3, 1\]"),
        ({"image": GOOD, "label": 1}, r"received a dict of image, label; map it to record\['image'\]"),
        (np.full_like(GOOD, np.nan), "received 24 that are not finite"),
        ((GOOD * 510).astype("uint8"), "received 255 to 255; divide 8-bit pixels by 255"),
        (GOOD - 1, "received -0.5 to -0.5; move and scale them"),
        (None, "expected images as an array of numbers, received NoneType of object"),
        (np.full_like(GOOD, "a", "U1"), "an array of numbers, received numpy.ndarray of <U1"),
        (GOOD + 0j, "an array of numbers, received numpy.ndarray of complex64"),
        (tf.data.Dataset.range(3), "an array of numbers, received tensorflow.*Dataset of object"),
    ],
)
def test_other_pictures_are_refused(images, words):
    with pytest.raises(ValueError, match=words):
        check_images(images, SHAPE)


def test_pictures_pass_whatever_holds_them():
    for images in (GOOD, tf.constant(GOOD), np.ones((1, *SHAPE), "uint8"), np.zeros((0, *SHAPE)), GOOD > 0):
        check_images(images, SHAPE)
    tf.function(lambda images: check_images(images, (9, 9, 9)))(GOOD)  # no values to look at
    with pytest.raises(ValueError, match=r"expected masks \[B, 2, 2\], received \[4, 2, 3, 1\]"):
        check_shape("masks", GOOD, (2, 2))
