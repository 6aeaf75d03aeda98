"""The doors of an explanation: classes, picture files of any size, heat maps and pictures as PNG files.

Classes are [B] whole numbers below K; -1 stands for the class of the highest logit. Files are BMP, GIF (the first
frame), JPEG or PNG; they are stretched to the classifier's size, alpha is dropped, 16 bits become 8, EXIF orientation
is not applied. Bytes that are no picture end in TensorFlow's InvalidArgumentError, for the whole batch.

Shapes:  B batch, H height, W width, C channels of the classifier's pictures; h, w of those sent; K classes.
"""

import functools

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import is_symbolic
from dmkeras.parts.picture_files import decoded, encoded  # noqa: F401 - doors, too

PREDICTED = -1
OPACITY = 0.6  # of a heat map over its picture, as in figures.heat_map


def check_classes(classes, num_classes, count=None, absent="the predicted"):
    """`classes` as int32 [B]; ValueError unless whole numbers below `num_classes`, or -1. Symbolic tensors pass.

    Args:
        classes: [B]; one number for all where `count` is given; None for the predicted ones.
        num_classes: K.
        count: B.
        absent: what -1 stands for, in errors.
    """
    if is_symbolic(classes):
        return tf.cast(classes, "int32")
    classes = np.asarray(PREDICTED if classes is None else classes)
    if classes.dtype.kind not in "iu" or classes.ndim > 1 or (classes.ndim == 0 and count is None):
        received = f"{classes.dtype} {list(classes.shape)}"
        raise ValueError(f"expected classes [B] of whole numbers, or -1 for {absent}, received {received}")
    if classes.ndim == 1 and count is not None and len(classes) != count:
        raise ValueError(f"expected a class for each of {count} pictures, received {len(classes)}")
    if classes.size and not PREDICTED <= classes.min() <= classes.max() < num_classes:
        received = f"{classes.min()} to {classes.max()}"
        raise ValueError(f"expected classes from 0 to {num_classes - 1}, or -1 for {absent}, received {received}")
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
