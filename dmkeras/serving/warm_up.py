"""Warm-up records: requests that TF Serving replays before a version answers, so that no caller pays for the first.

A TFRecord file of `tensorflow.serving.PredictionLog`, encoded by hand, so that an export needs nothing but TensorFlow:
    PredictionLog { predict_log = 6 { request = 1 { model_spec = 1 { name = 1, signature_name = 3 }, inputs = 2 } } }
(tensorflow_serving/apis/prediction_log.proto, predict.proto, model.proto).
"""

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from dmkeras.serving.curl import ZERO_OR_ONE

FILE = "assets.extra/tf_serving_warmup_requests"
UNKNOWN_SIDE = 32  # size of a dimension that a signature leaves open


def example_feed(specs, rows=(0,)):
    """An example request {name: array [len(rows), ...]}; row r is the same whatever the others are.

    Floats are uniform in [0, 1), but 0 or 1 for `images` and `known_mask`; integers are 1 (a small count, a valid
    index), but `seed` any two numbers; strings are empty, but inputs whose name ends in `_bytes` hold a picture.
    """
    return {spec.name: np.stack([_example(spec, row) for row in rows]) for spec in specs}


def prediction_log(model, signature, feed):
    """One request {name: array} as a serialized PredictionLog."""
    request = _field(1, _field(1, model.encode()) + _field(3, signature.encode()))
    for name, array in sorted(feed.items()):
        tensor = tf.make_tensor_proto(array).SerializeToString()
        request += _field(2, _field(1, name.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def write(path, model, feeds):
    """One record for each signature of `feeds`, {signature: {name: array}}."""
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, feed in feeds.items():
            writer.write(prediction_log(model, signature, feed))


def read(path):
    """The records of a file that `write` wrote, as [(signature, {name: array})]."""
    return [_request(record) for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]


def _example(spec, row):
    shape = [UNKNOWN_SIDE if side is None else side for side in spec.shape[1:]]
    generator = np.random.default_rng(row)
    if spec.dtype == tf.string:
        picture = generator.integers(0, 256, (UNKNOWN_SIDE, UNKNOWN_SIDE, 3), np.uint8)
        value = tf.io.encode_png(picture).numpy() if spec.name.endswith("_bytes") else b""
        return np.full(shape, value, object)
    dtype = spec.dtype.as_numpy_dtype
    if spec.dtype.is_floating:
        numbers = generator.random(shape, dtype)
        return np.rint(numbers) if spec.name in ZERO_OR_ONE else numbers
    return generator.integers(0, 100, shape, dtype) if spec.name == "seed" else np.ones(shape, dtype)


def _varint(number):
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])


def _field(number, content):
    """A length-delimited field of a protocol buffer."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _fields(message):
    """(number, content) of a message of length-delimited fields."""
    position = 0

    def varint():
        nonlocal position
        number = shift = 0
        while True:
            byte = message[position]
            position += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while position < len(message):
        key, length = varint(), varint()
        if key & 7 != 2:
            raise ValueError(f"warm-up record: wire type {key & 7} at byte {position}, expected 2")
        yield key >> 3, message[position : position + length]
        position += length


def _request(record):
    log = dict(_fields(dict(_fields(record))[6]))
    signature, feed = None, {}
    for number, content in _fields(log[1]):
        fields = dict(_fields(content))
        if number == 1:
            signature = fields[3].decode()
        else:
            feed[fields[1].decode()] = tf.make_ndarray(tensor_pb2.TensorProto.FromString(fields[2]))
    return signature, feed
