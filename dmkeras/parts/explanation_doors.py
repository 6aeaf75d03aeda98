"""The doors of an explanation: classes, picture files of any size, heat maps and pictures as PNG files.

Classes are [B] whole numbers below K; -1 stands for the class of the highest logit. Files are BMP, GIF (the first
frame), JPEG or PNG; they are stretched to the classifier's size, alpha is dropped, 16 bits become 8, EXIF orientation
is not applied. Bytes that are no picture end in TensorFlow's InvalidArgumentError, for the whole batch.

What Python refuses, an endpoint cannot: `chosen` takes another class for one that there is not, and pixels outside
[0, 1] are taken as they are.

Shapes:  B batch, H height, W width, C channels of the classifier's pictures; h, w of those sent; K classes.
"""

import functools
import re

import keras
import numpy as np
import tensorflow as tf

from dmkeras.parts import seeds
from dmkeras.parts.checks import check_images, is_symbolic
from dmkeras.parts.explained import precise
from dmkeras.parts.picture_files import decoded, encoded  # noqa: F401 - doors, too

PREDICTED = -1
OPACITY = 0.6  # of a heat map over its picture, as in figures.heat_map


def precision_of(classifier):
    """The dtype of a classifier's pictures: float64 where it computes or takes that, else float32."""
    taken = [tensor.dtype for tensor in getattr(classifier, "inputs", None) or []]
    return "float64" if "float64" in (*taken, classifier.compute_dtype) else "float32"


def restored(config):
    """The classifier of a system's config; ValueError where it is of a class that Keras does not find."""
    try:
        return keras.saving.deserialize_keras_object(config)
    except TypeError as error:
        name = re.search(r"Could not locate (?:class|function) '(\w+)'", str(error))
        if name is None:
            raise
        raise ValueError(
            f"{name[1]} is a class that Keras does not know: put @keras.saving.register_keras_serializable() above it "
            "before it is saved, and import its module before it is loaded; this file can be loaded within "
            f"keras.saving.custom_object_scope({{{name[1]!r}: {name[1]}}})"
        ) from None


def checked(images, classes, image_shape, num_classes, absent="the predicted"):
    """Pictures, at least float32, and classes int32 [B] of a call; ValueError unless they fit; see `check_classes`."""
    check_images(images, image_shape)
    images = precise(tf.convert_to_tensor(images))
    classes = tf.fill([tf.shape(images)[0]], PREDICTED) if classes is None else classes
    return images, check_classes(classes, num_classes, images.shape[0], absent)


def seed_rows(seed, batch):
    """`seed` as int32 [B, 2] for a batch of B; None is zeros, an integer the rows of `row_seeds`; else ValueError."""
    count = tf.shape(batch)[0] if batch.shape[0] is None else batch.shape[0]
    if seed is None:
        return tf.zeros((count, 2), "int32")
    if is_symbolic(seed):
        return tf.cast(seed, "int32")
    if np.ndim(seed) == 0:
        return seeds.row_seeds(count, seed)
    seed = seeds.check_row_seeds(seed)
    if not tf.is_tensor(count) and len(seed) != count:
        raise ValueError(f"expected a row of seed for each of {count} pictures, received {len(seed)}")
    return seed


def check_classes(classes, num_classes, count=None, absent="the predicted"):
    """`classes` as int32 [B]; ValueError unless whole numbers from 0, or -1, to K - 1. Symbolic tensors pass.

    Args:
        classes: [B]; one number for all where `count` is given; None for the predicted ones.
        num_classes: K.
        count: B.
        absent: what -1 stands for, in errors; None where it is refused.
    """
    if is_symbolic(classes):
        return tf.cast(classes, "int32")
    classes = np.asarray(PREDICTED if classes is None else classes)
    least, other = (0, "") if absent is None else (PREDICTED, f", or -1 for {absent}")
    if classes.dtype.kind not in "iu" or classes.ndim > 1 or (classes.ndim == 0 and count is None):
        received = f"{classes.dtype} {list(classes.shape)}"
        raise ValueError(f"expected classes [B] of whole numbers{other}, received {received}")
    if classes.ndim == 1 and count is not None and len(classes) != count:
        raise ValueError(f"expected a class for each of {count} pictures, received {len(classes)}")
    if classes.size and not least <= classes.min() <= classes.max() < num_classes:
        received = f"{classes.min()} to {classes.max()}"
        raise ValueError(f"expected classes from 0 to {num_classes - 1}{other}, received {received}")
    classes = tf.constant(classes, "int32")
    return tf.fill([count], classes) if classes.shape.rank == 0 else classes


def chosen(classes, logits):
    """classes [B] -> [B]: -1 becomes the class of the highest logit, [B, K]; others are kept below K."""
    predicted = tf.argmax(logits, -1, output_type="int32")
    return tf.where(classes < 0, predicted, tf.minimum(classes, tf.shape(logits)[1] - 1))


def overlays(image_bytes, maps, signed=False):
    """Heat maps over the pictures sent, as PNG files [B] of these pictures' own sizes, as figures.heat_map draws them.

    Args:
        image_bytes: picture files [B].
        maps: [B, H, W], stretched over the picture; colours go from each map's least to its greatest value.
        signed: colours diverge from white at zero, the same both ways.
    """

    def of_file(pair):
        file, heat = pair
        picture = tf.ensure_shape(tf.io.decode_image(file, 3, "float32", expand_animations=False), (None, None, 3))
        heat = tf.image.resize(heat[..., None], tf.shape(picture)[:2], "nearest")[..., 0]
        colours = coloured(heat, signed)
        return tf.io.encode_png(tf.cast(tf.round(255.0 * (picture + OPACITY * (colours - picture))), "uint8"))

    return tf.map_fn(of_file, (image_bytes, maps), fn_output_signature=tf.TensorSpec((), "string"))


def coloured(values, signed=False):
    """Values [h, w] -> colours [h, w, 3] in [0, 1]: viridis from least to greatest, or red and blue around zero."""
    low, high = tf.reduce_min(values), tf.reduce_max(values)
    if signed:
        high = tf.maximum(high, -low)
        low = -high
    share = tf.math.divide_no_nan(values - low, high - low)
    return tf.gather(_palette("RdBu_r" if signed else "viridis"), tf.cast(tf.round(255.0 * share), "int32"))


@functools.cache
def _palette(name):
    import matplotlib

    return matplotlib.colormaps[name](np.arange(256))[:, :3].astype("float32")
