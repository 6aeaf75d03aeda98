"""Laws of objectives: what NumPy makes of a classifier's answers and activations, in one pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from dmkeras.parts import objectives

RNG = np.random.default_rng(0)
IMAGES = RNG.random((3, 8, 6, 2), "float32")


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    stack = [layers.Conv2D(4, 3, activation="relu", name="maps"), layers.Conv2D(3, 3, name="more")]
    stack += [layers.GlobalAveragePooling2D(name="flat"), layers.Dense(5, name="logits"), layers.Softmax()]
    return keras.Sequential([keras.Input((8, 6, 2)), *stack])


def ask(objective, images=IMAGES):
    return tf.function(objective, autograph=False)(tf.constant(images)).numpy()


def layer(net, name):
    return keras.Model(net.inputs[0], net.get_layer(name).output)(IMAGES).numpy()


def test_a_class_is_its_logit_or_its_probability(net):
    classes, logits = tf.constant([4, 0, 2]), layer(net, "logits")
    np.testing.assert_allclose(ask(objectives.class_logit(net, classes)), logits[[0, 1, 2], [4, 0, 2]], rtol=1e-5)
    found = ask(objectives.class_probability(net, classes))
    np.testing.assert_allclose(found, net(IMAGES).numpy()[[0, 1, 2], [4, 0, 2]], rtol=1e-5)
    predicted = ask(objectives.class_logit(net, tf.constant([-1, -1, -1])))
    np.testing.assert_allclose(predicted, logits.max(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("position", "pool"),
    [
        ("mean", lambda maps: maps.mean((1, 2))),
        ("max", lambda maps: maps.max((1, 2))),
        ("centre", lambda maps: maps[:, 3, 2]),  # of 6 x 4
        ((5, 0), lambda maps: maps[:, 5, 0]),
    ],
)
def test_a_unit_is_a_channel_at_a_position(net, position, pool):
    found = ask(objectives.unit(net, "maps", tf.constant([3, 0, 1]), position))
    np.testing.assert_allclose(found, pool(layer(net, "maps"))[[0, 1, 2], [3, 0, 1]], rtol=1e-5)


def test_a_unit_without_positions_and_one_channel_for_all(net):
    np.testing.assert_allclose(ask(objectives.unit(net, "flat", 2)), layer(net, "flat")[:, 2], rtol=1e-5)
    np.testing.assert_allclose(ask(objectives.unit(net, "flat", 99)), layer(net, "flat")[:, 2], rtol=1e-5)


def test_energy_is_half_the_squares_and_its_gradient_the_weighted_activation(net):
    weights = {"maps": 0.5, "more": 2.0}
    expected = sum(weight * (layer(net, name) ** 2).sum((1, 2, 3)) / 2 for name, weight in weights.items())
    np.testing.assert_allclose(ask(objectives.energy(net, weights)), expected, rtol=1e-5)

    def slope(values):
        return tf.gradients(objectives.half_square(values), values)[0]

    np.testing.assert_allclose(ask(slope, layer(net, "maps")), layer(net, "maps"))


def test_several_layers_take_one_pass():
    calls = []

    class Counting(keras.Model):
        image_shape = (8, 6, 2)

        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = layers.Conv2D(2, 3), layers.Conv2D(2, 3), layers.Dense(2)
            self(keras.Input((8, 6, 2)))

        def call(self, images):
            calls.append(1)
            return self.head(tf.reduce_mean(self.second(self.first(images)), (1, 2)))

    net = Counting()
    calls.clear()
    names = [net.first.name, net.second.name]
    ask(objectives.of_layers(net, dict.fromkeys(names, objectives.half_square)))
    assert len(calls) == 1


def test_activations_of_half_precision_are_summed_in_float32():
    big = keras.Sequential([keras.Input((8, 6, 2)), layers.Rescaling(300.0, dtype="mixed_float16", name="big")])
    found = ask(objectives.energy(big, {"big": 1.0}))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ((300 * IMAGES) ** 2).sum((1, 2, 3)) / 2, rtol=1e-2)


@pytest.mark.parametrize(
    ("shape", "position", "words"),
    [
        ((None, 4, 4), "mean", r"expected a layer \[B, F\] or \[B, h, w, F\], received 'x'"),
        ((None, None, 4, 3), "mean", "expected a layer"),
        ((None, 4, 5, 3), "middle", "position must be one of"),
        ((None, 4, 5, 3), (4, 0), r"expected a position \(row, column\) of 'x', \(4, 5\)"),
        ((None, 4, 5, 3), (0, 5), "expected a position"),
        ((None, 4, 5, 3), (-1, 0), "expected a position"),
        ((None, 4, 5, 3), (1, 2, 3), "expected a position"),
        ((None, 4, 5, 3), (1.5, 2), "must be a whole number"),
    ],
)
def test_units_that_are_not_there_are_refused(shape, position, words):
    with pytest.raises(ValueError, match=words):
        objectives.check_unit("x", tf.TensorShape(shape), position)
    assert objectives.check_unit("x", tf.TensorShape((None, 4, 5, 3)), (3, 4)) == 3
    assert objectives.check_unit("x", tf.TensorShape((None, 7))) == 7
