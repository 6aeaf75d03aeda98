"""Laws of the generator of features: each loss in NumPy, whom each step moves, a discriminator that rests."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dmkeras.parts import feature_generator as fg

SHAPE = (8, 8, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.random((6, *SHAPE), "float32")
CODES = RNG.random((6, 3), "float32")


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    stack = [layers.Conv2D(2, 3, name="early"), layers.Flatten(), layers.Dense(2)]
    return keras.Sequential([keras.Input(SHAPE), *stack])


def made(classifier, weights=None, **options):
    keras.utils.set_random_seed(1)
    model = fg.FeatureGenerator(classifier, "early", 3, SHAPE, filters=2, weights=weights, **options)
    model.compile("sgd", "sgd", jit_compile=False)
    return model


def test_each_loss_is_that_of_the_paper(classifier):
    model = made(classifier)
    pictures = model.generator(CODES).numpy()
    found = tf.function(model.losses_of_generator, autograph=False)(tf.constant(IMAGES), tf.constant(pictures))
    early = keras.Model(classifier.inputs[0], classifier.get_layer("early").output)
    compared = ((early(pictures).numpy() - early(IMAGES).numpy()) ** 2).mean((1, 2, 3))
    logits = model.discriminator(pictures).numpy()
    np.testing.assert_allclose(found["features"], compared.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["pixels"], ((pictures - IMAGES) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["adversarial"], -np.log(1 / (1 + np.exp(-logits))).mean(), rtol=1e-5)


def test_the_generator_steps_along_the_weighted_sum(classifier):
    """A plain step of rate 0.01 tells the gradient; the classifier and, without its weight, a term take no part."""
    steps = {}
    given = {"features": 2.0, "adversarial": 3.0, "pixels": 5.0}
    for name in (*given, "all"):
        weights = {key: value if name in (key, "all") else 0.0 for key, value in given.items()}
        model = made(classifier, weights)
        before, still = model.generator.get_weights(), classifier.get_weights()
        model.fit(IMAGES, CODES, batch_size=6, verbose=0)
        after = model.generator.get_weights()
        steps[name] = np.concatenate([(a - b).ravel() for a, b in zip(after, before, strict=True)])
        assert all(np.array_equal(a, b) for a, b in zip(classifier.get_weights(), still, strict=True))
    assert all(np.abs(step).max() > 1e-6 for step in steps.values())
    np.testing.assert_allclose(steps["all"], sum(steps[name] for name in given), atol=1e-6)


def test_the_discriminator_moves_unless_it_is_far_ahead(classifier):
    for shift, moves in ((0.0, True), (3.0, False)):
        model = made(classifier)
        moved = model.discriminator.layers[-1].kernel
        pictures = model.generator(CODES, training=False).numpy()
        if shift:  # sure of both: real ones get a high logit, made ones a low one
            model.discriminator = sure = Sure(np.float32(pictures.mean()), shift)
            sure(pictures)
            model.d_optimizer = keras.optimizers.SGD()
            model.d_optimizer.build(sure.trainable_variables)
            moved = sure.scale
        before = moved.numpy()
        model.fit(np.ones_like(IMAGES), CODES, batch_size=6, verbose=0)
        assert np.array_equal(moved.numpy(), before) != moves


class Sure(keras.Model):
    """A logit `scale` times whether pictures are brighter than a middle."""

    def __init__(self, middle, scale):
        super().__init__()
        self.middle = (1 + middle) / 2
        self.scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(scale))

    def call(self, images, training=False):
        return self.scale * tf.sign(tf.reduce_mean(images, (1, 2, 3)) - self.middle)[:, None]


def test_codes_are_divided_by_their_sizes():
    keras.utils.set_random_seed(2)
    plain = fg.generator(3, SHAPE, 2)
    sized = fg.generator(3, SHAPE, 2, sizes=[0.5, 4.0, 0.0])
    sized.set_weights(plain.get_weights())
    np.testing.assert_allclose(sized(CODES * [0.5, 4.0, 1.0]), plain(CODES), rtol=1e-5)
    again = keras.Sequential.from_config(sized.get_config())
    again.set_weights(plain.get_weights())
    np.testing.assert_array_equal(again(CODES), sized(CODES))


def test_training_brings_pictures_nearer(classifier):
    model = made(classifier)
    codes = RNG.random((64, 3), "float32")
    images = np.broadcast_to(codes[:, None, None, :1], (64, *SHAPE)).astype("float32")
    history = fg.train(model, images, codes, passes=20, batch_size=8, learning_rate=0.02).history
    assert history["pixels"][-1] < 0.7 * history["pixels"][0]
    assert not {name for name, values in history.items() if not np.isfinite(values).all()}
