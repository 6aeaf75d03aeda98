"""The doors of a segmenter: what `fit` is given, pictures of any size, and the endpoints.

Label maps are [B, H, W] whole numbers: 0 background, k a class, -1 void, where there is no answer. They have the size
of their pictures. A map of a single class and one of nothing but void are sound.

A model expected behind these doors is fully convolutional and gives a function

    logits(images [B, H, W, C] float32 in [0, 1]; H, W whole multiples of `stride`)  ->  logits [B, H, W, K]

`any_size` repeats the last row and column up to a multiple and cuts the answer back: where the stride divides, nothing
is changed. Endpoints look at each picture in its own size, so that its scale should be that of the training.

The overlay of `segment_bytes` is `dmkeras.figures.masks`: a class's colour, half transparent, with a full border.

Shapes:  B batch, H height, W width, C channels, K classes.
"""

import numpy as np
import tensorflow as tf

from dmkeras.parts.checks import is_symbolic, whole_number
from dmkeras.parts.segmentation_metrics import VOID
from dmkeras.parts.upsampling import sides_of

COLOURS = ("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "8c564b", "e377c2", "7f7f7f", "bcbd22", "17becf")
OPACITY = 0.5  # of a class's colour over the picture
GREY = (0.2989, 0.587, 0.114)  # of red, green and blue in a grey picture, as TensorFlow has them


def check_num_classes(num_classes):
    """`num_classes` as an int; ValueError unless it is from 2 to the 256 that a byte of a class map tells apart."""
    num_classes = whole_number("num_classes", num_classes, 2)
    if num_classes > 256:
        raise ValueError(f"num_classes must be at most 256, the values of an 8-bit class map, received {num_classes}")
    return num_classes


def check_labels(labels, num_classes):
    """ValueError unless `labels` are [B, H, W], 0 to num_classes - 1, or -1 for void; symbolic tensors pass.

    That they have the size of their pictures is checked where both are known: segmentation_loss.check_sizes.
    """
    if is_symbolic(labels):
        return
    if isinstance(labels, dict):
        raise ValueError(f"expected labels [B, H, W], received a dict of {', '.join(labels)}; map it to one of them")
    labels = np.asarray(labels)
    wanted = f"expected labels [B, H, W] of whole numbers from -1 (void) to {num_classes - 1}"
    received = f"{list(labels.shape)} of {labels.dtype}"
    if labels.ndim != 3:
        last = labels.shape[-1] if labels.ndim == 4 else None
        remedy = {1: "; take labels[..., 0]", num_classes: "; take the argmax of the last axis"}.get(last, "")
        raise ValueError(f"{wanted}, received {received}{remedy}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{wanted}, received {received}; cast them to int32")
    low, high = (labels.min(), labels.max()) if labels.size else (0, 0)
    if low < VOID or high >= num_classes:
        remedy = "; void is -1 here: np.where(labels == 255, -1, labels)" if high == 255 else ""
        raise ValueError(f"{wanted}, received values from {low} to {high}{remedy}")


def any_size(logits, images, stride):
    """Scores of pictures of any size, at their size: float32 [B, H, W, K], or [H, W, K] for one picture.

    Args:
        logits: the function of the module.
        images: [B, H, W, C] or [H, W, C], floats in [0, 1].
        stride: sides of pictures that `logits` takes are multiples of it; a number.
    """
    images = tf.cast(tf.convert_to_tensor(images), "float32")
    if images.shape.rank == 3:
        return any_size(logits, images[None], stride)[0]
    height, width = sides_of(images)
    scores = logits(padded(images, stride))
    return tf.cast(scores[:, :height, :width], "float32")


def padded(images, stride):
    """Pictures [B, H, W, C] with their last row and column repeated until `stride` divides both sides."""
    for axis, side in zip((1, 2), sides_of(images)):
        more = -side % stride
        if tf.is_tensor(more) or more:
            images = tf.gather(images, tf.minimum(tf.range(side + more), side - 1), axis=axis)
    return images


def signatures(logits, stride, channels):
    """The endpoints of a segmenter: `serving_default` and `segment` of pictures, `segment_bytes` of picture files.

        serving_default  images [B, H, W, C] float32 in [0, 1]  ->  classes int32 [B, H, W], scores float32 [B, H, W]
        segment          the same
        segment_bytes    image_bytes string [B]                 ->  class_map_bytes, overlay_bytes string [B]

    `scores` are the probabilities of the classes found. Files are BMP, GIF (the first frame), JPEG or PNG, each of its
    own size; `class_map_bytes` are grey PNG files of that size whose pixels are classes, `overlay_bytes` colour PNG
    files of the picture with the classes' colours upon it. Alpha is dropped, 16 bits become 8, EXIF orientation is not
    applied. Bytes that are no picture end in TensorFlow's InvalidArgumentError, for the whole batch. `segment_bytes` is
    for one or three channels; a grey model is given the luminance of a coloured picture.

    Args:
        logits: the function of the module.
        stride: as of `any_size`.
        channels: C.
    """

    def of_images(images):
        probabilities = tf.nn.softmax(any_size(logits, tf.ensure_shape(images, (None, None, None, channels)), stride))
        classes = tf.argmax(probabilities, -1, output_type="int32")
        return {"classes": classes, "scores": tf.reduce_max(probabilities, -1)}

    def of_file(file):
        picture = tf.io.decode_image(file, 3, expand_animations=False)
        picture = tf.cast(tf.ensure_shape(picture, (None, None, 3)), "float32")
        picture = picture if channels == 3 else grey(picture)
        classes = tf.argmax(any_size(logits, picture / 255.0, stride), -1, output_type="int32")
        coloured = tf.cast(tf.round(overlay(picture, classes)), "uint8")
        return tf.io.encode_png(tf.cast(classes, "uint8")[..., None]), tf.io.encode_png(coloured)

    def of_bytes(image_bytes):
        both = (tf.TensorSpec((), "string"),) * 2
        maps, overlays = tf.map_fn(of_file, tf.ensure_shape(image_bytes, (None,)), fn_output_signature=both)
        return {"class_map_bytes": maps, "overlay_bytes": overlays}

    images = tf.TensorSpec((None, None, None, channels), "float32", name="images")
    image_bytes = tf.TensorSpec((None,), "string", name="image_bytes")
    found = {"serving_default": (of_images, [images]), "segment": (of_images, [images])}
    return {**found, "segment_bytes": (of_bytes, [image_bytes])} if channels in (1, 3) else found


def grey(picture):
    """[H, W, 3] -> [H, W, 1], both in levels from 0 to 255; equal channels are kept as they are."""
    return tf.round(tf.reduce_sum(picture * GREY, -1, keepdims=True))


def overlay(picture, classes):
    """A picture [H, W, 1 or 3] under the colours of its classes [H, W]: [H, W, 3]; in levels from 0 to 255."""
    around = tf.pad(classes, [[1, 1], [1, 1]], constant_values=-2)  # beyond the picture there is no class
    neighbours = around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]
    inner = tf.reduce_all([classes == neighbour for neighbour in neighbours], axis=0)
    rgb = np.array([list(bytes.fromhex(colour)) for colour in COLOURS], "float32")
    colours = tf.gather(rgb, classes % len(COLOURS))
    opacity = tf.where(classes > 0, tf.where(inner, OPACITY, 1.0), 0.0)[..., None]
    return picture + opacity * (colours - picture)
