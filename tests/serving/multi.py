"""A SavedModel with a signature for everything that a request can meet, much of it what `dmkeras.export` would refuse.

multi/1, multi/2    the version is a variable: `scores` are the pictures times it, and `version` answers it
"""

import pathlib

import tensorflow as tf

NAME = "multi"
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "uint16"]
ECHOES = [*INTEGERS, "float32", "float64", "half", "bool", "string"]
MAX_STEPS = 20_000_000  # of `slow`: about 5 us each
CLASSES = ["cat", "dog"]
FEATURES = {  # of a tf.Example
    "x": tf.io.FixedLenFeature([2], tf.float32),
    "count": tf.io.FixedLenFeature([], tf.int64, 0),
    "name": tf.io.FixedLenFeature([], tf.string, ""),
}


def _spec(shape, dtype, name):
    return tf.TensorSpec(shape, dtype, name=name)


IMAGES = _spec([None, 2], tf.float32, "images")
TEXT = _spec([None], tf.string, "text")
EXAMPLES = _spec([None], tf.string, "inputs")
FLOATS = _spec([None], tf.float32, "x")


class Multi(tf.Module):
    """Each method is a signature; its specs are beside it in `signatures`."""

    def __init__(self):
        super().__init__()
        self.version = tf.Variable(1.0)
        self.kernel = tf.Variable(tf.ones([3, 3, 1, 2]))

    def serving_default(self, images):
        return {"scores": images * self.version}

    def number(self, images):
        return {"version": tf.fill([tf.shape(images)[0]], tf.cast(self.version, tf.int32))}

    def scaled(self, images, temperature=tf.constant([1.0])):  # noqa: B008 - becomes SignatureDef.defaults
        return {"scores": images / temperature[:, None], "mean": tf.reduce_mean(images, 1)}

    def specials(self, x):
        return {"y": x[:, None] * tf.constant([[float("nan"), float("inf"), float("-inf")]])}

    def strings(self, text):
        return {"text": text, "text_bytes": text}

    def text_bytes(self, text):
        return {"answer_bytes": text}

    def decode(self, image_bytes):
        shape = lambda content: tf.shape(tf.io.decode_image(content, 3, expand_animations=False))
        return {"shape": tf.map_fn(shape, image_bytes, fn_output_signature=tf.TensorSpec([3], tf.int32))}

    def half(self, x):
        return {"y": tf.cast(x, tf.half)}

    def counted(self, images):
        return {"scores": images, "count": tf.shape(images)[0]}

    def scalar(self, x):
        return {"y": x + 1}

    def any_rank(self, x):
        return {"y": x + 1}

    def flat(self, images):
        """An answer of other length than the batch."""
        return {"scores": images, "flat": tf.reshape(images, [-1])}

    def checked(self, x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(x > 0), ["x must be positive"])]):
            return {"y": tf.identity(x)}

    def classify(self, inputs):
        features = tf.io.parse_example(inputs, FEATURES)
        classes = tf.tile(tf.constant([CLASSES]), [tf.shape(inputs)[0], 1])
        return {"classes": classes, "scores": features["x"] * self.version}

    def classify_scores(self, inputs):
        return {"scores": self.classify(inputs)["scores"]}

    def classify_classes(self, inputs):
        return {"classes": self.classify(inputs)["classes"]}

    def regress(self, inputs):
        features = tf.io.parse_example(inputs, FEATURES)
        lengths = tf.strings.length(features["name"])
        counts = tf.cast(features["count"], tf.float32) + tf.cast(lengths, tf.float32)
        return {"outputs": tf.reduce_sum(features["x"], 1) * self.version + counts}

    def regress_column(self, inputs):
        return {"outputs": self.regress(inputs)["outputs"][:, None]}

    def slow(self, x, steps):
        last = tf.minimum(tf.reduce_max(steps), MAX_STEPS)
        step = lambda i, y: (i + 1, y * 0.5)
        return {"y": tf.while_loop(lambda i, _: i < last, step, [0, x])[1]}

    def conv(self, pictures):
        return {"features": tf.nn.conv2d(pictures, self.kernel, 1, "VALID")}

    def signatures(self):
        """{name: (function, specs)}."""
        echo = lambda x: {"y": tf.identity(x)}
        return {
            "serving_default": (self.serving_default, [IMAGES]),
            "version": (self.number, [IMAGES]),
            "scaled": (self.scaled, [IMAGES, _spec([None], tf.float32, "temperature")]),
            **{f"echo_{dtype}": (echo, [_spec([None], tf.as_dtype(dtype), "x")]) for dtype in ECHOES},
            "specials": (self.specials, [FLOATS]),
            "strings": (self.strings, [TEXT]),
            "text_bytes": (self.text_bytes, [TEXT]),
            "decode": (self.decode, [_spec([None], tf.string, "image_bytes")]),
            "half": (self.half, [FLOATS]),
            "counted": (self.counted, [IMAGES]),
            "scalar": (self.scalar, [_spec([], tf.float32, "x")]),
            "any_rank": (self.any_rank, [_spec(None, tf.float32, "x")]),
            "flat": (self.flat, [IMAGES]),
            "checked": (self.checked, [FLOATS]),
            "classify": (self.classify, [EXAMPLES]),
            "classify_scores": (self.classify_scores, [EXAMPLES]),
            "classify_classes": (self.classify_classes, [EXAMPLES]),
            "regress": (self.regress, [EXAMPLES]),
            "regress_column": (self.regress_column, [EXAMPLES]),
            "slow": (self.slow, [FLOATS, _spec([None], tf.int32, "steps")]),
            "conv": (self.conv, [_spec([None, 8, 8, 1], tf.float32, "pictures")]),
        }


def write(base, versions=(1, 2), name=NAME):
    """Writes BASE/multi/1 and BASE/multi/2, SavedModels whose answers differ, and returns BASE/multi."""
    model = Multi()
    functions = {
        signature: tf.function(function, input_signature=specs, autograph=False)
        for signature, (function, specs) in model.signatures().items()
    }
    folder = pathlib.Path(base) / name
    for version in versions:
        model.version.assign(version)
        tf.saved_model.save(model, str(folder / str(version)), signatures=functions)
    return folder
