"""Small classifiers of pictures, with batch normalisation that is not the identity, and a way to ask them."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

SHAPE = (12, 12, 3)
KINDS = ["cat", "dog", "großer Hund"]
IMAGE = tf.TensorSpec((None, *SHAPE), tf.float32, name="image")
BYTES = tf.TensorSpec((None,), tf.string, name="image_bytes")


@keras.saving.register_keras_serializable("tests")
class Classifier(keras.Model):
    """Pictures [B, 12, 12, 3] -> probabilities [B, 3], the softmax in float32."""

    def __init__(self, with_bytes=True, **kwargs):
        super().__init__(**kwargs)
        self.with_bytes = with_bytes
        self.features = keras.Sequential(
            [
                layers.Conv2D(4, 3, use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.MaxPooling2D(),
                layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
                layers.GlobalAveragePooling2D(),
            ]
        )
        self.head = layers.Dense(len(KINDS), "softmax", dtype="float32")
        self(keras.Input(SHAPE))

    def call(self, image):
        return self.head(self.features(image, training=False))

    def classify(self, image):
        return {"probabilities": self(image), "label": tf.argmax(self(image), -1)}

    def classify_bytes(self, image_bytes):
        def decode(content):
            pixels = tf.io.decode_image(content, 3, tf.float32, expand_animations=False)
            return tf.image.resize(pixels, SHAPE[:2])

        return self.classify(tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec(SHAPE, tf.float32)))

    def log_prob(self, image):
        return {"log_prob": tf.reduce_sum(tf.math.log(self(image)), -1)}

    def signatures(self):
        found = {"serving_default": (self.classify, [IMAGE]), "log_prob": (self.log_prob, [IMAGE])}
        return {**found, "classify_bytes": (self.classify_bytes, [BYTES])} if self.with_bytes else found

    def get_config(self):
        return {**super().get_config(), "with_bytes": self.with_bytes}


def classifier(**arguments):
    """A Classifier of fixed random weights, statistics of the batch normalisation among them."""
    model = Classifier(**arguments)
    generator = np.random.default_rng(3)
    for weight in model.weights:
        low, high = (0.5, 1.5) if weight.path.endswith(("gamma", "moving_variance")) else (-0.5, 0.5)
        weight.assign(generator.uniform(low, high, weight.shape))
    return model


def pictures(number=3):
    """Float pictures [B, 12, 12, 3] and the same as PNG files."""
    pixels = np.random.default_rng(5).integers(0, 256, (number, *SHAPE), np.uint8)
    files = [tf.io.encode_png(picture).numpy() for picture in pixels]
    return pixels.astype(np.float32) / np.float32(255), np.array(files, object)
