"""The signature `classify`, for TF Serving's Classify API: serialized tf.Examples in, class names and scores out.

A model has it of itself when it is a classifier: `export` was given labels, and a signature takes nothing but pictures
(`image` or `image_bytes`, or their plural) and answers `probabilities` [B, K], one for each label. A model's own
`classify` stays as it is.

    inputs   string [B]      tf.Examples; the feature is `image/encoded`, a JPEG or PNG file, where a signature takes
                             files, and otherwise the floats of a picture of fixed shape under the input's name
    classes  string [B, K]   the labels, in their own order, which is not that of the scores
    scores   float32 [B, K]  their probabilities
"""

import typing

import numpy as np
import tensorflow as tf

from dmkeras.serving.model_card import Tensor

INPUTS = tf.TensorSpec((None,), tf.string, name="inputs")
ENCODED = "image/encoded"
TAKES = ("image_bytes", "images_bytes", "image", "images")  # what is looked for, first choice first


class Classify(typing.NamedTuple):
    """A signature `classify`: its function, the signature that it asks and what it reads of a tf.Example."""

    function: typing.Callable
    source: str
    feature: str
    spec: tf.TensorSpec  # of the feature

    @property
    def tensor(self):
        """What the REST form of an example holds: one feature, floats flat."""
        sides = () if self.spec.dtype == tf.string else (int(np.prod(self.spec.shape[1:])),)
        return Tensor(self.feature, self.spec.dtype.name, (None, *sides))

    def requests(self, feed):
        """Requests for `source` -> the same for `classify`."""
        examples = [_example(self.feature, row) for row in feed[self.spec.name]]
        return {"inputs": np.array([example.SerializeToString() for example in examples], object)}


def find(signatures, endpoints, labels):
    """The Classify of a model, or None where it is no classifier.

    Args:
        signatures: {name: (function, [tf.TensorSpec])}.
        endpoints: {name: traced tf.function} of the same.
        labels: class names or None.

    Raises:
        ValueError: for another number of labels than of probabilities.
    """
    if not labels or "classify" in signatures:
        return None
    found = {}
    for name, (_, specs) in signatures.items():
        outputs = endpoints[name].get_concrete_function().structured_outputs
        shape = outputs["probabilities"].shape if "probabilities" in outputs else []
        if len(specs) != 1 or specs[0].name not in TAKES or len(shape) != 2:
            continue
        if shape[1] != len(labels):
            raise ValueError(
                f"export: signature {name!r} answers {shape[1]} probabilities, expected {len(labels)}, one for each "
                f"label of {labels}"
            )
        found.setdefault(specs[0].name, (name, specs[0]))
    for taken in TAKES:
        if taken in found and _can_be_a_feature(found[taken][1]):
            return _classify(*found[taken], endpoints, labels)
    return None


def _can_be_a_feature(spec):
    """Whether a tf.Example can hold one row: a file, or floats of a fixed number."""
    if spec.name.endswith("_bytes"):
        return spec.dtype == tf.string and spec.shape.rank == 1
    return spec.dtype == tf.float32 and None not in spec.shape[1:]


def _classify(source, spec, endpoints, labels):
    feature = ENCODED if spec.dtype == tf.string else spec.name

    def function(inputs):
        parsed = tf.io.parse_example(inputs, {feature: tf.io.FixedLenFeature(spec.shape[1:], spec.dtype)})
        scores = endpoints[source](parsed[feature])["probabilities"]
        return {"classes": tf.repeat([labels], tf.shape(scores)[0], axis=0), "scores": scores}

    return Classify(function, source, feature, spec)


def _example(feature, row):
    if isinstance(row, bytes):
        value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[row]))
    else:
        value = tf.train.Feature(float_list=tf.train.FloatList(value=row.ravel()))
    return tf.train.Example(features=tf.train.Features(feature={feature: value}))
