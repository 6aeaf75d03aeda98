"""A small sound system, and the same system broken in the ways that the contract suite must catch."""

from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dmkeras.data import batches
from dmkeras.recipe import Recipe

SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).uniform(size=(64, *SHAPE)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Sound(keras.Model):
    """images [B, 4, 4, 1] -> images: a linear autoencoder."""

    def __init__(self, units=3, activation="tanh", **kwargs):
        super().__init__(**kwargs)
        self.units, self.activation = units, activation
        self.make_layers()
        self.finish()

    def make_layers(self):
        self.encoder = keras.Sequential([layers.Flatten(), layers.Dense(self.units, self.activation)])
        self.decoder = keras.Sequential([layers.Dropout(0.5), layers.Dense(16), layers.Reshape(SHAPE)])

    def finish(self):
        self(keras.Input(SHAPE))

    def call(self, images, training=False):
        return self.decoder(self.encoder(images), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return tf.reduce_mean((x - y_pred) ** 2)

    def answer(self, images):
        return {"images": self(images)}

    def signatures(self):
        return {"serving_default": (self.answer, [tf.TensorSpec((None, *SHAPE), "float32", name="images")])}

    def get_config(self):
        return {**super().get_config(), "units": self.units, "activation": self.activation}


@keras.saving.register_keras_serializable("tests")
class NoGradient(Sound):
    """The encoder's kernel gets gradients that are zero."""

    def call(self, images, training=False):
        code = self.encoder(images)
        return self.decoder(0.0 * code + tf.stop_gradient(code), training=training)


@keras.saving.register_keras_serializable("tests")
class Frozen(Sound):
    """Somebody froze the encoder and forgot it."""

    def finish(self):
        super().finish()
        self.encoder.trainable = False


@keras.saving.register_keras_serializable("tests")
class LostWeights(Sound):
    """`build` marks the model as built before it has weights, and the file's are not loaded."""

    def finish(self):
        self.build((None, *SHAPE))

    def build(self, shape):
        self.built = True


@keras.saving.register_keras_serializable("tests")
class ForgottenArgument(Sound):
    """The reloaded model has every weight and another activation."""

    def get_config(self):
        config = super().get_config()
        del config["activation"]
        return config


class Unregistered(Sound):
    """The fresh process does not know the class."""

    __module__ = "elsewhere"


@keras.saving.register_keras_serializable("tests")
class MasksItsKernel(Sound):
    """A call writes to the weights."""

    def call(self, images, training=False):
        answer = super().call(images, training=training)
        kernel = self.decoder.layers[1].kernel
        kernel.assign(kernel * np.eye(*kernel.shape, dtype="float32"))
        return answer


@keras.saving.register_keras_serializable("tests")
class HiddenDraws(Sound):
    """The endpoint answers as in training."""

    def answer(self, images):
        return {"images": self(images, training=True)}


@keras.saving.register_keras_serializable("tests")
class PythonState(Sound):
    """The endpoint depends on an attribute, whose value at export the SavedModel keeps."""

    scale = 1.0

    def answer(self, images):
        return {"images": self.scale * self(images)}


def recipe(system: Literal["Sound", "NoGradient", "Frozen"] = "Sound", backwards=False):
    """Trains a system; `backwards` wants its loss to rise."""
    return Recipe(
        "broken",
        globals()[system](),
        lambda split, seed: batches(IMAGES, 4, seed if split == "train" else None),
        compile={"optimizer": keras.optimizers.Adam(0.01)},
        epochs=2,
        mode="max" if backwards else "min",
    )
