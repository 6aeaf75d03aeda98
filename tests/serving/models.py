"""A small model with every kind of endpoint, and a model of one endpoint for what must be refused."""

import keras
import tensorflow as tf
from keras import layers

SHAPE = (8, 8, 1)
CODE = 4
LABELS = ["circle", "square", "triangle", "star"]
IMAGE = tf.TensorSpec((None, *SHAPE), tf.float32, name="image")
SEED = tf.TensorSpec((None, 2), tf.int32, name="seed")


@keras.saving.register_keras_serializable("tests")
class Encoder(keras.Model):
    """Pictures [B, 8, 8, 1] -> codes [B, 4] and back, with a table of names in the graph."""

    def __init__(self, labels_file=None, **kwargs):
        super().__init__(**kwargs)
        self.labels_file = labels_file
        self.encoder = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(CODE)])
        self.decoder = keras.Sequential([keras.Input((CODE,)), layers.Dense(64, "sigmoid"), layers.Reshape(SHAPE)])
        if labels_file:
            entries = tf.lookup.TextFileInitializer(
                labels_file,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
            )
        else:
            entries = tf.lookup.KeyValueTensorInitializer(tf.range(4, dtype=tf.int64), tf.constant(LABELS))
        self.names = tf.lookup.StaticHashTable(entries, "?")
        self(keras.Input(SHAPE))

    def call(self, images):
        return self.decoder(self.encoder(images))

    def classify(self, image):
        code = self.encoder(image)
        return {"code": code, "classes": self.names.lookup(tf.argmax(code, -1))}

    def classify_bytes(self, image_bytes):
        def decode(content):
            pixels = tf.io.decode_image(content, 1, tf.float32, expand_animations=False)
            return tf.image.resize(pixels, SHAPE[:2])

        return self.classify(tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec(SHAPE, tf.float32)))

    def sample(self, seed, temperature):
        code = tf.map_fn(lambda s: tf.random.stateless_normal((CODE,), s), seed, fn_output_signature=tf.float32)
        return {"image": self.decoder(code * temperature[:, None])}

    def draw(self, image):
        pixels = tf.cast(tf.round(255 * self(image)), tf.uint8)
        return {"drawing_bytes": tf.map_fn(tf.io.encode_png, pixels, fn_output_signature=tf.string)}

    def signatures(self):
        temperature = tf.TensorSpec((None,), tf.float32, name="temperature")
        return {
            "serving_default": (self.classify, [IMAGE]),
            "classify_bytes": (self.classify_bytes, [tf.TensorSpec((None,), tf.string, name="image_bytes")]),
            "sample": (self.sample, [SEED, temperature]),
            "draw": (self.draw, [IMAGE]),
        }

    def get_config(self):
        return {"labels_file": self.labels_file, "name": self.name}


class OneEndpoint(keras.Model):
    """A model whose `serving_default` is the given function of pictures [B, 8, 8, 1], or has the given specs."""

    def __init__(self, function, specs=(IMAGE,), name_of_signature="serving_default"):
        super().__init__()
        self.dense = layers.Dense(2)
        self.function, self.specs, self.name_of_signature = function, specs, name_of_signature
        self(keras.Input((3,)))

    def call(self, x):
        return self.dense(x)

    def signatures(self):
        return {self.name_of_signature: (self.function, list(self.specs))}


def mean(image):
    return {"mean": tf.reduce_mean(image, [1, 2, 3])}
